"""What is known of label maps without a mask."""

import dataclasses
import json

import pytest
import torch
from pydantic import TypeAdapter

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.tag_pairs import TagPair
from qaclims_ray.evaluation.agreement import MapPair, MapSource, compared_image
from qaclims_ray.evaluation.trust import (
    ImageTrust,
    MapThreshold,
    TrustFigures,
    image_trust,
    not_found,
    not_tagged,
    trust_figures,
)

CLASSES = Classes(("cat", "dog", "cow"))
SEED, FINAL = MapSource("one", "seed"), MapSource("one", "final")


def image(name: str, tagged: tuple[int, ...], seed: list[int], final: list[int]):
    maps = {source: torch.tensor([row], dtype=torch.uint8) for source, row in ((SEED, seed), (FINAL, final))}
    return compared_image(name, tagged, maps, {SEED: (maps[SEED], maps[SEED])}, CLASSES)


IMAGES = [
    image("a", (0,), [1, 1, 0, 0], [1, 1, 0, 0]),
    image("b", (0, 1), [1, 2, 2, 0], [1, 0, 0, 0]),
    image("c", (1,), [0, 0, 0, 0], [0, 0, 0, 0]),
    image("d", (), [0, 0, 0, 0], [3, 3, 0, 0]),
]


def figures() -> TrustFigures:
    thresholds = {"one": MapThreshold(0.15, 0.2)}
    pairs = [TagPair("dog", "cat", 1, 2)]
    return trust_figures(IMAGES, CLASSES, thresholds=thresholds, classifier=None, inseparable=pairs)


def test_maps_are_counted_by_source_and_class() -> None:
    seed, final = figures().map_of("one", "seed"), figures().map_of("one", "final")
    assert seed is not None and final is not None and figures().last_map("one") == final
    assert (seed.num_images, seed.num_tagged, seed.num_empty, seed.coverage) == (4, 3, 1, 5 / 16)
    assert (final.num_empty, final.coverage) == (1, 5 / 16)
    dog, cow = final.classes["dog"], final.classes["cow"]
    assert (dog.tagged, dog.shown, dog.mean_area, dog.untagged) == (2, 0, 0.0, 0)
    assert (cow.tagged, cow.mean_area, cow.untagged) == (0, None, 1)
    assert figures().last_map("two") is None


def test_agreement_is_over_the_background_and_the_classes_that_are_tagged() -> None:
    found = {one.pair.kind: one for one in figures().agreements}
    stages = found["stages"]
    assert stages.iou == {"background": pytest.approx(9 / 13), "cat": 1.0, "dog": 0.0, "cow": None}
    assert stages.miou == pytest.approx((9 / 13 + 1 + 0) / 3) and stages.num_images == 4
    assert found["threshold"].miou == pytest.approx((1 + 1 + 1) / 3)
    few = figures().few["one"]
    assert few.stand_in == MapPair("stages", SEED, FINAL) and 0 <= few.low < stages.miou < few.high <= 1


def test_the_file_of_figures_reads_back_as_it_was() -> None:
    content = json.loads(json.dumps(dataclasses.asdict(figures())))
    assert TypeAdapter(TrustFigures).validate_python(content) == figures()


def test_images_that_lack_a_tag_or_show_what_is_not_tagged_are_listed() -> None:
    rows = [image_trust(one, CLASSES) for one in IMAGES]
    assert not_found(rows, FINAL) == {"dog": ["b", "c"]} and not_found(rows, SEED) == {"dog": ["c"]}
    assert not_tagged(rows, FINAL) == {"cow": [("d", 0.5)]} and not_tagged(rows, SEED) == {}
    speck = ImageTrust("e", (), 1.0, {FINAL.key: {"cat": 0.009, "cow": 0.6}})
    assert not_tagged([*rows, speck], FINAL) == {"cow": [("e", 0.6), ("d", 0.5)]}

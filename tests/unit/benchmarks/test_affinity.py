"""What the comparison of affinities rests on: seeds of photographs, which ways there are, what is kept."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from benchmarks import affinity
from benchmarks.affinity import can_do, measure, table, with_settings
from benchmarks.affinity_seeds import Scene, Seeds, label_free_border, linear_maps
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.presets.table import preset


def scene(name: str, shift: int) -> Scene:
    """A dark square on light ground, and a map that covers it with a frame around it."""
    pixels = torch.full((3, 48, 48), 200, dtype=torch.uint8)
    truth = torch.zeros(48, 48, dtype=torch.uint8)
    truth[12 : 32 + shift, 12:32] = 1
    pixels[:, truth == 1] = 30
    full = torch.zeros(1, 48, 48)
    full[0, 8 : 36 + shift, 8:36] = 0.5
    full[0, truth == 1] = 0.8
    record = ImageRecord(image_id=name, image_uri="", mask_uri="", labels=(0,), splits=("train",), height=48, width=48)
    return Scene(record, pixels, ImageCam(name, (0,), full, None, 48, 48), truth)


@pytest.fixture
def seeds() -> Seeds:
    return Seeds(
        name="drawn",
        scenes=[scene("a", 0), scene("b", 3)],
        border=0.3,
        classes=Classes(("dog", "boat")),
        config=preset("miniature"),
        clip_files=(str(clip_dir()), None),
        class_texts=["a photo of dog.", "a photo of boat."],
        classifier_dir="",
    )


def test_the_threshold_is_the_one_at_which_masks_end_where_colours_do(seeds: Seeds) -> None:
    assert 0.5 <= label_free_border(seeds.scenes) < 0.8


def test_ways_are_measured_once_and_those_without_their_networks_left_out(
    seeds: Seeds, tmp_path: Path, monkeypatch
) -> None:
    path, ready = tmp_path / "drawn.json", with_settings(seeds, {"clip_attention.num_blocks": 1}, "")
    assert ready.config.masks.seed_threshold == 0.3 and ready.config.masks.clip_attention.num_blocks == 1
    assert ready.config.masks.irn.walk_threshold == 0.3
    measure(path, ready, ["nothing", "crf", "clip_attention", "feature_affinity+crf", "irn"])
    found = json.loads(path.read_text())
    assert list(found["ways"]) == ["nothing", "crf", "clip_attention"] and found["images"] == 2
    seed = found["ways"]["nothing"]
    assert seed["miou"] < seed["best"] == 1.0 and 0.5 <= seed["at"] < 0.8  # the frame falls away above a half
    monkeypatch.setattr(affinity, "refined", lambda *_: {"miou": 0.0, "best": 0.0, "at": 0.0, "seconds": 0.0})
    measure(path, ready, ["nothing", "pamr"])
    again = json.loads(path.read_text())["ways"]
    assert again["nothing"] == seed and again["pamr"]["miou"] == 0.0
    shown = table([json.loads(path.read_text())])
    assert "| drawn (2 images) |" in shown and f"| nothing | {100 * seed['miou']:.1f} / 100.0 | 0 |" in shown
    assert "irn" not in shown


def test_a_way_needs_its_networks(seeds: Seeds) -> None:
    assert can_do(("clip_attention", "crf"), seeds) and can_do(("pamr",), seeds) and not can_do(("irn",), seeds)
    assert not can_do(("class_distribution",), dataclasses.replace(seeds, clip_files=None))
    assert can_do(("irn",), dataclasses.replace(seeds, classifier_dir="classifier"))
    assert not can_do(("feature_affinity",), seeds)
    assert can_do(("feature_affinity",), with_settings(seeds, {}, "file"))


def test_a_linear_classifier_gives_each_image_maps_of_its_own_classes() -> None:
    torch.manual_seed(0)
    images = [one.pixels for one in (scene("a", 0), scene("b", 3))]
    maps = linear_maps(images, [(0,), (0, 2)], "")
    assert [tuple(one.shape) for one in maps] == [(1, 3, 3), (2, 3, 3)]
    for one in maps:
        assert float(one.min()) >= 0 and float(one.max()) == pytest.approx(1.0, abs=1e-3)

"""Masks made elsewhere, looked at before any work and written as pseudo masks; no Ray is started."""

from pathlib import Path
from typing import Any

import pytest
import torch

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.given_masks import find_given_masks
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.errors import DataError
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.given_masks import GivenMaskActor, check_given_masks, write_given
from qaclims_ray.stages.image_stage import ReadImage, ReadShard, read_part
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage
from tests.unit.stages.told import Told
from tests.unit.stages.unmasked_run import SIZE, make_run, maps_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_run(tmp_path_factory.mktemp("given") / "run")


def looked_at(run: str, given: Path, *systems: str, **masks: Any) -> list[str]:
    """Look at given masks; return what was told."""
    values = {"systems": [*systems, "given_masks"], "goal": "segmentation", "masks.given": str(given)}
    config = with_overrides(preset("miniature"), {**values, **{f"masks.{name}": one for name, one in masks.items()}})
    told = Told()
    check_given_masks(Stage(config, RunLayout(run), progress=told), read_manifest(RunLayout(run).manifest))
    return [line for kind, line in told.lines if kind == "note"]


def give(folder: Path, *numbers: int) -> Path:
    for number in numbers:
        save_label_map(maps_of(number, 0)["mask"], str(folder / f"i{number}.png"))
    return folder


def test_whole_masks_are_told_and_an_image_more_is_no_fault(run: str, tmp_path: Path) -> None:
    given = give(tmp_path / "given", *range(6))
    save_label_map(torch.zeros(3, 3, dtype=torch.uint8), str(given / "other.png"))
    save_label_map(torch.full((SIZE[1], SIZE[0]), 2, dtype=torch.uint8), str(given / "i0.png"))
    lines = looked_at(run, given)
    assert lines[0] == f"given_masks: looking at the masks in {given}"
    assert "  pictures of label values: 6 of 6 images of split train have a given mask" in lines
    assert any("other.png" in line and "not used" in line for line in lines)
    assert "  1 masks show classes that their images are not tagged with: i0" in lines


def test_the_masks_of_a_run_are_given_as_they_are(run: str) -> None:
    lines = looked_at(run, Path(RunLayout(run).masks("baseline")))
    assert lines[1:] == ["  pictures of label values: 6 of 6 images of split train have a given mask"]


def test_everything_that_is_wrong_is_told_in_one_message(run: str, tmp_path: Path) -> None:
    given = give(tmp_path / "given", 0, 1, 2, 3)
    save_label_map(torch.zeros(3, 3, dtype=torch.uint8), str(given / "i1.png"))
    save_label_map(torch.full((SIZE[1], SIZE[0]), 9, dtype=torch.uint8), str(given / "i2.png"))
    (given / "i3.png").write_bytes(b"no picture")
    with pytest.raises(DataError) as refused:
        looked_at(run, given)
    for words in (
        "the folder of given masks at",
        "has 5 faults",
        "has 3x3 pixels, expected 20x16",
        "i2: [9], expected 0 to 2",
        "training images without a given mask (2)",
        "i4: nothing is given; name a system of the run in masks.given_rest",
        "i5: nothing is given",
    ):
        assert words in str(refused.value), words


def test_masks_whose_values_count_other_classes_are_refused(run: str, tmp_path: Path) -> None:
    given = tmp_path / "given"
    for number in range(6):
        labels = maps_of(number, 0)["mask"]
        save_label_map((3 - labels) * (labels > 0), str(given / f"i{number}.png"))
    with pytest.raises(DataError) as refused:
        looked_at(run, given)
    assert "6 of 6 masks show none of the classes that their images are tagged with" in str(refused.value)
    assert "Here they are 1 cat, 2 dog" in str(refused.value)
    give(given, 0, 1, 2)  # half of them is no proof
    assert any("3 masks show classes that their images are not tagged with" in line for line in looked_at(run, given))


def test_images_without_a_mask_are_left_out_or_learn_from_another_system_when_asked(run: str, tmp_path: Path) -> None:
    given = give(tmp_path / "given", 0, 1)
    assert "  4 images without one are left out: i2, i3, i4, i5" in looked_at(run, given, given_rest="leave_out")
    mixed = looked_at(run, given, "baseline", given_rest="baseline")
    assert "  4 images without one learn from baseline's masks: i2, i3, i4, i5" in mixed
    (tmp_path / "none.xml").write_text('<annotations><image name="i0.jpg"/><image name="i1.jpg"/></annotations>')
    with pytest.raises(DataError, match="none of its 6 images has a given mask: there is nothing to learn from"):
        looked_at(run, tmp_path / "none.xml", given_rest="leave_out")
    told = looked_at(run, tmp_path / "none.xml", "baseline", given_rest="baseline")
    assert "  2 images are listed without any shape, which counts as no mask: i0, i1" in told


def shard_of(manifest: Manifest, truth: torch.Tensor | None) -> ReadShard:
    images = [ReadImage(record, None, truth) for record in manifest.records[:3]]
    return ReadShard(0, images, {"i9": "cannot be read"})


def test_given_masks_come_first_and_others_fill_up(run: str, tmp_path: Path) -> None:
    manifest = read_manifest(RunLayout(run).manifest)
    given = give(tmp_path / "given", 0)
    void = maps_of(0, 0)["final"].clone()
    void[0] = 255
    save_label_map(void, str(given / "i0.png"))
    places = {record.image_id: record.image_uri for record in manifest.records}
    found = find_given_masks(str(given), places, manifest.classes)
    actor = GivenMaskActor(found.by_image, RunLayout(run).masks("baseline"))
    truth = maps_of(0, 0)["final"]
    shard = actor(shard_of(manifest, truth))
    assert [record.image_id for record, _, _ in shard.maps] == ["i0", "i1", "i2"]
    assert (shard.maps[0][1] == void).all() and (shard.maps[1][1] == maps_of(1, 0)["mask"]).all()
    assert [row.error for row in shard.failed] == ["cannot be read"]
    thresholds = (0.5,)
    write_given(shard, uri=str(tmp_path / "out"), thresholds=thresholds, classes=manifest.classes)
    part = read_part(str(tmp_path / "out"), 0)
    rows = {row["image_id"]: row for row in part.rows}
    assert rows["i0"]["ignored"] == pytest.approx(1 / SIZE[1]) and rows["i9"]["status"] == "error"
    background = next(count for count in rows["i0"]["counts"] if count[0] == 0)
    assert background[1:4] == [int((truth == 0).sum())] * 3, "ignored pixels count as background"
    cat = next(count for count in rows["i0"]["counts"] if count[0] == 1)
    assert cat[1:4] == [int((truth == 1).sum())] * 3


def test_without_a_background_ignored_pixels_show_no_class(run: str, tmp_path: Path) -> None:
    manifest, tissue = read_manifest(RunLayout(run).manifest), Classes(("cat", "dog"), has_background=False)
    labels = torch.ones(SIZE[1], SIZE[0], dtype=torch.uint8)
    labels[:, 5:], labels[0] = 2, 255
    save_label_map(labels, str(tmp_path / "given" / "i0.png"))
    found = find_given_masks(str(tmp_path / "given"), {"i0": manifest.records[0].image_uri}, tissue)
    shard = GivenMaskActor(found.by_image, "")(ReadShard(0, [ReadImage(manifest.records[0], None, labels)], {}))
    write_given(shard, uri=str(tmp_path / "out"), thresholds=(-1.0,), classes=tissue)
    (row,) = read_part(str(tmp_path / "out"), 0).rows
    pixels = [int((labels == value).sum()) for value in (1, 2)]
    assert [count[:4] for count in row["counts"]] == [[1, *pixels[:1] * 3], [2, *pixels[1:] * 3]]

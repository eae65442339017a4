"""Masks that come back as they were handed out: they count as nobody's correction, whatever form they come in."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from qaclims_ray.commands.main import run_verb
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.handed_out import find_handed_out
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.mask_export import ONE_FILE, ExportForm
from qaclims_ray.errors import DataError
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.stages.given_masks import check_given_masks
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage
from tests.finished_artifacts import finished
from tests.unit.stages.told import Told
from tests.unit.stages.unmasked_run import SIZE, make_run, maps_of

FORMS: tuple[ExportForm, ...] = ("coco", "coco-polygons", "labelme", "cvat", "yolo", "voc", "mmseg")
IMAGE = "i2"
"""The one that is corrected."""


@pytest.fixture
def run(tmp_path: Path) -> str:
    return make_run(tmp_path / "run")


def handed_out(run: str, form: str, out: Path, **options: str) -> Path:
    line = [
        run,
        "--to",
        form,
        "--out",
        str(out),
        *(word for name, one in options.items() for word in (f"--{name}", one)),
    ]
    assert run_verb("export-masks", line) == 0
    return out / ONE_FILE.get(form, "")  # type: ignore[call-overload]


def looked_at(run: str, given: Path, **masks: Any) -> list[str]:
    """Look at what came back; return what was told."""
    values = {"systems": ["baseline", "given_masks"], "goal": "segmentation", "masks.given": str(given)}
    masks = {"given_rest": "baseline"} | masks
    config = with_overrides(preset("miniature"), {**values, **{f"masks.{name}": one for name, one in masks.items()}})
    told = Told()
    check_given_masks(Stage(config, RunLayout(run), progress=told), read_manifest(RunLayout(run).manifest))
    return [line.strip() for kind, line in told.lines if kind == "note"]


def correct(folder: Path, form: str) -> None:
    """Draw one image anew in the form's own files: a box of a cat at the left."""
    corrected = folder.parent / "corrected.png"
    labels = torch.zeros(SIZE[1], SIZE[0], dtype=torch.uint8)
    labels[3:9, 2:7] = 1
    save_label_map(labels, str(corrected))
    shapes = {"label": "cat", "points": [[2, 3], [7, 3], [7, 9], [2, 9]], "shape_type": "polygon"}
    if form in ("voc", "mmseg"):
        shutil.copyfile(corrected, next(folder.rglob(f"{IMAGE}.png")))
    elif form == "labelme":
        file = next(folder.rglob(f"{IMAGE}.json"))
        file.write_text(json.dumps(json.loads(file.read_text()) | {"shapes": [shapes]}))
    elif form == "yolo":
        corners = [(x / SIZE[0], y / SIZE[1]) for x, y in shapes["points"]]
        next(folder.rglob(f"{IMAGE}.txt")).write_text("0 " + " ".join(f"{x:.6f} {y:.6f}" for x, y in corners))
    elif form == "cvat":
        text, points = (folder / "annotations.xml").read_text(), "2.00,3.00;7.00,3.00;7.00,9.00;2.00,9.00"
        before, _, after = text.partition(f'name="{IMAGE}.jpg"')
        head, _, rest = after.partition("</image>")
        drawn = f'{head[: head.index(">") + 1]}<polygon label="cat" points="{points}" z_order="0"/></image>'
        (folder / "annotations.xml").write_text(f'{before}name="{IMAGE}.jpg"{drawn}{rest}')
    else:
        content = json.loads((folder / "annotations.json").read_text())
        number = next(one["id"] for one in content["images"] if one["file_name"] == f"{IMAGE}.jpg")
        kept = [one for one in content["annotations"] if one["image_id"] != number]
        flat = [side for point in shapes["points"] for side in point]
        drawn = {"id": 99, "image_id": number, "category_id": 1, "segmentation": [flat], "iscrowd": 0}
        (folder / "annotations.json").write_text(json.dumps(content | {"annotations": [*kept, drawn]}))


@pytest.mark.parametrize("form", FORMS)
def test_of_what_comes_back_only_the_corrected_mask_counts(run: str, form: ExportForm, tmp_path: Path) -> None:
    place = handed_out(run, form, tmp_path / "out")
    with pytest.raises(
        DataError, match=r"no mask in .* was corrected: all 6 are, pixel for pixel, what was handed out"
    ):
        looked_at(run, place)
    correct(tmp_path / "out", form)
    told = looked_at(run, place)
    assert any(line.endswith("1 of 6 images of split train have a given mask") for line in told)
    assert (
        "5 masks came back pixel for pixel as they were handed out, so nobody corrected them and they do not count: "
        "i0, i1, i3, i4, i5; are they right, say --masks.given-unchanged True"
    ) in told
    assert "5 images without one learn from baseline's masks: i0, i1, i3, i4, i5" in told
    told = looked_at(run, place, given_unchanged=True)
    assert any(line.endswith("6 of 6 images of split train have a given mask") for line in told)
    with pytest.raises(DataError) as refused:
        looked_at(run, place, given_rest="")
    assert "i0: came back as it was handed out; name a system of the run in masks.given_rest" in str(refused.value)


def test_a_mask_comes_back_in_another_form_and_alone(run: str, tmp_path: Path) -> None:
    handed_out(run, "cvat", tmp_path / "out")
    elsewhere = tmp_path / "far" / "away" / "masks"
    for number in range(6):  # CVAT gives the same masks back as pictures, if asked for them
        save_label_map(maps_of(number, 0)["mask"], str(elsewhere / f"i{number}.png"))
    Image.new("L", SIZE, 0).save(elsewhere / f"{IMAGE}.png")
    told = looked_at(run, elsewhere)
    assert "pictures of label values: 1 of 6 images of split train have a given mask" in told, "the run remembers"


def test_another_run_is_told_by_the_list_beside_the_files(run: str, tmp_path: Path) -> None:
    handed_out(run, "labelme", tmp_path / "out")
    correct(tmp_path / "out", "labelme")
    second = make_run(tmp_path / "second")
    told = looked_at(second, tmp_path / "out" / "images")
    assert "LabelMe's JSON: 1 of 6 images of split train have a given mask" in told, (
        "the folder of images alone is named"
    )
    (tmp_path / "out" / "handed_out.json").unlink()
    told = looked_at(second, tmp_path / "out" / "images")
    assert told[1:] == ["LabelMe's JSON: 6 of 6 images of split train have a given mask"]


def test_a_damaged_list_is_told_with_what_removing_it_means(run: str, tmp_path: Path) -> None:
    place = handed_out(run, "coco", tmp_path / "out")
    (tmp_path / "out" / "handed_out.json").write_text('{"run": 1}')
    with pytest.raises(DataError, match=r"handed_out.json cannot be read.*what nobody corrected counts as corrected"):
        looked_at(run, place)


def test_in_a_second_round_what_people_corrected_stays_theirs(run: str, tmp_path: Path) -> None:
    layout, stored = RunLayout(run), tmp_path / "run" / "config.json"
    values = {"systems": ["baseline", "given_masks"], "masks.given": "x", "masks.given_rest": "baseline"}
    stored.write_text(json.dumps(to_dict(with_overrides(preset("miniature"), values | {"supervised_bound": False}))))
    for number in range(6):
        labels = maps_of(number, 0)["mask"]
        save_label_map(
            labels if f"i{number}" != IMAGE else labels * 0 + 1, f"{layout.masks('given_masks')}/i{number}.png"
        )
    finished(Artifact(uri=layout.masks("given_masks"), kind="masks", settings={}, inputs={}, verb=""))
    place = handed_out(run, "cvat", tmp_path / "out", system="given_masks")
    told = looked_at(run, place)
    assert "CVAT's XML: 1 of 6 images of split train have a given mask" in told
    assert any("do not count: i0, i1, i3, i4, i5" in line for line in told)


def test_places_of_any_sort_are_looked_at(tmp_path: Path) -> None:
    for place in ("memory://bucket", "file.xml", "/", str(tmp_path)):
        assert find_handed_out(place, str(tmp_path / "none")) == []

"""The verb export-masks on the folder of a finished run; no Ray is started."""

import json
from pathlib import Path

import pytest

from qaclims_ray.commands.main import run_verb
from qaclims_ray.data.given_masks import find_given_masks
from qaclims_ray.data.images import save_label_map
from tests.unit.data.tiny_data_sets import image_bytes
from tests.unit.stages.unmasked_run import CLASSES, SIZE, make_run, maps_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_run(tmp_path_factory.mktemp("exported") / "run")


@pytest.mark.parametrize(("what", "stage"), [("masks", "mask"), ("predictions", "final")])
def test_masks_and_predictions_are_exported_and_the_next_step_is_said(
    run: str, what: str, stage: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_verb("export-masks", [run, "--to", "cvat", "--what", what, "--out", str(tmp_path / "out")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"export {what} of baseline" in said and "6 images in the form cvat" in said
    assert "Upload annotations > CVAT 1.1" in said
    back = f"qaclims run {run} --systems baseline given_masks --masks.given PLACE --masks.given-rest baseline"
    assert (back in said) == (what == "masks"), "predictions are of images that are scored, not learned from"
    assert "handed_out.json tells what nobody corrected: keep it with what comes back if another run learns" in said
    places = {f"i{number}": f"{run}/photos/i{number}.jpg" for number in range(6)}
    found = find_given_masks(str(tmp_path / "out" / "annotations.xml"), places, CLASSES)
    for number in range(6):
        assert (found.by_image[f"i{number}"](SIZE[1], SIZE[0]) == maps_of(number, 0)[stage]).all()


def test_what_predict_wrote_is_exported_under_the_names_of_its_images(
    run: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos, predicted = tmp_path / "new photos", tmp_path / "predicted"
    photos.mkdir()
    rows = []
    for name, number in (("ä 1", 1), ("2", 0)):
        (photos / f"{name}.jpg").write_bytes(image_bytes(number, SIZE))
        labels = maps_of(number, 0)["mask"] * (name != "2")
        save_label_map(labels, str(predicted / "masks" / f"{name}.png"))
        rows.append({"image": f"{photos}/{name}.jpg"})
    rows.append({"image": f"{photos}/3.jpg", "error": "broken"})
    (predicted / "predictions.json").write_text(json.dumps({"classes": list(CLASSES.names), "images": rows}))
    line = [run, "--predicted", str(predicted), "--to", "labelme", "--out", str(tmp_path / "out")]
    assert run_verb("export-masks", line) == 0
    said = capsys.readouterr().out
    assert "2 images in the form labelme" in said and "1 of 2 show none of the classes: 2.jpg" in said
    listed = json.loads((tmp_path / "out" / "handed_out.json").read_text())
    assert listed["what"] == f"predictions in {predicted}" and sorted(listed["drafts"]) == ["2.jpg", "ä 1.jpg"]
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == [
        "2.jpg", "2.json", "ä 1.jpg", "ä 1.json",
    ]  # fmt: skip
    (predicted / "predictions.json").write_text(json.dumps({"classes": ["cow"], "images": rows}))
    assert run_verb("export-masks", [*line[:-1], str(tmp_path / "other")]) == 2
    assert "predicted by a run of other classes: cow" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--system", "nobody"], "no system 'nobody' with masks; it has baseline"),
        (["--split", "nowhere"], "no image of split 'nowhere' has masks of baseline; the run's splits are train, val"),
        (["--predicted", "."], "holds no predictions.json"),
        (["--predicted", ".", "--split", "val"], "leave out --system, --split and --what"),
    ],
)
def test_what_cannot_be_exported_is_said(
    run: str, options: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert run_verb("export-masks", [run, "--to", "coco", "--out", str(tmp_path / "out"), *options]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_folder_that_holds_files_is_not_written_over(run: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    line = [run, "--to", "mmseg", "--out", str(tmp_path / "out"), "--without-images", "--split", "val"]
    assert run_verb("export-masks", line) == 0
    assert not list((tmp_path / "out").rglob("*.jpg")) and len(list((tmp_path / "out").rglob("*.png"))) == 6
    assert run_verb("export-masks", line) == 2
    assert "holds files already, perhaps masks that were corrected" in capsys.readouterr().err

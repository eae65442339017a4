"""Masks go out to be corrected, come back, and the final network learns from them; on a real local Ray."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from qaclims_ray import load
from qaclims_ray.commands.main import run_verb
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

_FINAL = {
    "goal": "segmentation",
    "supervised_bound": False,
    "variants": [],
    "masks__steps": [],
    "masks__seed_threshold": 0.3,
    "segmentation__steps_per_epoch": 2,
    "segmentation__optim__epochs": 1,
    "segmentation__optim__batch_size": 4,
}
SQUARE = (slice(5, 30), slice(4, 40))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunLayout:
    """A run with pseudo masks and a final network."""
    layout = RunLayout(str(tmp_path_factory.mktemp("circle") / "run"))
    run_pipeline(small_config(systems=["baseline"], **_FINAL), layout.out, until="segment")
    return layout


def correct_in_cvat(folder: Path) -> tuple[Path, str]:
    """Draw one image anew and save as CVAT does; return the file and the image."""
    file = folder / "annotations.xml"
    tree = ElementTree.parse(file)
    image = tree.getroot().findall("image")[0]
    for mask in image.findall("mask"):
        image.remove(mask)
    fields = {"label": "dog", "points": "4.00,5.00;40.00,5.00;40.00,30.00;4.00,30.00", "z_order": "0", "occluded": "0"}
    ElementTree.SubElement(image, "polygon", fields)
    tree.write(file, encoding="utf-8")
    return file, Path(image.attrib["name"]).stem


def correct_in_labelme(folder: Path) -> tuple[Path, str]:
    """The same in LabelMe, whose folder comes back with the corrected file alone."""
    first, *others = sorted((folder / "images").glob("*.json"))
    for path in others:
        path.unlink()
    content = json.loads(first.read_text())
    corners = [[4, 5], [40, 5], [40, 30], [4, 30]]
    content["shapes"] = [{"label": "dog", "points": corners, "shape_type": "polygon"}]
    first.write_text(json.dumps(content))
    return folder, first.stem


@pytest.mark.parametrize(("form", "correct"), [("cvat", correct_in_cvat), ("labelme", correct_in_labelme)])
def test_masks_out_corrected_back_and_learned_from(run: RunLayout, form: str, correct, tmp_path: Path) -> None:
    assert run_verb("export-masks", [run.out, "--to", form, "--out", str(tmp_path / form)]) == 0
    place, corrected = correct(tmp_path / form)
    config = small_config(
        systems=["baseline", "given_masks"], masks__given=str(place), masks__given_rest="baseline", **_FINAL
    )
    results = run_pipeline(config, run.out).results
    labels = load_mask(f"{run.masks('given_masks')}/{corrected}.png").numpy()
    expected = np.zeros_like(labels)
    expected[SQUARE] = 5
    assert (labels == expected).all(), "the corrected mask is preferred"
    others = [path for path in Path(run.masks("baseline")).glob("*.png") if path.stem != corrected]
    assert len(others) == 23
    for path in others:
        own = np.array(Image.open(path))
        assert (load_mask(f"{run.masks('given_masks')}/{path.name}").numpy() == own).all()
    shares = results.masks["given_masks"].summary["given_masks"]
    assert shares["trained"] == 24 == shares["given"] + shares["rest"] and shares["given"] >= 1
    assert results.segmentations["given_masks"].plain is not None
    report = json.loads(Path(run.report, "report.json").read_text())
    assert report["systems"]["given_masks"]["label"] == "given masks, else baseline's (not tags alone)"
    assert "It learned from given masks" in report["systems"]["given_masks"]["description"]
    assert "given_masks: whatever labels stand behind the given masks" in report["environment"]["supervision"]
    if form == "cvat":
        take_away(run, tmp_path)


def take_away(run: RunLayout, folder: Path) -> None:
    """The network that learned from them, as ONNX, says in the forty-line script what it says here."""
    taken, masks = folder / "taken", folder / "masks"
    exported = ["--system", "given_masks", "--to", "onnx", "--out", str(taken)]
    assert run_verb("export-network", [run.out, *exported]) == 0
    photos = sorted(Path(run.data, "JPEGImages").glob("*.png"))[:4]
    script = [sys.executable, str(taken / "predict.py"), *map(str, photos), "--out", str(masks)]
    subprocess.run(script, check=True, capture_output=True, timeout=120)
    network = load(run.out, system="given_masks")
    same = [np.array(Image.open(masks / photo.name)) == network.predict(photo).labels for photo in photos]
    assert np.mean(same) >= 0.999


def test_given_masks_alone_need_no_classifier(run: RunLayout, tmp_path: Path) -> None:
    out = RunLayout(str(tmp_path / "alone"))
    config = small_config(systems=["given_masks"], masks__given=run.masks("baseline"), **_FINAL)
    results = run_pipeline(config, out.out).results
    assert not Path(out.classifier).exists() and not Path(out.cams("given_masks")).exists()
    found, source = results.masks["given_masks"].scores, RunLayout(run.out)
    assert found is not None and results.segmentations["given_masks"].plain is not None
    assert (
        found.miou_fixed
        == json.loads(Path(source.masks("baseline"), "scores.json").read_text())["scores"]["miou_fixed"]
    )
    assert Path(out.report, "report.html").is_file()
    again = run_pipeline(config, out.out).results
    assert again.masks["given_masks"].meta == results.masks["given_masks"].meta, "nothing is made twice"

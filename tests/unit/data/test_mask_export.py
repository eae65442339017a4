"""Every export, opened by what reads it, and read back by our own reader."""

import contextlib
import io
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.given_masks import find_given_masks
from qaclims_ray.data.mask_export import WITH_IMAGES, ExportForm, export_masks
from tests.unit.data.drawn_masks import CLASSES, NAMES, SIZE, label_maps, places, written

FORMS: tuple[ExportForm, ...] = ("coco", "coco-polygons", "labelme", "cvat", "yolo", "voc", "mmseg")
EXACT = ("coco", "cvat", "voc", "mmseg")
SOURCES = {"coco": "annotations.json", "coco-polygons": "annotations.json", "cvat": "annotations.xml"}


def near_borders(labels: np.ndarray) -> np.ndarray:
    """Return the pixels beside another value, and theirs."""
    differs = np.zeros(labels.shape, bool)
    differs[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    differs[1:] |= labels[1:] != labels[:-1]
    return binary_dilation(differs, np.ones((3, 3), bool))


@pytest.mark.parametrize("form", FORMS)
def test_masks_come_back_from_every_form(form: ExportForm, tmp_path: Path) -> None:
    seen = export_masks(str(tmp_path / "out"), form, written(tmp_path), CLASSES)
    assert (seen.num_images, seen.empty, seen.with_ignored) == (5, ["empty.jpg"], ["birds/ä b.jpg"])
    found = find_given_masks(str(tmp_path / "out" / SOURCES.get(form, "")), places(tmp_path), CLASSES)
    assert not found.faults and not found.notes
    # Where an image is listed without a shape, nobody says that it shows nothing.
    pictures = form in ("voc", "mmseg")
    assert list(found.empty) == ([] if pictures else ["empty"]) and len(found.by_image) == 5 - (not pictures)
    for name, labels in label_maps().items():
        if Path(name).stem not in found.by_image:
            continue
        back, expected = found.by_image[Path(name).stem](SIZE[1], SIZE[0]).numpy(), labels.numpy()
        if form == "yolo":
            expected = np.where(expected == 255, 0, expected)
        if form in EXACT:
            assert (back == expected).all(), name
        else:
            assert not ((back != expected) & ~near_borders(expected)).any(), f"{name}: within one pixel of a border"
            assert set(np.unique(back)) == set(np.unique(expected)), "specks stay"
            assert (back == expected).mean() > 0.97
    copies = [path for path in (tmp_path / "out").rglob("*.jpg")]
    assert len(copies) == (5 if form in WITH_IMAGES else 0)


@pytest.mark.parametrize("form", ["coco", "coco-polygons"])
def test_pycocotools_opens_the_json(form: ExportForm, tmp_path: Path) -> None:
    export_masks(str(tmp_path / "out"), form, written(tmp_path), CLASSES)
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(tmp_path / "out" / "annotations.json")
    assert {one["name"]: one["id"] for one in coco.loadCats(coco.getCatIds())} == {
        "cat": 1, "dining table": 2, "Löwe": 3,
    }  # fmt: skip
    by_name = {one["file_name"]: one for one in coco.loadImgs(coco.getImgIds())}
    assert set(by_name) == set(NAMES)
    for name, labels in label_maps().items():
        annotations = coco.loadAnns(coco.getAnnIds(by_name[name]["id"], iscrowd=False))
        drawn = np.zeros(SIZE[::-1], np.uint8)
        for one in annotations:
            mask = coco.annToMask(one) > 0
            drawn[mask] = one["category_id"]
            x, y, _, height = one["bbox"]
            rows, columns = np.nonzero(mask)
            slack = 0 if form == "coco" else 1
            assert abs(columns.min() - x) <= slack and abs(rows.max() + 1 - y - height) <= slack
            assert one["area"] == pytest.approx(mask.sum(), rel=0 if form == "coco" else 0.25, abs=1)
        expected = np.where(labels.numpy() == 255, 0, labels.numpy())
        if form == "coco":
            assert (drawn == expected).all()
        else:
            assert not ((drawn != expected) & ~near_borders(expected)).any()
        crowds = coco.loadAnns(coco.getAnnIds(by_name[name]["id"], iscrowd=True))
        assert len(crowds) == bool((labels == 255).any())
        for one in crowds:
            assert (coco.annToMask(one).astype(bool) == (labels.numpy() == 255)).all()


def test_cvat_finds_names_labels_and_run_lengths(tmp_path: Path) -> None:
    export_masks(str(tmp_path / "out"), "cvat", written(tmp_path), CLASSES)
    root = ElementTree.parse(tmp_path / "out" / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert [one.get("name") for one in root.findall("image")] == list(NAMES)
    assert {one.findtext("name") for one in root.iter("label")} == {*CLASSES.names, "__ignore__"}
    for image in root.findall("image"):
        expected = label_maps()[image.attrib["name"]].numpy()
        for mask in image.findall("mask"):
            left, top, width, height = (int(mask.attrib[side]) for side in ("left", "top", "width", "height"))
            # The rule of CVAT's own reader: runs of pixels outside and inside, row by row within the box.
            pixels = [number % 2 for number, run in enumerate(mask.attrib["rle"].split(", ")) for _ in range(int(run))]
            value = 255 if mask.attrib["label"] == "__ignore__" else CLASSES.names.index(mask.attrib["label"]) + 1
            box = expected[top : top + height, left : left + width] == value
            assert (np.array(pixels).reshape(height, width) == box).all() and box.sum() == (expected == value).sum()
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert [one["name"] for one in labels] == [*CLASSES.names, "__ignore__"] and labels[0]["color"] == "#800000"


def test_yolo_lists_classes_in_their_order_and_shares_of_the_sides(tmp_path: Path) -> None:
    export_masks(str(tmp_path / "out"), "yolo", written(tmp_path), CLASSES)
    index = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text())
    assert index == {"train": "images/train", "val": "images/val", "names": {0: "cat", 1: "dining table", 2: "Löwe"}}
    for name in NAMES:
        split = "val" if name == NAMES[0] else "train"
        assert (tmp_path / "out" / "images" / split / name).is_file()
        lines = (tmp_path / "out" / "labels" / split / name).with_suffix(".txt").read_text().splitlines()
        for line in lines:
            number, *shares = line.split()
            assert int(number) in index["names"] and len(shares) >= 6 and len(shares) % 2 == 0
            assert all(0 <= float(share) <= 1 for share in shares)
        assert bool(lines) == bool(set(label_maps()[name].unique().tolist()) - {0, 255})


def test_vocs_layout_has_lists_and_colours_and_mmsegmentations_has_pairs(tmp_path: Path) -> None:
    masks = written(tmp_path)
    export_masks(str(tmp_path / "voc"), "voc", masks, CLASSES)
    export_masks(str(tmp_path / "mmseg"), "mmseg", masks, CLASSES, with_images=False)
    sets = tmp_path / "voc" / "ImageSets" / "Segmentation"
    assert (sets / "val.txt").read_text() == "birds/1\n" and len((sets / "train.txt").read_text().splitlines()) == 5
    colours = (tmp_path / "voc" / "labelmap.txt").read_text()
    assert "Löwe:128,128,0::" in colours and "__ignore__:224,224,192::" in colours
    for name in NAMES:
        mask = Image.open((tmp_path / "voc" / "SegmentationClass" / name).with_suffix(".png"))
        assert mask.mode == "P" and (np.array(mask) == label_maps()[name].numpy()).all()
        assert (tmp_path / "voc" / "JPEGImages" / name).is_file()
        split = "val" if name == NAMES[0] else "train"
        assert (tmp_path / "mmseg" / "ann_dir" / split / name).with_suffix(".png").is_file()
    assert not (tmp_path / "mmseg" / "img_dir").exists()
    assert (tmp_path / "mmseg" / "classes.txt").read_text().splitlines() == ["background", *CLASSES.names]


def test_coloured_masks_come_back_by_their_list_of_colours(tmp_path: Path) -> None:
    export_masks(str(tmp_path / "out"), "voc", written(tmp_path), CLASSES, with_images=False)
    for path in (tmp_path / "out").rglob("*.png"):  # as CVAT exports them
        Image.open(path).convert("RGB").save(path)
    found = find_given_masks(str(tmp_path / "out"), places(tmp_path), CLASSES)
    for name, labels in label_maps().items():
        assert (found.by_image[Path(name).stem](SIZE[1], SIZE[0]) == labels).all()


@pytest.mark.parametrize("form", ["coco", "cvat", "labelme", "voc"])
def test_without_a_background_what_nobody_drew_is_ignored(form: ExportForm, tmp_path: Path) -> None:
    tissue = Classes(CLASSES.names, has_background=False)
    masks = written(tmp_path)
    many = next(one for one in masks if one.name == "many.jpg")
    labels = label_maps()["many.jpg"].clone()
    labels[labels == 0] = 255
    from qaclims_ray.data.images import save_label_map

    save_label_map(labels, many.mask_uri)
    export_masks(str(tmp_path / "out"), form, [many], tissue)
    found = find_given_masks(str(tmp_path / "out" / SOURCES.get(form, "")), places(tmp_path), tissue)
    back = found.by_image["many"](SIZE[1], SIZE[0])
    assert set(torch.unique(back).tolist()) == {1, 2, 255}
    assert (back == labels).all() or (form == "labelme" and (back == labels).float().mean() > 0.97)

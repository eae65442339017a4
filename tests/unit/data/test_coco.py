"""COCO 2014 in its true layout: labels, lists, masks of known areas, and all that can be wrong with the files."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as official

from qaclims_ray.data import storage
from qaclims_ray.data.classes import COCO_CATEGORY_IDS, COCO_CLASSES, IGNORE_VALUE, Classes, label_value
from qaclims_ray.data.coco import CocoData, read_coco
from qaclims_ray.data.coco_annotations import read_annotations
from qaclims_ray.data.coco_masks import draw_label_map
from qaclims_ray.data.config import DataConfig
from qaclims_ray.errors import ConfigError, DataError
from tests.tiny_coco import (
    PERSON,
    STOP_SIGN,
    TOOTHBRUSH,
    annotation,
    box,
    crowd_box,
    edit_annotations,
    name_of,
    write_coco,
    write_split,
)

SIDE = 24
DEGENERATE = [5.0, 5.0, 5.0, 5.0, 6.0, 5.0, 6.0, 5.0]
"""Of no height, as the published file has some."""


def read(root: Path, **changes: Any) -> CocoData:
    return read_coco(DataConfig(dataset="coco14", root=str(root), **changes), str(root.parent / "masks"))


def faults(root: Path, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(root, **changes)
    return str(caught.value)


def drawn(root: Path, annotations: list[dict]) -> torch.Tensor:
    """Return the label map of one image that has these annotations."""
    write_split(root, "train", [7], annotations, side=SIDE)
    images, found = read_annotations(str(root / "annotations" / "instances_train2014.json"))
    assert not found
    return draw_label_map(images[0].regions, width=SIDE, height=SIDE)


def test_the_80_classes_lie_in_1_to_90_with_gaps() -> None:
    numbers = dict(zip(COCO_CLASSES, COCO_CATEGORY_IDS, strict=True))
    assert len(set(COCO_CLASSES)) == 80
    assert (numbers["person"], numbers["fire hydrant"], numbers["stop sign"]) == (1, 11, 13)
    assert (numbers["tv"], numbers["toothbrush"]) == (72, 90)


def test_labels_and_lists_come_from_the_annotations(tmp_path: Path) -> None:
    manifest = read(write_coco(tmp_path / "coco")).manifest
    assert manifest.classes == Classes(COCO_CLASSES)
    train = manifest.subset("train").records
    assert [record.image_id for record in train] == [name_of(number) for number in range(9, 14)]
    assert [record.labels for record in train] == [(0,), (11,), (79,), (0, 11), (11, 79)]
    assert [r.mask_uri for r in train[:1]] == [str(tmp_path / "masks" / "train" / f"{name_of(9)}.png")]
    assert [record.labels for record in manifest.subset("val").records] == [(0,), (11,)]
    assert "train: 5 images with an annotation, published are 82081; 1 without any are left out" in manifest.notes


def test_a_limit_counts_images_with_an_annotation(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    edit_annotations(root, lambda content: content["annotations"].pop(0))  # the first image has none any more
    data = read(root, limit=2)
    assert [r.image_id for r in data.manifest.subset("train").records] == [name_of(10), name_of(11)]
    assert set(data.images) == {r.image_id for r in data.manifest.records}


def test_a_crowd_labels_its_image_and_is_left_out_of_the_score(tmp_path: Path) -> None:
    crowd = annotation(1, 7, TOOTHBRUSH, crowd_box(SIDE, 2, 4, 20, 14), crowd=1)
    write_split(tmp_path / "coco", "train", [7], [crowd])
    data = read(tmp_path / "coco")
    assert data.manifest.records[0].labels == (79,)
    labels = draw_label_map(data.images[name_of(7)].regions, width=SIDE, height=SIDE)
    assert labels[4:14, 2:20].eq(IGNORE_VALUE).all() and int(labels.eq(IGNORE_VALUE).sum()) == 18 * 10
    assert int(labels.eq(0).sum()) == SIDE * SIDE - 180


def test_smaller_objects_lie_on_top_and_all_of_them_on_crowds(tmp_path: Path) -> None:
    entries = [
        annotation(1, 7, STOP_SIGN, [box(6, 6, 10, 10)]),
        annotation(2, 7, PERSON, [box(2, 2, 14, 18)]),
        annotation(3, 7, TOOTHBRUSH, crowd_box(SIDE, 12, 16, 24, 20), crowd=1),
    ]
    for order in (entries, entries[::-1]):
        labels = drawn(tmp_path, order)
        assert int(labels.eq(label_value(11)).sum()) == 16 and labels[6:10, 6:10].eq(12).all()
        assert int(labels.eq(label_value(0)).sum()) == 12 * 16 - 16
        assert int(labels.eq(IGNORE_VALUE).sum()) == 12 * 4 - 2 * 2


def test_an_object_may_have_several_parts_run_lengths_or_no_area(tmp_path: Path) -> None:
    parts = annotation(1, 7, PERSON, [box(0, 0, 4, 4), box(10, 10, 13, 12)])
    object_runs = annotation(2, 7, STOP_SIGN, crowd_box(SIDE, 20, 20, 24, 24))
    labels = drawn(tmp_path, [parts, object_runs, annotation(3, 7, TOOTHBRUSH, [DEGENERATE])])
    assert int(labels.eq(1).sum()) == 16 + 6 and int(labels.eq(12).sum()) == 16
    assert set(labels.unique().tolist()) == {0, 1, 12}


def test_compressed_run_lengths_are_those_of_the_official_tools(tmp_path: Path) -> None:
    inside = np.random.default_rng(3).random((SIDE, SIDE)) < 0.3
    inside[:, 12:] = False  # a long run, whose number needs several digits
    code = official.encode(np.asfortranarray(inside.astype(np.uint8)))
    shape = {"size": [SIDE, SIDE], "counts": code["counts"].decode()}
    labels = drawn(tmp_path, [annotation(1, 7, PERSON, shape)])
    assert (labels.numpy() == 1).tolist() == inside.tolist()


def test_grey_and_cmyk_files_are_fine_and_a_bucket_is_read(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    for number, mode in ((9, "L"), (10, "CMYK")):
        path = root / "train2014" / f"{name_of(number)}.jpg"
        Image.open(path).convert(mode).save(path)
    storage.upload_tree(str(root), "memory://coco-bucket/coco")
    config = DataConfig(dataset="coco14", root="memory://coco-bucket/coco")
    there, here = read_coco(config, "memory://coco-bucket/masks").manifest, read(root).manifest
    assert [(r.image_id, r.labels) for r in there.records] == [(r.image_id, r.labels) for r in here.records]
    assert str(there.records[0].mask_uri).startswith("memory://coco-bucket/masks/train/")


def test_val_may_be_absent_as_a_whole_but_not_in_part(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    (root / "annotations" / "instances_val2014.json").unlink()
    assert "missing annotation file (1):\n  instances_val2014.json: there is no file" in faults(root)
    for path in (root / "val2014").iterdir():
        path.unlink()
    assert {split for record in read(root).manifest.records for split in record.splits} == {"train"}
    assert "missing annotation file" in faults(root, eval_split="val")


def test_a_photograph_that_exif_turns_is_told_from_a_wrong_size(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (SIDE, 10)).save(root / "train2014" / f"{name_of(10)}.jpg", exif=exif)
    edit_annotations(root, lambda content: content["images"][1].update(width=SIDE, height=10))
    assert f"{name_of(10)}: the file is 10 x 24, its annotation says 24 x 10; EXIF orientation turns" in faults(root)


def test_all_faults_come_in_one_report(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")

    def spoil(content: dict[str, Any]) -> None:
        images, annotations = content["images"], content["annotations"]
        images[1]["width"] = 99
        images.append(dict(images[2]))
        images.append({"id": 77})
        content["categories"][0]["name"] = "human"
        annotations += [
            annotation(1, 9, 12, [box(1, 1, 5, 5)]),
            annotation(2, 12345, PERSON, [box(1, 1, 5, 5)]),
            annotation(3, 10, PERSON, []),
            annotation(4, 10, PERSON, [[1.0, 1.0, 5.0, 5.0]]),
            annotation(5, 10, PERSON, [[1.0, 1.0, 5.0, 5.0, 3.0]]),
            annotation(6, 10, PERSON, [[1.0, 1.0, 5.0, 5.0, float("nan"), 2.0]]),
            annotation(7, 11, PERSON, {"size": [SIDE, SIDE], "counts": [1, 2, 3]}, crowd=1),
            annotation(8, 11, PERSON, {"size": [5, 5], "counts": [25]}, crowd=1),
            annotation(9, 11, PERSON, {"size": [SIDE, SIDE], "counts": "P"}, crowd=1),
            {"id": 10},
        ]

    edit_annotations(root, spoil)
    (root / "train2014" / f"{name_of(12)}.jpg").unlink()
    (root / "train2014" / f"{name_of(13)}.jpg").write_bytes(b"")
    path = root / "annotations" / "instances_val2014.json"
    path.write_bytes(path.read_bytes()[:-40])
    text = faults(root)
    assert "17 faults" in text
    for part in (
        f"size mismatch (1):\n  {name_of(10)}: the file is 24 x 24, its annotation says 99 x 24",
        "duplicate id (1)", "unreadable entry (2)", "category that is not COCO's (1):\n  1: ",
        f"unknown category (1):\n  {name_of(9)}: annotation 1 has category 12",
        "annotation of an unknown image (1):\n  annotation 2: there is no image 12345",
        "broken region (", f"{name_of(10)}: annotation 3: there is no polygon", "annotation 4: a polygon of 4 numbers",
        "annotation 5: a polygon of 5 numbers", "annotation 6: ", "annotation 7: run lengths cover 6 pixels",
        "annotation 8: run lengths for [5, 5]", "annotation 9: compressed run lengths end in the middle",
        f"missing image (1):\n  {name_of(12)}", "unreadable image (1)", "is empty (0 bytes)",
        "unreadable annotation file (1):\n  instances_val2014.json", "is no whole JSON file",
    ):  # fmt: skip
        assert part in text, (part, text)


@pytest.mark.parametrize("content", ["[]", '{"images": []}', '{"images": 1, "annotations": [], "categories": []}'])
def test_a_file_of_another_form_is_told(tmp_path: Path, content: str) -> None:
    root = write_coco(tmp_path / "coco")
    (root / "annotations" / "instances_train2014.json").write_text(content)
    assert "must hold one object with the lists images, annotations, categories" in faults(root)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"root": ""}, "data.root is empty"),
        ({"train_split": "train_aug"}, "no split train_aug; .* some of train, val"),
        ({"class_names": ("a",)}, "COCO's classes are fixed"),
        ({"labels": "masks"}, "set data.labels to auto"),
        ({"label_file": "x.csv"}, "leave data.label_file empty"),
    ],
)
def test_settings_that_contradict_the_layout_are_refused(tmp_path: Path, changes: dict, what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        read_coco(DataConfig(dataset="coco14", **{"root": str(tmp_path), **changes}), str(tmp_path / "masks"))


def test_what_is_not_there_is_named(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(DataError, match=r"there is no COCO at .*: expected the folder annotations"):
        read(tmp_path)
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ConfigError, match=r"need pycocotools .*pip install 'qaclims-ray\[coco\]'"):
        read(write_coco(tmp_path / "coco"))


def test_photographs_are_found_in_any_case(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    for path in list((root / "train2014").iterdir()):
        path.rename(path.with_suffix(".JPG"))
    other = root / "train2014" / f"{name_of(9)}.jpg"
    other.write_bytes((root / "train2014" / f"{name_of(9)}.JPG").read_bytes())
    found = {record.image_id: record.image_uri for record in read(root).manifest.subset("train").records}
    assert found[name_of(9)] == str(other)  # the exact name first
    assert found[name_of(10)].endswith(".JPG")
    other.rename(other.with_suffix(".Jpg"))
    assert f"missing image (1):\n  {name_of(9)}" in faults(root)  # two files, and neither is the one named


def test_a_square_photograph_that_exif_turns_is_noted(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    exif = Image.Exif()
    exif[0x0112] = 6
    path = root / "train2014" / f"{name_of(10)}.jpg"
    Image.open(path).save(path, exif=exif)
    notes = read(root).manifest.notes
    assert [note for note in notes if "EXIF" in note and name_of(10) in note and note.startswith("1 photographs")]

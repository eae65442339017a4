"""Exports of labelling tools: one file of COCO, Label Studio or CVAT."""

import json
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.label_files import read_label_file
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import folder_config, image_bytes

COCO: dict[str, Any] = {
    "images": [{"id": n, "file_name": f"pictures/{name}.jpg"} for n, name in enumerate("abc")],
    "categories": [{"id": 7, "name": "traffic light"}, {"id": 9, "name": "dog"}, {"id": 10, "name": "zebra"}],
    "annotations": [
        {"id": 1, "image_id": 0, "category_id": 9, "bbox": [0, 0, 4, 4]},
        {"id": 2, "image_id": 0, "category_id": 7},
        {"id": 3, "image_id": 1, "category_id": 9},
        {"id": 4, "image_id": 1, "category_id": 9},
    ],
}


def choices(*names: str, **more: Any) -> dict[str, Any]:
    return {"result": [{"type": "choices", "value": {"choices": list(names)}}], "was_cancelled": False, **more}


def taxonomy(value: Any) -> list[dict[str, Any]]:
    return [{"result": [{"type": "taxonomy", "value": {"taxonomy": value}}]}]


STUDIO: list[dict[str, Any]] = [
    {"id": 1, "data": {"image": "/data/upload/3/0f1e2d3c-a.jpg"}, "annotations": [choices("dog", "traffic light")]},
    {
        "id": 2,
        "data": {"title": "a title", "image": "/data/local-files/?d=pictures/b%2Ejpg"},
        "annotations": [
            choices("traffic light", was_cancelled=True),
            {"result": [{"type": "taxonomy", "value": {"taxonomy": [["animal", "dog"]]}}]},
        ],
    },
    {"id": 3, "data": {"image": "s3://bucket/pictures/c.jpg"}, "annotations": [{"result": []}]},
]
STUDIO_MIN: list[dict[str, Any]] = [
    {"id": 1, "image": "/data/upload/3/0f1e2d3c-a.jpg", "kind": {"choices": ["dog", "traffic light"]},
     "annotator": 1, "annotation_id": 4, "lead_time": 3.5},
    {"id": 2, "image": "b.jpg", "kind": "dog", "annotator": 1, "annotation_id": 5},
    {"id": 3, "image": "c.jpg", "annotator": 1, "annotation_id": 6},
]  # fmt: skip
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <meta><task><labels><label><name>dog</name></label><label><name>zebra</name></label></labels></task></meta>
  <image id="0" name="pictures/a.jpg" width="24" height="16"{0}><tag label="dog" source="manual"></tag>
    <box label="traffic light" xtl="1" ytl="1" xbr="3" ybr="3"/></image>
  <image id="1" name="b.jpg" width="24" height="16"{0}><polygon label="dog" points="1,1;2,2;3,1"/></image>
  <image id="2" name="c.jpg" width="24" height="16"{1}></image>
</annotations>
"""
FORMS = {
    "instances_default.json": json.dumps(COCO),
    "project-1.json": json.dumps(STUDIO),
    "project-1-min.json": json.dumps(STUDIO_MIN),
    "annotations.xml": CVAT.format("", ""),
}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for seed, name in enumerate("abc"):
        (tmp_path / f"{name}.jpg").write_bytes(image_bytes(seed))
    return tmp_path


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("place", ["", "annotations"])
def test_an_export_is_found_and_known_by_what_it_holds(photographs: Path, name: str, place: str) -> None:
    (photographs / place).mkdir(exist_ok=True)
    (photographs / place / name).write_text(FORMS[name])
    manifest = read_folder(folder_config(photographs))
    assert manifest.class_names == ("dog", "traffic light")
    assert {record.image_id: record.labels for record in manifest.records} == {"a": (0, 1), "b": (0,), "c": ()}
    assert f"labels from {photographs / place / name}" in manifest.notes


def test_any_name_serves_where_it_is_said(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(FORMS["project-1.json"])
    assert len(read_folder(folder_config(photographs)).records) == 3
    (tmp_path / "other.xml").write_text(FORMS["annotations.xml"])
    assert "CVAT" in "\n".join(read_folder(folder_config(photographs, label_file="other.xml")).notes)


def test_two_exports_are_asked_about(photographs: Path) -> None:
    for name in ("instances_default.json", "annotations.xml"):
        (photographs / name).write_text(FORMS[name])
    with pytest.raises(DataError, match=r"several files of annotations, .*--data.label-file"):
        read_folder(folder_config(photographs))


def test_subsets_of_cvat_are_splits(photographs: Path) -> None:
    (photographs / "annotations.xml").write_text(CVAT.format(' subset="train"', ' subset="val"'))
    splits = {record.image_id: record.splits for record in read_folder(folder_config(photographs)).records}
    assert splits == {"a": ("train",), "b": ("train",), "c": ("val",)}


def read(tmp_path: Path, name: str, content: str) -> Any:
    (tmp_path / name).write_text(content)
    return read_label_file(str(tmp_path / name), image_ids=("a", "b", "c"))


def test_what_no_image_shows_is_noted_and_no_class(tmp_path: Path) -> None:
    assert 'without any annotation are left out: "zebra"' in "\n".join(read(tmp_path, "c.json", json.dumps(COCO)).notes)
    assert 'labels that no image has are left out: "zebra"' in "\n".join(
        read(tmp_path, "c.xml", FORMS["annotations.xml"]).notes
    )


def changed(**parts: Any) -> str:
    return json.dumps({**COCO, **parts})


@pytest.mark.parametrize(
    ("content", "subject", "detail"),
    [
        (changed(annotations=[{"image_id": 0, "category_id": 8}]), "annotation 1", "category 8, which the file does"),
        (changed(annotations=[{"image_id": 5, "category_id": 9}]), "annotation 1", "image 5, which the file does"),
        (changed(annotations=[{"image_id": 1.5, "category_id": 9}]), "annotation 1", "image_id is 1.5, expected a"),
        (changed(images=[{"id": 0}, *COCO["images"][1:]], annotations=[]), "image 1", "file_name is absent"),
        (changed(images=[*COCO["images"], {"id": 0, "file_name": "d.jpg"}]), "image 4", "has the id 0, which an"),
        (
            json.dumps([{**STUDIO[0], "annotations": [choices("dog"), choices("cat")]}, *STUDIO[1:]]),
            "task 1 (a.jpg)",
            "its annotations disagree (dog; cat): keep one, or mark one as ground truth",
        ),
        (json.dumps([{**STUDIO[0], "data": {"text": "a"}}, *STUDIO[1:]]), "task 1", "name no image file"),
        *(
            (json.dumps([STUDIO[1], {**STUDIO[0], "annotations": annotations}]), "task 1 (a.jpg)", detail)
            for annotations, detail in (
                (7, "found 7, expected a list of annotations"),
                ([{"result": 0.5}], "found 0.5, expected a list of results"),
                ([{"result": [{"type": "choices", "value": "cat"}]}], "'cat' as the value of a result"),
                (taxonomy("animal"), "found 'animal', expected a list of paths in a taxonomy"),
                (taxonomy({"a": 1}), "expected a list of paths in a taxonomy"),
                (taxonomy([{"a": 1}]), "expected a list of paths in a taxonomy"),
                (taxonomy([["animal", ["dog"]]]), "expected a list of names"),
            )
        ),
    ],
)
def test_single_entries_are_faults(tmp_path: Path, content: str, subject: str, detail: str) -> None:
    fault = next(iter(read(tmp_path, "x.json", content).faults))
    assert fault.subject == subject and detail in fault.detail


def test_an_address_that_is_none_is_taken_for_a_name(tmp_path: Path) -> None:
    content = json.dumps([{**STUDIO[0], "data": {"image": "http://[a.jpg"}}, STUDIO[1]])
    assert set(read(tmp_path, "x.json", content).labels) == {"[a", "b"}


def test_the_truth_settles_a_disagreement_and_open_tasks_are_counted(tmp_path: Path) -> None:
    told = [{**STUDIO[0], "annotations": [choices("dog"), choices("cat", ground_truth=True)]}]
    table = read(tmp_path, "x.json", json.dumps([*told, {**STUDIO[1], "annotations": []}]))
    assert table.labels == {"a": ("cat",)}
    assert "1 tasks are not annotated, e.g. b.jpg" in table.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", changed(images=[]), "its list of images is empty"),
        ("x.json", json.dumps([{**task, "annotations": []} for task in STUDIO]), "none of its 3 tasks is annotated"),
        ("x.xml", CVAT[:200], "is no whole XML"),
        ("x.xml", "<annotation><object/></annotation>", "outermost element is <annotation>; expected <annotations>"),
        ("x.xml", "<annotations><track/></annotations>", "holds tracks of a video"),
    ],
)
def test_files_without_labels_are_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, name, content)


def test_an_unnamed_label_of_cvat_is_a_fault(tmp_path: Path) -> None:
    table = read(tmp_path, "x.xml", FORMS["annotations.xml"].replace('<tag label="dog"', '<tag label=""'))
    assert [fault.subject for fault in table.faults] == ["pictures/a.jpg"]

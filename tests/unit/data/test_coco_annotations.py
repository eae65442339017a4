"""Annotation files as tools write them: every field has its meaning or a fault that names the entry."""

import copy
import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as official

from qaclims_ray.data.classes import COCO_CATEGORY_IDS, COCO_CLASSES
from qaclims_ray.data.coco_annotations import AnnotatedImage, read_annotations
from qaclims_ray.data.validation import Fault
from tests.tiny_coco import PERSON, STOP_SIGN, annotation, box, crowd_box

SIDE = 24
CATEGORIES = [{"id": number, "name": name} for number, name in zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True)]


def content() -> dict[str, Any]:
    """Two images with a polygon and a crowd."""
    return {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": SIDE, "height": SIDE} for n in (7, 8)],
        "annotations": [
            annotation(1, 7, PERSON, [box(2, 2, 9, 9)]),
            annotation(2, 8, STOP_SIGN, crowd_box(SIDE, 2, 4, 20, 14), crowd=1),
        ],
        "categories": copy.deepcopy(CATEGORIES),
    }


def read(path: Path, data: Any) -> tuple[list[AnnotatedImage], list[Fault]]:
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())
    return read_annotations(str(path))


def meaning(images: list[AnnotatedImage]) -> Any:
    return [
        (i.image_id, i.file_name, i.width, i.height,
         [(r.class_id, r.is_crowd, [p.tolist() for p in r.polygons], r.run_lengths) for r in i.regions])
        for i in images
    ]  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "instances_train2014.json"


@pytest.fixture
def right(file: Path) -> Any:
    images, faults = read(file, content())
    assert not faults and len(images) == 2
    return meaning(images)


def _runs() -> dict[str, Any]:
    inside = np.zeros((SIDE, SIDE), np.uint8)
    inside[4:14, 2:20] = 1
    code: Any = official.encode(np.asfortranarray(inside))
    return {"size": [SIDE, SIDE], "counts": code["counts"].decode()}


NUMBER_FORMS = [lambda n: n, float, str, lambda n: f"{n}.0"]
FIELDS = [("images", "id"), ("images", "width"), ("images", "height"), ("annotations", "id"),
          ("annotations", "image_id"), ("annotations", "category_id"), ("categories", "id")]  # fmt: skip
SAME: dict[str, Any] = {
    "true": lambda c: c["annotations"][1].update(iscrowd=True),
    "one as text": lambda c: c["annotations"][1].update(iscrowd="1"),
    "true as text": lambda c: c["annotations"][1].update(iscrowd="true"),
    "one as float": lambda c: c["annotations"][1].update(iscrowd=1.0),
    "zero as text": lambda c: c["annotations"][0].update(iscrowd="0"),
    "false as text": lambda c: c["annotations"][0].update(iscrowd="False"),
    "false": lambda c: c["annotations"][0].update(iscrowd=False),
    "null": lambda c: c["annotations"][0].update(iscrowd=None),
    "no flag": lambda c: c["annotations"][0].pop("iscrowd"),
    "flat polygon": lambda c: c["annotations"][0].update(segmentation=box(2, 2, 9, 9)),
    "texts in polygon": lambda c: c["annotations"][0].update(segmentation=[[str(x) for x in box(2, 2, 9, 9)]]),
    "compressed": lambda c: c["annotations"][1].update(segmentation=_runs()),
    "texts in runs": lambda c: c["annotations"][1]["segmentation"].update(size=["24", 24.0]),
    "nested path": lambda c: c["images"][0].update(file_name="a/b/7.jpg"),
    "windows path": lambda c: c["images"][0].update(file_name="train2014\\7.jpg"),
    "address": lambda c: c["images"][0].update(file_name="http://images.org/a/7.jpg?size=1#x"),
    "same annotation twice": lambda c: c["annotations"].append(dict(c["annotations"][0])),
    "more keys": lambda c: [c.update(info={}), c["images"][0].update(license=3), c["annotations"][0].update(score=0.3)],
    "no area, no box": lambda c: [c["annotations"][0].pop("area"), c["annotations"][0].pop("bbox")],
    "supercategories": lambda c: [entry.update(supercategory="x") for entry in c["categories"]],
}


@pytest.mark.parametrize("change", SAME)
def test_other_forms_of_the_same(file: Path, right: Any, change: str) -> None:
    data = content()
    SAME[change](data)
    images, faults = read(file, data)
    assert not faults and meaning(images) == right


@pytest.mark.parametrize(("part", "name"), FIELDS)
@pytest.mark.parametrize("form", range(4))
def test_numbers_in_any_form(file: Path, right: Any, part: str, name: str, form: int) -> None:
    data = content()
    for entry in data[part]:
        entry[name] = NUMBER_FORMS[form](entry[name])
    images, faults = read(file, data)
    assert not faults and meaning(images) == right


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_other_encodings_of_the_same(file: Path, right: Any, encoding: str) -> None:
    images, faults = read(file, json.dumps(content()).encode(encoding))
    assert not faults and meaning(images) == right


WRONG: dict[str, tuple[Any, str, str]] = {
    **{f"flag {value!r}": (lambda c, value=value: c["annotations"][1].update(iscrowd=value), "annotations",
                           "'id': 2,.*iscrowd is .*, expected 0 or 1") for value in (2, 1.7, [], "yes", "", {}, -1)},
    **{f"{part} {name} {value!r}": (lambda c, p=part, n=name, v=value: c[p][0].update({n: v}),
                                    "instances" if part == "categories" else part, f"{name} is .*, expected")
       for part, name in FIELDS for value in (1.7, True, "x", None, [], float("nan"))},
    **{f"{name} {value!r}": (lambda c, n=name, v=value: c["images"][1].update({n: v}), "images",
                             f"'id': 8.*{name} is {value}, expected a whole number above 0")
       for name in ("width", "height") for value in (0, -5)},
    **{f"file {value!r}": (lambda c, v=value: c["images"][0].update(file_name=v), "images", "'id': 7.*file_name is")
       for value in (3, None, "", "  ", "a/", "..", ["7.jpg"], "\ud800.jpg", "http://images.org/")},
    "one name": (lambda c: [c["images"][0].update(file_name="a/x.jpg"), c["images"][1].update(file_name="b/x.jpg")],
                 "x.jpg", r"'a/x.jpg' and 'b/x.jpg' \(image 8\) have one name"),
    "ids twice": (lambda c: c["images"][1].update(id=7), "8.jpg", "image 7 stands more than once"),
    "ids twice in other forms": (lambda c: c["images"][1].update(id="7"), "8.jpg", "image 7 stands more than once"),
    "annotations twice": (lambda c: c["annotations"][1].update(id=1), "annotation 1", "it is both .* and"),
    "category twice": (lambda c: c["categories"].append({"id": 1, "name": "human"}), "instances",
                       "1 is both 'person' and"),
    "category without name": (lambda c: c["categories"][0].pop("name"), "instances", "name is absent"),
    "category that is a text": (lambda c: c["categories"].append("person"), "instances", "expected an object"),
    "image that is a list": (lambda c: c["images"].append([]), "images", "expected an object"),
    "annotation that is null": (lambda c: c["annotations"].append(None), "annotations", "expected an object"),
    **{f"shape {value!r}": (lambda c, v=value: c["annotations"][0].update(segmentation=v), "7",
                            f"annotation 1: .*{told}")
       for value, told in (
           (None, "segmentation is None"), ([], "no polygon"), ("[[1, 2, 3, 4, 5, 6]]", "segmentation is '"),
           ([[[1, 1], [5, 1], [5, 5]]], "a polygon holds .* in one list"), ([[1, 1], [5, 1], [5, 5]], "polygon of 2"),
           ([[1, 1, 5, 1, True, 5]], "holds True"), ([[1, 1, 5, 1, None, 5]], "holds None"), ([[]], "polygon of 0"),
           ([[1, 1, 5, 1, 5, float("inf")]], "infinity"), ([[1, 1, 5, 1, 5, 10**400]], "beyond all bounds"),
           ([["1", "1", "5", "1", "5", "x"]], "holds 'x'"), ([{"counts": [1], "size": [1, 1]}], "a polygon is"),
           (7, "is 7"),
       )},
    "no shape": (lambda c: c["annotations"][0].pop("segmentation"), "7", "segmentation is absent"),
    **{f"runs {change!r}": (lambda c, v=change: c["annotations"][1]["segmentation"].update(v), "8",
                            f"annotation 2: .*{told}")
       for change, told in (
           ({"size": [20, 24]}, "run lengths for"), ({"size": None}, "run lengths for None"),
           ({"size": "24"}, "run lengths"), ({"size": [SIDE, SIDE, 1]}, "run lengths for"),
           ({"counts": [1.5, 2]}, "run length 0 is 1.5"), ({"counts": []}, "cover 0 pixels"),
           ({"counts": [True]}, "run length 0 is True"), ({"counts": [-1, 577]}, "run length 0 is -1"),
           ({"counts": None}, "counts is None"), ({"counts": "b'PQ'"}, "as Python prints bytes"),
           ({"counts": "\u2013"}, "hold"), ({"counts": "P"}, "middle"),
       )},
    "shares": (lambda c: c["annotations"][0].update(segmentation=[box(0.1, 0.1, 0.4, 0.9)]), "annotations",
               "shares of the image"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_has_no_meaning_is_a_fault_of_its_entry(file: Path, name: str) -> None:
    change, subject, told = WRONG[name]
    data = content()
    change(data)
    _, faults = read(file, data)
    assert any(subject in fault.subject and _matches(told, fault.detail) for fault in faults), faults
    for fault in faults:
        assert f"{fault.subject}: {fault.detail}".encode() and len(fault.detail) < 500


def _matches(pattern: str, detail: str) -> bool:
    return re.search(pattern, detail) is not None


def test_a_key_that_stands_twice_is_told(file: Path) -> None:
    text = json.dumps(content())
    twice = text.replace('"category_id": 1,', '"category_id": 1, "category_id": 13,')
    _, faults = read(file, twice.encode())
    assert [(fault.sort, "'category_id' stands twice" in fault.detail) for fault in faults] == [("repeated key", True)]
    assert "'id': 1" in faults[0].subject
    _, faults = read(file, text.replace('"category_id": 1,', '"category_id": 1, "category_id": 1,').encode())
    assert not faults


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", r"is no whole JSON file.*empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs pointer"),
        (gzip.compress(b"{}", mtime=0), "gzip"),
        (json.dumps(content()).encode()[:-30], "is no whole JSON file"),
        (json.dumps(content()).encode() * 2, "is no whole JSON file"),
        (b"[" * 10**5, "is no whole JSON file"),
        ('{"images": "\xe9"}'.encode("latin-1"), "is no whole JSON file"),
        (b"[]", r"one object with the lists .*, but it is \[\]"),
        (json.dumps(content() | {"categories": {"1": "person"}}).encode(), "but .*categories is {'1': 'person'}"),
        (json.dumps({"images": []}).encode(), "annotations is absent"),
    ],
)
def test_files_of_other_things(file: Path, data: bytes, told: str) -> None:
    images, faults = read(file, data)
    assert not images and [fault.sort for fault in faults] == ["unreadable annotation file"]
    assert _matches(told, faults[0].detail), faults[0].detail


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 30) | st.floats() | st.text(max_size=6)
    | st.sampled_from(["0", "1", "7", "8", "7.0", "true", "false", 7.0, 8.0, 1.0, 24.0, "24", 10**30]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner, max_size=2),
    max_leaves=6,
)  # fmt: skip
PLACES = [*((part, name) for part, name in FIELDS if part != "categories"), ("images", "file_name"),
          ("annotations", "iscrowd"), ("annotations", "segmentation")]  # fmt: skip


def plain(name: str, value: Any) -> Any:
    """Return the one form in which COCO itself would have written a value."""
    if name == "iscrowd":
        return int(str(value).strip().lower() in ("1", "1.0", "true"))
    if name == "file_name":
        return value.strip().replace("\\", "/").rsplit("/", 1)[-1]
    if name == "segmentation":
        parts = value if any(isinstance(part, list) for part in value) else [value]
        return [[float(number) for number in part] for part in parts] if isinstance(value, list) else value
    assert type(value) in (int, float, str)
    return value if type(value) is int else int(float(value))


@settings(
    max_examples=250, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.sampled_from(PLACES), which=st.integers(0, 1), value=VALUES)
def test_any_value_in_any_field_is_itself_or_a_fault(
    file: Path, place: tuple[str, str], which: int, value: Any
) -> None:
    (part, name), data = place, content()
    data[part][which][name] = value
    images, faults = read(file, data)
    for fault in faults:
        assert f"{fault.subject}: {fault.detail}".encode()
    if not faults:
        data[part][which][name] = plain(name, value)
        assert meaning(images) == meaning(read(file, data)[0])


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ([box(0.1, 0.1, 0.4, 0.9)], "1 of its objects lie below 1: shares of the image"),
        ([box(30, 2, 40, 9)], "annotation 3: its polygons lie outside the image of 24 x 24"),
        ([box(2, -9, 9, -1), box(2, 25, 9, 30)], "outside the image"),
        ([box(30, 2, 40, 9), box(2, 2, 9, 9)], ""),
        ([box(0.1, 0.1, 0.4, 0.9), box(2, 2, 9, 9)], ""),
        ([[SIDE, 1, SIDE, 5, SIDE, 9]], ""),
        ([[0, 0, 0, 1, 0, 0.5]], ""),
        ([box(-3, -3, 40, 40)], ""),
    ],
)
def test_an_object_without_a_pixel_in_its_image_is_told(file: Path, shapes: list, told: str) -> None:
    data = content()
    data["annotations"].append(annotation(3, 8, PERSON, shapes))
    _, faults = read(file, data)
    assert len(faults) == bool(told)
    assert all(fault.subject == "8" and told in fault.detail for fault in faults)

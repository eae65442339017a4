"""One file of annotations per image: LabelMe's and X-AnyLabeling's JSON, VOC's XML."""

import json
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.data.folder import read_folder
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import annotation, folder_config, image_bytes

SHOWN: dict[str, tuple[str, ...]] = {"a": ("cat", "dog"), "b": ("dog",), "c": ()}


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    for seed, name in enumerate(SHOWN):
        (tmp_path / f"{name}.jpg").write_bytes(image_bytes(seed))
    return tmp_path


def labelme(**fields: Any) -> str:
    return json.dumps({"version": "5.4", "shapes": [], "imagePath": "x.jpg", "imageData": None, **fields})


def by_flags(names: tuple[str, ...]) -> str:
    return labelme(flags={"__ignore__": False, **{name: name in names for name in ("cat", "dog", "never")}})


FORMS = {
    "flags": (".json", by_flags),
    "tags": (".json", lambda names: labelme(flags={}, tags=list(names))),
    "tags with fields": (".json", lambda names: labelme(tags=[{"name": name, "score": 1} for name in names])),
    "shapes": (".json", lambda names: labelme(flags={}, shapes=[{"label": n, "points": []} for n in names])),
    "VOC": (".xml", annotation),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("place", ["", "Annotations", "json"])
def test_every_form_gives_the_same(photographs: Path, form: str, place: str) -> None:
    suffix, content = FORMS[form]
    (photographs / place).mkdir(exist_ok=True)
    for name, shown in SHOWN.items():
        (photographs / place / f"{name}{suffix}").write_text(content(shown))
    manifest = read_folder(folder_config(photographs))
    assert manifest.class_names == ("cat", "dog")
    assert {record.image_id: record.labels for record in manifest.records} == {"a": (0, 1), "b": (1,), "c": ()}
    assert any(note.startswith("3 images have a file in the form of") for note in manifest.notes)


def test_they_may_lie_anywhere_and_be_called_with_the_ending(photographs: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere" / "tags"
    elsewhere.mkdir(parents=True)
    for name, shown in SHOWN.items():
        (elsewhere / f"{name}.jpg.json").write_text(labelme(tags=list(shown)))
    manifest = read_folder(folder_config(photographs, label_file=str(elsewhere)))
    assert [record.labels for record in manifest.records] == [(0, 1), (1,), ()]


def test_a_label_file_comes_first_unless_annotations_are_asked_for(photographs: Path) -> None:
    for name, shown in SHOWN.items():
        (photographs / f"{name}.xml").write_text(annotation(shown))
    (photographs / "labels.csv").write_text("image,labels\na,bird\nb,fish\nc,bird\n")
    assert read_folder(folder_config(photographs)).class_names == ("bird", "fish")
    assert read_folder(folder_config(photographs, labels="annotations")).class_names == ("cat", "dog")


def report_of(root: Path, **settings: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_folder(folder_config(root, **settings))
    return str(caught.value)


def test_images_without_a_file_and_broken_files_come_in_one_report(photographs: Path) -> None:
    (photographs / "a.json").write_text(labelme(tags=["cat"]))
    (photographs / "b.json").write_text(labelme(flags={"cat": "perhaps"}))
    report = report_of(photographs)
    assert "b: b.json is no file of LabelMe or X-AnyLabeling (is 'perhaps', expected 0 or 1)" in report
    assert "c: has no annotation file, as others have (a.json)" in report


def test_files_of_another_kind_and_two_kinds_are_refused(photographs: Path) -> None:
    (photographs / "a.json").write_text('{"exif": 1}')
    assert "none of 1 files beside the images can be read as labels; a.json is no file" in report_of(photographs)
    (photographs / "a.xml").write_text(annotation(["cat"]))
    assert "has 1 .json and 1 .xml files called as images" in report_of(photographs)


def test_words_for_nothing_are_no_class(photographs: Path) -> None:
    for name, word in (("a", "cat"), ("b", "dog"), ("c", "none")):
        (photographs / f"{name}.json").write_text(labelme(tags=[word]))
    manifest = read_folder(folder_config(photographs))
    assert manifest.class_names == ("cat", "dog")
    assert 'read as no label: 1 times "none"' in manifest.notes

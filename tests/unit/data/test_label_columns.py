"""Columns of 0/1 beside those of classes, words for yes and no, and rows and files of unusual forms."""

from pathlib import Path

import pytest

from qaclims_ray.data.label_files import LabelTable, read_label_file
from qaclims_ray.errors import DataError

EXPECTED = {"a": ("cat",), "b": ("dog",), "c": ("cat", "dog")}
FLAGS = (
    *("is_valid", "is_train", "valid", "Val", "test", "difficult", "augmented", "checked", "reviewed", "is_crowd"),
    *("truncated", "occluded"),
)


def read(tmp_path: Path, text: str, name: str = "labels.csv", **settings: tuple[str, ...]) -> LabelTable:
    path = tmp_path / name
    path.write_bytes(text.encode())
    return read_label_file(str(path), **settings)


@pytest.mark.parametrize("flag", FLAGS)
def test_a_flag_is_no_class_unless_class_names_has_it(tmp_path: Path, flag: str) -> None:
    text = f"image,{flag},cat,dog\na,1,1,0\nb,0,0,1\nc,1,1,1\n"
    table = read(tmp_path, text)
    assert table.labels == EXPECTED and table.classes == ("cat", "dog")
    assert any(f'"{flag}"' in note and "data.class_names" in note for note in table.notes)
    assert read(tmp_path, text, known_names=(flag, "cat", "dog")).labels["a"] == (flag, "cat")
    beside_names = read(tmp_path, f"image,{flag},animal\na,1,cat\nb,0,dog\nc,1,cat\nd,1,dog\n")
    assert beside_names.labels["b"] == ("dog",) and any(f'not read: "{flag}"' in note for note in beside_names.notes)
    with pytest.raises(DataError, match=r"no column of classes .* data.class_names makes a class"):
        read(tmp_path, f"image,{flag}\na,1\nb,0\n")


def test_train_is_a_vehicle_or_a_part_of_the_data(tmp_path: Path) -> None:
    text = "image,train,cat,dog\na,1,1,0\nb,0,0,1\nc,1,1,1\n"
    with pytest.raises(DataError, match=r"may be a class, or .* data.class_names \(cat, dog, train, or cat, dog\)"):
        read(tmp_path, text)
    assert read(tmp_path, text, known_names=("cat", "dog")).labels == EXPECTED
    assert read(tmp_path, text, known_names=("cat", "dog", "train")).labels["a"] == ("train", "cat")
    both = read(tmp_path, "image,train,val,cat,dog\na,1,0,1,0\nb,0,1,0,1\nc,1,0,1,1\n")
    assert both.labels == EXPECTED and any('"train", "val"' in note for note in both.notes)


@pytest.mark.parametrize(
    ("yes", "no"),
    [
        ("1.000000000000000000e+00", "0.000000000000000000e+00"), ("1.000", "0.000"), ("+1", "-1"), ('"1,0"', '"0,0"'),
        ("present", "absent"), ("on", "off"), ("Positive", "Negative"), ("pos", "neg"), ("\u2713", ""), ("+", "-"),
    ],
)  # fmt: skip
def test_numbers_by_value_and_pairs_of_words(tmp_path: Path, yes: str, no: str) -> None:
    table = read(tmp_path, f"image,cat,dog\na,{yes},{no}\nb,{no},{yes}\nc,{yes},{yes}\n")
    assert table.labels == EXPECTED and not table.faults


def test_a_refusal_lists_what_is_read_and_words_stay_names_in_a_column_of_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"0 or 1 .or yes/no, .*present/absent"):
        read(tmp_path, "image,cat,dog\na,few,many\nb,all,few\n")
    text = "image,label\na,positive\nb,negative\nc,positive\n"
    assert read(tmp_path, text).labels == {"a": ("positive",), "b": ("negative",), "c": ("positive",)}
    with pytest.raises(DataError, match="has the columns"):
        read(tmp_path, "a.jpg,1,0,3\nb.jpg,1,0\n")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.tsv", "a.png\tcat\nb.png\tdog\nc.png\tcat\tdog\n"),
        ("labels.tsv", "c.png\tcat\tdog\na.png\tcat\nb.png\tdog\n"),
        ("labels.csv", "a.png,cat,\nb.png,dog,\nc.png,cat,dog\n"),
        ("labels.csv", "image,labels\ra,cat\rb,dog\rc,cat;dog\r"),
        ("labels.csv", "image,labels\na,cat\nb,dog\nc,cat and dog\n"),
        ("labels.json", '{"image": "a", "labels": ["cat"]}\n{"image": "b", "labels": "dog"}\n'
                        '{"image": "c", "labels": ["cat", "dog"]}\n'),
        ("labels.jsonl", '[{"image": "a", "label": "cat"}, {"image": "b", "label": "dog"},\n'
                         '{"image": "c", "label": ["cat", {"name": "dog", "box": [1, 2]}]}]\n'),
        ("labels.jsonl", '{"a.png": ["cat"], "b": ["dog"],\n"c": ["cat", "dog"]}'),
    ],
)  # fmt: skip
def test_unusual_rows_and_files_are_read_by_what_they_hold(tmp_path: Path, name: str, text: str) -> None:
    table = read(tmp_path, text, name)
    assert not table.faults
    assert {image: sorted(names) for image, names in table.labels.items()} == {k: list(v) for k, v in EXPECTED.items()}


def test_and_parts_names_that_stand_alone_and_no_others(tmp_path: Path) -> None:
    table = read(tmp_path, "image,labels\na,dog and cat\nb,dog\nc,cat\nd,black and white\n")
    assert table.labels["a"] == ("dog", "cat") and table.labels["d"] == ("black and white",)
    table = read(tmp_path, "image,labels\na,salt and pepper\nb,salt\nc,dog\n")
    assert table.labels["a"] == ("salt and pepper",)
    assert ["space" in note for note in table.notes] == [False] and 'to " and "' in table.notes[0]
    with pytest.raises(DataError, match='"cat,dog and bird" may be'):
        read(tmp_path, 'image,labels\na,"cat,dog and bird"\nb,cat\nc,dog\nd,bird\n')


def test_a_ragged_row_without_any_cell_is_told(tmp_path: Path) -> None:
    table = read(tmp_path, "a.png\tcat\tdog\nb.png\tdog\nc.png\nd.png\tcat\ne.png\t\n", "labels.tsv")
    assert [(fault.subject, "the cell of labels is missing" in fault.detail) for fault in table.faults] == [
        ("c.png", True)
    ]
    assert table.labels["e"] == ()
    with pytest.raises(DataError, match="has the columns"):  # a comma within a name
        read(tmp_path, "a.png,tumor, malignant\nb.png,dog\nc.png,cat\n")

from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.data.label_files import find_label_file, read_label_file
from qaclims_ray.errors import DataError


def write(tmp_path: Path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.csv", ",,\n", "has the columns"),
        ("a.csv", "a,cat\nb,dog\n", r"has the columns \['a', 'cat'\], and rows such as b \| dog: expected"),
        ("a.csv", "a.jpg,cat,dog\n", r"has the columns \['a.jpg', 'cat', 'dog'\]"),
        ("a.csv", "image\na.jpg\n", r"has the columns \['image'\]"),
        ("a.csv", "image,cat,cat\na.jpg,1,0\n", "each once"),
        ("a.csv", 'image,labels\na.jpg,"cat\n', "is not CSV"),
        ("a.csv", "image,labels\nb\xe4r.jpg,cat\n".encode("latin-1"), "is not UTF-8"),
        ("a.csv", "image,labels\n".encode("utf-16"), "is not UTF-8"),
        ("a.csv", "image,labels\na,cat\n".encode("utf-16-le"), "is not UTF-8"),
        ("a.csv", "image,cat\na.jpg,2\nb.jpg,0\nc.jpg,4\n", "no column holds labels"),
        ("a.csv", "image,cat\na.jpg,\n", "no column holds labels"),
        ("a.csv", "image,cat,dog\na,0.3,0.7\nb,0.9,0.1\n", "no column holds labels"),
        ("a.csv", "image,width\na,3\nb,4\n", "no column of classes"),
        ("a.csv", "image,label\na,0\nb,1\n", "alone: are these classes"),
        ("a.csv", "image,label,category\na,cat,x\nb,dog,z\n", "several columns of labels"),
        ("a.csv", "image,labels\na,cat:0.9\nb,dog:0.1\n", "names with scores"),
        ("a.csv", 'image,labels\na,"[0, 1]"\nb,"[1, 0]"\n', "numbers in brackets"),
        ("a.csv", 'image,labels\na,"[cat, dog]"\nb,dog\n', "look like lists in brackets"),
        ("a.csv", 'image,labels\na,"cat, dining table"\nb,dog\n', "may be one name each, or lists"),
        ("a.csv", "image,labels\na,cat/truck\nb,cat\n", 'parted by "/"; the other cells do not tell'),
        ("a.csv", 'image,labels\na,cat;dog\nb,"cat,dog"\nc,cat\nd,dog\n', 'parted by ";" .* and by ","'),
        ("a.csv", "image,labels\na,dog traffic light\nb,dog\nc,traffic light\n", "parted by blanks; the other"),
        ("a.json", "[]", "holds no entry"),
        (
            "a.json",
            '{"images": [], "annotations": [], "categories": []}',
            "in COCO's form, but its list of images is empty",
        ),
        ("a.json", '[{"photo_of": "a.jpg", "labels": ["cat"]}]', "have the fields"),
        ("a.jsonl", '{"image": "a"}\n[1]\n', "line 2"),
        ("a.jsonl", '{"image": "a"}\n{\n', "is not JSON in line 2"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '["a.jpg"]', "must hold one object"),
        ("a.json", '"cat"', "must hold one object"),
        ("a.json", "3", "must hold one object"),
        ("a.txt", "a.jpg cat", "unknown sort"),
        ("a.npy", b"\x93NUMPY", "unknown sort"),
        ("a.xlsx", b"PK", "unknown sort"),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused(
    tmp_path: Path, name: str, content: str | bytes, expected: str
) -> None:
    with pytest.raises(DataError, match=expected):
        read_label_file(write(tmp_path, name, content))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "image,labels\na.jpg,cat,dog\n", "3 cells, the header has 2"),
        ("a.csv", "image,labels\na.jpg\n", "1 cells, the header has 2; the cell of labels is missing"),
        ("a.csv", "a.jpg,cat\nb.jpg\n", "1 cells, the first row has 2; the cell of labels is missing"),
        ("a.csv", "image,labels\n,cat\n", "the image has no name"),
        ("a.csv", "image,labels\na.jpg,cat\na.png,cat\n", "more than one entry"),
        ("a.csv", "image,age,cat\na.jpg,50,1\n", 'holds "50", expected 0 or 1'),
        ("a.csv", "image,p,cat\na.jpg,0.3,1\n", 'holds "0.3", expected 0 or 1'),
        ("a.csv", "image,cat,dog\na,-1,1\nb,0,1\n", "-1 stands for no in some lists and for unsure in others"),
        ("a.csv", "image,cat\n" + "".join(f"i{n},{n % 2}\n" for n in range(19)) + "j,maybe\n", "'cat': 'maybe'"),
        ("a.csv", "image,cat\n" + "".join(f"i{n},{n % 2}\n" for n in range(19)) + "j,\n", "'cat': ''"),
        ("a.csv", "image,labels\na,cat;dog\na,cat\n", "which disagree: cat, dog; cat"),
        ("a.csv", "image,cat,dog\na,1,0\na,0,1\n", "which disagree"),
        ("a.csv", "image,labels\ntrain/a.jpg,cat\ntest/a.jpg,cat\n", "more than one entry"),
        ("a.json", '{"a": [1]}', "expected a list"),
        ("a.json", '{"a": [0, 1]}', "expected a list"),
        ("a.json", '{"a": 3}', "expected a list"),
        ("a.json", '{"a": {"cat": 0.3}}', "expected 0 or 1 for each class"),
        ("a.json", '[{"image": "a", "labels": [{"photo": "cat"}]}]', "expected a list"),
        ("a.json", '{"a.jpg": ["cat"], "a.jpg": ["dog"]}', "more than one entry"),
        ("a.json", '{"": ["cat"]}', "the image has no name"),
    ],
)
def test_a_bad_entry_is_one_fault_and_the_rest_is_read(tmp_path: Path, name: str, content: str, expected: str) -> None:
    table = read_label_file(write(tmp_path, name, content))
    assert len(table.faults) == 1
    assert expected in table.faults[0].detail


def test_the_separator_is_one_for_the_whole_file(tmp_path: Path) -> None:
    table = read_label_file(write(tmp_path, "a.csv", "image,labels\na,dining table\nb,cat;dog\n"))
    assert table.labels == {"a": ("dining table",), "b": ("cat", "dog")}
    table = read_label_file(write(tmp_path, "b.csv", 'image,labels\na,"saw, small"\nb,"saw, small;dog"\n'))
    assert table.labels == {"a": ("saw, small",), "b": ("saw, small", "dog")}


def test_empty_cells_at_the_right_are_no_columns(tmp_path: Path) -> None:
    assert labels_in(tmp_path, "image,labels,,\na,cat,,\nb,dog\n") == {"a": ("cat",), "b": ("dog",)}
    assert labels_in(tmp_path, "image,labels\na,cat,\nb,dog\n") == {"a": ("cat",), "b": ("dog",)}


def test_files_of_masks_are_no_class(tmp_path: Path) -> None:
    text = "image,annotated,mask,cat,dog\na.jpg,m/a.png,m/a.png,1,0\nb.jpg,m/b.png,m/b.png,0,1\n"
    assert labels_in(tmp_path, text) == {"a": ("cat",), "b": ("dog",)}


def test_splits_are_read_in_either_form(tmp_path: Path) -> None:
    table = read_label_file(write(tmp_path, "a.csv", 'image,split,cat\na,train;val,1\nb,"train, test",0\nc,,0\n'))
    assert table.splits == {"a": ("train", "val"), "b": ("train", "test"), "c": ()}
    assert table.classes == ("cat",)


def test_a_label_file_is_found_by_name_in_the_folder_or_anywhere(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    assert find_label_file(str(root), "") is None
    inside = write(root, "labels.csv", "image,labels\n")
    outside = write(tmp_path, "mine.csv", "image,labels\n")
    assert find_label_file(str(root), "") == inside
    assert find_label_file(str(root), "labels.csv") == inside
    assert find_label_file(str(root), outside) == outside
    with pytest.raises(DataError, match="there is no label file"):
        find_label_file(str(root), "absent.csv")


def labels_in(tmp_path: Path, content: str, name: str = "a.csv", **settings: Any) -> dict[str, tuple[str, ...]]:
    table = read_label_file(write(tmp_path, name, content), **settings)
    assert not table.faults
    return table.labels


def test_a_separator_that_is_set_decides_and_must_be_there(tmp_path: Path) -> None:
    text = 'image,labels\na,"tumor, malignant"\nb,"tumor, benign"\nc,tumor\n'
    assert labels_in(tmp_path, text, separator=",")["a"] == ("tumor", "malignant")
    assert labels_in(tmp_path, text, separator="none")["a"] == ("tumor, malignant",)
    assert labels_in(tmp_path, "image,labels\na,cat or dog\nb,dog\n", separator=" or ")["a"] == ("cat", "dog")
    assert labels_in(tmp_path, "image,labels\na,cat dog\n", separator="space") == {"a": ("cat", "dog")}
    assert labels_in(tmp_path, "image,labels\na,cat\n", separator="|") == {"a": ("cat",)}
    with pytest.raises(
        DataError, match='is "\\|", which no cell holds; they seem to be parted by ";", as in "cat;dog"'
    ):
        labels_in(tmp_path, "image,labels\na,cat;dog\n", separator="|")


def test_what_was_decided_is_told(tmp_path: Path) -> None:
    def notes(text: str) -> str:
        return "\n".join(read_label_file(write(tmp_path, "a.csv", text)).notes)

    assert 'parted by "/", as in "cat/dog"' in notes("image,labels\na,cat/dog\nb,cat\nc,dog\n")
    names = notes('image,labels\na,"tumor, malignant"\nb,"tumor, benign"\n')
    assert "read as one name each; if these are lists, set data.label_separator" in names
    assert 'not read: "width", "note"' in notes("image,labels,width,note\na,cat,3,\nb,dog,4,\n")
    assert 'not read: "Unnamed: 0"' in notes("Unnamed: 0,image,cat\n0,a,1\n1,b,0\n")
    assert 'read as no label: 2 times "nan"' in notes("image,labels\na,nan\nb,cat\nc,nan\n")
    assert "say the same of an image: 1 times, e.g. of a" in notes("image,labels\na,cat\na,cat\nb,dog\n")
    assert "put together: 1 times, e.g. of a" in notes("image,labels\na,cat\na,dog\nb,dog\n")
    assert "the classes are numbers" in notes("image,labels\na,3\nb,7\nc,3\n")
    assert notes("image,labels\na,traffic light\nb,dog\n") == ""


def test_class_names_decide_what_a_cell_holds(tmp_path: Path) -> None:
    text = 'image,labels\na,"tumor, malignant, stroma"\nb,stroma\n'
    assert labels_in(tmp_path, text, known_names=("tumor, malignant", "stroma"))["a"] == ("tumor, malignant", "stroma")
    assert labels_in(tmp_path, text, known_names=("tumor", "malignant", "stroma"))["b"] == ("stroma",)
    text = "image,labels\na,dog traffic light\nb,traffic light\n"
    assert labels_in(tmp_path, text, known_names=("dog", "traffic light"))["a"] == ("dog", "traffic light")
    assert labels_in(tmp_path, "image,labels\na,none\nb,cat\n", known_names=("none", "cat"))["a"] == ("none",)
    assert labels_in(tmp_path, "image,label\na,0\nb,1\n", known_names=("polyp",)) == {"a": (), "b": ("polyp",)}
    assert labels_in(tmp_path, "image,label\na,0\nb,1\n", known_names=("0", "1")) == {"a": ("0",), "b": ("1",)}
    text = "image,cat,age\na,1,50\nb,0,61\n"
    assert labels_in(tmp_path, text, known_names=("cat",)) == {"a": ("cat",), "b": ()}


def test_images_of_the_data_set_tell_header_and_columns(tmp_path: Path) -> None:
    assert labels_in(tmp_path, "a,cat\nb,dog\n", image_ids=("a", "b")) == {"a": ("cat",), "b": ("dog",)}
    text = "id,picture,labels\n1,a,cat\n2,b,dog\n"
    assert labels_in(tmp_path, text, image_ids=("a", "b")) == {"a": ("cat",), "b": ("dog",)}
    text = '{"cat": ["a", "b"], "dog": ["b"]}'
    assert labels_in(tmp_path, text, "a.json", image_ids=("a", "b")) == {"a": ("cat",), "b": ("cat", "dog")}

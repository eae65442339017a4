from pathlib import Path

import pytest

from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.label_files import find_label_file, read_label_file
from qaclims_ray.errors import DataError


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("a.jpg", "a"),
        ("a.JPEG", "a"),
        ("images/sub/a.png", "a"),
        ("images\\a.png", "a"),
        (" a ", "a"),
        ("2007.01", "2007.01"),
        ("2007.01.tif", "2007.01"),
        ("a.txt", "a.txt"),
        (".png", ""),
    ],
)
def test_image_ids_lose_folder_and_image_suffix_only(name: str, image_id: str) -> None:
    assert image_id_of(name) == image_id


def write(tmp_path: Path, name: str, content: str | bytes) -> str:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", " \n\n", "is empty"),
        ("a.csv", ",,\n", r"has the columns \[\]"),
        ("a.csv", "a.jpg,cat\n", r"has the columns \['a.jpg', 'cat'\]"),
        ("a.csv", "image\na.jpg\n", r"has the columns \['image'\]"),
        ("a.csv", "image,cat,cat\na.jpg,1,0\n", "each once"),
        ("a.csv", 'image,labels\na.jpg,"cat\n', "is not CSV"),
        ("a.csv", "image;labels\na.jpg;cat\n", "has the columns"),
        ("a.csv", "image,labels\nb\xe4r.jpg,cat\n".encode("latin-1"), "is not UTF-8"),
        ("a.csv", "image,labels\n".encode("utf-16"), "is not UTF-8"),
        ("a.json", "{", "is not JSON"),
        ("a.json", '["a.jpg"]', "must hold one object"),
        ("a.json", '"cat"', "must hold one object"),
        ("a.json", "3", "must hold one object"),
        ("a.txt", "a.jpg cat", "unknown sort"),
        ("a.npy", b"\x93NUMPY", "is not UTF-8"),
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
        ("a.csv", "image,labels\na.jpg\n", "1 cells, the header has 2"),
        ("a.csv", "image,labels\n,cat\n", "the image has no name"),
        ("a.csv", "image,labels\na.jpg,cat\na.png,cat\n", "more than one entry"),
        ("a.csv", "image,cat\na.jpg,2\n", "expected 0 or 1"),
        ("a.csv", "image,cat\na.jpg,\n", "expected 0 or 1"),
        ("a.csv", "image,width,cat\na.jpg,500,1\n", "'width': '500'"),
        ("a.json", '{"a": "cat"}', "expected a list"),
        ("a.json", '{"a": [1]}', "expected a list"),
        ("a.json", '{"a": null}', "expected a list"),
        ("a.json", '{"a": {"cat": 1}}', "expected a list"),
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

"""Which files `predict` takes."""

from pathlib import Path

import pytest

from qaclims_ray.data.image_ids import IMAGE_SUFFIXES
from qaclims_ray.errors import DataError
from qaclims_ray.stages.predict import _images_at


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_ending_in_any_case(tmp_path: Path, suffix: str) -> None:
    put(tmp_path, f"a{suffix}", f"b{suffix.upper()}", f"._a{suffix}", "labels.csv")
    assert _images_at(str(tmp_path)) == [f"{tmp_path}/a{suffix}", f"{tmp_path}/b{suffix.upper()}"]


def test_a_named_file_is_taken_whatever_its_ending(tmp_path: Path) -> None:
    put(tmp_path, "photo", "a.heic")
    for name in ("photo", "a.heic"):
        assert _images_at(f"{tmp_path}/{name}") == [f"{tmp_path}/{name}"]


def test_a_photograph_that_cannot_be_read_is_not_left_out(tmp_path: Path) -> None:
    put(tmp_path, "b.jpg", "a.HEIC")
    assert _images_at(str(tmp_path)) == [f"{tmp_path}/a.HEIC", f"{tmp_path}/b.jpg"]


def test_a_folder_whose_name_ends_like_an_image(tmp_path: Path) -> None:
    put(tmp_path / "photos.jpg", "a.jpg")
    assert _images_at(f"{tmp_path}/photos.jpg") == [f"{tmp_path}/photos.jpg/a.jpg"]


def test_places_that_give_nothing_are_errors(tmp_path: Path) -> None:
    put(tmp_path / "texts", "a.txt")
    put(tmp_path / "nested/train", "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "lost").symlink_to(tmp_path / "gone")
    for name, says in (
        ("texts", r"it has files \.txt 1"),
        ("nested", "it has folders train"),
        ("empty", "it has nothing"),
        ("absent", "there is no image or folder"),
        ("lost", "is a symbolic link to .*gone, where nothing is"),
    ):
        with pytest.raises(DataError, match=says):
            _images_at(f"{tmp_path}/{name}")

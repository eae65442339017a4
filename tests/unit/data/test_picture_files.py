"""Files with all sorts of names."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data import storage
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.picture_files import contents, endings, find_folder, pictures, unread_note
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import folder_config

names = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="/\\", exclude_categories=("Cs", "Cc")),
    min_size=1,
    max_size=8,
).filter(lambda name: not name.startswith("."))


@given(name=names, folder=names, suffix=st.sampled_from([".jpg", ".JPEG", ".tif", ".Png"]))
def test_names_of_files_and_folders_are_no_urls(
    tmp_path_factory: pytest.TempPathFactory, name: str, folder: str, suffix: str
) -> None:
    root = tmp_path_factory.mktemp("set") / folder
    root.mkdir()
    (root / f"{name}{suffix}").write_bytes(b"content")
    (found,) = pictures(str(root))
    assert found == f"{root}/{name}{suffix}" and storage.read_bytes(found) == b"content"
    assert storage.size(found) == 7 and storage.exists(found) and not storage.is_folder(found)
    assert storage.list_folders(str(root.parent)) == [str(root)] and storage.is_folder(str(root))
    assert storage.listing_fingerprint(str(root))


def test_names_that_are_no_text_are_refused_and_change_the_fingerprint(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    before = storage.listing_fingerprint(str(root))
    name = os.fsencode(str(root)) + b"/caf\xe9.jpg"
    try:
        with open(name, "wb") as file:
            file.write(b"x")
    except OSError:
        pytest.skip("this file system takes text alone")
    assert storage.listing_fingerprint(str(root)) != before
    with pytest.raises(DataError, match=r"1 files whose names are not UTF-8 \(the first: 'caf\\udce9\.jpg'\)"):
        read_folder(folder_config(root))


def test_folders_are_found_in_any_case_and_the_exact_name_first(tmp_path: Path) -> None:
    assert find_folder(str(tmp_path), ["masks"]) is None and contents(str(tmp_path)) == "nothing"
    (tmp_path / "MASKS").mkdir()
    assert find_folder(str(tmp_path), ["masks", "mask"]) == f"{tmp_path}/MASKS"
    (tmp_path / "mask").mkdir()
    assert find_folder(str(tmp_path), ["masks", "mask"]) == f"{tmp_path}/mask"
    (tmp_path / "masks").mkdir()
    assert find_folder(str(tmp_path), ["masks", "mask"]) == f"{tmp_path}/masks"
    assert contents(str(tmp_path)) == "folders MASKS, mask, masks"


def test_what_lies_there_is_counted_by_ending(tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.heic", "c.dng", "README", "d.jpg"):
        (tmp_path / name).write_bytes(b"x")
    assert endings(["a.HEIC", "b.heic", "README"]) == ".heic 2, without ending 1"
    assert unread_note(str(tmp_path)) == [
        f"3 pictures in {tmp_path} are not read (.heic 2, .dng 1): convert them to JPEG or PNG"
    ]

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qaclims_ray.data.mask_files import MaskPicture, load_mask, read_mask
from qaclims_ray.data.mask_translation import translate, write_translated
from qaclims_ray.data.mask_values import Translation, translation_of
from qaclims_ray.errors import DataError

CLASSES = ("cat", "dog")


def picture(numbers: list[list[int]]) -> MaskPicture:
    return MaskPicture(np.array(numbers), None, None, 8)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=3), min_size=1, max_size=4),
    st.dictionaries(st.integers(0, 9), st.integers(0, 2)),
    st.none() | st.integers(0, 2),
)
def test_each_pixel_is_translated_or_counted(numbers: list[list[int]], known: dict[int, int], rest: int | None) -> None:
    labels, unlisted = translate(picture(numbers), Translation(known, None, rest))
    for given_row, found_row in zip(numbers, labels.tolist(), strict=True):
        for value, label in zip(given_row, found_row, strict=True):
            meant = known.get(value, rest if value else None)
            assert label == meant if meant is not None else str(value) in unlisted
    assert all(sum(row.count(int(value)) for row in numbers) == count for value, count in unlisted.items())


def test_colours_of_palettes_rgb_and_grey_are_one_thing(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2]], np.uint8)
    colours = np.array([[0, 0, 0], [9, 9, 9], [128, 0, 0]], np.uint8)
    indexed = Image.fromarray(values, "P")
    indexed.putpalette(colours.ravel().tolist())
    indexed.save(tmp_path / "palette.png")
    Image.fromarray(colours[values]).save(tmp_path / "rgb.png")
    translation = translation_of(("#090909=dog", "128,0,0=cat"), CLASSES)
    for name in ("palette.png", "rgb.png"):
        assert translate(read_mask(str(tmp_path / name)), translation)[0].tolist() == [[0, 2, 1]]
    assert translate(picture([[0, 9]]), translation)[0].tolist() == [[0, 2]]


def test_all_but_black_is_the_class(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[0, 0, 0], [1, 0, 0], [255, 255, 255]]], np.uint8)).save(tmp_path / "a.png")
    found = read_mask(str(tmp_path / "a.png"))
    assert translate(found, translation_of(("nonzero=cat",), CLASSES))[0].tolist() == [[0, 1, 1]]
    assert translate(picture([[0, 7, 255]]), translation_of(("nonzero=cat",), CLASSES))[0].tolist() == [[0, 1, 1]]
    ignoring = translation_of(("nonzero=cat", "255=ignore"), CLASSES)
    assert translate(picture([[0, 7, 255]]), ignoring)[0].tolist() == [[0, 1, 255]]
    with pytest.raises(DataError, match="in colours, not in numbers"):
        translate(found, translation_of(("1=cat",), CLASSES))


def test_what_is_not_listed_is_not_written(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 3], [3, 300]], np.uint16)).save(tmp_path / "a.png")
    target = tmp_path / "out" / "a.png"
    assert write_translated(str(tmp_path / "a.png"), str(target), translation_of(("3=dog",), CLASSES)) == {"300": 1}
    assert not target.exists()
    translation = translation_of(("3=dog", "300=cat"), CLASSES)
    assert write_translated(str(tmp_path / "a.png"), str(target), translation) == {}
    assert load_mask(str(target)).tolist() == [[0, 2], [2, 1]]

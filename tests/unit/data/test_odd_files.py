"""Photographs that deserve a look."""

from pathlib import Path

from PIL import Image

from qaclims_ray.data import odd_files
from qaclims_ray.data.odd_files import find_odd_files
from qaclims_ray.data.validation import RawImage
from tests.unit.data.tiny_data_sets import image_bytes

LARGE = (120, 100)


def raw(root: Path) -> list[RawImage]:
    return [RawImage(path.stem, str(path), (), None, None, ()) for path in sorted(root.iterdir())]


def test_copies_tiny_grey_and_broken_ones_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(image_bytes(1, LARGE))
    (tmp_path / "b.jpg").write_bytes(image_bytes(1, LARGE))
    (tmp_path / "c.png").write_bytes(image_bytes(2, (120, 95), ".png"))
    Image.new("L", LARGE, 7).save(tmp_path / "d.png")
    Image.new("RGB", LARGE, (9, 9, 9)).save(tmp_path / "e.jpg")
    (tmp_path / "f.jpg").write_bytes(b"no picture")
    odd = find_odd_files(raw(tmp_path))
    assert (odd.copies, odd.tiny, odd.grey, odd.unreadable) == ([("a", "b")], ["c"], ["d", "e"], ["f"])
    assert odd.looked_at == 6 and sorted(odd.sizes)[0] == (120, 95) and len(odd.sizes) == 5


def test_of_many_some_are_looked_at_the_same_ones_each_time(tmp_path: Path, monkeypatch) -> None:
    for number in range(6):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number, (10 + number, 10)))
    monkeypatch.setattr(odd_files, "MOST_LOOKED_AT", 3)
    found = find_odd_files(raw(tmp_path))
    assert found.looked_at == 3 and found == find_odd_files(raw(tmp_path))

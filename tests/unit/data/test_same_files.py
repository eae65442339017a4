"""Two artefacts made apart hold the same files, or what differs is named."""

import json
from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.same_files import compare_files
from qaclims_ray.errors import DamagedError
from tests.finished_artifacts import finished


def made(folder: Path, files: dict[str, bytes]) -> str:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    finished(Artifact(uri=str(folder), kind="masks", settings={}, verb="refine"))
    return str(folder)


NOTE = {"losses": [{"loss": 0.5, "images_per_s": 10.0}], "seal": "a"}
FASTER = {"losses": [{"loss": 0.5, "images_per_s": 20.0}], "seal": "b"}
OTHER = {"losses": [{"loss": 0.25, "images_per_s": 10.0}], "seal": "c"}


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize(
    ("theirs", "changed", "one_sided"),
    [
        ({}, (), ()),
        ({"masks/a.png": b"11"}, ("masks/a.png",), ()),
        ({"masks/a.png": b"0"}, ("masks/a.png",), ()),
        ({"masks/b.png": b"0"}, (), ("masks/b.png",)),
        ({"note.json": encoded(FASTER)}, (), ()),
        ({"note.json": encoded({**NOTE, "phase/images_per_s": 3.0})}, (), ()),
        ({"curves.json": b"{}"}, (), ()),
        ({"note.json": encoded(OTHER)}, ("note.json",), ()),
        ({"note.json": b"[1"}, ("note.json",), ()),
    ],
)
def test_what_differs_is_named(tmp_path: Path, theirs, changed, one_sided) -> None:
    files = {"masks/a.png": b"10", "note.json": encoded(NOTE)}
    found = compare_files(made(tmp_path / "first", files), made(tmp_path / "second", {**files, **theirs}))
    assert found is not None
    assert (found.changed, found.one_sided) == (changed, one_sided)
    assert found.num_files == len({**files, **theirs})
    assert found.are_same == (not changed and not one_sided)


def test_a_file_that_was_changed_since_is_no_result(tmp_path: Path) -> None:
    first = made(tmp_path / "first", {"note.json": encoded(NOTE)})
    second = made(tmp_path / "second", {"note.json": encoded(FASTER)})
    (tmp_path / "first" / "note.json").write_bytes(encoded(FASTER).replace(b"20.0", b"21.0"))
    with pytest.raises(DamagedError, match=r"note\.json"):
        compare_files(first, second)


def test_without_a_list_nothing_is_said(tmp_path: Path) -> None:
    first, second = made(tmp_path / "first", {"a": b"1"}), made(tmp_path / "second", {"a": b"1"})
    (tmp_path / "second" / "files.json").unlink()
    assert compare_files(first, second) is None

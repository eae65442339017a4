"""The list of an artefact's files; what damage does to it is in test_publishing.py."""

import hashlib
import json
from pathlib import Path

import pytest

from qaclims_ray.data import whole_files
from qaclims_ray.errors import ArtifactError

NAMES = ("a.png", 'say "x".png', "caf\u00e9/b.png", "bytes", "sha256", "back\\slash.png")


def _filled(folder: Path) -> Path:
    for number, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * number)
    return folder


def test_the_list_is_what_json_writes_of_it(tmp_path: Path) -> None:
    content = whole_files.write_list(str(_filled(tmp_path)))
    written = (tmp_path / whole_files.LIST_NAME).read_bytes()
    listed = {
        name: {"bytes": number, "sha256": hashlib.sha256(b"x" * number).hexdigest()}
        for number, name in enumerate(NAMES)
    }
    assert written == json.dumps(dict(sorted(listed.items())), indent=0).encode()
    assert content == hashlib.sha256(written).hexdigest()
    assert whole_files.faults_of(str(tmp_path), content) == {}
    (tmp_path / "meta.json").touch()
    found = whole_files.listed_files(str(tmp_path))
    assert found is not None and {name: mark.num_bytes for name, mark in found.items()} == {
        name: number for number, name in enumerate(NAMES)
    }


def test_an_empty_folder_has_an_empty_list(tmp_path: Path) -> None:
    content = whole_files.write_list(str(tmp_path))
    assert (tmp_path / whole_files.LIST_NAME).read_bytes() == b"{}"
    assert whole_files.faults_of(str(tmp_path), content) == {}


def test_a_list_is_parsed_once_for_many_parts_and_anew_when_it_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_files.write_list(str(_filled(tmp_path)))
    (tmp_path / "meta.json").touch()
    parsed = []
    original = whole_files._marks_of
    monkeypatch.setattr(whole_files, "_marks_of", lambda *given: parsed.append(given) or original(*given))
    for _ in range(3):
        assert whole_files.read_whole(f"{tmp_path}/a.png") == b""
    assert len(parsed) == 1
    (tmp_path / "a.png").write_bytes(b"other")
    whole_files.write_list(str(tmp_path))
    assert whole_files.read_whole(f"{tmp_path}/a.png") == b"other" and len(parsed) == 2


@pytest.mark.parametrize(
    "content", [b"[]", b"3", b'{"a": 3}', b'{"a": {"bytes": 1}}', b'{"a": {"bytes": "x", "sha256": "y"}}', b"{"]
)
def test_a_list_that_is_none_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / whole_files.LIST_NAME).write_bytes(content)
    (tmp_path / "meta.json").touch()
    with pytest.raises(ArtifactError, match=r"files\.json is broken"):
        whole_files.listed_files(str(tmp_path))

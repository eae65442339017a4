"""What the reader of small files says of damaged ones."""

from typing import Any

import pytest
from pydantic import TypeAdapter

from qaclims_ray.data import json_files
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.errors import ArtifactError, ConfigError

FIGURES = TypeAdapter(dict[str, float]).validate_python
NAMES = TypeAdapter(list[str]).validate_python


@pytest.mark.parametrize(
    ("content", "validate", "found"),
    [
        (b"", FIGURES, "it is empty"),
        (b'{"a": 1', FIGURES, "it is cut short"),
        (b'{"a', FIGURES, "it is cut short"),
        (b'{"a" 1}', FIGURES, "it is no JSON"),
        (b'{"a": "\xe9"}', FIGURES, "it is no text"),
        (b"[" * 100_000, FIGURES, "it is no JSON"),
        (b"null", FIGURES, "it holds null, expected an object"),
        (b"[1]", FIGURES, "it holds a list, expected an object"),
        (b"3", FIGURES, "it holds a number, expected an object"),
        (b"{}", NAMES, "it holds an object, expected a list"),
        (b'{"a": "x", "b": 1}', FIGURES, "it holds something else than expected: a: Input should be a valid number"),
    ],
)
def test_a_message_says_what_was_found_and_what_to_do(tmp_path, content: bytes, validate: Any, found: str):
    path = tmp_path / "figures.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_json_file(str(path), validate, remedy="Make it again")
    assert str(caught.value).startswith(f"{path} cannot be read: {found}")
    assert str(caught.value).endswith(". Make it again")


def test_the_caller_says_what_is_raised_and_a_whole_file_is_read_in_any_unicode(tmp_path):
    path = tmp_path / "figures.json"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_text('{"a": 1}', encoding=encoding)
        assert read_json_file(str(path), FIGURES, remedy="") == {"a": 1.0}
    path.write_text("no")
    with pytest.raises(ConfigError):
        read_json_file(str(path), FIGURES, remedy="", error=ConfigError)


def test_a_file_of_another_size_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "figures.json"
    path.write_text('{"a": 1}')
    monkeypatch.setattr(json_files, "MOST_MIB", 0)
    with pytest.raises(ArtifactError, match="it has 0 MiB, and such a file never has more than 0"):
        read_json_file(str(path), FIGURES, remedy="")

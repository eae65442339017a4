"""Places inside a run's folder, as its files hold them: they stay true when the folder is moved."""

from typing import Any

_OUT = "{out}"
"""Stands for the folder."""


def stored(value: Any, folder: str) -> Any:
    """Return a value of plain JSON types with the places inside a folder counted from it.

    Args:
        value: a path or URI, or lists and dictionaries that hold some.
        folder: absolute path or URI; empty counts no place.
    """
    folder = folder.rstrip("/")
    if isinstance(value, str):
        is_inside = bool(folder) and (value == folder or value.startswith(f"{folder}/"))
        return _OUT + value.removeprefix(folder) if is_inside else value
    if isinstance(value, dict):
        return {name: stored(item, folder) for name, item in value.items()}
    return [stored(item, folder) for item in value] if isinstance(value, list) else value


def resolved(value: Any, folder: str) -> Any:
    """Return a value that `stored` made with its places in the folder, wherever that is now."""
    if isinstance(value, str):
        is_inside = value == _OUT or value.startswith(f"{_OUT}/")
        return folder.rstrip("/") + value.removeprefix(_OUT) if is_inside else value
    if isinstance(value, dict):
        return {name: resolved(item, folder) for name, item in value.items()}
    return [resolved(item, folder) for item in value] if isinstance(value, list) else value


def stored_text(text: str, folder: str) -> str:
    """Return a sentence with the places in it counted from a folder."""
    return text.replace(f"{folder.rstrip('/')}/", f"{_OUT}/") if folder else text


def resolved_text(text: str, folder: str) -> str:
    """Return a sentence that `stored_text` made with its places in the folder."""
    return text.replace(f"{_OUT}/", f"{folder.rstrip('/')}/")

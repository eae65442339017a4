"""The one reader of the small JSON files that a run keeps, or that a user hands over.

What lies there may be cut short, emptied, or another file altogether. A reader says which shape it expects and what
helps where the file has another.
"""

import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import ValidationError

from qaclims_ray.data import storage, whole_files
from qaclims_ray.errors import ArtifactError, QaclimsError

_Shape = TypeVar("_Shape")

MOST_MIB = 256
"""No file of this sort comes near it: beyond, it is another file, which would only fill the memory."""
_FAULTS_SHOWN = 3
_NAMES = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}


def read_json_file(
    uri: str, validate: Callable[[Any], _Shape], *, remedy: str, error: type[QaclimsError] = ArtifactError
) -> _Shape:
    """Read a JSON file of a known shape.

    Args:
        uri: the file.
        validate: pydantic's check of what it must hold, a `TypeAdapter.validate_python`.
        remedy: what to do where it cannot be read.
        error: what is raised then.

    Raises:
        QaclimsError: `error`, naming the file, what was found and the remedy.
        DataError: when it is not there or may not be read.
    """
    values = parse_json_file(uri, remedy=remedy, error=error)
    try:
        return validate(values)
    except ValidationError as found:
        faults = [(".".join(map(str, e["loc"])), e["msg"].removeprefix("Value error, ")) for e in found.errors()]
        if not all(place for place, _ in faults):
            expected = "a list" if found.errors()[0]["type"] in ("list_type", "tuple_type") else "an object"
            reason = f"it holds {_NAMES.get(type(values), 'a number')}, expected {expected}"
        else:
            shown = "; ".join(f"{place}: {text}" for place, text in faults[:_FAULTS_SHOWN])
            more = f" and {len(faults) - _FAULTS_SHOWN} more" if len(faults) > _FAULTS_SHOWN else ""
            reason = f"it holds something else than expected: {shown}{more}"
        raise _unreadable(uri, reason, remedy, error) from None


def parse_json_file(uri: str, *, remedy: str, error: type[QaclimsError] = ArtifactError) -> Any:
    """Read a JSON file of any shape; see `read_json_file`."""
    if (size := storage.size(uri)) > MOST_MIB << 20:
        reason = f"it has {size >> 20} MiB, and such a file never has more than {MOST_MIB}"
        raise _unreadable(uri, reason, remedy, error)
    content = whole_files.read_whole(uri)
    if not content.strip():
        raise _unreadable(uri, "it is empty", remedy, error)
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        raise _unreadable(uri, "it is no text", remedy, error) from None
    except json.JSONDecodeError as found:
        is_cut = found.pos >= len(found.doc.rstrip()) or found.msg.startswith("Unterminated")
        what = "it is cut short" if is_cut else "it is no JSON"
        raise _unreadable(uri, f"{what} ({found})", remedy, error) from None
    except (ValueError, RecursionError) as found:  # a number of thousands of digits, or lists in lists without end
        raise _unreadable(uri, f"it is no JSON ({found})", remedy, error) from None


def _unreadable(uri: str, reason: str, remedy: str, error: type[QaclimsError]) -> QaclimsError:
    return error(f"{uri} cannot be read: {reason}. {remedy}")

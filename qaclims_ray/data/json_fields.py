"""Fields of other people's JSON, read by their meaning.

A tool may write a number as 7, 7.0 or "7", and a flag as true, 1 or "true"; these mean the same and are read. What
means something else, or nothing (1.7 as an id, "no idea" as a flag), is refused with what was found: never cut to an
integer, never taken as true for not being empty.
"""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from qaclims_ray.errors import DataError

MISSING: Any = object()
"""Stands for a field that is not there."""

_WHOLE = re.compile(r"\s*[+-]?\d{1,30}(\.0*)?\s*")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
_EXACT_FLOATS = 2**53
"""From here on not every whole number is a float."""
_SHOWN_CHARS = 60


def whole_number(value: Any) -> int:
    """Read an integer: 7, 7.0, "7", "7.0".

    Raises:
        DataError: for anything else, also true and 7.5.
    """
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer() and abs(value) < _EXACT_FLOATS:
        return int(value)
    if type(value) is str and _WHOLE.fullmatch(value):
        return int(value.strip().partition(".")[0])
    raise DataError(f"is {printable(value)}, expected a whole number")


def positive_number(value: Any) -> int:
    """Read an integer above 0, see `whole_number`.

    Raises:
        DataError: for anything else.
    """
    number = whole_number(value)
    if number <= 0:
        raise DataError(f"is {printable(value)}, expected a whole number above 0")
    return number


def flag(value: Any) -> bool:
    """Read yes or no: 0 or 1, true or false, also as text; null and an absent field are no.

    Raises:
        DataError: for anything else, also 2, 0.5 and an empty list.
    """
    if value is None or value is MISSING:
        return False
    if type(value) is bool:
        return value
    if type(value) in (int, float) and value in (0, 1):
        return value == 1
    if type(value) is str and value.strip().lower() in _FLAGS:
        return _FLAGS[value.strip().lower()]
    raise DataError(f"is {printable(value)}, expected 0 or 1")


def text(value: Any) -> str:
    """Read a text that is not blank and can be written as UTF-8.

    Raises:
        DataError: for anything else.
    """
    if type(value) is not str or not value.strip():
        raise DataError(f"is {printable(value)}, expected a text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise DataError(f"is {printable(value)}, which is no text in any encoding") from None
    return value


def numbers(value: Any) -> np.ndarray:
    """Read a flat list of finite numbers, also written as texts.

    Raises:
        DataError: for anything else, also true, null, NaN and lists in the list.
    """
    if type(value) is not list:
        raise DataError(f"is {printable(value)}, expected a list of numbers")
    try:
        if not {*map(type, value)} <= {int, float}:
            value = [_number(part) for part in value]
        found = np.asarray(value, dtype=np.float64)
    except OverflowError:
        raise DataError(f"{printable(value)} holds a number beyond all bounds") from None
    if not np.isfinite(found).all():
        raise DataError(f"{printable(value)} holds NaN or infinity, expected finite numbers")
    return found


def field(entry: dict[str, Any], name: str, read: Callable[[Any], Any]) -> Any:
    """Read one field of an object.

    Args:
        entry: the object.
        name: of the field.
        read: one of the readers above.

    Raises:
        DataError: names the field, what was found and what was expected.
    """
    value = entry.get(name, MISSING)
    try:
        return read(value)
    except DataError as error:
        raise DataError(f"{name} {error}") from None


def printable(value: Any) -> str:
    """Return a value as JSON-like text of bounded length, in ASCII."""
    if value is MISSING:
        return "absent"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        value = value[:_SHOWN_CHARS]  # a long list is not spelled out to be cut
    try:
        whole = ascii(value)
    except (ValueError, RecursionError) as error:  # an integer of thousands of digits, lists of thousands of levels
        return f"a {type(value).__name__} that cannot be printed ({type(error).__name__})"
    return whole if len(whole) <= _SHOWN_CHARS else f"{whole[:_SHOWN_CHARS]}..."


def _number(value: Any) -> float:
    if type(value) in (int, float):
        return float(value)
    if type(value) is str and _NUMBER.fullmatch(value):
        return float(value)
    raise DataError(f"holds {printable(value)} among its numbers")

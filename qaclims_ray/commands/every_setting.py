"""Every setting in words, out of the docstrings under its field: for --help-all and for the page of all settings."""

import ast
import dataclasses
import functools
import inspect
import re
import textwrap
import types
import typing
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from qaclims_ray.run_config import RunConfig

HelpLine = tuple[str, str, str]
"""Dotted name, what stands for its value (empty: seen from its type), what it means to a user."""

_ROW = r"[QRCSEDPGO]\d{1,2}"
_ROWS = rf"(?:rows? )?{_ROW}(?:(?:, | and |-)(?:rows? )?{_ROW})*"
_ROWS_ALONE = re.compile(rf" \({_ROWS}\)")
_ROWS_FIRST = re.compile(rf"\({_ROWS}[:,;] ")
_ROWS_LAST = re.compile(rf"[,;:] {_ROWS}(?=[);])")


@dataclasses.dataclass(frozen=True)
class SettingsSection:
    """Settings that stand together: the fields of one dataclass of settings."""

    name: str
    """Dotted name, such as ritc.optim; empty for those of the run itself."""
    words: str
    """What they are about."""
    settings: tuple[HelpLine, ...]
    """In the order of their fields."""


def setting_sections(config: RunConfig) -> Iterator[SettingsSection]:
    """Yield all settings of a run, those of the run itself first, each section before those inside it."""
    kinds = Counter(map(type, _parts(config)))
    # Of settings that several sections share, such as an optimiser's, each section's field says what they are for.
    shared = {kind for kind, times in kinds.items() if times > 1}
    yield from _sections(config, "", "The run as a whole.", shared)


def _parts(config: Any) -> Iterator[Any]:
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(part := getattr(config, field.name)):
            yield part
            yield from _parts(part)


def _sections(config: Any, name: str, words: str, shared: Collection[type]) -> Iterator[SettingsSection]:
    prefix = f"{name}." if name else ""
    documented, hints = documented_fields(type(config)), typing.get_type_hints(type(config))
    # The run's own parts in their order, and the methods' sections, which stand in a class above, behind them.
    fields = sorted(dataclasses.fields(config), key=lambda field: field.name not in type(config).__annotations__)
    nested = [field.name for field in fields if dataclasses.is_dataclass(getattr(config, field.name))]
    lines = tuple(
        (f"{prefix}{field.name}", placeholder_of(hints[field.name]), documented.get(field.name, ""))
        for field in fields
        if field.name not in nested
    )
    yield SettingsSection(name, words, lines)
    for inner in nested:
        part = getattr(config, inner)
        about = documented.get(inner, "") if type(part) in shared else _about(part)
        yield from _sections(part, f"{prefix}{inner}", about, shared)


def _about(config: Any) -> str:
    """Return what a dataclass of settings says of itself, in its first paragraph."""
    return " ".join(inspect.cleandoc(type(config).__doc__ or "").partition("\n\n")[0].split())


def in_words(text: str) -> str:
    """Return a docstring without the rows of docs/method.md that it names, such as (R12)."""
    text = _ROWS_LAST.sub("", _ROWS_FIRST.sub("(", _ROWS_ALONE.sub("", text)))
    return _ROWS_ALONE.sub("", text)


def named_rows(text: str) -> list[str]:
    """Return the rows of docs/method.md that a docstring names."""
    return re.findall(rf"(?<!\w)(?<![A-Za-z]-){_ROW}(?!\w)", text)


def placeholder_of(hint: Any) -> str:
    """Return what a setting's type takes, as a help shows it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return f"{{{','.join(map(str, inner))}}}"
    if origin is tuple:
        return f"{placeholder_of(inner[0])} ..." if inner else "..."
    if origin in (typing.Union, types.UnionType):
        return placeholder_of(next(one for one in inner if one is not type(None)))
    return {bool: "{True,False}", int: "N", float: "X"}.get(hint, "TEXT")


@functools.cache
def documented_fields(kind: type) -> Mapping[str, str]:
    """Return the docstrings under a dataclass's fields, inherited ones too, by name, on one line each."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__[:-1]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and is_text:
                found[field.target.id] = " ".join(str(after.value.value).split())  # type: ignore[union-attr]
    return found

"""Reading options into a dataclass by tyro, with mistakes said in one line of ours."""

import contextlib
import dataclasses
import io
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import tyro

from qaclims_ray.commands.line import HELP_ALL, Line
from qaclims_ray.errors import ConfigError, did_you_mean

_Read = TypeVar("_Read")
_BORDER = re.compile(r"[│╭╮╰╯─]+")
_RULES = ("────", "-" * 20)
"""What parts a message from the next; the second where the terminal's encoding has no boxes."""


def read_options(
    kind: type[_Read], line: Line, arguments: Sequence[str], known: Iterable[str] = (), **options: Any
) -> _Read:
    """Read arguments into a dataclass.

    Args:
        kind: the dataclass.
        line: the whole line, for usage and messages.
        arguments: what is read of it.
        known: dotted names of options besides the fields of `kind`, for "did you mean".
        options: of `tyro.cli`.

    Raises:
        ConfigError: for an option that does not exist, is missing, or has a value that does not fit.
        SystemExit: once the help is printed.
    """
    asked = ["--help" if argument == HELP_ALL else argument for argument in arguments]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, args=asked, prog=line.prog, description=line.about, **options)
    except SystemExit as ended:
        if not ended.code:
            raise
        options_known = [_as_option(name) for name in [*known, *_fields_of(kind)]]
        raise ConfigError(_in_one_line(said.getvalue(), asked, options_known, line)) from None


def _fields_of(kind: type) -> Iterator[str]:
    """Yield a dataclass's fields, and those of the dataclasses that are its fields."""
    for name, hint in typing.get_type_hints(kind).items():
        yield name
        if dataclasses.is_dataclass(hint):
            yield from (field.name for field in dataclasses.fields(hint))


def _in_one_line(said: str, arguments: Sequence[str], known: Sequence[str], line: Line) -> str:
    """Return what a person has to know of tyro's message."""
    more = f"`{line.prog} --help` says what it takes"
    text = " ".join(_paragraph(said))
    given = [_as_option(argument.partition("=")[0].lstrip("-")) for argument in arguments if argument.startswith("--")]
    unknown = [option for option in given if option not in known and option in said.replace("_", "-")]
    if "nrecognized" in said and unknown:
        others = f" (nor {', '.join(unknown[1:])})" if unknown[1:] else ""
        hint = did_you_mean(unknown[0], known)
        return f"there is no option {unknown[0]}{others}; {hint}{more}"
    if text.startswith("Missing from"):
        absent = [option for option in dict.fromkeys(re.findall(r"--[\w.-]+", text)) if option in known]
        return f"{' and '.join(absent)} must be given; {more}"
    if stray := re.match(r"Unrecognized options: (.*)", text):
        return f"{stray[1]} belongs to no option; {more}"
    return f"{_of_value(text)}; {more}" if text else more


def _of_value(text: str) -> str:
    """Say in our words what is wrong with a value; in tyro's where it says something else."""
    if choice := re.match(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of \((.*)\)", text):
        words = re.findall(r"'(.*?)'", choice[3]) or choice[3].split(", ")
        hint = did_you_mean(choice[1], words).removesuffix(" ")
        return f"{choice[2]} is {choice[1]!r}, expected one of {', '.join(words)}" + (f" ({hint})" if hint else "")
    if union := re.match(r"Error parsing (\S+): no type matching (.*?) could be instantiated from \[(.*?)\]", text):
        kinds = union[2].replace("|", " or ")
        for theirs, ours in (("{", ""), ("}", ""), ("INT", "a whole number"), ("FLOAT", "a number"), ("STR", "text")):
            kinds = kinds.replace(theirs, ours)
        return f"{union[1]} is {union[3]}, expected {kinds}"
    if number := re.match(
        r"Error parsing (\S+): (?:invalid literal for int.*?|could not convert .*?float): (.*)", text
    ):
        kind = "a whole number" if "int()" in text else "a number"
        return f"{number[1]} is {number[2].rstrip('.')}, expected {kind}"
    if several := re.match(r"Error parsing (\S+): Could not find valid parse for arguments: \[(.*)\]", text):
        return f"{several[1]} is {several[2]}, which it does not take"
    if missing := re.match(r"Missing value for argument '(.*?)'", text):
        return f"{missing[1]} stands without a value"
    return text.rstrip(". ")


def _paragraph(said: str) -> list[str]:
    """Return the words of the first part of a message in a box, without its title and borders."""
    lines = said.strip().splitlines()
    if lines and lines[0].startswith("╭"):
        lines = lines[1:]
    elif len(lines) > 1 and not lines[1].strip(" -"):
        lines = lines[2:]
    words: list[str] = []
    for one in lines:
        if any(rule in one for rule in _RULES):
            break
        words += _BORDER.sub(" ", one).split()
    return words


def _as_option(name: str) -> str:
    return "--" + name.replace("_", "-")

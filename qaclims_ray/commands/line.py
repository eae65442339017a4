"""A command line before it is read, the same for all verbs."""

from dataclasses import dataclass, replace

HELP_ALL = "--help-all"
"""Asks for every setting."""


@dataclass(frozen=True)
class Line:
    """A command line as a verb reads it."""

    arguments: tuple[str, ...]
    """What stands after the program or verb."""
    prog: str
    """What stands before it, for usage and messages."""
    about: str
    """First lines of the help."""
    default_preset: str = ""
    """Preset when none is named."""

    def asks_help(self) -> bool:
        """Whether the help is asked for."""
        return bool({"-h", "--help", HELP_ALL} & set(self.arguments))


def with_run_option(line: Line) -> Line:
    """Return a line whose first word, the folder of a run, stands as --run."""
    first = line.arguments[:1]
    return line if not first or first[0].startswith("-") else replace(line, arguments=("--run", *line.arguments))

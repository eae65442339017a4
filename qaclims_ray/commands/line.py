"""A command line before it is read, the same for all verbs."""

from dataclasses import dataclass


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
        return bool({"-h", "--help"} & set(self.arguments))

"""One verb from its line to an exit code: parse, run, one line per mistake. The command and all jobs go through it."""

import errno
import logging
import sys
from collections.abc import Sequence

from qaclims_ray import stop
from qaclims_ray.errors import ConfigError, QaclimsError, did_you_mean

MISTAKE = 2
"""Exit code for a user's mistake."""
INCOMPLETE = 1
"""Exit code when some trials failed."""
STOPPED = 130
"""Exit code after Ctrl-C, a shell's own."""
PLACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk or folder answers when it is full or may not be written."""


def run_verb(name: str, argv: Sequence[str], *, prog: str = "", default_preset: str = "") -> int:
    """Run a verb; return the exit code.

    Args:
        name: one of `VERBS`.
        argv: arguments after the program or verb.
        prog: name for usage and messages; empty takes the command's.
        default_preset: preset when none is named.
    """
    prog = prog or f"qaclims {name}"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with stop.handled(prog) as stopped:
        try:
            incomplete = _run(name, argv, prog, default_preset)
        except BaseException as error:
            # What was torn by the stop, such as a worker that got the signal too, is no news after its line.
            if stopped.code:
                return stopped.code
            if (ending := _ending(error)) is None:
                raise
            return _say(prog, *ending)
        if stopped.code:  # the interruption came where Python drops exceptions
            return stopped.code
    return _say(prog, incomplete, INCOMPLETE) if incomplete else 0


def _ending(error: BaseException) -> tuple[str, int] | None:
    """Return the line and the exit code for what a user can mend or has done, None for a mistake of ours."""
    if isinstance(error, QaclimsError):
        return f"{type(error).__name__}: {error}", MISTAKE
    # data/storage.py names its own; libraries and temporary folders meet the same disks.
    if isinstance(error, OSError) and error.errno in PLACE_ERRORS:
        return f"ResourceError: {error}. Check the permissions and the free space; {stop.KEPT}", MISTAKE
    if isinstance(error, KeyboardInterrupt):
        return f"stopped; {stop.KEPT}", STOPPED
    return None


def _run(name: str, argv: Sequence[str], prog: str, default_preset: str) -> str | None:
    # Not at the top: Ctrl-C has to end in one line from the first moment on.
    from qaclims_ray.commands.line import Line
    from qaclims_ray.commands.verbs import VERBS

    if name not in VERBS:
        raise ConfigError(f"there is no verb {name!r}; {did_you_mean(name, VERBS)}known: {', '.join(VERBS)}")
    verb = VERBS[name]
    asked = verb.parse(Line(tuple(argv), prog, verb.about, default_preset))
    from rich.console import Console

    return verb.run(asked, Console())


def _say(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {message}", file=sys.stderr)
    return code

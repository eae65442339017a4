"""One verb from its line to an exit code: parse, run, one line per mistake. The command and all jobs go through it."""

import errno
import logging
import sys
from collections.abc import Sequence

from rich.console import Console

from qaclims_ray.commands.arguments import Line
from qaclims_ray.commands.verbs import VERBS
from qaclims_ray.errors import QaclimsError

MISTAKE = 2
"""Exit code for a user's mistake."""
INCOMPLETE = 1
"""Exit code when some trials failed."""
STOPPED = 130
"""Exit code after Ctrl-C, a shell's own."""
PLACE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What a disk or folder answers when it is full or may not be written."""
KEPT = "what is finished is kept, the same command goes on"


def run_verb(name: str, argv: Sequence[str], *, prog: str = "", default_preset: str = "") -> int:
    """Run a verb; return the exit code.

    Args:
        name: one of `VERBS`.
        argv: arguments after the program or verb.
        prog: name for usage and messages; empty takes the command's.
        default_preset: preset when none is named.
    """
    verb, prog = VERBS[name], prog or f"qaclims {name}"
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        asked = verb.parse(Line(tuple(argv), prog, verb.about, default_preset))
        incomplete = verb.run(asked, Console())
    except QaclimsError as error:
        return _say(prog, f"{type(error).__name__}: {error}", MISTAKE)
    except OSError as error:
        # data/storage.py names its own; libraries and temporary folders meet the same disks.
        if error.errno not in PLACE_ERRORS:
            raise
        return _say(prog, f"ResourceError: {error}. Check the permissions and the free space; {KEPT}", MISTAKE)
    except KeyboardInterrupt:
        return _say(prog, f"stopped; {KEPT}", STOPPED)
    return _say(prog, incomplete, INCOMPLETE) if incomplete else 0


def _say(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {message}", file=sys.stderr)
    return code

"""The ``qaclims`` command: the whole pipeline, one verb per stage, ablations and prediction."""

import os
import sys
from typing import NoReturn

from qaclims_ray.commands.main import MISTAKE, run_verb

_NOBODY_READS = 141
"""Exit code where the reader of what is printed has gone, as shells give it: 128 and the signal's number."""


def main() -> None:
    """Run one verb; a user's mistake ends in one line and exit code 2."""
    try:
        try:
            _run(sys.argv[1:])
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # `qaclims help | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        sys.exit(_NOBODY_READS)


def _run(arguments: list[str]) -> NoReturn:
    if arguments[:1] == ["--version"]:
        from qaclims_ray.data.artifacts import package_version

        print(f"qaclims {package_version()}")
        sys.exit(0)
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first == "help" and rest:
        sys.exit(run_verb(rest[0], [*rest[1:], "--help"]))
    if first and first not in ("help", "-h", "--help"):
        sys.exit(run_verb(first, rest))
    from qaclims_ray.commands.verb_help import verbs_help
    from qaclims_ray.commands.verbs import VERBS

    print(verbs_help(VERBS))
    sys.exit(0 if arguments else MISTAKE)

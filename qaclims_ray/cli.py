"""The ``qaclims`` command: the whole pipeline, one verb per stage, ablations and prediction."""

import sys

from qaclims_ray.commands.main import MISTAKE, run_verb
from qaclims_ray.commands.verbs import VERBS


def main() -> None:
    """Run one verb; a user's mistake ends in one line and exit code 2."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: qaclims VERB ...\n\nverbs:")
        print("\n".join(f"  {name:<10} {verb.about}" for name, verb in VERBS.items()))
        print("\n`qaclims VERB --help` says what a verb takes.")
        sys.exit(0 if arguments else MISTAKE)
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(f"qaclims: there is no verb {verb!r}; known: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(MISTAKE)
    sys.exit(run_verb(verb, rest))

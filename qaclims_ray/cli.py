"""The ``qaclims`` command: the whole pipeline, one verb per stage, ablations and prediction."""

import sys

from qaclims_ray.commands.main import MISTAKE, run_verb


def main() -> None:
    """Run one verb; a user's mistake ends in one line and exit code 2."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["--version"]:
        from qaclims_ray.data.artifacts import package_version

        print(f"qaclims {package_version()}")
        sys.exit(0)
    if arguments and arguments[0] not in ("-h", "--help"):
        sys.exit(run_verb(arguments[0], arguments[1:]))
    from qaclims_ray.commands.verbs import VERBS

    print("usage: qaclims VERB ...\n       qaclims --version\n\nverbs:")
    print("\n".join(f"  {name:<10} {verb.about}" for name, verb in VERBS.items()))
    print("\n`qaclims VERB --help` says what a verb takes.")
    sys.exit(0 if arguments else MISTAKE)

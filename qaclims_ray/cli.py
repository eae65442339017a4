"""The ``qaclims`` command: the whole pipeline, one verb per stage, ablations and prediction."""

import sys
from collections.abc import Callable

from qaclims_ray.commands.main import (
    ablate_main,
    compare_main,
    predict_main,
    prompts_main,
    run_main,
    sync_main,
    tune_main,
)

VERBS = {
    "run": "the whole pipeline: data, corpus, texts, training, CAMs, scores, masks, final networks, report",
    "data": "read a data set into a manifest (the miniature is drawn first)",
    "corpus": "ask the VQA model about every training image",
    "text": "encode the texts of every system",
    "train": "train the classifier and every system's network",
    "cams": "compute the CAMs of every system",
    "evaluate": "score the CAMs of every system",
    "refine": "turn CAMs into pseudo masks",
    "segment": "train the final networks on the pseudo masks and score them",
    "report": "write the report; what is missing is computed first",
    "ablate": "run a table of either paper over seeds, and write it with our column beside it",
    "compare": "what differs between runs, in settings and in results, with paired bootstrap intervals",
    "predict": "masks and overlays of any images, by a trained run",
    "prompts": "what learned prompts say: nearest words, similarity maps beside manual prompts",
    "tune": "search settings of a system by Ray Tune, without masks by default",
    "sync": "send what could not be sent while the tracking server was away",
}


def main() -> None:
    """Run one verb; a user's mistake ends in one line and exit code 2."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: qaclims VERB ...\n\nverbs:")
        print("\n".join(f"  {name:<10} {text}" for name, text in VERBS.items()))
        print("\n`qaclims VERB --help` says what a verb takes.")
        sys.exit(0 if arguments else 2)
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        print(f"qaclims: there is no verb {verb!r}; known: {', '.join(VERBS)}", file=sys.stderr)
        sys.exit(2)
    others: dict[str, Callable[[list[str]], int]] = {
        "ablate": ablate_main,
        "compare": compare_main,
        "predict": predict_main,
        "prompts": prompts_main,
        "sync": sync_main,
        "tune": tune_main,
    }
    if verb in others:
        sys.exit(others[verb](rest))
    sys.exit(run_main(rest, prog=f"qaclims {verb}", description=VERBS[verb], until=verb))

"""The table of all faults as a page: docs/results/chaos.md."""

import collections
import re
import tempfile
from collections.abc import Sequence

from tests.chaos.outcome import FAULT, Outcome

_HEAD = """# Faults: nothing lost, nothing silent

```sh
make chaos N=200        # or: python -m tests.chaos --faults 200 --seed 1000
```

This page was written by that command with `--records docs/results/chaos.jsonl --out docs/results/chaos.md`, call
after call: each adds its rows to the first file, and the second is made of all of them. A fault that was tried again,
once what it had shown was mended in the package or in this command, counts by its last try; the first file has all.

Small runs of the miniature world are harmed, the same command is called again, and what it leaves is held against a run
that nothing happened to: files bit for bit (but for times of day and images a second), no half file, no workshop and no
mark, MLflow with one run and no step twice, and no process left. What is promised, and which test holds it:
[reliability.md](../reliability.md).

- **Struck while it works**: kills (of a worker, of a trial, of Ray's services, of one of two nodes, of the command, of
  MLflow's server), stops, a full disk (a small one of memory, mounted for it), a store of MLflow that is locked, a
  clock that jumps, a bucket that answers slowly, with errors or with old listings. The command may go on, or end with
  one line; the same command again has to leave *the same*. A training that had a whole checkpoint goes on from it.
- **Damaged between two calls**: every kind of file that a finished or stopped run keeps, in every way. *repaired*: the
  same command left what an undisturbed run leaves. *repaired when read*: it read nothing of the file; the first one
  that did repaired it. *told*: one error that names the file and what to do. *made nothing of it*: nothing is made from
  this file, and all others are right.
"""


def page_of(outcomes: Sequence[Outcome]) -> str:
    """Return the page: how many of what, where, and a row for each fault."""
    struck = sum(outcome.moment.endswith(("began", "start")) for outcome in outcomes)
    lines = [
        _HEAD,
        f"**{len(outcomes)} faults were tried** ({struck} of them struck a command at work), and "
        f"{_number_of(outcomes, FAULT)} were not got over. Those of the table were tried, and no others.",
        "",
    ]
    for where, count in collections.Counter(outcome.where for outcome in outcomes).items():
        seeds = [outcome.seed for outcome in outcomes if outcome.where == where]
        lines.append(f"{count} on {where}; seeds {min(seeds)} to {max(seeds)}.")
    lines += [
        "",
        *_counts(outcomes),
        "",
        "| what | fault | moment | seed | ending | told |",
        "|---|---|---|---|---|---|",
    ]
    for outcome in sorted(outcomes, key=lambda one: (one.moment.endswith("began"), one.what, one.fault), reverse=True):
        told = _short(outcome.told)
        row = (outcome.what, outcome.fault, outcome.moment, outcome.seed, outcome.ending, told)
        lines.append("| " + " | ".join(str(value).replace("|", "/") for value in row) + " |")
    return "\n".join(lines) + "\n"


def _counts(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the rows of a table: fault -> how often it ended how."""
    endings = list(dict.fromkeys(outcome.ending for outcome in sorted(outcomes, key=lambda one: one.ending == FAULT)))
    counts = collections.Counter((outcome.fault, outcome.ending) for outcome in outcomes)
    lines = [f"| fault | tried | {' | '.join(endings)} |", "|---|---|" + "---|" * len(endings)]
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        own = [counts[fault, ending] for ending in endings]
        lines.append(f"| {fault} | {sum(own)} | {' | '.join(map(str, own))} |")
    return lines


def _number_of(outcomes: Sequence[Outcome], ending: str) -> int:
    return sum(outcome.ending == ending for outcome in outcomes)


def _short(told: str) -> str:
    """Return an error without the folders of this machine."""
    place = re.escape(tempfile.gettempdir()) + r"/[^ :]*/(fault|struck)-\d+"
    told = re.sub(place, "RUNS", told)
    told = re.sub(re.escape(tempfile.gettempdir()) + r"/[^ ;:]*/qaclims-ray-\w+", "LOGS", told)
    return told if len(told) <= 160 else f"{told[:157]}..."

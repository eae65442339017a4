"""Reads thousands of changed files: ``python -m tests.fuzz --inputs 10000``.

Every file that people hand over, or that a run keeps, is cut, flipped, spliced or filled with other values; its reader
has to give a result or one clear error. Prints a table as Markdown; ends with 1 where there was a fault, and names the
seed that makes it again (``--readers NAME --seed SEED --inputs 1``).
"""

import argparse
import collections
import datetime
import importlib.metadata
import os
import platform
import sys
import time

import torch

from tests.fuzz.readers import READERS
from tests.fuzz.trials import Trial, all_trials


def main() -> int:
    """Parse the arguments, try, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="the first one")
    parser.add_argument("--readers", nargs="*", default=[], help="words of their names; default all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = [name for name in READERS if not arguments.readers or any(word in name for word in arguments.readers)]
    number = -(-arguments.inputs // len(names))
    started, found = time.process_time(), collections.defaultdict(list)
    for trial in all_trials(names, number, first_seed=arguments.seed):
        found[trial.reader].append(trial)
        if trial.outcome == "fault":
            print(f"fault: --readers {trial.reader!r} --seed {trial.seed}: {trial.told}", file=sys.stderr, flush=True)
    print(table(dict(found), time.process_time() - started))
    return int(any(trial.outcome == "fault" for trials in found.values() for trial in trials))


def table(found: dict[str, list[Trial]], cpu_s: float) -> str:
    """Return what happened as Markdown: readings, refusals and faults of each reader."""
    counts = {name: collections.Counter(trial.outcome for trial in trials) for name, trials in found.items()}
    lines = ["| what | inputs | read | refused with one clear error | faults |", "|---|---|---|---|---|"]
    for name, count in [*counts.items(), ("all together", sum(counts.values(), collections.Counter()))]:
        shown = (count.total(), count["read"], count["refused"], count["fault"])
        lines.append(f"| {name} | {' | '.join(f'{number:,}' for number in shown)} |")
    seeds = [trial.seed for trials in found.values() for trial in trials]
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "pillow", "pyarrow"))
    conditions = f"{datetime.date.today()}, {where}, {versions}; seeds {min(seeds)} to {max(seeds)}, {cpu_s:.0f} CPU s."
    return "\n".join([*lines, "", conditions])


if __name__ == "__main__":
    sys.exit(main())

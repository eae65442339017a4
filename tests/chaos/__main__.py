"""Hundreds of faults on small runs: ``python -m tests.chaos --faults 200``.

One in eight strikes a command while it works (kills, stops, a full disk, a locked store, a clock that jumps, a store
that answers badly); the others damage a file that a run keeps between two calls, or call it with other settings in
between. After each the same command is called again, and what it leaves is held against an undisturbed run. Writes a
table as Markdown; ends with 1 where a fault was not got over. ``--only WORDS`` makes single ones again.
"""

import argparse
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from qaclims_ray.cluster.session import Needs, ray_session
from tests.chaos.outcome import FAULT, Outcome, keep, read_kept
from tests.chaos.page import page_of
from tests.chaos.struck import Struck
from tests.chaos.sweep import Sweep
from tests.cluster.conftest import SETTINGS

STRUCK_EACH = 8
"""One fault in so many strikes a command at work: it costs as much as ten of the others."""


def main() -> int:
    """Parse the arguments, do harm, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="in all")
    parser.add_argument("--struck", type=int, help="of them those that strike a command at work; default one in eight")
    parser.add_argument("--seed", type=int, default=0, help="decides which, where and when")
    parser.add_argument("--only", nargs="*", default=[], help="words of what, fault or moment; default all")
    parser.add_argument("--folder", help="where runs are made and kept for the next call; default a temporary one")
    parser.add_argument("--records", help="file to which every outcome is added; the table is of all that it holds")
    parser.add_argument("--out", help="file of the table; default: it is printed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    struck = arguments.faults // STRUCK_EACH if arguments.struck is None else arguments.struck
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder, records = Path(arguments.folder or made).absolute(), Path(arguments.records or f"{made}/records.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        drawn = itertools.chain(
            struck_commands(folder / "struck", struck, arguments.seed, arguments.only),
            damaged_files(folder / "sweep", arguments.faults - struck, arguments.seed, arguments.only),
        )
        for outcome in drawn:
            keep(outcome, records)
            print(f"{outcome.ending}: {outcome}", file=sys.stderr, flush=True)
        outcomes = read_kept(records)
    text = page_of(outcomes)
    Path(arguments.out).write_text(text) if arguments.out else print(text)
    return int(any(outcome.ending == FAULT for outcome in outcomes))


def struck_commands(folder: Path, number: int, seed: int, words: list[str]) -> Iterator[Outcome]:
    """Strike so many commands at work."""
    struck = Struck(folder)
    plans = [pair for pair in struck.plans(random.Random(seed)) if _fits(words, *pair)]
    for position, (work, strike) in enumerate(itertools.islice(itertools.cycle(plans), number if plans else 0)):
        yield struck.fault(work, strike, seed + position)


def damaged_files(folder: Path, number: int, seed: int, words: list[str]) -> Iterator[Outcome]:
    """Do so much harm between two calls; one Ray serves them all."""
    if not number:
        return
    with ray_session(Needs(cpus=4)):
        sweep = Sweep(folder)
        plans = [plan for plan in sweep.plans(random.Random(seed)) if _fits(words, *plan)]
        for position, plan in enumerate(itertools.islice(itertools.cycle(plans), number if plans else 0)):
            yield sweep.fault(*plan, seed + position)


def _fits(words: list[str], *names: str) -> bool:
    return not words or any(word in " | ".join(names) for word in words)


if __name__ == "__main__":
    sys.exit(main())

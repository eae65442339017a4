"""Hundreds of faults on small runs: ``python -m tests.chaos --faults 200``.

One in eight strikes a command while it works (kills, stops, a full disk, a locked store, a clock that jumps), and one
in forty has its output in a bucket that answers badly; the others damage a file that a run keeps between two calls.
After each the same command is called again, and what it leaves is held against an undisturbed run. Writes a table as
Markdown; ends with 1 where a fault was not got over. ``--only WORDS`` makes single ones again.
"""

import argparse
import itertools
import os
import random
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from qaclims_ray.cluster.session import Needs, ray_session
from tests.chaos.buckets import IN_BUCKET, STORES, BadStores, served_buckets
from tests.chaos.outcome import FAULT, NOT_STRUCK, Outcome, keep, read_kept
from tests.chaos.page import page_of
from tests.chaos.struck import Struck
from tests.chaos.sweep import Sweep
from tests.cluster.conftest import SETTINGS

STRUCK_EACH, STORED_EACH = 8, 40
"""One fault in so many strikes a command at work, which costs as much as ten of the others, or has a bad store."""


def main() -> int:
    """Parse the arguments, do harm, write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200, help="in all")
    parser.add_argument("--struck", type=int, help="of them those that strike a command at work; default one in eight")
    parser.add_argument("--stored", type=int, help="of them those with a bad store; default one in forty")
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
    stored = arguments.faults // STORED_EACH if arguments.stored is None else arguments.stored
    with tempfile.TemporaryDirectory(prefix="chaos-") as made:
        folder, records = Path(arguments.folder or made).absolute(), Path(arguments.records or f"{made}/records.jsonl")
        folder.mkdir(parents=True, exist_ok=True)
        wanted = Wanted(arguments.seed, arguments.only, read_kept(records) if records.is_file() else [])
        drawn = itertools.chain(
            struck_commands(folder / "struck", struck, wanted),
            bad_stores(folder / "stored", stored, wanted),
            damaged_files(folder / "sweep", arguments.faults - struck - stored, wanted),
        )
        for outcome in drawn:
            if outcome.ending != NOT_STRUCK:
                keep(outcome, records)
            print(f"{outcome.ending}: {outcome}", file=sys.stderr, flush=True)
        outcomes = read_kept(records)
    text = page_of(outcomes)
    Path(arguments.out).write_text(text) if arguments.out else print(text)
    return int(any(outcome.ending == FAULT for outcome in outcomes))


@dataclass(frozen=True)
class Wanted:
    """Which faults are drawn."""

    seed: int
    """Of their order, and the first one's own."""
    words: list[str]
    """Words of what, fault or moment; none takes all."""
    known: list[Outcome]
    """Those that were tried before, but for faults of ours, which are tried again."""

    def seeds(self, plans: Iterable[tuple[str, ...]], number: int) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield so many plans, each with its seed."""
        tried = {(one.seed, one.fault) for one in self.known if one.ending != FAULT}
        chosen = [one for one in plans if not self.words or any(word in " | ".join(one) for word in self.words)]
        turns = enumerate(itertools.cycle(chosen), self.seed)
        fresh = ((seed, plan) for seed, plan in turns if (seed, plan[-1]) not in tried)
        return itertools.islice(fresh, number if chosen else 0)


def struck_commands(folder: Path, number: int, wanted: Wanted) -> Iterator[Outcome]:
    """Strike so many commands at work."""
    struck = Struck(folder)
    for seed, (work, strike) in wanted.seeds(struck.plans(random.Random(wanted.seed)), number):
        yield struck.fault(work, strike, seed)


def bad_stores(folder: Path, number: int, wanted: Wanted) -> Iterator[Outcome]:
    """Make so many corpora in buckets that answer badly; one Ray serves them all."""
    if not number:
        return
    with served_buckets() as served, ray_session(Needs(cpus=4)):
        stores = BadStores(folder, served)
        for seed, (_, store) in wanted.seeds([(IN_BUCKET, store) for store in STORES], number):
            yield stores.fault(store, seed)


def damaged_files(folder: Path, number: int, wanted: Wanted) -> Iterator[Outcome]:
    """Do so much harm between two calls; one Ray serves them all."""
    if not number:
        return
    with ray_session(Needs(cpus=4)):
        sweep = Sweep(folder)
        for seed, (moment, kind, way) in wanted.seeds(sweep.plans(random.Random(wanted.seed)), number):
            yield sweep.fault(moment, kind, way, seed)


if __name__ == "__main__":
    sys.exit(main())

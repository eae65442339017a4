"""The system that comes closest to full supervision on the miniature, seed by seed: QA-CLIMS in rounds.

    python -m benchmarks.best_of --work runs/methods --seeds 20 21 22
    python -m benchmarks.best_of --work runs/methods --table docs/results/best_of.md

Makes what is missing by the parts of `benchmarks/methods.py`, in this process and without Ray, and adds it to
docs/results/methods.jsonl: QA-CLIMS's seeds, masks and final network, its further rounds, and the fully supervised
network. A call that is cut off goes on. With ``--table`` nothing is trained.
"""

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.method_records import seeds_parser, show
from benchmarks.methods import ROWS, Row, conditions, lines_of, measure
from qaclims_ray.systems.table import SUPERVISED

IN_ROUNDS = next(row for row in ROWS if row.rounds > 1)
FIGURES = {"mask": "mask, train", "final": "network, val", "final_crf": "+ CRF, val"}


def main() -> None:
    """Parse the arguments; measure what is missing, print the tables."""
    asked = seeds_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    if not asked.table:
        for seed in asked.seeds:
            for row in (IN_ROUNDS, Row(system=SUPERVISED)):
                measure(row, seed, asked.work, "final")
    show(f"{conditions()}\n\n{tables(lines_of(), asked.seeds)}", asked.table)


def figures_of(lines: Sequence[dict[str, Any]], seed: int) -> list[dict[str, float]]:
    """Return a seed's figures in points, one entry a round, and full supervision last; none where one is missing."""
    keys = [Row(system=IN_ROUNDS.system, rounds=number).key for number in range(1, IN_ROUNDS.rounds + 1)]
    found = []
    for key in [*keys, SUPERVISED]:
        own = {
            name: 100 * line[name]
            for line in lines
            if (line["row"], line["seed"]) == (key, seed)
            for name in FIGURES
            if name in line
        }
        found.append(own)
    return found if all("final_crf" in one for one in found) else []


def tables(lines: Sequence[dict[str, Any]], seeds: Sequence[int]) -> str:
    """Return what each round makes, and how far it is from full supervision, over the seeds that are whole."""
    whole = {seed: found for seed in seeds if (found := figures_of(lines, seed))}
    names = [f"round {number}" for number in range(1, IN_ROUNDS.rounds + 1)] + ["fully supervised"]
    heads = [*FIGURES.values(), "to full supervision", "+ CRF", "+ CRF, by seed"]
    rows = [f"Seeds {', '.join(map(str, whole))}.", "", f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for at, name in enumerate(names):
        own, best = [found[at] for found in whole.values()], [found[-1] for found in whole.values()]
        cells = [_cell([one[figure] for one in own if figure in one]) for figure in FIGURES]
        gaps = {f: [one[f] - other[f] for one, other in zip(own, best, strict=True)] for f in ("final", "final_crf")}
        if name == names[-1]:
            cells += ["-"] * 3
        else:
            by_seed = ", ".join(f"{gap:+.1f}" for gap in gaps["final_crf"])
            cells += [_cell(gaps["final"], "+.1f"), _cell(gaps["final_crf"], "+.1f"), by_seed]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float], form: str = ".1f") -> str:
    if not values:
        return "-"
    spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):{form}}{spread}"


if __name__ == "__main__":
    main()

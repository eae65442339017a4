"""Seeds without training on the miniature: what was chosen on one seed, and what it gives on others.

    python benchmarks/patch_text.py --work runs/patch_text

Runs the miniature up to its scored seeds and prints the tables of docs/results/patch_text.md. What is there is not made
again, so a call that is cut off goes on.
"""

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import System, with_overrides
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.results import Results
from qaclims_ray.systems.table import with_systems

SYSTEMS = ("patch_text", "patch_text_answers")
BLOCKS = (1, 2, 4)
WEIGHTS = (0.0, 0.5, 0.75, 1.0, 1.5)


def main() -> None:
    """Parse the arguments; run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--choose", type=int, default=10, help="seed on which settings are chosen, with masks")
    parser.add_argument("--report", type=int, nargs="*", default=[20, 21, 22], help="seeds they are tried on")
    arguments = parser.parse_args()
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
    print(f"torch {importlib.metadata.version('torch')}; seed mIoU, %, * chosen with pixel labels")
    variants = {(blocks, weight): variant(blocks, weight) for blocks in BLOCKS for weight in WEIGHTS}
    found = seeds(arguments.work, arguments.choose, [one.name for one in variants.values()], list(variants.values()))
    print(f"\n| seed {arguments.choose}, best threshold * | {' | '.join(f'{weight:g} off' for weight in WEIGHTS)} |")
    print("|---" * (len(WEIGHTS) + 1) + "|")
    for blocks in BLOCKS:
        cells = [f"{100 * found.scores[variants[blocks, weight].name].seed.miou_best:.1f}" for weight in WEIGHTS]
        print(f"| last {blocks} of 4 blocks | {' | '.join(cells)} |")
    by_seed = {seed: seeds(arguments.work, seed, SYSTEMS) for seed in arguments.report}
    print(f"\n| | {' | '.join(f'seed {seed}' for seed in by_seed)} |")
    print("|---" * (len(by_seed) + 1) + "|")
    for system in SYSTEMS:
        scores = [each.scores[system].seed for each in by_seed.values()]
        label_free = [f"{100 * one.miou_fixed:.1f}" for one in scores]
        best = [f"{100 * one.miou_best:.1f}" for one in scores]
        print(f"| {system}, threshold chosen without masks | {' | '.join(label_free)} |")
        print(f"| {system}, best threshold * | {' | '.join(best)} |")


def variant(num_blocks: int, background_weight: float) -> System:
    """Return seeds of answers with other settings."""
    return System(
        name=f"blocks_{num_blocks}_off_{background_weight:g}",
        like="patch_text_answers",
        overrides={"patch_text.num_blocks": num_blocks, "patch_text.background_weight": background_weight},
    )


def seeds(work: Path, seed: int, systems: Sequence[str], variants: Sequence[System] = ()) -> Results:
    """Return the scores of a run's seeds; what is missing is made."""
    config = with_systems(preset("miniature"), list(systems), variants)
    config = with_overrides(config, {"seed": seed, "goal": "seed", "tracking.enabled": False})
    return run_pipeline(config, str(work / f"seed-{seed}"), until="evaluate").results


if __name__ == "__main__":
    main()

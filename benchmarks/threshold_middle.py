"""Thresholds chosen without masks: the highest figure beside the middle of the highest, and how far chance moves both.

    python -m benchmarks.threshold_middle --work runs/methods --seeds 10 11
    python -m benchmarks.threshold_middle --work runs/methods --seeds 20 --systems baseline ritc_class_names qa_clims

Makes the seeds of each system in this process, without Ray (networks that `benchmarks.methods` left in the folder are
taken), rates every threshold on each image, and draws as many images as a run looks at, with replacement, 200 times.
Costs are points of seed mIoU below the best of the thresholds, over all images; that best uses pixel labels.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor

from benchmarks.affinity import conditions
from benchmarks.local_seeds import local_seeds
from benchmarks.methods import local_run
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores
from qaclims_ray.evaluation.threshold import LEVELS, middle_of_top, rate_thresholds
from qaclims_ray.stages.threshold import IMAGES

Choice = Callable[[Tensor], int]
_SYSTEMS = ["baseline", "ritc_class_names", "qa_clims", "patch_text", "patch_text_answers"]
_DRAWINGS = 200
_POWERS = (20, 40, 80)


def main() -> None:
    """Parse the arguments; print a row for each system and seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[10, 11])
    parser.add_argument("--systems", nargs="+", default=_SYSTEMS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{conditions()} Costs of all images; in brackets mean / most of {_DRAWINGS} drawings of {IMAGES} images.\n")
    print(f"| seed, system | best (**pixel labels**) | {' | '.join(choices())} |")
    print("|---" * (len(choices()) + 2) + "|")
    for seed in asked.seeds:
        for system in asked.systems:
            print(f"| {seed}, {system} | {row(asked.work, seed, system)} |", flush=True)


def choices() -> dict[str, Choice]:
    """Return the ways to take a threshold from the figures of all, by name."""
    found: dict[str, Choice] = {"highest": lambda figures: int(figures.argmax())}
    return found | {f"middle, power {power}": functools.partial(middle_of_top, power=power) for power in _POWERS}


def row(work: Path, seed: int, system: str) -> str:
    """Return the cells of a system."""
    rated, miou = figures(work, seed, system)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(0, len(rated), (_DRAWINGS, IMAGES), generator=generator)
    cells = [f"{miou.max():.1f} ({LEVELS[int(miou.argmax())]:g})"]
    for choose in choices().values():
        at = choose(rated.mean(0))
        costs = torch.stack([miou.max() - miou[choose(rated[some].mean(0))] for some in drawn])
        cells.append(f"{miou.max() - miou[at]:.1f} at {LEVELS[at]:g} ({costs.mean():.1f} / {costs.max():.1f})")
    return " | ".join(cells)


def figures(
    work: Path, seed: int, system: str
) -> tuple[Float64[Tensor, "image threshold"], Float64[Tensor, " threshold"]]:
    """Return what each image says of each threshold, and the mIoU of the seeds there, %; kept in the folder."""
    kept = work / "thresholds" / f"{seed}-{system}.pt"
    if not kept.is_file():
        seeds = local_seeds(local_run("miniature", seed, work), system)
        sweep, rated = ThresholdSweep(LEVELS, len(seeds.classes)), []
        for scene in seeds.scenes:
            assert scene.cam.full is not None
            sweep.update(scene.cam, scene.truth, scene.record.labels)
            rated.append(rate_thresholds(scene.pixels, scene.cam.full, LEVELS))
        curve = seed_scores(sweep, LEVELS[0], seeds.classes).curve
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save((torch.stack(rated), 100 * torch.tensor(curve.miou, dtype=torch.float64)), kept)
    found: tuple[Tensor, Tensor] = torch.load(kept, weights_only=True)
    return found


if __name__ == "__main__":
    main()

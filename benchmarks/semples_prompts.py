"""Where SemPLeS's learned prompts lie by how they are learned, and what refinement makes of them; no Ray.

    python -m benchmarks.semples_prompts --work runs/semples_prompts --seeds 10 --regions true --images 150
    python -m benchmarks.semples_prompts --work runs/semples_prompts --seeds 10 11
    python -m benchmarks.semples_prompts --work runs/semples_prompts --ways --refine preset text_weight=0.3
    python -m benchmarks.semples_prompts --work runs/semples_prompts --seeds 20 21 22 --print-only

The prompt step alone is learned in all `--ways` at once, on the background regions of a matched network, and the
prompts' texts are looked at by cosines; no mask is read. The miniature knows which stuff and which things stand around
a class. With ``--regions true`` the regions are cut by true masks, the best that a network could give: that shows what
the CLIP and the losses do by themselves. With ``--refine`` the whole of SemPLeS follows, scored by masks. A way is
`preset` or settings of `semples.prompt`, as "similarity=clamp text_weight=0.3". What was measured is kept.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.prompt_ground import PRESET, Ground, config_of, matched_ground, places, prompts_of, true_ground

if TYPE_CHECKING:
    from benchmarks.miniature_results import LocalRun

FREE_WAYS = tuple(f"free text_weight={weight:g}" for weight in (0, 0.02, 0.1, 0.2, 0.3, 0.5, 0.7, 1))
WAYS = (
    *FREE_WAYS, "learn=false",
    PRESET, "text_weight=0", "text_weight=0.02", "text_weight=0.3", "text_weight=0.5", "text_weight=1",
    "image_weight=0", "image_weight=0 similarity=clamp", "similarity=clamp", "similarity=clamp text_weight=0.3",
    "init=uniform", "init=normal", "init=uniform similarity=clamp",
    "length=1", "length=16", "length=16 text_weight=0.3",
)  # fmt: skip
"""One choice after the other away from the preset's, and some that stand in each other's way together."""
COLUMNS = {
    "class": "cosine to class",
    "stuff": "to its usual stuff",
    "around": "to its other surroundings",
    "other": "to other stuff",
    "reads_around": "nearest word is around it, of 8",
    "reads_class": "is its class",
    "background": "to background regions",
    "foreground": "to foreground regions",
    "alive": "pairs with a gradient in Eq. 3",
    "image_loss": "L_I",
    "text_loss": "L_T",
}


def main() -> None:
    """Parse the arguments; measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of networks and figures")
    parser.add_argument("--seeds", type=int, nargs="*", default=[10, 11])
    parser.add_argument("--regions", choices=("matched", "true"), default="matched", help="what prompts are learned on")
    parser.add_argument("--images", type=int, default=600, help="with --regions true: how many")
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="how prompts are learned")
    parser.add_argument("--refine", nargs="*", default=[], help="ways that the whole of SemPLeS is trained with")
    parser.add_argument("--print-only", action="store_true", help="show what was measured")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    kept, refined = asked.work / f"places-{asked.regions}.jsonl", asked.work / "refined.jsonl"
    for seed in () if asked.print_only else asked.seeds:
        todo = [way for way in asked.ways if not rows_of(kept, [seed], way)]
        if todo:
            ground = ground_of(asked.work, seed, asked.regions, asked.images)
            for way, prompts in prompts_of(ground, todo):
                if not rows_of(kept, [seed], way):
                    _keep(kept, {"seed": seed, "way": way, **places(ground, prompts)})
        for way in asked.refine:
            if not rows_of(refined, [seed], way):
                _keep(refined, {"seed": seed, "way": way, **refined_by(asked.work, seed, way)})
    print(conditions(asked.seeds))
    print(places_table(rows_of(kept, asked.seeds)))
    print(refined_table(rows_of(refined, asked.seeds)))


def ground_of(work: Path, seed: int, regions: str, images: int) -> Ground:
    """Return what prompts are learned on."""
    return true_ground(work, seed, images) if regions == "true" else matched_ground(run_of(work, seed))


def run_of(work: Path, seed: int, way: str = PRESET) -> "LocalRun":
    """Return a seed's run with the settings of a way."""
    from benchmarks.miniature_results import LocalRun

    return LocalRun(config_of(seed, way), work / f"seed-{seed}")


def _keep(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as lines:
        lines.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)


def rows_of(path: Path, seeds: Sequence[int], way: str = "") -> list[dict[str, Any]]:
    """Return what was measured on some seeds, in one way or in all."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in rows if row["seed"] in seeds and way in ("", row["way"])]


def refined_by(work: Path, seed: int, way: str) -> dict[str, Any]:
    """Train SemPLeS to its end with prompts that are learned in a way, or a system by its name; score seeds and masks.

    Systems are named with a colon, as "system:semples_match_longer".
    """
    from benchmarks.local_seeds import local_seeds, mask_figures, seed_figures

    system = way.removeprefix("system:") if way.startswith("system:") else "semples"
    run = run_of(work, seed, PRESET if way.startswith("system:") else way)
    seconds, seeds = run.cpu_seconds(system), local_seeds(run, system)
    figures = {"cpu_s": seconds, "seed": seed_figures(seeds)}
    return {**figures, "crf": mask_figures(seeds, ("crf",)), "pamr": mask_figures(seeds, ("pamr",))}


def conditions(seeds: Sequence[int]) -> str:
    """Return where and with what this was measured."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "open_clip_torch"))
    where = f"{platform.machine()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}"
    return f"{date.today()}, {where}, {versions}; seeds {', '.join(map(str, seeds))}"


def places_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return where prompts lie, means over seeds, in Markdown."""
    lines = ["", f"| prompts | {' | '.join(COLUMNS.values())} | seeds |", "|---" * (len(COLUMNS) + 2) + "|"]
    for way, own in _by_way(rows).items():
        cells = [f"{statistics.fmean(row[column] for row in own):.2f}" for column in COLUMNS]
        lines.append(f"| {way} | {' | '.join(cells)} | {len(own)} |")
    return "\n".join(lines) if rows else ""


def refined_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return what refinement made of prompts: mIoU by seed, in Markdown; * marks what pixel labels chose."""
    heads = ["seed, label-free", "seed, best *", "CRF, label-free", "PAMR, label-free", "PAMR, best *"]
    picks = [("seed", "miou"), ("seed", "best"), ("crf", "miou"), ("pamr", "miou"), ("pamr", "best")]
    more = ["coverage", "on co-occurring stuff", "elsewhere", "CPU seconds", "seeds"]
    lines = ["", f"| prompts | {' | '.join([*heads, *more])} |", "|---" * (len(heads) + len(more) + 1) + "|"]
    for way, own in _by_way(rows).items():
        cells = [points([100 * row[stage][figure] for row in own]) for stage, figure in picks]
        for figure in ("coverage", "context", "elsewhere"):
            cells.append(f"{statistics.fmean(row['seed'][figure] for row in own):.2f}")
        cells += [f"{statistics.fmean(row['cpu_s'] for row in own):.0f}", str(len(own))]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) if rows else ""


def _by_way(rows: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {way: [row for row in rows if row["way"] == way] for way in dict.fromkeys(row["way"] for row in rows)}


def points(values: Sequence[float]) -> str:
    """Return a mean, and in brackets what it is of, seed by seed."""
    shown = f"{statistics.fmean(values):.1f}"
    return shown if len(values) == 1 else f"{shown} ({', '.join(f'{value:.1f}' for value in values)})"


if __name__ == "__main__":
    main()

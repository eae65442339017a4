"""Stage by stage on photographs in VOC's layout: seed, CRF, IRN, both, final network, by the pipeline itself.

    python benchmarks/voc_sample.py --data DIR/voc_sample --weights FILE --seeds 1 2 --work runs/photos
    python benchmarks/voc_sample.py --data DIR/voc_sample --weights FILE --seeds 1 2 --work runs/photos --print-only

Neither photographs nor weights are part of the project. `--preset` names what is run, `--set NAME=JSON` changes single
settings of it. Figures are kept beside the runs, so a call that is cut off goes on.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.pipeline import run_pipeline

REFINEMENTS = ("crf", "irn", "irn+crf")
"""Steps whose masks are scored; the last one's train the final network."""
NETWORK_ROWS = {
    "segmentation_on_seeds": "final network, same images",
    "segmentation_crf_on_seeds": "final network + CRF, same images",
    "segmentation": "final network, val",
    "segmentation_crf": "final network + CRF, val",
}
_SYSTEM = "baseline"


def main() -> None:
    """Parse the arguments; run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder in VOC's layout, with masks to score with")
    parser.add_argument("--weights", required=True, help="ImageNet weights of the preset's backbone")
    parser.add_argument("--preset", default="voc12_mobilenet")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="settings on top of the preset's")
    parser.add_argument("--masks", nargs="+", default=REFINEMENTS, help="refinements; the last trains the network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, one per seed")
    parser.add_argument("--print-only", action="store_true", help="print what is there and run nothing")
    arguments = parser.parse_args()
    own = {name: json.loads(value) for name, _, value in (item.partition("=") for item in arguments.set)}
    places = {"data.root": arguments.data, "cam_net.weights": arguments.weights, "tracking.enabled": False}
    config = with_overrides(preset(arguments.preset), {**places, **own})
    folders = {seed: arguments.work / f"seed-{seed}" for seed in arguments.seeds}
    for seed, folder in folders.items():
        if not arguments.print_only:
            run_seed(with_overrides(config, {"seed": seed}), folder, arguments.masks)
    found = {seed: folder / "figures.json" for seed, folder in folders.items()}
    rows = {seed: json.loads(path.read_text()) for seed, path in found.items() if path.is_file()}
    print(table(arguments.preset, own, rows))


def run_seed(config: RunConfig, folder: Path, refinements: Sequence[str]) -> None:
    """Run one seed up to its final network, every refinement on the way, and keep its figures after each stage."""
    path = folder / "figures.json"
    figures: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    console, started = Console(), time.perf_counter()

    def keep(**found: float) -> None:
        figures.update(found)
        path.write_text(json.dumps(figures, indent=2))

    for name in refinements:
        if (row := f"pseudo mask: {name}") in figures:
            continue
        refined = with_overrides(config, {"masks.steps": name.split("+")})
        outcome = run_pipeline(refined, str(folder), until="refine", console=console)
        seed, masks = outcome.results.scores[_SYSTEM].seed, outcome.results.masks[_SYSTEM].scores
        assert masks is not None, "the photographs have masks"
        keep(**_seed_rows(seed), **{row: masks.miou_fixed})
    if set(NETWORK_ROWS.values()) <= set(figures):
        return
    final = with_overrides(config, {"masks.steps": refinements[-1].split("+")})
    found = run_pipeline(final, str(folder), console=console).results.of(_SYSTEM)
    keep(**{words: found[stage].miou_fixed for stage, words in NETWORK_ROWS.items() if stage in found})
    keep(minutes=(time.perf_counter() - started) / 60)


def _seed_rows(seed: SeedScores) -> dict[str, float]:
    return {
        f"seed at {seed.threshold_fixed:g}, where masks are cut": seed.miou_fixed,
        "seed at the threshold chosen without masks": seed.miou_label_free,
        "seed at the best threshold (**pixel labels**)": seed.miou_best,
    }


def table(name: str, own: dict[str, Any], rows: dict[int, dict[str, float]]) -> str:
    """Return what was measured as Markdown: conditions, and mIoU of every stage by seed."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "timm", "ray"))
    settings = ", ".join(f"{setting}={json.dumps(value)}" for setting, value in own.items()) or "the preset's own"
    lines = [
        f"Preset `{name}` ({settings}), {date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}. mIoU, %; background and the classes that images here hold.",
        "",
        f"| stage | {' | '.join(f'seed {seed}' for seed in rows)} | mean |",
        "|---" * (len(rows) + 2) + "|",
    ]
    stages = list(dict.fromkeys(stage for row in rows.values() for stage in row if stage != "minutes"))
    for stage in stages:
        values = [row.get(stage) for row in rows.values()]
        there = [value for value in values if value is not None]
        cells = ["-" if value is None else f"{100 * value:.1f}" for value in (*values, statistics.fmean(there))]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

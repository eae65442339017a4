"""From seeds to pseudo masks to final networks on the miniature world, over seeds, by the pipeline itself (on Ray).

    python benchmarks/miniature_final.py --seeds 20 21 22 --work runs/final
    python benchmarks/miniature_final.py --work runs/final --table docs/results/miniature_final.md

For every seed it runs the preset to the end, and before that every refinement on its CAMs. Figures are kept beside the
runs, so a call that is cut off goes on. With ``--table`` it writes the tables and runs nothing.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.systems.table import SUPERVISED, system_of

REFINEMENTS: dict[str, list[str]] = {
    "none": [],
    "PAMR": ["pamr"],
    "dense CRF": ["crf"],
    "IRN": ["irn"],
    "IRN, dense CRF": ["irn", "crf"],
}
STAGES = ("seed", "mask", "segmentation_on_seeds", "segmentation_crf_on_seeds", "segmentation", "segmentation_crf")
START, END = "<!-- tables -->", "<!-- /tables -->"


def main() -> None:
    """Parse the arguments; run or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[20, 21, 22])
    parser.add_argument("--preset", default="miniature", help="a preset of the miniature world")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, one per seed")
    parser.add_argument("--table", type=Path, help="write the tables to this file and stop")
    arguments = parser.parse_args()
    if not arguments.table:
        for seed in arguments.seeds:
            run_seed(with_overrides(preset(arguments.preset), {"seed": seed}), arguments.work / f"seed-{seed}")
    found = [path for seed in arguments.seeds if (path := arguments.work / f"seed-{seed}" / "figures.json").is_file()]
    rows = {path.parent.name: json.loads(path.read_text()) for path in found}
    body = tables(preset(arguments.preset), rows)
    print(body)
    if arguments.table:
        text = arguments.table.read_text() if arguments.table.is_file() else f"{START}\n{END}\n"
        before, after = text.split(START)[0], text.split(END)[1]
        arguments.table.write_text(f"{before}{START}\n{body}\n{END}{after}")


def run_seed(config: RunConfig, out: Path) -> None:
    """Run one seed to its end and keep its figures."""
    if (out / "figures.json").is_file():
        return
    console, refined = Console(), {}
    for name, steps in REFINEMENTS.items():
        variant = with_overrides(config, {"masks.steps": steps, "goal": "mask", "tracking.enabled": False})
        outcome = run_pipeline(variant, str(out), until="refine", console=console)
        refined[name] = {
            system: masks.scores.miou_fixed for system, masks in outcome.results.masks.items() if masks.scores
        }
    run_pipeline(with_overrides(config, {"tracking.enabled": False}), str(out), console=console)
    report = json.loads((out / "report" / "report.json").read_text())
    figures: dict[str, Any] = {"refined": refined, "systems": {}}
    for system, entry in report["systems"].items():
        figures["systems"][system] = {stage: entry[stage]["miou_fixed"] for stage in STAGES if entry[stage]}
        if entry["seed"]:
            figures["systems"][system]["seed_best"] = entry["seed"]["miou_best"]
    (out / "figures.json").write_text(json.dumps(figures, indent=2))


def tables(config: RunConfig, rows: dict[str, Any]) -> str:
    """Return the tables of the seeds that are there."""
    systems = list(next(iter(rows.values()))["systems"]) if rows else []
    return "\n\n".join(
        [
            _conditions(config, rows),
            _stages(config, rows, systems),
            _claims(config, rows, systems),
            _refined(config, rows),
        ]
    )


def _conditions(config: RunConfig, rows: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "timm", "ray"))
    return (
        f"Preset `{config.name}`. Measured {date.today()} on {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, {versions}; {', '.join(rows)}. mIoU in points, mean +- standard deviation over "
        f"seeds. Seeds and masks are of split {config.data.eval_split}, networks of split {config.data.test_split} "
        "where nothing else is said."
    )


def _stages(config: RunConfig, rows: dict[str, Any], systems: list[str]) -> str:
    heads = {
        "seed_best": f"seed, best threshold (pixel labels), {config.data.eval_split}",
        "mask": f"pseudo mask, {config.data.eval_split}",
        "segmentation_on_seeds": f"network, {config.data.eval_split}",
        "segmentation_crf_on_seeds": f"+ CRF, {config.data.eval_split}",
        "segmentation": f"network, {config.data.test_split}",
        "segmentation_crf": f"+ CRF, {config.data.test_split}",
    }
    lines = ["### From seeds to final networks", "", f"| system | {' | '.join(heads.values())} |", "|---" * 7 + "|"]
    for system in systems:
        cells = [_points([row["systems"][system].get(stage) for row in rows.values()]) for stage in heads]
        lines.append(f"| {system_of(config, system).label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _claims(config: RunConfig, rows: dict[str, Any], systems: list[str]) -> str:
    lines = ["### Differences", "", "| system | difference | points | by seed |", "|---|---|---|---|"]
    wanted = [
        ("mask", "seed_best", "pseudo mask over its seed at the best threshold"),
        ("segmentation_crf_on_seeds", "mask", "network with CRF over pseudo mask, same images"),
        ("segmentation_on_seeds", "mask", "network without CRF over pseudo mask, same images"),
    ]
    for system in systems:
        label = system_of(config, system).label
        own = [row["systems"][system] for row in rows.values()]
        for upper, lower, words in wanted:
            if all(upper in one and lower in one for one in own):
                lines.append(_difference(label, words, [one[upper] - one[lower] for one in own]))
        if system != SUPERVISED and all(SUPERVISED in row["systems"] for row in rows.values()):
            for stage, words in (("segmentation", "without"), ("segmentation_crf", "with")):
                gaps = [r["systems"][system][stage] - r["systems"][SUPERVISED][stage] for r in rows.values()]
                lines.append(_difference(label, f"to full supervision, val, {words} CRF", gaps))
    return "\n".join(lines)


def _difference(label: str, words: str, differences: list[float]) -> str:
    shown = ", ".join(f"{100 * value:+.1f}" for value in differences)
    return f"| {label} | {words} | {100 * statistics.fmean(differences):+.1f} | {shown} |"


def _refined(config: RunConfig, rows: dict[str, Any]) -> str:
    systems = list(next(iter(rows.values()))["refined"]["none"]) if rows else []
    labels = " | ".join(system_of(config, system).label for system in systems)
    lines = ["### Refinements", "", f"| steps | {labels} |", "|---" * (1 + len(systems)) + "|"]
    for name in REFINEMENTS:
        cells = [_points([row["refined"][name][system] for row in rows.values()]) for system in systems]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _points(values: list[float | None]) -> str:
    points = [100 * value for value in values if value is not None]
    if not points:
        return "-"
    spread = f" +- {statistics.stdev(points):.1f}" if len(points) > 1 else ""
    return f"{statistics.fmean(points):.1f}{spread}"


if __name__ == "__main__":
    main()

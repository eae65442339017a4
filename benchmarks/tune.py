"""A search without masks from a bad start, killed and resumed, against the hand-set settings on other seeds.

    python benchmarks/tune.py --work runs/tune --trials 12

The search is `qaclims tune miniature` on seed 10, from settings that are bad on purpose (`BAD`). Its process group is
killed once some trials have ended, and the same command goes on. Then bad start, hand-set preset and found settings
are trained and scored on seeds 20 to 22, which no search saw. The call goes on where it was cut off.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.pipeline import run_pipeline

BAD: dict[str, float] = {
    "ritc.omega": 0.5,
    "ritc.temperature": 2.5,
    "ritc.foreground_weight": 1.0,
    "ritc.background_weight": 25.0,
    "ritc.area_weight": 0.02,
    "ritc.optim.lr": 6e-3,
    "evaluation.fixed_threshold": 0.6,
}
SYSTEM = "qa_clims"
ROWS = ("bad_start", "hand_set", "found")


def main() -> None:
    """Search, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the search and of the compared runs")
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--kill-after", type=int, default=3, help="kill the search once so many trials ended; 0: never")
    parser.add_argument("--seeds", type=int, nargs="*", default=[20, 21, 22])
    parser.add_argument("--images", type=int, default=600, help="images of every run")
    parser.add_argument("--epochs", type=int, default=9, help="epochs of every training of QA-CLIMS")
    parser.add_argument("--workers", type=int, default=1, help="training workers")
    arguments = parser.parse_args()
    size = {
        "goal": "seed",
        "systems": [SYSTEM],
        "data.num_images": arguments.images,
        "ritc.optim.epochs": arguments.epochs,
        "ritc.optim.warmup_steps": min(60, arguments.images // 32 * 2),
        "cluster.num_workers": arguments.workers,
        "tracking.enabled": False,
    }
    hand_set = with_overrides(preset("miniature"), size)
    search(arguments, size)
    best = json.loads((arguments.work / "search/tune/best.json").read_text())
    found = next(entry["overrides"] for entry in best["variants"] if entry["name"] == SYSTEM)
    scores = [compare(hand_set, found, seed, arguments.work / f"seed-{seed}") for seed in arguments.seeds]
    show(arguments.work, found, scores, arguments.seeds)


def search(arguments: argparse.Namespace, size: dict[str, Any]) -> None:
    """Run the search, killed once, unless it has ended."""
    out = arguments.work / "search"
    if (out / "tune/best.json").is_file():
        return
    flags = [f"--out={out}", "--seed=10", f"--trials={arguments.trials}", f"--concurrent={arguments.concurrent}"]
    settings = {**size, **BAD, "tracking.enabled": True}
    for name, value in settings.items():
        shown = value[0] if isinstance(value, list) else value
        flags += ["--" + name.replace("_", "-"), str(shown)]
    command = [sys.executable, "-m", "qaclims_ray", "tune", "miniature", *flags, "--system", SYSTEM]
    if arguments.kill_after and not (out / "killed").is_file():
        started = time.perf_counter()
        process = subprocess.Popen(command, start_new_session=True)
        while process.poll() is None and len(ended(out)) < arguments.kill_after:
            time.sleep(0.5)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            names = ", ".join(sorted(ended(out)))
            (out / "killed").write_text(f"killed after {time.perf_counter() - started:.0f} s; ended by then: {names}\n")
            time.sleep(5)  # the private Ray notices that its driver is gone
    started = time.perf_counter()
    subprocess.run(command, check=True)
    (out / "seconds").write_text(f"{time.perf_counter() - started:.0f}")


def ended(out: Path) -> set[str]:
    """Return the trials whose network is complete."""
    return {path.parent.name for path in out.glob("networks/trial_*/meta.json")}


def compare(config: RunConfig, found: dict[str, float], seed: int, out: Path) -> dict[str, dict[str, float]]:
    """Train and score the three configurations on one seed; all start from its one classifier."""
    values = {"bad_start": BAD, "hand_set": {}, "found": found}
    run = with_overrides(
        config,
        {
            "seed": seed,
            "systems": list(ROWS),
            "variants": [{"name": name, "like": SYSTEM, "overrides": values[name]} for name in ROWS],
        },
    )
    scores = run_pipeline(run, str(out), until="evaluate", console=Console(file=sys.stderr)).results.scores
    return {
        name: {"fixed": 100 * scores[name].seed.miou_fixed, "best": 100 * scores[name].seed.miou_best} for name in ROWS
    }


def show(work: Path, found: dict[str, float], scores: list[dict[str, dict[str, float]]], seeds: list[int]) -> None:
    """Print the figures as Markdown."""
    rows = json.loads((work / "search/tune/search.json").read_text())
    whole = [row for row in rows["rows"] if row["epochs"] == rows["epochs"] and not row["failure"]]
    print(f"{len(rows['rows'])} trials, {len(whole)} of them to the last of {rows['epochs']} epochs")
    if (work / "search/killed").is_file():
        print((work / "search/killed").read_text().strip())
    start = with_overrides(preset("miniature"), {})
    print(f"\nfound: {found}\nbad start: {BAD}\nhand-set thresholds: {start.fixed_threshold}\n")
    print("| settings | fixed threshold | by seed | best threshold (pixel labels) |\n|---|---|---|---|")
    for name in ROWS:
        fixed, best = ([score[name][kind] for score in scores] for kind in ("fixed", "best"))
        shown = ", ".join(f"{seed}: {value:.1f}" for seed, value in zip(seeds, fixed, strict=True))
        print(f"| {name} | {statistics.fmean(fixed):.1f} | {shown} | {statistics.fmean(best):.1f} |")


if __name__ == "__main__":
    main()

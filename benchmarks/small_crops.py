"""What final networks lose by crops of 48 pixels (`miniature small-crops`, what `make demo` runs), and what it saves.

    python -m benchmarks.small_crops --work runs/methods --seeds 20 21 22 23 24
    python -m benchmarks.small_crops --work runs/methods --table docs/results/small_crops.md

For every seed, in this process and without Ray: the masks of each system by the parts of `benchmarks/methods.py`, and
on the same masks two final networks. Figures are added to docs/results/small_crops.jsonl and networks stay in the
folder, so a call that is cut off goes on. With ``--table`` nothing is trained.
"""

import json
import statistics
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.local_final import network_scores, pseudo_masks, train_final, true_masks, with_masks
from benchmarks.method_records import RESULTS, lines_in, seeds_parser, show
from benchmarks.methods import conditions, local_run, seeds_of
from benchmarks.miniature_results import LocalRun
from qaclims_ray.data.label_map_dataset import LabelledImage
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.presets.miniature import small_crops
from qaclims_ray.presets.table import preset
from qaclims_ray.systems.table import SUPERVISED, system_config, system_of

MEASURED = RESULTS / "small_crops.jsonl"
SYSTEMS = ("baseline", "ritc_class_names", "qa_clims", SUPERVISED)
FIGURES = {"plain": "val", "crf": "+ CRF, val"}


def main() -> None:
    """Parse the arguments; measure what is missing, print the table."""
    asked = seeds_parser(__doc__).parse_args()
    torch.set_num_threads(1)
    for seed in () if asked.table else asked.seeds:
        for system in SYSTEMS:
            measure(system, seed, asked.work)
    where = conditions().partition(";")[0]  # no figure here is chosen by pixel labels
    show(f"{where}.\n\n{table(lines_in(MEASURED), asked.seeds)}", asked.table)


def measure(system: str, seed: int, work: Path) -> None:
    """Train a system's two final networks on a seed where the file does not hold them yet, and add what they score."""
    if any((line["system"], line["seed"]) == (system, seed) for line in lines_in(MEASURED)):
        return
    run = local_run("miniature", seed, work)
    folder = work / "miniature" / f"seed-{seed}"
    masks = _masks(run, seed, work, system, folder)
    line: dict[str, Any] = {"system": system, "seed": seed}
    for config in (run.config, small_crops(run.config)):
        own = system_config(config, system)
        size, tested = own.segmentation.crop.crop_px, read_manifest(str(folder / "manifest"))
        started = time.process_time()
        name = f"final-{system}" + ("" if config is run.config else f"-{size}")
        network = train_final(run, own, masks, folder / name)
        spent = time.process_time() - started
        plain, crf = network_scores(network, own, tested.subset(own.data.test_split))
        line[str(size)] = {"plain": plain, "crf": crf, "cpu_s": spent}
    with open(MEASURED, "a") as file:
        file.write(json.dumps({**line, "date": str(date.today())}) + "\n")
    print(line, flush=True)


def _masks(run: LocalRun, seed: int, work: Path, system: str, folder: Path) -> list[LabelledImage]:
    if system == SUPERVISED:
        return true_masks(run.trained)
    made = seeds_of("miniature", seed, work, system)
    masks = with_masks(system_config(run.config, system), made, steps=("crf",))
    return pseudo_masks(made, masks, folder / f"masks-{system}")


def table(lines: Sequence[dict[str, Any]], seeds: Sequence[int]) -> str:
    """Return both crops' mean and spread, the differences, and the CPU seconds of trainings."""
    sizes = [
        str(config.segmentation.crop.crop_px) for config in (preset("miniature"), small_crops(preset("miniature")))
    ]
    heads = [f"{words}, {size} px" for words in FIGURES.values() for size in sizes]
    heads += ["difference", "+ CRF", "+ CRF, by seed", "CPU s, times"]
    there = sorted({line["seed"] for line in lines} & set(seeds))
    rows = [f"Seeds {', '.join(map(str, there))}.", "", f"| final network of | {' | '.join(heads)} |"]
    rows.append("|---" * (len(heads) + 1) + "|")
    for system in SYSTEMS:
        own = [line for line in lines if line["system"] == system and line["seed"] in there]
        if own:
            values = {(name, size): [100 * line[size][name] for line in own] for name in FIGURES for size in sizes}
            lost = {
                name: [after - before for before, after in zip(*(values[name, size] for size in sizes), strict=True)]
                for name in FIGURES
            }
            cells = [_cell(values[name, size]) for name in FIGURES for size in sizes]
            cells += [f"{statistics.fmean(lost[name]):+.1f}" for name in FIGURES]
            cells.append(", ".join(f"{one:+.1f}" for one in lost["crf"]))
            spent = [statistics.fmean(line[size]["cpu_s"] for line in own) for size in sizes]
            cells.append(f"{spent[1] / spent[0]:.2f}")
            rows.append(f"| {system_of(preset('miniature'), system).label} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _cell(values: Sequence[float]) -> str:
    spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{spread}"


if __name__ == "__main__":
    main()

"""One table over all methods: what is recorded in docs/results, and what this command measures on the miniature.

    python -m benchmarks.methods --work runs/methods --table docs/results/methods.md
    python -m benchmarks.methods --work runs/methods --seeds 20 21 22 23 24 --run mask --rows qa_clims semples
    python -m benchmarks.methods --work runs/methods --run flops

Without ``--run`` it trains nothing: it takes what `docs/results/methods.jsonl` and the pages hold, each cell from where
most seeds stand behind it. With it, a row's seeds, masks or final network are made on each seed in this process,
without Ray, and what they score is added to that file; the networks are kept in the folder, so a call that is cut off
goes on. `flops` counts what trainings compute. Masks are made by CRF, of seeds that are cut where no mask chose it.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.affinity_seeds import Seeds
from benchmarks.local_final import drawn_again, network_scores, pseudo_masks, train_final, true_masks, with_masks
from benchmarks.local_seeds import local_seeds, mask_figures, seed_figures
from benchmarks.method_flops import final_flops, method_flops, online_flops
from benchmarks.method_records import RESULTS, Figure, Record, figure_of, lines_in, more_seeds, show
from benchmarks.miniature_results import LocalRun
from benchmarks.online import online
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.methods.table import method_of
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.segmentation.networks.network import load_segmentation_network
from qaclims_ray.systems.licences import weights_used
from qaclims_ray.systems.needs import needs_clip, needs_corpus
from qaclims_ray.systems.table import SUPERVISED, system_config, system_of, with_systems

MEASURED = RESULTS / "methods.jsonl"
COLUMNS = {
    "label_free": "seed, threshold without masks",
    "seed_best": "seed, best threshold *",
    "mask": "mask, CRF",
    "final": "network, val",
    "final_crf": "+ CRF, val",
    "cpu_s": "CPU s to maps",
}
STEPS = ("seed", "mask", "final")
CHOSEN_BY = {
    "here": "colours, no masks",
    "miniature_final.md": "masks of seeds 10 and 11",
    "online.md": "masks of seed 10",
}
"""What the threshold came from that cut the seeds of masks and networks, by the source of their figures; those of
networks that make their own masks are settings, wherever they were measured."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: a system with the settings of a preset."""

    system: str
    """Its name."""
    preset: str = "miniature"
    """Of the miniature world."""
    full_size: tuple[str, ...] = ("voc12 plain-clip",)
    """Presets whose weights at full size are named, the published one first."""
    rounds: int = 1
    """Of its final network (`segmentation.rounds`)."""

    @property
    def key(self) -> str:
        """Its name, with the preset's where that is another than the miniature, and with its rounds."""
        name = self.system if self.preset == "miniature" else f"{self.system}@{self.preset}"
        return name if self.rounds == 1 else f"{name}*{self.rounds}"

    @property
    def label(self) -> str:
        """As it stands in the table."""
        options = self.preset.removeprefix("miniature").replace("_", " ").strip()
        label = system_of(preset(self.preset), self.system).label + (f" ({options})" if options else "")
        return label if self.rounds == 1 else f"{label}, {self.rounds} rounds"


ROWS = (
    Row(system="baseline"),
    Row(system="ritc_class_names", full_size=("voc12", "voc12 plain-clip")),
    Row(system="qa_clims", full_size=("voc12", "voc12 plain-clip")),
    Row(system="qa_clims", full_size=("voc12", "voc12 plain-clip"), rounds=2),
    Row(system="patch_text"),
    Row(system="patch_text_answers"),
    Row(system="online"),
    Row(system="online_answers"),
    Row(system="online_classifier"),
    Row(system="clims", preset="miniature_semples", full_size=("voc12 clims",)),
    Row(system="semples_match_longer", preset="miniature_semples", full_size=("voc12 weaktr",)),
    Row(system="semples", preset="miniature_semples", full_size=("voc12 weaktr",)),
    Row(system="qa_clims", preset="miniature_semples", full_size=("voc12", "voc12 plain-clip")),
    Row(system="baseline", preset="miniature_weaktr", full_size=("voc12 weaktr",)),
    Row(system="semples", preset="miniature_weaktr", full_size=("voc12 weaktr",)),
    Row(system=SUPERVISED),
)
_FINAL_ROWS = {
    "baseline": "baseline CAM",
    "ritc_class_names": "RITC, class names only",
    "qa_clims": "QA-CLIMS",
    SUPERVISED: "fully supervised",
}
_BY_SEED = {"baseline": "baseline CAM", "ritc_class_names": "class names", "qa_clims": "QA-CLIMS"}
_BEST, _LOST = "best (**pixel labels**)", "chosen by the run"


def records_of(row: Row) -> list[Record]:
    """Return where pages hold a row's figures."""
    system, found = row.system, list[Record]()
    if row.rounds > 1:
        return found
    if row.preset != "miniature":
        return [Record("seed_best", f"{row.preset}.jsonl", system, ("miou_best",))]
    if system in _FINAL_ROWS:
        heads = {"mask": "pseudo mask, train", "final": "network, val", "final_crf": "+ CRF, val"}
        if system == SUPERVISED:
            del heads["mask"]
        found += [Record(name, "miniature_final.md", _FINAL_ROWS[system], (head,)) for name, head in heads.items()]
    if system in _BY_SEED:
        heads_by_seed = tuple(f"seed {seed} {_BY_SEED[system]}" for seed in (20, 21, 22))
        found.append(Record("label_free", "threshold.md", _BEST, heads_by_seed, minus=_LOST))
        found.append(Record("seed_best", "threshold.md", _BEST, heads_by_seed))
    if system.startswith("patch_text"):
        texts = "with answers" if system.endswith("answers") else "class names"
        by_seed = ("seed 20", "seed 21", "seed 22")
        found.append(Record("label_free", "patch_text.md", f"{texts}, threshold chosen without masks", by_seed))
        found.append(Record("seed_best", "patch_text.md", f"{texts}, best threshold (**pixel labels**)", by_seed))
    if makes_own_masks(row) and system != "online_answers":  # which that page does not have
        label = system_of(preset("miniature"), system).label
        heads = {"final": "network", "final_crf": "+ CRF", "cpu_s": "CPU seconds"}
        found += [Record(name, "online.md", label, (head,)) for name, head in heads.items()]
    return found


def main() -> None:
    """Parse the arguments; measure what is asked for, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of networks")
    parser.add_argument("--seeds", type=int, nargs="*", default=[20, 21, 22, 23, 24])
    parser.add_argument(
        "--rows", nargs="*", default=[row.key for row in ROWS], help="SYSTEM, SYSTEM@PRESET or SYSTEM*ROUNDS"
    )
    parser.add_argument("--run", choices=(*STEPS, "flops"), help="measure up to there; without it nothing is trained")
    parser.add_argument("--table", type=Path, help="write the table between the markers of this file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows = [row for row in ROWS if row.key in asked.rows]
    if asked.run == "flops":
        for row in rows:
            if row.system != SUPERVISED and row.rounds == 1:
                _add(row, None, lambda row=row: flops_of(row, asked.work / "flops" / row.key))
        _add(
            Row(system=SUPERVISED),
            None,
            lambda: {"final_flops": final_flops(preset("miniature"), asked.work / "flops-final")},
        )
    elif asked.run:
        for seed in asked.seeds:
            for row in rows:
                measure(row, seed, asked.work, asked.run)
    show(f"{conditions()}\n\n{table(rows)}\n\n{sources(rows)}", asked.table)


def lines_of() -> list[dict[str, Any]]:
    """Return what this command measured, one line a row, seed and step."""
    return lines_in(MEASURED)


def _add(row: Row, seed: int | None, work: Any, step: str = "") -> None:
    """Measure what is not in the file yet, and add it."""
    key = {"row": row.key, "seed": seed, "step": step}
    if not any(key.items() <= line.items() for line in lines_of()):
        line = {**key, **work(), "date": str(date.today())}
        with open(MEASURED, "a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


@functools.lru_cache(maxsize=1)
def local_run(name: str, seed: int, work: Path) -> LocalRun:
    """Return the run of a preset and a seed; the last one is kept, since reading its data takes seconds."""
    return LocalRun(with_overrides(preset(name), {"seed": seed}), work / name / f"seed-{seed}")


@functools.lru_cache(maxsize=1)
def seeds_of(name: str, seed: int, work: Path, system: str) -> Seeds:
    """Return the maps of a system, and the threshold that is chosen of them without masks."""
    return local_seeds(local_run(name, seed, work), system)


def measure(row: Row, seed: int, work: Path, upto: str) -> None:
    """Make a row's seeds, masks and final network on a seed, as far as asked for."""
    system, folder = row.system, work / row.preset / f"seed-{seed}"
    run = local_run(row.preset, seed, work)
    config = with_overrides(system_config(run.config, system), {"segmentation.rounds": row.rounds})
    if makes_own_masks(row):
        if upto == "final":
            place = folder / system
            _add(row, seed, lambda: _renamed(online(place, seed, system, {})), "final")
        return
    tested = read_manifest(str(folder / "manifest")).subset(config.data.test_split)
    if system == SUPERVISED:
        if upto == "final":
            network = functools.partial(train_final, run, config, true_masks(run.trained), folder / f"final-{system}")
            _add(row, seed, lambda: _final(network_scores(network(), config, tested)), "final")
        return
    seeds = functools.partial(seeds_of, row.preset, seed, work, system)

    def seeds_with_cost() -> dict[str, float]:
        seconds, found = run.cpu_seconds(system), seed_figures(seeds())
        return {"cpu_s": seconds, "label_free": found["miou"], "seed_best": found["best"], "threshold": found["border"]}

    def final() -> dict[str, float]:
        made, started = seeds(), time.process_time()
        images = pseudo_masks(made, with_masks(config, made, steps=("crf",)), folder / f"masks-{system}")
        network = train_final(run, config, images, folder / f"final-{system}")
        return {**_final(network_scores(network, config, tested)), "final_cpu_s": time.process_time() - started}

    if row.rounds == 1:
        _add(row, seed, seeds_with_cost, "seed")
        if upto in ("mask", "final"):
            _add(row, seed, lambda: {"mask": mask_figures(seeds(), ("crf",))["miou"]}, "mask")
        if upto == "final":
            _add(row, seed, final, "final")
    elif upto == "final":
        measure(dataclasses.replace(row, rounds=1), seed, work, upto)
        for number in range(2, row.rounds + 1):
            again = functools.partial(_round, run, config, folder, system, number, tested)
            _add(dataclasses.replace(row, rounds=number), seed, again, "final")


def _round(
    run: LocalRun, config: RunConfig, folder: Path, system: str, number: int, tested: Manifest
) -> dict[str, float]:
    """Draw the masks of a round by the network of the one before, train on them, and score both."""
    started = time.process_time()
    name = f"final-{system}" + (f"-{number - 1}" if number > 2 else "")
    before = load_segmentation_network(str(folder / name))
    images, mask = drawn_again(before, config, run.trained, folder / f"masks-{system}-{number}")
    network = train_final(run, config, images, folder / f"final-{system}-{number}")
    scored = _final(network_scores(network, config, tested))
    return {"mask": mask, **scored, "final_cpu_s": time.process_time() - started}


def _final(scores: tuple[float, float]) -> dict[str, float]:
    return {"final": scores[0], "final_crf": scores[1]}


def _renamed(found: dict[str, float]) -> dict[str, float]:
    return {**_final((found["plain"], found["crf"])), "cpu_s": found["cpu_s"]}


def flops_of(row: Row, folder: Path) -> dict[str, float]:
    """Return what a row's trainings and maps compute; of a final network of its own, its training."""
    config = preset(row.preset)
    if makes_own_masks(row):
        return {"flops": online_flops(row.system, folder)}
    found = method_flops(config, row.system, folder)
    return {"flops": found["training"] + found["cams"], "cam_flops": found["cams"]}


def figure(row: Row, column: str) -> Figure | None:
    """Return a cell: of this command or of a page, of whichever has more seeds."""
    scale = 1.0 if column == "cpu_s" else 100.0
    own = [scale * line[column] for line in lines_of() if line["row"] == row.key and column in line]
    return more_seeds([figure_of(own, "here"), *(one.read() for one in records_of(row) if one.column == column)])


def needs(row: Row) -> str:
    """Return what a row learns from besides images: its class of supervision."""
    if row.system == SUPERVISED:
        return "masks"
    config = with_systems(preset(row.preset), [row.system])
    more = [name for name, needed in (("CLIP", needs_clip(config)), ("VQA", needs_corpus(config))) if needed]
    return " + ".join(["tags", *more])


def licences(row: Row) -> str:
    """Return the licences of the weights that a row's maps need at full size, the published form first."""
    forms = []
    for name in row.full_size:
        config = with_systems(preset(name), [row.system])
        used = [one for one in weights_used(config) if _is_of_maps(one.settings, row)]
        forms.append(", ".join(dict.fromkeys(one.licence for one in used)) or "-")
    return " or ".join(dict.fromkeys(forms))


def _is_of_maps(settings: Sequence[str], row: Row) -> bool:
    whole = makes_own_masks(row) or row.system == SUPERVISED
    return whole or any(not one.startswith(("masks.", "segm")) for one in settings)


def makes_own_masks(row: Row) -> bool:
    """Whether its final network is trained from tags at once."""
    return method_of(system_of(preset(row.preset), row.system).method).own_network is not None


def tera(row: Row) -> str:
    """Return the FLOPs of a row's training and maps, and of the final network's training, in units of 10^12."""
    measured = lines_of()
    first = dataclasses.replace(row, rounds=1).key
    own = [line["flops"] for line in measured if line["row"] == first and "flops" in line]
    final = [row.rounds * line["final_flops"] for line in measured if "final_flops" in line]
    if makes_own_masks(row) or not has_final_network(row):
        final = []
    return " + ".join(f"{flops[0] / 1e12:.2f}" for flops in (own, final) if flops) or "-"


def has_final_network(row: Row) -> bool:
    """Whether its final network is trained as the miniature's are; on a transformer it has a recipe of its own."""
    return row.preset != "miniature_weaktr"


def table(rows: Sequence[Row]) -> str:
    """Return the table."""
    heads = [
        *COLUMNS.values(),
        "TFLOP: maps + network",
        "threshold of masks chosen by",
        "learns from",
        "licences at full size",
    ]
    lines = [f"| method | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for row in rows:
        found = [figure(row, column) for column in COLUMNS]
        cells = ["-" if one is None else one.cell for one in found]
        more = [tera(row), chosen_by(row, found[2:5]), needs(row), licences(row)]
        lines.append(f"| {row.label} | {' | '.join([*cells, *more])} |")
    return "\n".join(lines)


def chosen_by(row: Row, masks_and_networks: Sequence[Figure | None]) -> str:
    """Return what chose the threshold that cut the seeds which a row's masks and networks come from."""
    first = next((one.source for one in masks_and_networks if one is not None), None)
    if first is None or row.system == SUPERVISED:
        return "-"
    return CHOSEN_BY["online.md" if makes_own_masks(row) else first]


def sources(rows: Sequence[Row]) -> str:
    """Return where each row's figures come from."""
    lines = ["| method | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for row in rows:
        found = [figure(row, column) for column in COLUMNS]
        lines.append(f"| {row.label} | {' | '.join('-' if one is None else one.source for one in found)} |")
    return "\n".join(lines)


def conditions() -> str:
    """Return where and with what this command ran."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "timm"))
    where = f"{platform.machine()}, {os.cpu_count()} cores, one thread, Python {platform.python_version()}"
    return f"Table of {date.today()}, {where}, {versions}; * chosen with pixel labels; seeds in brackets."


if __name__ == "__main__":
    main()

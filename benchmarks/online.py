"""Final networks that make their own masks, on the miniature, beside the route in stages.

    python -m benchmarks.online --seeds 20 21 22 --work runs/online
    python -m benchmarks.online --seeds 20 21 22 --work runs/online --route
    python -m benchmarks.online --seeds 20 21 22 --work runs/online --print-only --picture docs/methods/online.png

Trains the systems that make their own masks in this process, without Ray, and scores them on val. With ``--route``
it also runs the route in stages, each system by a command of its own on a private Ray, which is how it is used. CPU
seconds are user and system time: of this process for a training, and of all processes of a command, the start of its
Ray too, for the route. What is there is not made again, so a call that is cut off goes on.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from PIL import Image

from benchmarks.local_final import network_scores
from benchmarks.miniature_results import corpus_rows
from benchmarks.processes import watch
from qaclims_ray.corpus.table import missing_shards, read_corpus, write_shard
from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact, plain
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import shard_name
from qaclims_ray.data.splits import training_images
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.presets.table import preset
from qaclims_ray.report.contact_sheet import SheetRow, contact_sheet
from qaclims_ray.run_config import RunConfig, System, with_overrides
from qaclims_ray.segmentation.inference import segment_images
from qaclims_ray.stages.data import run_data
from qaclims_ray.stages.layout import CORPUS_TABLE, RunLayout
from qaclims_ray.stages.predict_final import read_final_network
from qaclims_ray.stages.resources import Room
from qaclims_ray.stages.segment import train_final_networks
from qaclims_ray.stages.sheet_rows import choose_images
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.text import bank_of
from qaclims_ray.systems.recipe import clip_files
from qaclims_ray.systems.table import system_config, system_of, with_systems
from qaclims_ray.text.bank import build_bank, write_bank

ONLINE = ("online", "online_answers", "online_classifier")
ROUTE = ("baseline", "qa_clims", "fully_supervised")


def main() -> None:
    """Parse the arguments; train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[20, 21, 22])
    parser.add_argument("--systems", nargs="*", default=list(ONLINE), choices=ONLINE)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings to choose among")
    parser.add_argument("--route", action="store_true", help="also run the route in stages")
    parser.add_argument("--print-only", action="store_true", help="run nothing")
    parser.add_argument("--picture", type=Path, help="draw images of the first seed into this file")
    asked = parser.parse_args()
    changes = {name: json.loads(value) for name, value in (one.split("=", 1) for one in asked.set)}
    for seed in asked.seeds if not asked.print_only else ():
        for name in asked.systems:
            _kept(_place(asked.work, seed, name, changes), lambda place, s=seed, n=name: online(place, s, n, changes))
        for name in ROUTE if asked.route else ():
            _kept(_place(asked.work, seed, name, {}), lambda place, s=seed, n=name: route(place, s, n))
    print(table(asked.work, asked.seeds, (*asked.systems, *ROUTE), changes))
    if asked.picture:
        draw(asked.picture, asked.work, asked.seeds[0], asked.systems, changes)


def _place(work: Path, seed: int, name: str, changes: Mapping[str, Any]) -> Path:
    varied = "".join(f"-{setting.rsplit('.', 1)[-1]}-{value}" for setting, value in changes.items())
    return work / f"seed-{seed}" / f"{name}{varied}"


def _kept(place: Path, work: Any) -> None:
    if not (place / "figures.json").is_file():
        place.mkdir(parents=True, exist_ok=True)
        figures = work(place)
        (place / "figures.json").write_text(json.dumps(figures, indent=2))
        print(place, figures, flush=True)


def online_config(seed: int, name: str, changes: Mapping[str, Any]) -> RunConfig:
    """Return a run of one system, with settings of it on top of the preset's."""
    own = {"seed": seed, "supervised_bound": False, "tracking.enabled": False, "cluster.num_workers": 0}
    config = with_overrides(with_systems(preset("miniature"), [name]), own)
    # The preset adjusts systems, and an adjustment counts more than the run's own settings.
    kept = [one for one in config.variants if one.name != name]
    adjusted = next((dict(one.overrides) for one in config.variants if one.name == name), {})
    return replace(config, variants=(*kept, System(name=name, like=name, overrides={**adjusted, **changes})))


def online(place: Path, seed: int, name: str, changes: Mapping[str, Any]) -> dict[str, float]:
    """Train and score a system in this process; return its figures."""
    stage, manifest = opened(place, online_config(seed, name, changes), name)
    started = time.process_time()
    train_final_networks({name: stage}, manifest)
    trained = time.process_time()
    network, tested = read_final_network(stage.layout.segmentation(name)), manifest.subset(stage.config.data.test_split)
    plain, crf = network_scores(network, stage.config, tested)
    return {"plain": plain, "crf": crf, "cpu_s": trained - started, "scored_s": time.process_time() - trained}


def opened(place: Path, config: RunConfig, name: str) -> tuple[Stage, Manifest]:
    """Return a system's surroundings and images; what it learns from is made where it is missing."""
    stage = Stage(system_config(config, name), RunLayout(str(place)), opening=Room)
    manifest = run_data(stage)
    if method_of(system_of(config, name).method).uses_texts:
        _write_texts(stage, name, training_images(manifest, config.data))
    return stage, manifest


def _write_texts(stage: Stage, name: str, manifest: Manifest) -> None:
    """Make the texts here, and ask for the answers that they need; the pipeline's stages do it in tasks of Ray."""
    model, weights = clip_files(stage.config)
    corpus = _written_corpus(stage, manifest) if stage.config.text.source == "qape" else None
    clip = load_clip(model, weights, device="cpu", mask_adapted=stage.config.clip.mask_adapted)
    bank = build_bank(corpus, manifest, stage.config.text, clip.encode_texts, tokenize=clip.tokenize)
    artifact = bank_of(stage, name, manifest)
    artifact.begin()
    write_bank(bank, artifact)
    artifact.complete(bank.summary())


def _written_corpus(stage: Stage, manifest: Manifest) -> pd.DataFrame:
    artifact = Artifact(
        uri=stage.layout.corpus,
        kind="corpus",
        settings=plain(stage.config.corpus),
        inputs={"manifest": manifest.images_fingerprint()},
        verb="corpus",
    )
    if artifact.current() is None:
        artifact.begin()
        place = storage.join(artifact.workshop, CORPUS_TABLE)
        missing_shards(place, 1, artifact.fingerprint)
        write_shard(storage.join(place, shard_name(0)), corpus_rows(stage.config, manifest))
        artifact.complete()
    return read_corpus(stage.layout.corpus_table)


def route(place: Path, seed: int, name: str) -> dict[str, float]:
    """Run a system's whole route by the command; return its figures."""
    words = ["-m", "qaclims_ray", "run", "miniature", "--systems", name, "--supervised-bound", "False"]
    words += ["--seed", str(seed), "--tracking.enabled", "False", "--cluster.num-workers", "0"]
    found = watch([sys.executable, *words, "--out", str(place / "run")])
    report = json.loads((place / "run" / "report" / "report.json").read_text())["systems"][name]
    plain, crf = (report[stage]["miou_fixed"] for stage in ("segmentation", "segmentation_crf"))
    return {"plain": plain, "crf": crf, "cpu_s": found.cpu_s}


def table(work: Path, seeds: Sequence[int], systems: Sequence[str], changes: Mapping[str, Any]) -> str:
    """Return the figures that are there."""
    lines = [
        f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch "
        f"{importlib.metadata.version('torch')}; seeds {', '.join(map(str, seeds))}; mIoU on val, %, mean +- deviation",
        "",
        "| system | network | + CRF | CPU seconds | seeds |",
        "|---|---|---|---|---|",
    ]
    for name in systems:
        own = changes if name in ONLINE else {}
        paths = [_place(work, seed, name, own) / "figures.json" for seed in seeds]
        rows = [json.loads(path.read_text()) for path in paths if path.is_file()]
        if rows:
            points = [_points([100 * row[figure] for row in rows]) for figure in ("plain", "crf")]
            cells = [*points, f"{statistics.mean(row['cpu_s'] for row in rows):.0f}", str(len(rows))]
            lines.append(f"| {system_of(preset('miniature'), name).label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _points(values: Sequence[float]) -> str:
    spread = f" +- {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def draw(path: Path, work: Path, seed: int, systems: Sequence[str], changes: Mapping[str, Any]) -> None:
    """Draw images of val, chosen by class and not by result, with what the networks say of them."""
    final: list[dict[str, torch.Tensor]] = [{}, {}, {}]
    rows: list[SheetRow] = []
    names: tuple[str, ...] = ()
    for name in systems:
        config = system_config(online_config(seed, name, changes), name)
        stage = Stage(config, RunLayout(str(_place(work, seed, name, changes))), opening=Room)
        manifest = run_data(stage)
        tested, names = manifest.subset(config.data.test_split), manifest.class_names
        records = [tested.records[position] for position in choose_images(tested, len(final))]
        images = [load_image(record.image_uri) for record in records]
        network, net = read_final_network(stage.layout.segmentation(name)), config.segmentation.net
        for positions, found in segment_images(
            network, images, config.segmentation.test, net.image_mean, net.image_std
        ):
            for position, probabilities in zip(positions, found, strict=True):
                final[position][system_of(config, name).label] = probabilities.argmax(0).to(torch.uint8)
        rows = [
            SheetRow(
                image_id=record.image_id,
                image=image,
                truth=load_mask(record.mask_uri) if record.mask_uri else None,
                class_ids=record.labels,
                heat={},
                masks={},
                final=own,
            )
            for record, image, own in zip(records, images, final, strict=True)
        ]
    sheet = Image.fromarray(contact_sheet(rows, names, tile_px=112))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()

r"""Training-free affinities beside PAMR, the CRF and IRN: mask mIoU and CPU seconds of each on the same seeds.

    python benchmarks/affinity.py --work runs/affinity
    python benchmarks/affinity.py --work runs/affinity --photographs DIR --weights FILE
    python benchmarks/affinity.py --work runs/affinity --print-only

Makes the seeds of the miniature where they are missing, and of photographs by a linear classifier on frozen features;
refines them in this process, each way with the settings that the package has, and prints the tables of
docs/results/affinity.md. What was measured is kept, so a call that is cut off goes on. `--seeds`, `--systems`, `--ways`
and `--every` (of so many images one) bound what is done; `--set NAME=JSON` changes settings of `masks`.
"""

import argparse
import dataclasses
import functools
import importlib.metadata
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import TypeAdapter
from torch import Tensor

from benchmarks.affinity_seeds import BACKBONE, Scene, Seeds, miniature_seeds, photograph_seeds
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.artifacts import fingerprint_of, plain
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.label_map_dataset import LabelledImage, LabelMapDataset
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.refine.clip_affinities import by_class_distribution, by_clip_attention
from qaclims_ray.refine.config import CLIP_STEPS, MaskConfig, MaskStep
from qaclims_ray.refine.feature_affinity import by_features, load_cell_features
from qaclims_ray.refine.irn.labels import confident_seeds
from qaclims_ray.refine.irn.network import boundary_maps, build_affinity_net
from qaclims_ray.refine.irn.task import train_affinity
from qaclims_ray.refine.refinement import BoundariesOf, Refiners, refine_cams, refined_border
from qaclims_ray.refine.spreading import AffinityOf
from qaclims_ray.report.contact_sheet import SheetRow, contact_sheet
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.refine import mask_settings
from qaclims_ray.training.context import LocalContext

WAYS = (
    "nothing", "pamr", "crf", "clip_attention", "clip_attention+crf", "class_distribution", "class_distribution+crf",
    "feature_affinity", "feature_affinity+crf", "irn", "irn+crf",
)  # fmt: skip
THRESHOLDS = tuple(round(at / 50, 2) for at in range(1, 50))
_AROUND = 0.25
"""How far IRN's thresholds lie around that of the seeds, as in the preset folder."""


def main() -> None:
    """Parse the arguments; measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of seeds and figures")
    parser.add_argument("--seeds", type=int, nargs="*", default=[10, 11, 20, 21, 22], help="of the miniature")
    parser.add_argument("--systems", nargs="*", default=["patch_text", "baseline", "qa_clims"], help="whose seeds")
    parser.add_argument("--photographs", default="", help="folder in VOC's layout, with masks to score with")
    parser.add_argument("--weights", default="", help=f"ImageNet weights of {BACKBONE}")
    parser.add_argument("--ways", nargs="*", default=WAYS, help="what is done to the seeds")
    parser.add_argument("--every", type=int, default=1, help="of so many images one is taken")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=JSON", help="settings of masks on top")
    parser.add_argument("--picture", type=Path, help="draw what the ways make of three images of the first seeds")
    parser.add_argument("--print-only", action="store_true", help="show what was measured")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.print_only or arguments.picture:
        own = {name: json.loads(value) for name, _, value in (item.partition("=") for item in arguments.set)}
        for key, load in places(arguments):
            seeds = with_settings(load(), own, arguments.weights)
            if arguments.picture:
                picture(seeds, arguments.ways).save(arguments.picture, optimize=True)
                return
            measure(arguments.work / f"{key}.json", seeds, arguments.ways)
    print(conditions())
    print(table([json.loads(path.read_text()) for path in sorted(arguments.work.glob("*.json"))]))


def places(arguments: argparse.Namespace) -> Iterator[tuple[str, Callable[[], Seeds]]]:
    """Yield the name of each file of figures, and what loads the seeds that they are of."""
    every = arguments.every
    for seed in arguments.seeds:
        for system in arguments.systems:
            folder = arguments.work / f"miniature-{seed}"
            yield (
                f"miniature-{seed}-{system}",
                lambda folder=folder, seed=seed, system=system: miniature_seeds(folder, seed, system, every),
            )
    if arguments.photographs:
        yield (
            "photographs",
            lambda: photograph_seeds(arguments.work, arguments.photographs, arguments.weights, every),
        )


def with_settings(seeds: Seeds, own: dict[str, Any], weights: str) -> Seeds:
    """Return seeds with settings of `masks`: their own border, weights of features where these are, and others."""
    found: dict[str, Any] = {"seed_threshold": seeds.border, "irn.around_seed": _AROUND}
    if weights:
        found |= {"feature_affinity.backbone": BACKBONE, "feature_affinity.weights": weights}
    config = with_overrides(seeds.config, {f"masks.{name}": value for name, value in {**found, **own}.items()})
    masks = dataclasses.replace(config.masks, irn=config.masks.irn.around(seeds.border))
    return dataclasses.replace(seeds, config=dataclasses.replace(config, masks=masks))


def measure(path: Path, seeds: Seeds, ways: Sequence[str]) -> None:
    """Refine seeds in each way that was not measured with these settings yet, and keep its figures after each."""
    found = json.loads(path.read_text()) if path.is_file() else {}
    found |= {"name": seeds.name, "images": len(seeds.scenes), "border": seeds.border}
    figures: dict[str, dict[str, Any]] = found.setdefault("ways", {})
    images = [scene.record.image_id for scene in seeds.scenes]
    irn = functools.cache(lambda: trained_boundaries(seeds))  # once for all ways, and its time is counted in each
    for way in ways:
        masks = dataclasses.replace(seeds.config.masks, steps=steps_of(way))
        made_from = fingerprint_of([mask_settings(masks), plain(masks.irn), seeds.border, images])
        if figures.get(way, {}).get("made_from") != made_from and can_do(masks.steps, seeds):
            measured = refined(seeds, masks, *(irn() if "irn" in masks.steps else (None, 0.0)))
            figures[way] = {**measured, "made_from": made_from}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=2))


def steps_of(way: str) -> tuple[MaskStep, ...]:
    """Return the steps of a way."""
    return () if way == "nothing" else TypeAdapter(tuple[MaskStep, ...]).validate_python(tuple(way.split("+")))


def picture(seeds: Seeds, ways: Sequence[str]) -> Image.Image:
    """Draw the masks that each way makes of an image of each of the first three classes."""
    first = {scene.cam.class_ids[0]: scene for scene in reversed(seeds.scenes)}
    chosen = [first[class_id] for class_id in sorted(first)[:3]]
    few = dataclasses.replace(seeds, scenes=chosen)
    masks: dict[str, list[Tensor]] = {}
    for way in ways:
        if can_do(steps_of(way), few):
            settings = dataclasses.replace(seeds.config.masks, steps=steps_of(way))
            refiners = Refiners(affinities=networks(few, settings))
            maps = refine_cams(
                [one.pixels for one in chosen], [one.cam for one in chosen], settings, refiners, seeds.classes
            )
            masks[way] = [label_map(cam, maps.border) for cam in maps.cams]
    rows = [
        SheetRow(
            image_id=scene.record.image_id,
            image=scene.pixels,
            truth=scene.truth,
            class_ids=scene.record.labels,
            heat={"seed": full_of(scene).amax(0)},
            masks={"seed": label_map(scene.cam, seeds.border)},
            pseudo={way.replace("_", " "): found[at] for way, found in masks.items()},
        )
        for at, scene in enumerate(chosen)
    ]
    sheet = Image.fromarray(contact_sheet(rows, seeds.classes.names, tile_px=112))
    return sheet.quantize(256, dither=Image.Dither.NONE)


def full_of(scene: Scene) -> Tensor:
    """Return the maps of a scene at the image's size, which seeds here always have."""
    assert scene.cam.full is not None
    return scene.cam.full.float()


def can_do(steps: tuple[MaskStep, ...], seeds: Seeds) -> bool:
    """Whether the networks of some steps are at hand."""
    if set(steps) & set(CLIP_STEPS) and seeds.clip_files is None:
        return False
    if "feature_affinity" in steps and seeds.config.masks.feature_affinity.weights == "timm":
        return False
    return "irn" not in steps or bool(seeds.classifier_dir)


def refined(seeds: Seeds, masks: MaskConfig, boundaries: Any, training: float) -> dict[str, float]:
    """Return what some steps make of seeds: mIoU where the threshold is and at the best one, CPU seconds an image.

    Args:
        seeds: what they start from.
        masks: the steps.
        boundaries: IRN's trained network, where it is a step.
        training: CPU seconds of its training, which are counted; loading a network is not.
    """
    images, cams = [scene.pixels for scene in seeds.scenes], [scene.cam for scene in seeds.scenes]
    affinities = networks(seeds, masks)
    started = time.process_time()
    refiners = Refiners(boundaries=boundaries, affinities=affinities)
    maps = refine_cams(images, cams, masks, refiners, seeds.classes)
    seconds = (training + time.process_time() - started) / len(images)
    return {**scores(seeds, maps.cams, refined_border(masks)), "seconds": seconds}


def networks(seeds: Seeds, masks: MaskConfig) -> dict[MaskStep, AffinityOf]:
    """Return what the steps look at images with."""
    found: dict[MaskStep, AffinityOf] = {}
    if set(masks.steps) & set(CLIP_STEPS):
        assert seeds.clip_files is not None
        clip = load_clip(*seeds.clip_files, device="cpu", mask_adapted=False)
        texts = clip.encode_texts(seeds.class_texts)
        found["clip_attention"] = by_clip_attention(clip, masks.clip_attention)
        found["class_distribution"] = by_class_distribution(clip, texts, masks.class_distribution)
    if "feature_affinity" in masks.steps:
        features = load_cell_features(masks.feature_affinity, "cpu")
        found["feature_affinity"] = by_features(features, masks.feature_affinity)
    return found


def trained_boundaries(seeds: Seeds) -> tuple[BoundariesOf, float]:
    """Train IRN's network on confident seeds of the same images; return what gives boundary maps, and CPU seconds."""
    irn, started = seeds.config.masks.irn, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        labelled = []
        for scene in seeds.scenes:
            place = str(Path(folder, f"{scene.record.image_id}.png"))
            save_label_map(confident_seeds(scene.pixels, scene.cam, irn), place)
            labelled.append(LabelledImage(scene.record.image_id, scene.record.image_uri, place))
        torch.manual_seed(0)
        network = build_affinity_net(irn, classifier_dir=seeds.classifier_dir)
        crop = JointCropConfig(min_scale=irn.min_scale, max_scale=irn.max_scale, crop_px=irn.crop_px)
        train_affinity(
            network=network,
            dataset=LabelMapDataset(labelled, crop, *network.normalisation, 0),
            irn=irn,
            seed=0,
            precision="fp32",
            loader_workers=0,
            context=LocalContext(folder),
        )
    network.eval()
    return lambda images: boundary_maps(network, images, irn.pad_px), time.process_time() - started


def scores(seeds: Seeds, cams: Sequence[ImageCam], border: float) -> dict[str, float]:
    """Return mIoU of maps at their border, and at the threshold that pixel labels would choose."""
    classes: Classes = seeds.classes
    sweep = ThresholdSweep(tuple(sorted({*THRESHOLDS, round(border, 6)})), len(classes))
    for scene, cam in zip(seeds.scenes, cams, strict=True):
        sweep.update(cam, scene.truth, scene.record.labels)
    found = seed_scores(sweep, border, classes)
    return {"miou": found.miou_fixed, "best": found.miou_best, "at": found.threshold_best}


def conditions() -> str:
    """Return where and with what this was measured."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "timm"))
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{date.today()}, {where}, {versions}, one thread."


def table(found: Sequence[dict[str, Any]]) -> str:
    """Return what was measured as Markdown: mIoU and time of every way by seeds."""
    if not found:
        return "nothing is there"
    names = [f"{one['name']} ({one['images']} images)" for one in found]
    lines = [
        "",
        f"| mIoU at the label-free threshold / best (**pixel labels**), % | {' | '.join(names)} | CPU s/image |",
    ]
    lines.append("|---" * (len(found) + 2) + "|")
    known = [way for one in found for way in one["ways"]]
    for way in sorted(set(known), key=lambda way: (WAYS.index(way) if way in WAYS else len(WAYS), way)):
        figures = [one["ways"].get(way) for one in found]
        cells = [f"{100 * one['miou']:.1f} / {100 * one['best']:.1f}" if one else "-" for one in figures]
        seconds = sorted({f"{one['seconds']:.2f}" for one in figures if one})
        spent = " to ".join(dict.fromkeys([seconds[0], seconds[-1]])) if way != "nothing" else "0"
        lines.append(f"| {way} | {' | '.join(cells)} | {spent} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

"""Where SemPLeS's learned prompts lie by how they are learned, and what refinement makes of them; no Ray.

    python -m benchmarks.semples_prompts --work runs/semples_prompts --seeds 10 11
    python -m benchmarks.semples_prompts --work runs/semples_prompts --seeds 10 11 --refine preset text_weight=0.3
    python -m benchmarks.semples_prompts --work runs/semples_prompts --seeds 20 21 22 --print-only

The first trains the prompt step alone, a few seconds for each of `--ways`, on the background regions of one matched
network a seed, and looks at the prompts' texts by cosines; it reads no mask. The miniature knows which stuff and which
things stand around a class. With ``--refine`` the whole of SemPLeS follows, scored by masks. A way is `preset` or
settings of `semples.prompt`, as "similarity=clamp text_weight=0.3". What was measured is kept in the folder.
"""

import argparse
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.local_seeds import local_seeds, mask_figures, seed_figures
from benchmarks.miniature_results import LocalRun
from qaclims_ray.methods.region_features import Regions
from qaclims_ray.methods.semples.config import PromptConfig
from qaclims_ray.methods.semples.losses import prompt_contrast
from qaclims_ray.methods.semples.matching import region_options
from qaclims_ray.methods.semples.prompts import (
    BackgroundFeatures,
    background_features,
    learn_on_features,
    start_of_prompts,
)
from qaclims_ray.methods.similarity import HIGHEST, LOWEST
from qaclims_ray.methods.training_clip import encoded_prompts
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.vocabulary import CLASSES, NUM_CLASSES, PROP_OFFSETS, SECONDARY_OFFSETS, STUFF
from qaclims_ray.models.clip.prompts import encode_prompts
from qaclims_ray.models.generators.mask_generator import MaskNetwork, load_mask_generator
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.setup import TrainingSetup

PRESET = "preset"
WAYS = (
    PRESET, "text_weight=0", "text_weight=0.02", "text_weight=0.2", "text_weight=0.3", "text_weight=0.5",
    "text_weight=0.7", "text_weight=1",
    "image_weight=0", "image_weight=0 similarity=clamp",
    "similarity=clamp", "similarity=clamp text_weight=0.02", "similarity=clamp text_weight=0.3",
    "length=1", "length=4", "length=16", "init=uniform", "init=normal", "init=uniform similarity=clamp",
    "optim.epochs=20", "prefix=", "full_stop=vocabulary", "learn=false",
)  # fmt: skip
"""One choice after the other away from the preset's, and those that stand in each other's way together."""
REFERENCES = ("text of its usual stuff", "text of its class", "mean background region", "no text tower")
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
_FREE_STEPS, _FREE_RATE = 300, 0.05


@dataclass(frozen=True)
class Ground:
    """What the prompts of one seed are learned on and looked at with."""

    run: LocalRun
    """Its images and networks."""
    cached: BackgroundFeatures
    """Background regions of the matched network."""
    foreground: Tensor
    """Features of the foreground regions of the first crop of each image, (pair, dim)."""
    class_ids: Tensor
    """Their classes."""
    words: Tensor
    """Texts of the class names, then of everything that is background, (word, dim)."""


def main() -> None:
    """Parse the arguments; measure what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of networks and figures")
    parser.add_argument("--seeds", type=int, nargs="*", default=[10, 11])
    parser.add_argument("--ways", nargs="*", default=list(WAYS), help="how prompts are learned")
    parser.add_argument("--refine", nargs="*", default=[], help="ways that the whole of SemPLeS is trained with")
    parser.add_argument("--only-refine", action="store_true", help="leave the prompt step alone out")
    parser.add_argument("--print-only", action="store_true", help="show what was measured")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for seed in () if asked.print_only else asked.seeds:
        ground = functools.cache(lambda seed=seed: ground_of(asked.work, seed))
        for way in () if asked.only_refine else (*REFERENCES, *asked.ways):
            _kept(asked.work / "places.jsonl", seed, way, lambda way=way, g=ground: looked_at(g(), way))
        for way in asked.refine:
            _kept(asked.work / "refined.jsonl", seed, way, lambda way=way, s=seed: refined_by(asked.work, s, way))
    print(conditions(asked.seeds))
    print(places_table(rows_of(asked.work / "places.jsonl", asked.seeds)))
    print(refined_table(rows_of(asked.work / "refined.jsonl", asked.seeds)))


def _kept(path: Path, seed: int, way: str, measure: Callable[[], dict[str, Any]]) -> None:
    if not any(row["way"] == way for row in rows_of(path, [seed])):
        row = {"seed": seed, "way": way, **measure()}
        with open(path, "a") as lines:
            lines.write(json.dumps(row) + "\n")
        print(row, flush=True)


def rows_of(path: Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Return what was measured on some seeds."""
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [row for row in rows if row["seed"] in seeds]


def overrides_of(way: str) -> dict[str, Any]:
    """Return the settings of a way by their full names; values are JSON, or words."""
    found: dict[str, Any] = {}
    for name, _, value in (item.partition("=") for item in way.split() if way != PRESET):
        try:
            found[f"semples.prompt.{name}"] = json.loads(value)
        except ValueError:
            found[f"semples.prompt.{name}"] = value
    return found


def run_of(work: Path, seed: int, way: str = PRESET) -> LocalRun:
    """Return a seed's run with the settings of a way."""
    config = with_overrides(preset("miniature_semples"), {"seed": seed, **overrides_of(way)})
    return LocalRun(config, work / f"seed-{seed}")


def ground_of(work: Path, seed: int) -> Ground:
    """Match a network where that is missing; look at its regions with the frozen CLIP."""
    run = run_of(work, seed)
    network = load_mask_generator(str(run.network("semples_match")), torch.device("cpu")).eval()
    setup, regions = _setup(run, work), _regions(run)
    semples = run.config.semples
    cached = background_features(
        network,
        setup.images(setup.augment.light()),
        regions=regions,
        num_views=semples.prompt.num_views,
        loader_workers=0,
        context=setup.context,
    )
    template = run.config.text.template
    with torch.no_grad():
        words = run.clip.encode_texts([template.replace("{}", word) for word in (*CLASSES, *STUFF)])
    return Ground(run, cached, *_foreground(setup, network, regions), words)


def _setup(run: LocalRun, work: Path) -> TrainingSetup:
    config = run.config
    return TrainingSetup(
        manifest=run.trained,
        cam_net=config.cam_net,
        augment=config.augment,
        precision="fp32",
        loader_workers=0,
        seed=config.seed,
        context=LocalContext(str(work / f"seed-{config.seed}" / f"learned-{time.time_ns()}")),
    )


def _regions(run: LocalRun) -> Regions:
    semples, net = run.config.semples, run.config.cam_net
    options = region_options(semples, epsilon=semples.prompt.mask_epsilon)
    return Regions(clip=run.clip, options=options, image_mean=net.image_mean, image_std=net.image_std)


@torch.no_grad()
def _foreground(setup: TrainingSetup, network: MaskNetwork, regions: Regions) -> tuple[Tensor, Tensor]:
    dataset = setup.images(setup.augment.light())
    dataset.set_epoch(0)
    found, classes = [], []
    for batch in DataLoader(dataset, batch_size=16):
        position, class_id = batch["labels"].nonzero().unbind(dim=1)
        found.append(regions(network(batch["image"]), batch["image"], position, class_id).foreground)
        classes.append(class_id)
    return torch.cat(found), torch.cat(classes)


def looked_at(ground: Ground, way: str) -> dict[str, float]:
    """Learn prompts in a way, or take a reference; return where they lie."""
    config = with_overrides(ground.run.config, overrides_of(way) if way not in REFERENCES else {})
    settings, started = config.semples.prompt, time.process_time()
    classes = ground.words[:NUM_CLASSES]
    if way == "text of its usual stuff":
        prompts = ground.words[NUM_CLASSES : 2 * NUM_CLASSES]
    elif way == "text of its class":
        prompts = classes
    elif way == "mean background region":
        prompts = F.normalize(_by_class(ground.cached.features, ground.cached.class_ids), dim=1)
    elif way == "no text tower":
        prompts = _free_vectors(ground, settings)
    else:
        prompts = _learned(ground, config)
    return {**places(ground, prompts), "cpu_s": time.process_time() - started}


def _learned(ground: Ground, config: RunConfig) -> Tensor:
    run, settings = ground.run, config.semples.prompt
    setup = _setup(run, run.folder.parent)
    if not settings.learn:
        return _random(ground, config)
    learn_on_features(
        ground.cached,
        setup=setup,
        clip=run.clip,
        class_texts=ground.words[:NUM_CLASSES],
        settings=settings,
        options=_regions(run).options,
    )
    with setup.context.latest_checkpoint() as folder:
        assert folder is not None
        return encoded_prompts(folder, run.clip)


@torch.no_grad()
def _random(ground: Ground, config: RunConfig) -> Tensor:
    vectors, template = start_of_prompts(ground.run.clip, config.semples.prompt, NUM_CLASSES, config.seed)
    return encode_prompts(ground.run.clip, vectors, template)


def _by_class(features: Tensor, class_ids: Tensor) -> Tensor:
    return torch.stack([features[class_ids == class_id].mean(0) for class_id in range(NUM_CLASSES)])


def _free_vectors(ground: Ground, settings: PromptConfig) -> Tensor:
    """Return the unit vectors that Eq. 2 asks for where any vector may be a prompt: no words, no tower."""
    features, class_ids = ground.cached.features, ground.cached.class_ids
    free = torch.nn.Parameter(F.normalize(_by_class(features, class_ids), dim=1))
    optimiser = torch.optim.Adam([free], lr=_FREE_RATE)
    for _ in range(_FREE_STEPS):
        optimiser.zero_grad()
        prompts, texts = F.normalize(free, dim=1), ground.words[:NUM_CLASSES]
        image, text = prompt_contrast(prompts[class_ids], features, texts[class_ids], similarity=settings.similarity)
        (settings.image_weight * image.mean() + settings.text_weight * text.mean()).backward()
        optimiser.step()
    return F.normalize(free.detach(), dim=1)


@torch.no_grad()
def places(ground: Ground, prompts: Tensor) -> dict[str, float]:
    """Return means over classes and pairs of what `COLUMNS` names; L_I and L_T with the cosines clamped, as printed."""
    cosines = prompts @ ground.words.T  # (class, word)
    stuff_columns = cosines[:, NUM_CLASSES:]
    own, around, other, reads = [], [], [], []
    for class_id in range(NUM_CLASSES):
        near, far = surroundings(class_id)
        own.append(stuff_columns[class_id, class_id])
        around.append(stuff_columns[class_id, near].mean())
        other.append(stuff_columns[class_id, far].mean())
        word = int(cosines[class_id].argmax())
        reads.append((word - NUM_CLASSES in (class_id, *near), word == class_id))
    cached, on_foreground = ground.cached, (prompts[ground.class_ids] * ground.foreground).sum(1)
    texts = ground.words[:NUM_CLASSES]
    image, text = prompt_contrast(
        prompts[cached.class_ids], cached.features, texts[cached.class_ids], similarity="clamp"
    )
    return {
        "class": float(cosines.diagonal().mean()),
        "stuff": float(torch.stack(own).mean()),
        "around": float(torch.stack(around).mean()),
        "other": float(torch.stack(other).mean()),
        "reads_around": float(sum(one for one, _ in reads)),
        "reads_class": float(sum(one for _, one in reads)),
        "background": float((prompts[cached.class_ids] * cached.features).sum(1).mean()),
        "foreground": float(on_foreground.mean()),
        "alive": float(((on_foreground > LOWEST) & (on_foreground < HIGHEST)).float().mean()),
        "image_loss": float(image.mean()),
        "text_loss": float(text.mean()),
    }


def surroundings(class_id: int) -> tuple[list[int], list[int]]:
    """Return a class's other surroundings, and what is not around it, as positions in `STUFF`."""
    second = [NUM_CLASSES + (class_id + offset) % NUM_CLASSES for offset in SECONDARY_OFFSETS]
    props = [vocabulary.NUM_ZONE_STUFF + (class_id + offset) % NUM_CLASSES for offset in PROP_OFFSETS]
    near = [*second, *props]
    return near, [stuff for stuff in range(len(STUFF)) if stuff != class_id and stuff not in near]


def refined_by(work: Path, seed: int, way: str) -> dict[str, Any]:
    """Train SemPLeS to its end with prompts that are learned in a way, or a system by its name; score seeds and masks.

    Systems are named with a colon, as "system:semples_match_longer".
    """
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

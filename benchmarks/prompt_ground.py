"""What SemPLeS's prompts are learned on, how they are learned in many ways at once, and where they end.

The prompt step alone: background regions are looked at once, and ways that share a sentence and a schedule learn side
by side, each with its own prompts, on the same draws. AdamW goes by elements, so that none feels the others.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from qaclims_ray.data.classes import label_value
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.splits import training_images
from qaclims_ray.data.voc import read_voc
from qaclims_ray.methods.region_features import Regions
from qaclims_ray.methods.semples.config import PromptConfig
from qaclims_ray.methods.semples.given_maps import MAX_VIEWS, WholeImages
from qaclims_ray.methods.semples.losses import prompt_contrast
from qaclims_ray.methods.semples.matching import region_options
from qaclims_ray.methods.similarity import HIGHEST, LOWEST
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.miniature.vocabulary import CLASSES, NUM_CLASSES, PROP_OFFSETS, SECONDARY_OFFSETS, STUFF
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.models.clip.prompts import encode_prompts
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.systems.recipe import clip_files

if TYPE_CHECKING:
    from benchmarks.miniature_results import LocalRun

PRESET = "preset"
REFERENCES = ("text of its usual stuff", "text of its class", "mean background region")
FREE = "free "
"""Before a way: any unit vector may be a prompt, which shows what Eq. 2 asks for without words, tower and start."""
_FREE_STEPS, _FREE_RATE = 200, 0.05
_IMAGES_PER_PASS = 16


@dataclass(frozen=True)
class Ground:
    """What the prompts of one seed are learned on and looked at with."""

    clip: FrozenClip
    """The frozen CLIP."""
    settings: PromptConfig
    """Of the preset."""
    seed: int
    """Of prompts and draws."""
    background: Tensor
    """Features of the background regions of all pairs and views, (row, dim)."""
    class_ids: Tensor
    """Their classes."""
    foreground: Tensor
    """Features of the foreground regions, (row, dim)."""
    words: Tensor
    """Texts of the class names, then of everything that is background, (word, dim)."""

    @property
    def texts(self) -> Tensor:
        """u_f of every class."""
        return self.words[:NUM_CLASSES]


def overrides_of(way: str) -> dict[str, Any]:
    """Return the settings of a way by their full names; values are JSON, or words."""
    found: dict[str, Any] = {}
    for name, _, value in (item.partition("=") for item in way.removeprefix(FREE).split() if item != PRESET):
        try:
            found[f"semples.prompt.{name}"] = json.loads(value)
        except ValueError:
            found[f"semples.prompt.{name}"] = value
    return found


def config_of(seed: int, way: str = PRESET) -> RunConfig:
    """Return the miniature's run of SemPLeS with the settings of a way."""
    return with_overrides(preset("miniature_semples"), {"seed": seed, **overrides_of(way)})


@torch.no_grad()
def true_ground(work: Path, seed: int, images: int) -> Ground:
    """Return regions that true masks cut, the best that any network could give: of each image and its mirror image.

    Args:
        work: folder of images, which are drawn where they are missing.
        seed: of the images.
        images: how many.
    """
    config, root = config_of(seed), str(work / f"data-{seed}-{images}")
    if not Path(root).is_dir():
        write_dataset(root, num_images=images, seed=seed)
    data = replace(config.data, root=root)
    manifest = training_images(read_voc(data, class_names=CLASSES, file_names=CLASSES), data)
    model, weights = clip_files(config)
    clip = load_clip(model, weights, device="cpu", mask_adapted=config.clip.mask_adapted)
    options = replace(region_options(config.semples, epsilon=1e-4), mask="given")
    dataset = WholeImages(
        manifest, lambda at: _true_maps(manifest, at), config.cam_net, size=clip.image_size, antialias=options.antialias
    )
    net = config.cam_net
    regions = Regions(clip=clip, options=options, image_mean=net.image_mean, image_std=net.image_std)
    return _ground(config, clip, dataset, regions, lambda batch: batch["maps"], MAX_VIEWS)


@torch.no_grad()
def matched_ground(run: "LocalRun") -> Ground:
    """Return regions that a matched network cuts, which is trained where it is missing: what SemPLeS learns on."""
    from qaclims_ray.data.datasets import ImageLabelDataset
    from qaclims_ray.models.generators.mask_generator import load_mask_generator

    config, semples, net = run.config, run.config.semples, run.config.cam_net
    network = load_mask_generator(str(run.network("semples_match")), torch.device("cpu")).eval()
    light = config.augment.light()
    dataset = ImageLabelDataset(run.trained, light, net.image_mean, net.image_std, config.seed)
    options = region_options(semples, epsilon=semples.prompt.mask_epsilon)
    regions = Regions(clip=run.clip, options=options, image_mean=net.image_mean, image_std=net.image_std)
    return _ground(config, run.clip, dataset, regions, lambda batch: network(batch["image"]), semples.prompt.num_views)


def _ground(
    config: RunConfig, clip: FrozenClip, dataset: Any, regions: Regions, maps_of: Callable[[Any], Tensor], views: int
) -> Ground:
    background, classes, foreground = [], [], []
    for view in range(views):
        dataset.set_epoch(view)
        for batch in DataLoader(dataset, batch_size=_IMAGES_PER_PASS):
            position, class_id = batch["labels"].nonzero().unbind(dim=1)
            seen = regions(maps_of(batch), batch["image"], position, class_id)
            background.append(seen.background)
            foreground.append(seen.foreground)
            classes.append(class_id)
    words = clip.encode_texts([config.text.template.replace("{}", word) for word in (*CLASSES, *STUFF)])
    found = torch.cat(background), torch.cat(classes), torch.cat(foreground)
    return Ground(clip, config.semples.prompt, config.seed, *found, words)


def _true_maps(manifest: Manifest, at: int) -> Tensor:
    record = manifest.records[at]
    mask = load_mask(record.mask_uri or "")
    return torch.stack([mask == label_value(class_id) for class_id in record.labels]).float()


def prompts_of(ground: Ground, ways: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield what references and prompts learned in each way say, unit vectors (class, dim), the quick ones first."""
    yield REFERENCES[0], ground.words[NUM_CLASSES : 2 * NUM_CLASSES]
    yield REFERENCES[1], ground.texts
    yield REFERENCES[2], F.normalize(_by_class(ground.background, ground.class_ids), dim=1)
    together: dict[tuple[Any, ...], dict[str, PromptConfig]] = defaultdict(dict)
    for way in ways:
        settings = config_of(ground.seed, way).semples.prompt
        if way.startswith(FREE):
            yield way, free_vectors(ground, settings)
        elif not settings.learn:
            yield way, _encoded(ground, settings)
        else:
            key = (settings.length, settings.prefix, settings.full_stop, settings.optim, settings.steps_per_epoch)
            together[key][way] = settings
    for group in together.values():
        yield from learned(ground, group).items()


@torch.no_grad()
def _encoded(ground: Ground, settings: PromptConfig) -> Tensor:
    from qaclims_ray.methods.semples.prompts import start_of_prompts

    vectors, template = start_of_prompts(ground.clip, settings, NUM_CLASSES, ground.seed)
    return encode_prompts(ground.clip, vectors, template)


def learned(ground: Ground, ways: dict[str, PromptConfig]) -> dict[str, Tensor]:
    """Learn prompts in ways that share a sentence and a schedule, side by side.

    Args:
        ground: what they are learned on.
        ways: settings by name.
    """
    from qaclims_ray.methods.semples.prompts import start_of_prompts
    from qaclims_ray.training.optim import build_optimizer, learning_rate_factor, set_learning_rate

    first = next(iter(ways.values()))
    starts = [start_of_prompts(ground.clip, settings, NUM_CLASSES, ground.seed) for settings in ways.values()]
    vectors = torch.nn.Parameter(torch.cat([vectors for vectors, _ in starts]))  # (way x class, token, width)
    optimizer = build_optimizer([([vectors], 1.0)], first.optim)
    total = first.optim.epochs * first.steps_per_epoch
    generator = torch.Generator().manual_seed(ground.seed)
    for step in range(total):
        set_learning_rate(optimizer, learning_rate_factor(step, total, first.optim))
        rows = torch.randint(len(ground.class_ids), (first.optim.batch_size,), generator=generator)
        class_ids, features = ground.class_ids[rows], ground.background[rows]
        encoded = encode_prompts(ground.clip, vectors, starts[0][1]).unflatten(0, (len(ways), NUM_CLASSES))
        losses = [
            eq_2(own[class_ids], features, ground.texts[class_ids], settings)
            for own, settings in zip(encoded, ways.values(), strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
    with torch.no_grad():
        encoded = encode_prompts(ground.clip, vectors, starts[0][1]).unflatten(0, (len(ways), NUM_CLASSES))
    return dict(zip(ways, encoded, strict=True))


def eq_2(prompts: Tensor, features: Tensor, texts: Tensor, settings: PromptConfig) -> Tensor:
    """Return L_prompt of some pairs, a mean."""
    image, text = prompt_contrast(prompts, features, texts, similarity=settings.similarity)
    return settings.image_weight * image.mean() + settings.text_weight * text.mean()


def _by_class(features: Tensor, class_ids: Tensor) -> Tensor:
    return torch.stack([features[class_ids == class_id].mean(0) for class_id in range(NUM_CLASSES)])


def free_vectors(ground: Ground, settings: PromptConfig) -> Tensor:
    """Return the unit vectors that Eq. 2 asks for where any vector may be a prompt: no words, no tower."""
    class_ids = ground.class_ids
    free = torch.nn.Parameter(F.normalize(_by_class(ground.background, class_ids), dim=1))
    optimiser = torch.optim.Adam([free], lr=_FREE_RATE)
    for _ in range(_FREE_STEPS):
        optimiser.zero_grad()
        prompts = F.normalize(free, dim=1)
        eq_2(prompts[class_ids], ground.background, ground.texts[class_ids], settings).backward()
        optimiser.step()
    return F.normalize(free.detach(), dim=1)


@torch.no_grad()
def places(ground: Ground, prompts: Tensor) -> dict[str, float]:
    """Return where prompts lie, means over classes and pairs; L_I and L_T with the cosines clamped, as printed."""
    cosines = prompts @ ground.words.T  # (class, word)
    to_stuff = cosines[:, NUM_CLASSES:]
    around, other, nearest_is_near = [], [], []
    for class_id in range(NUM_CLASSES):
        near, far = surroundings(class_id)
        around.append(to_stuff[class_id, near].mean())
        other.append(to_stuff[class_id, far].mean())
        nearest_is_near.append(int(cosines[class_id].argmax()) - NUM_CLASSES in (class_id, *near))
    class_ids = ground.class_ids
    on_foreground = (prompts[class_ids] * ground.foreground).sum(1)
    on_background = (prompts[class_ids] * ground.background).sum(1)
    image, text = prompt_contrast(prompts[class_ids], ground.background, ground.texts[class_ids], similarity="clamp")
    return {
        "class": float(cosines.diagonal().mean()),
        "stuff": float(to_stuff.diagonal().mean()),
        "around": float(torch.stack(around).mean()),
        "other": float(torch.stack(other).mean()),
        "reads_around": float(sum(nearest_is_near)),
        "reads_class": float((cosines.argmax(1) == torch.arange(NUM_CLASSES)).sum()),
        "background": float(on_background.mean()),
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

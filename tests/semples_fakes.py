"""What trainings of CLIMS and SemPLeS need besides `ritc_fakes`: texts near CLIP's regions, settings, a text tower."""

import dataclasses
import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.region_features import Regions
from qaclims_ray.methods.semples.config import PromptConfig, SemplesConfig
from qaclims_ray.methods.semples.matching import region_options
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.training.config import OptimConfig
from tests.ritc_fakes import TinyTexts, regions_of

OPTIM = OptimConfig(name="adamw", lr=0.01, head_lr_factor=2.0, epochs=2, batch_size=4, schedule="cosine")


@functools.cache
def shipped_clip() -> FrozenClip:
    """Return the miniature's CLIP: a real one, with a text tower of 24 tokens."""
    return load_clip(str(clip_dir()), None, device="cpu", mask_adapted=False)


def bright_images(num_images: int, size: int, *, seed: int) -> Tensor:
    """Return noisy pictures that CLIP finds alike."""
    return 1 + 0.5 * torch.randn(num_images, 3, size, size, generator=torch.Generator().manual_seed(seed))


def texts_near(clip: Any, *shape: int, seed: int, spread: float = 0.8) -> Tensor:
    """Return texts, (*shape, dim), around CLIP's regions of `bright_images`: random ones would be clamped (S6)."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(clip.parameters()).dtype
    pictures = bright_images(8, clip.image_size, seed=seed).to(dtype)
    with torch.no_grad():
        middle = F.normalize(clip.encode_regions(pictures).mean(dim=0), dim=0)
    noise = torch.randn(*shape, len(middle), generator=generator).to(dtype) * spread * len(middle) ** -0.5
    return F.normalize(middle + noise, dim=-1)


def near_bank(clip: Any, num_images: int) -> TinyTexts:
    """Return texts of every pair as `TinyTexts` does, near CLIP's regions and of unit length."""
    bank = TinyTexts(num_images)
    bank.foreground = texts_near(clip, num_images, 3, seed=1)
    bank.background = texts_near(clip, num_images, 3, 3, seed=2)
    return bank


def clims_config(**changes: Any) -> ClimsConfig:
    """Return settings of a short training."""
    return ClimsConfig(**{"optim": OPTIM, "freeze_batch_norm": True, **changes})


def prompt_config(**changes: Any) -> PromptConfig:
    """Return settings of a short training; names of the optimiser's settings change these."""
    names = {field.name for field in dataclasses.fields(OptimConfig)}
    optim = {"epochs": 2, "batch_size": 8, **{name: changes.pop(name) for name in names & changes.keys()}}
    short = {"length": 3, "init": "vocabulary", "similarity": "shift", "num_views": 2, "steps_per_epoch": 3}
    short["optim"] = dataclasses.replace(PromptConfig().optim, **optim)
    return PromptConfig(**{**short, "text_weight": 0.3, **changes})  # type: ignore[arg-type]


def semples_regions(clip: Any, semples: SemplesConfig) -> Regions:
    """Return what makes regions of pictures as matching does."""
    return regions_of(clip, region_options(semples, epsilon=semples.mask_epsilon))


def semples_config(**changes: Any) -> SemplesConfig:
    """Return settings of a short training."""
    short = {"match": OPTIM, "refine": OPTIM, "prompt": prompt_config(), "train_scope": "full"}
    return SemplesConfig(**{**short, **changes})  # type: ignore[arg-type]

"""Tiny real stand-ins for what text-contrast training needs: a frozen region encoder, texts, pictures."""

import dataclasses
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from qaclims_ray.data.config import AugmentConfig
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.methods.region_features import RegionEncoder, RegionOptions, Regions
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.text.bank import PairTexts
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.setup import TrainingSetup

CLASSES = ("red", "green", "blue")
CAM_NET = CamNetConfig(backbone="miniature", output_stride=4)
AUGMENT = AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=32)


class TinyClip(nn.Module):
    """Patches, a nonlinearity, a mean; patches that the token mask leaves empty become a learned token."""

    image_size = 24
    patch = 8
    mean = (0.4, 0.5, 0.6)
    std = (0.2, 0.3, 0.25)

    def __init__(self, dim: int = 6, *, is_mask_adapted: bool = True, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def weights(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(*shape, generator=generator) * shape[0] ** -0.5, requires_grad=False)

        self.embed = weights(3 * self.patch**2, 12)
        self.token = weights(12)
        self.project = weights(12, dim)
        self.dim, self.is_mask_adapted = dim, is_mask_adapted
        self.num_calls = 0

    def encode_regions(self, pixels: torch.Tensor, token_mask: torch.Tensor | None = None) -> torch.Tensor:
        self.num_calls += 1
        tokens = F.unfold(pixels, self.patch, stride=self.patch).transpose(1, 2) @ self.embed
        if token_mask is not None:
            is_on = F.max_pool2d(token_mask, self.patch).flatten(1).unsqueeze(-1)
            tokens = tokens * is_on + self.token * (1 - is_on)
        return F.normalize(torch.tanh(tokens).mean(dim=1) @ self.project, dim=-1)


class TinyTexts:
    """Random texts of every (image, class); a pair's number of background texts is (image + class) % 4, 0 included."""

    def __init__(self, num_images: int, num_classes: int = len(CLASSES), dim: int = 6, seed: int = 1) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.foreground = 0.9 * F.normalize(torch.randn(num_images, num_classes, dim, generator=generator), dim=-1)
        self.background = F.normalize(torch.randn(num_images, num_classes, 3, dim, generator=generator), dim=-1)

    def lookup(self, image_ids: list[str], class_ids: list[int]) -> PairTexts:
        images = torch.tensor([int(name) for name in image_ids], dtype=torch.int64)
        classes = torch.tensor(class_ids, dtype=torch.int64)
        counts = (images + classes) % 4
        return PairTexts(
            foreground=self.foreground[images, classes],
            background=self.background[images, classes],
            is_background=torch.arange(3) < counts[:, None],
            has_background=counts > 0,
        )


def write_pictures(folder: Path, num_images: int = 12, size: int = 32) -> Manifest:
    """Draw noisy pictures, each with a coloured square for every class that it shows; some show none or two."""
    generator = np.random.default_rng(0)
    records = []
    for index in range(num_images):
        labels = tuple(sorted({index % 4, (index // 3) % 5} & {0, 1, 2}))
        pixels = generator.integers(90, 150, (size, size, 3), dtype=np.uint8)
        for label in labels:
            top, left = generator.integers(0, size - 12, 2)
            pixels[top : top + 12, left : left + 12, label] = 250
        path = folder / f"{index}.png"
        Image.fromarray(pixels).save(path)
        records.append(ImageRecord(str(index), str(path), size, size, labels, splits=("train",)))
    return Manifest(CLASSES, tuple(records))


def ritc_config(**overrides: object) -> RitcConfig:
    """Return settings of a short training."""
    optim = OptimConfig(lr=0.01, epochs=2, batch_size=4, momentum=0.9, clip_grad_norm=5.0, head_lr_factor=2.0)
    return RitcConfig(**{"optim": optim, "freeze_batch_norm": True, **overrides})  # type: ignore[arg-type]


def regions_of(clip: RegionEncoder, options: RegionOptions | None = None) -> Regions:
    """Return what makes regions of pictures in `CAM_NET`'s normalisation."""
    mean, std = CAM_NET.image_mean, CAM_NET.image_std
    return Regions(clip=clip, options=options or RegionOptions(), image_mean=mean, image_std=std)


def with_setup(**options: object) -> dict:
    """Gather what belongs to `TrainingSetup` out of a training's arguments."""
    names = {field.name for field in dataclasses.fields(TrainingSetup)}
    own = {name: value for name, value in options.items() if name in names}
    return {"setup": TrainingSetup(**own), **{k: v for k, v in options.items() if k not in names}}  # type: ignore[arg-type]

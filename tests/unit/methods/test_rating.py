"""What rates a mask generator after an epoch: CLIP, separation, pixel labels."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.rating import CamSource, clip_score, oracle_score, separation_score
from qaclims_ray.methods.region_features import RegionOptions
from qaclims_ray.models.generators.cam_net import build_cam_net
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.training.context import LocalContext
from tests.ritc_fakes import AUGMENT, CAM_NET, CLASSES, TinyClip, regions_of, write_pictures

STILL = dataclasses.replace(AUGMENT, flip=False)
MEAN, STD = CAM_NET.image_mean, CAM_NET.image_std
MINIATURE = miniature()
CAM_SOURCE = CamSource(cams=dataclasses.replace(MINIATURE.cams, flip=False), image_mean=MEAN, image_std=STD)
WAY: dict[str, Any] = {"cam_source": CAM_SOURCE, "evaluation": MINIATURE.evaluation}


def _dataset(folder: Path) -> ImageLabelDataset:
    return ImageLabelDataset(write_pictures(folder), STILL, MEAN, STD, seed=0)


def test_clip_score_is_the_mean_gap_between_regions(tmp_path):
    torch.manual_seed(0)
    network, clip, dataset = build_cam_net(CAM_NET, 3).eval(), TinyClip(), _dataset(tmp_path)
    texts = torch.nn.functional.normalize(torch.randn(3, 6), dim=-1)
    regions = regions_of(clip, RegionOptions(omega=0.2, mode="pixel_mask"))
    gaps = []
    dataset.set_epoch(0)
    with torch.no_grad():
        for index in range(0, len(dataset), 2):
            item = dataset[index]
            for class_id in item["labels"].nonzero().flatten().tolist():
                image = item["image"][None]
                found = regions(network(image), image, torch.tensor([0]), torch.tensor([class_id]))
                gaps.append(float((found.foreground - found.background)[0] @ texts[class_id]))
    score = clip_score(
        network.train(),
        dataset,
        regions=regions,
        class_texts=texts,
        num_images=len(dataset) // 2,
        context=LocalContext(str(tmp_path)),
    )
    assert score == pytest.approx(np.mean(gaps), abs=1e-5)
    assert network.training


def _with_masks(manifest: Manifest, folder: Path) -> Manifest:
    records = []
    for record in manifest.records:
        path = folder / f"mask-{record.image_id}.png"
        mask = np.zeros((record.height, record.width), np.uint8)
        mask[4:20, 4:20] = record.labels[0] + 1 if record.labels else 0
        Image.fromarray(mask).save(path)
        records.append(dataclasses.replace(record, mask_uri=str(path)))
    return Manifest(manifest.class_names, tuple(records))


class _Block(torch.nn.Module):
    """Fires in one place for every class."""

    def __init__(self, place: slice) -> None:
        super().__init__()
        self.place = place
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = torch.full((len(image), len(CLASSES), *image.shape[-2:]), -9.0) + self.anchor
        maps[..., self.place, self.place] = 9.0
        return maps


def test_oracle_prefers_maps_that_agree_with_the_masks_and_says_when_there_are_none(tmp_path):
    manifest = write_pictures(tmp_path)
    context = LocalContext(str(tmp_path))
    with_masks = _with_masks(manifest, tmp_path)
    scores = [
        oracle_score(_Block(place), manifest=with_masks, num_images=5, context=context, **WAY)
        for place in (slice(4, 20), slice(12, 28))
    ]
    assert scores[0] > scores[1] + 0.2
    with pytest.raises(ConfigError, match="no scored image has a mask"):
        oracle_score(_Block(slice(4, 20)), manifest=manifest, num_images=5, context=context, **WAY)


def test_separation_prefers_maps_on_the_objects_and_reads_no_mask(tmp_path):
    manifest = write_pictures(tmp_path, num_images=40)
    texts = torch.nn.functional.normalize(torch.ones(3, 6), dim=-1)

    class Colours(torch.nn.Module):
        """Fires where a class's channel stands out, or everywhere."""

        def __init__(self, least: float) -> None:
            super().__init__()
            self.least, self.anchor = least, torch.nn.Parameter(torch.zeros(()))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            relative = image - image.amin(dim=1, keepdim=True)
            return torch.where(relative > self.least, 9.0, -9.0) + self.anchor

    def rate(least: float) -> float:
        return separation_score(
            Colours(least).train(),
            manifest=manifest,
            cam_source=CAM_SOURCE,
            threshold=MINIATURE.fixed_threshold,
            num_images=30,
            clip=_AgreeingClip(),
            class_texts=texts,
            context=LocalContext(str(tmp_path)),
        )

    found = {least: rate(least) for least in (-1.0, 1.2, 99.0)}
    assert found[1.2] > 0.3
    assert found[-1.0] == pytest.approx(0, abs=1e-3)  # everything
    assert found[1.2] > 2 * found[99.0]  # nothing


class _AgreeingClip(TinyClip):
    """Says of every region that it shows the class."""

    def encode_regions(self, pixels: torch.Tensor, token_mask: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.ones(len(pixels), 6), dim=-1)

"""Seeds without training: directions of classes, and the shipped CLIP finding a drawn object where it is."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.voc import read_voc
from qaclims_ray.methods.patch_text.network import PatchTextNetwork, class_directions
from qaclims_ray.miniature import vocabulary
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.text.bank import TextBank, build_bank
from qaclims_ray.text.config import TextConfig
from tests.semples_fakes import shipped_clip

TEXTS = torch.eye(4)


def bank(background: list[list[int]]) -> TextBank:
    """Two pairs of class 0 (texts 0 and 1), none of class 1; the background texts of each pair."""
    width = max(1, *(len(row) for row in background))
    return TextBank(
        texts=("a", "b", "c", "d"),
        features=TEXTS,
        image_ids=("one", "two"),
        class_ids=(0, 0),
        foreground=torch.tensor([[0], [1]]),
        foreground_weights=torch.ones(2, 1),
        background=torch.tensor([row + [0] * (width - len(row)) for row in background]),
        num_foreground=torch.ones(2, dtype=torch.long),
        num_background=torch.tensor([len(row) for row in background]),
        class_names=("cat", "dog"),
        renormalise_foreground=False,
        origin="test",
    )


def test_directions_are_the_mean_text_less_the_mean_of_the_background() -> None:
    foreground = F.normalize(torch.tensor([0.5, 0.5, 0.0, 0.0]), dim=0)
    found = class_directions(bank([[2, 3], [2]]), 0.5)
    expected = foreground - 0.5 * (TEXTS[2] * 0.75 + TEXTS[3] * 0.25)
    torch.testing.assert_close(found, torch.stack([expected, torch.zeros(4)]))


def test_pairs_without_background_do_not_thin_it() -> None:
    found = class_directions(bank([[2], []]), 1.0)
    assert found[0, 2] == -1


@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_cells_cover_an_image_of_any_size(size: tuple[int, int]) -> None:
    clip = shipped_clip()
    network = PatchTextNetwork(clip, torch.randn(3, clip.dim), num_blocks=2)
    with torch.no_grad():
        found = network(torch.randn(2, 3, *size))
    assert found.shape == (2, 3, -(-size[0] // 8), -(-size[1] // 8))
    assert found.abs().max() <= network.directions.norm(dim=1).max() + 1e-5


def _mean_iou(clip: FrozenClip, images: Manifest, *, background_weight: float) -> float:
    """Mean IoU of object and map at its own best threshold."""
    text = TextConfig(source="class_names")
    directions = class_directions(build_bank(None, images, text, clip.encode_texts), background_weight)
    pictures = [load_image(record.image_uri) for record in images.records]
    cams = compute_cams(
        PatchTextNetwork(clip, directions, num_blocks=1),
        pictures,
        [record.labels for record in images.records],
        [record.image_id for record in images.records],
        CamConfig(scales=(1.0,), activation="none", normalisation="minmax"),
        clip.mean,
        clip.std,
    )
    best = 0.0
    for threshold in torch.arange(0.4, 0.9, 0.05):
        ious = []
        for record, cam in zip(images.records, cams, strict=True):
            assert cam.full is not None
            truth = torch.as_tensor(load_mask(record.mask_uri or ""))
            for class_id, one in zip(cam.class_ids, cam.full, strict=True):
                mask, real = one > threshold, truth == class_id + 1
                ious.append(float((mask & real).sum() / (mask | real).sum().clamp_min(1)))
        best = max(best, sum(ious) / len(ious))
    return best


def test_the_shipped_clip_finds_objects_without_training(tmp_path: Path) -> None:
    write_dataset(tmp_path, num_images=24, num_val=1, seed=4)
    data = DataConfig(dataset="miniature", root=str(tmp_path))
    drawn = read_voc(data, class_names=vocabulary.CLASSES, file_names=vocabulary.CLASSES)
    images = drawn.subset("train")
    shares = [(load_mask(record.mask_uri or "") > 0).float().mean() for record in images.records]
    everywhere = float(sum(shares)) / len(shares)  # the IoU of maps that say nothing
    found = _mean_iou(shipped_clip(), images, background_weight=0.0)
    assert found > 2 * everywhere, f"{found} beside {everywhere} of masks over everything"

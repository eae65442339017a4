"""The three ways to rate a mask generator after an epoch (row S15): by CLIP, by separation, by pixel labels.

Each takes the unwrapped network, shares its images out among the workers, and returns the same figure on all of them;
higher is better. `clip_score` and `separation_score` need image-level labels only; `oracle_score` reads masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam, compute_cams
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import label_value
from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import ConfigError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.separation import separation
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.methods.region_features import RegionEncoder, Regions
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.training.context import WorkerContext, all_reduce_sum

_IMAGES_PER_PASS = 16
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class CamSource:
    """How maps of a network are computed: as the `cams` stage does."""

    cams: CamConfig
    """Scales, mirror images, activation."""
    image_mean: tuple[float, float, float]
    """Normalisation of the images (0-1 scale)."""
    image_std: tuple[float, float, float]
    """Normalisation of the images (0-1 scale)."""

    def __call__(self, network: nn.Module, image: Tensor, record: ImageRecord) -> ImageCam:
        """Return the maps of one image."""
        ids = [record.image_id]
        return compute_cams(network, [image], [record.labels], ids, self.cams, self.image_mean, self.image_std)[0]


@torch.no_grad()
def clip_score(
    network: nn.Module,
    dataset: ImageLabelDataset,
    *,
    regions: Regions,
    class_texts: Float[Tensor, "class dim"],
    num_images: int,
    context: WorkerContext,
) -> float:
    """Return how much more the foreground regions look like their classes to CLIP than the background regions do.

    The mean of s(v_f, u_f) - s(v_b, u_f) over the pairs of some training images, each seen as its crop of epoch 0. It
    needs image-level labels only.

    Args:
        network: unwrapped mask generator.
        dataset: training images.
        regions: from maps to CLIP features.
        class_texts: u_f, text of every class.
        num_images: so many images, evenly spread over the data set.
        context: this worker; each rates a share of the images.
    """
    share = Subset(dataset, _spread(range(len(dataset)), num_images)[context.rank :: context.world_size])
    dataset.set_epoch(0)
    was_training = network.training
    network.eval()
    sums = torch.zeros(2, dtype=torch.float64, device=context.device)
    for batch in DataLoader(share, batch_size=_IMAGES_PER_PASS):
        image = batch["image"].to(context.device)
        position, class_id = batch["labels"].nonzero().to(context.device).unbind(dim=1)
        found = regions(network(image), image, position, class_id)
        gaps = ((found.foreground - found.background) * class_texts[class_id]).sum(dim=1)
        sums += _sum_and_count(gaps.double())
    network.train(was_training)
    return _mean(sums)


@torch.no_grad()
def separation_score(
    network: nn.Module,
    *,
    manifest: Manifest,
    cam_source: CamSource,
    threshold: float,
    num_images: int,
    clip: RegionEncoder,
    class_texts: Float[Tensor, "class dim"],
    context: WorkerContext,
) -> float:
    """Return the mean separation of the pairs of some training images, with masks at the scored threshold.

    Args:
        network: unwrapped mask generator.
        manifest: training images; their masks are not read.
        cam_source: computes the maps.
        threshold: cuts them as scoring does.
        num_images: so many images, evenly spread over those with a label.
        clip: frozen CLIP.
        class_texts: text of every class, unit length.
        context: this worker; each rates a share of the images.
    """
    chosen = _spread([record for record in manifest.records if record.labels], num_images)
    sums, texts = torch.zeros(2, dtype=torch.float64, device=context.device), class_texts.to(context.device)
    for record in chosen[context.rank :: context.world_size]:
        image = load_image(record.image_uri)
        cam = cam_source(network, image, record)
        labels = label_map(cam, threshold)
        masks = torch.stack([labels == label_value(class_id) for class_id in cam.class_ids]).to(context.device)
        sums += _sum_and_count(rate_masks(image.to(context.device), masks, texts[list(cam.class_ids)], clip))
    return _mean(sums)


@torch.no_grad()
def rate_masks(
    image: Tensor, masks: Bool[Tensor, "pair height width"], texts: Float[Tensor, "pair dim"], clip: RegionEncoder
) -> Float[Tensor, " pair"]:
    """Return the separation of masks of one image.

    Args:
        image: RGB pixels, 8 bits.
        masks: one per pair.
        texts: each pair's class text, unit length.
        clip: frozen CLIP; it sees the masked picture, and the mask where it is mask-adapted.
    """
    mean = torch.tensor(clip.mean, device=image.device)[:, None, None]
    std = torch.tensor(clip.std, device=image.device)[:, None, None]
    small = resize_bilinear(((image.float() / 255 - mean) / std).unsqueeze(0), clip.image_size, antialias=True)
    inside = resize_bilinear(masks.float().unsqueeze(1), clip.image_size, antialias=True) > 0.5  # (pair, 1, side, side)
    pixels = small.expand(len(masks), -1, -1, -1)
    features = clip.encode_regions(pixels * inside, inside.float() if clip.is_mask_adapted else None)
    return separation(pixels, inside.squeeze(1), (features * texts).sum(dim=1))


def oracle_score(
    network: nn.Module,
    *,
    manifest: Manifest,
    cam_source: CamSource,
    evaluation: EvaluationConfig,
    num_images: int,
    context: WorkerContext,
) -> float:
    """Return the mIoU at the best threshold over scored images that have a mask: it uses pixel labels.

    Args:
        network: unwrapped mask generator.
        manifest: scored images.
        cam_source: computes the maps.
        evaluation: thresholds.
        num_images: so many images, evenly spread over those with a mask.
        context: this worker; each scores a share of the images.

    Raises:
        ConfigError: when no scored image has a mask.
    """
    with_mask = [record for record in manifest.records if record.mask_uri]
    if not with_mask:
        raise ConfigError("selection.criterion is oracle, but no scored image has a mask; use last or clip_score")
    classes = manifest.classes
    thresholds = sweep_thresholds(evaluation, classes)
    sweep = ThresholdSweep(thresholds, len(classes))
    for record in _spread(with_mask, num_images)[context.rank :: context.world_size]:
        assert record.mask_uri is not None
        cam = cam_source(network, load_image(record.image_uri), record)
        sweep.update(cam, load_mask(record.mask_uri), record.labels)
    counts = all_reduce_sum(torch.as_tensor(sweep.to_array()).to(context.device)).cpu().numpy()
    merged = ThresholdSweep.from_array(counts, thresholds, len(classes))
    return seed_scores(merged, thresholds[0], classes).miou_best  # the fixed threshold is not asked for


def _spread(items: Sequence[_Item], number: int) -> list[_Item]:
    """Return so many items, or all, evenly spread."""
    count = min(number, len(items))
    return [items[position * len(items) // count] for position in range(count)]


def _sum_and_count(figures: Float[Tensor, " pair"]) -> Float[Tensor, " 2"]:
    """Return what adds up over workers: a mean of the workers' means would weigh a pair by its worker."""
    return torch.stack([figures.sum().double(), torch.tensor(len(figures), device=figures.device).double()])


def _mean(sums: Float[Tensor, " 2"]) -> float:
    total, num_pairs = all_reduce_sum(sums).tolist()
    return total / max(num_pairs, 1.0)

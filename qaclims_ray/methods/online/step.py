"""What both forms share: their images, and what a step computes of logits, features and the network's own labels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from qaclims_ray.data.classes import IGNORE_VALUE
from qaclims_ray.data.tagged_crops import TaggedCrops
from qaclims_ray.methods.online.config import OnlineConfig
from qaclims_ray.methods.online.losses import likeness, likeness_loss, likeness_sums
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, labels_at
from qaclims_ray.training.context import all_reduce_sum
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.setup import TrainingSetup


def online_crops(setup: TrainingSetup, net: SegmentationNetConfig, own: OnlineConfig) -> TaggedCrops:
    """Return the training images with their tags, normalised for a network.

    Raises:
        DataError: when there is none.
    """
    steps = own.steps_per_epoch
    items = None if steps is None else steps * own.optim.batch_size
    return TaggedCrops(setup.manifest, own.crop, net.image_mean, net.image_std, setup.seed, items_per_epoch=items)


def online_result(
    logits: Float[Tensor, "batch label rows columns"],
    features: Float[Tensor, "batch cell dim"],
    labels: UInt8[Tensor, "batch height width"],
    grid: tuple[int, int],
    *,
    affinity_weight: float,
) -> StepResult:
    """Return the loss of a step: cross-entropy of the logits, and of the likeness of features.

    Background and foreground weigh half each, as in DeepLab's row D2. Pixels and pairs are counted over all workers
    first, so their number does not change the update.

    Args:
        logits: of any resolution; enlarged to that of the labels.
        features: of which likeness is made, on a grid of cells in reading order.
        labels: made by the network itself; 255 is not learned from.
        grid: rows and columns of the cells.
        affinity_weight: of the second term.
    """
    enlarged = F.interpolate(logits.float(), size=labels.shape[1:], mode="bilinear", align_corners=False)
    pixels = cross_entropy_sum(enlarged, labels)
    pairs = likeness_sums(likeness(features), labels_at(labels, grid).flatten(1))
    is_known = labels != IGNORE_VALUE
    right = ((enlarged.detach().argmax(1) == labels) & is_known).sum()
    counts = all_reduce_sum(torch.cat([pixels.counts, pairs.counts, (~is_known).sum()[None]]))
    segmented = balanced(pixels.losses, counts[:2])
    alike = likeness_loss(pairs.losses, counts[2:4])
    known = counts[:2].sum()
    means = {
        "accuracy": right / known.clamp(min=1),
        "loss/affinity": alike.detach(),
        "labelled": is_known.sum() / (known + counts[4]),
    }
    return StepResult(loss=segmented + affinity_weight * alike, means=means)

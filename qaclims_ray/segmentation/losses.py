"""Per-pixel cross-entropy of the final segmentation networks (rows D1-D3), as sums that workers can add.

A step adds the counts of all workers first and divides by them afterwards, so that the update does not depend on the
number of workers. Networks with several outputs (row D3) add the loss of each.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE


@dataclass(frozen=True)
class PixelSums:
    """Loss and number of pixels: first background, second foreground. Unlabelled pixels are in neither."""

    losses: Float[Tensor, " kind=2"]
    """Summed cross-entropy in nats; gradients flow through it."""
    counts: Int64[Tensor, " kind=2"]
    """Number of pixels."""


def cross_entropy_sum(
    logits: Float[Tensor, "batch label height width"], labels: UInt8[Tensor, "batch height width"]
) -> PixelSums:
    """Sum the cross-entropy over background pixels and over foreground pixels.

    Computed in at least float32. Pixels of value 255 count nowhere and get no gradient.

    Args:
        logits: scores before the softmax; the background is label 0.
        labels: label values at the logits' resolution, see `labels_at`; below the number of labels, or 255.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(logits, labels.long(), ignore_index=IGNORE_VALUE, reduction="none")
    is_background = labels == BACKGROUND_VALUE
    is_foreground = ~is_background & (labels != IGNORE_VALUE)
    # Chosen and not multiplied: a loss that overflowed in one kind would be NaN in the other (0 * inf).
    zero = losses.new_zeros(())
    return PixelSums(
        torch.stack([losses.where(kind, zero).sum() for kind in (is_background, is_foreground)]),
        torch.stack([kind.sum() for kind in (is_background, is_foreground)]),
    )


def pixel_mean(losses: Float[Tensor, " kind=2"], counts: Int64[Tensor, " kind=2"]) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over labelled pixels (row D1); 0 where there are none.

    Args:
        losses: `PixelSums.losses` of this worker.
        counts: `PixelSums.counts` of all workers; then the workers' results add up to the mean over all pixels.
    """
    return losses.sum() / counts.sum().clamp(min=1)


def balanced(losses: Float[Tensor, " kind=2"], counts: Int64[Tensor, " kind=2"]) -> Float[Tensor, ""]:
    """Return half the mean over background pixels plus half the mean over foreground pixels (row D2).

    A half without pixels is left out, and the other keeps its weight of one half: a background pixel then pulls no
    harder in a batch without foreground. The released code divides by zero there.

    Args:
        losses: `PixelSums.losses` of this worker.
        counts: `PixelSums.counts` of all workers; then the workers' results add up to the loss over all pixels.
    """
    return 0.5 * (losses / counts.clamp(min=1)).sum()


def labels_at(
    labels: UInt8[Tensor, "batch height width"], size: tuple[int, int]
) -> UInt8[Tensor, "batch out_height out_width"]:
    """Sample labels at the resolution of logits, as DeepLab does (row D3): the nearest pixel to each cell's centre.

    Args:
        labels: label values.
        size: height and width of the logits.
    """
    if tuple(labels.shape[1:]) == tuple(size):
        return labels
    rows, columns = (_centres(old, new, labels.device) for old, new in zip(labels.shape[1:], size, strict=True))
    return labels[:, rows][:, :, columns]


def _centres(old: int, new: int, device: torch.device) -> Tensor:
    """Return the pixel under the centre of each of `new` cells, in whole numbers: (2 i + 1) old / (2 new), cut off."""
    return (2 * torch.arange(new, device=device) + 1) * old // (2 * new)

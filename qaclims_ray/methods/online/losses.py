"""How alike patches are, as a loss: patches of one label should be, patches of different labels should not."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import IGNORE_VALUE


@dataclass(frozen=True)
class PairSums:
    """Loss and number of pairs of patches: first of one label, second of different ones."""

    losses: Float[Tensor, " kind=2"]
    """Summed distances from what the likeness should be; gradients flow through them."""
    counts: Int64[Tensor, " kind=2"]
    """Number of pairs."""


def likeness(features: Float[Tensor, "batch patch dim"]) -> Float[Tensor, "batch patch other_patch"]:
    """Return the sigmoid of the products of patches' features, divided by the root of their dimension; in float32."""
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    return (features @ features.transpose(1, 2) * features.shape[2] ** -0.5).sigmoid()


def likeness_sums(alike: Float[Tensor, "batch patch patch"], labels: UInt8[Tensor, "batch patch"]) -> PairSums:
    """Sum how far the likeness of pairs of patches is from 1, where their labels are equal, and from 0, where not.

    WeCLIP section 3.4, after "Learning Affinity from Attention" (arXiv 2203.02664). Pairs with an unlabelled patch are
    left out; a patch is a pair with itself, and every pair counts in both orders.

    Args:
        alike: see `likeness`.
        labels: of the patches; 255 where there is none.
    """
    is_known = labels != IGNORE_VALUE
    are_known = is_known[:, :, None] & is_known[:, None, :]
    are_equal = labels[:, :, None] == labels[:, None, :]
    same, other = are_known & are_equal, are_known & ~are_equal
    zero = alike.new_zeros(())
    losses = torch.stack([(1 - alike).where(same, zero).sum(), alike.where(other, zero).sum()])
    return PairSums(losses, torch.stack([same.sum(), other.sum()]))


def likeness_loss(losses: Float[Tensor, " kind=2"], counts: Int64[Tensor, " kind=2"]) -> Float[Tensor, ""]:
    """Return half the mean over pairs of one label plus half the mean over pairs of different labels.

    Args:
        losses: `PairSums.losses` of this worker.
        counts: `PairSums.counts` of all workers; then the workers' results add up to the loss over all pairs.
    """
    return 0.5 * (losses / counts.clamp(min=1)).sum()

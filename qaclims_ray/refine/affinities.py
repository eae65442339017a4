"""Affinities between the cells of an image that need no training: matrices of which every row sums to one.

Written from the papers alone: CLIP-ES (Lin et al., CVPR 2023, arXiv 2212.09506, section 3.4) for attention, CD-CLIP
(CVPR 2026) for class distributions. Row i says of which cells cell i takes its new score.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_SINKHORN_ROUNDS = 50
"""Divisions by rows and columns: attention of photographs is balanced to a thousandth long before."""


def attention_affinity(attention: Float[Tensor, "cell other_cell"]) -> Float[Tensor, "cell other_cell"]:
    """Make attention symmetric, as CLIP-ES does: D = Sinkhorn(attention), A = (D + D') / 2.

    Attention says what a cell asks of others, not who belongs together, and a few cells are asked by all. Divided by
    its columns and rows in turn it becomes doubly stochastic, which takes their weight from such cells.

    Args:
        attention: positive; its rows need not sum to one.

    Returns:
        Symmetric to rounding; rows sum to one.
    """
    balanced = attention.float()
    for _ in range(_SINKHORN_ROUNDS):
        balanced = balanced / balanced.sum(0, keepdim=True)
        balanced = balanced / balanced.sum(1, keepdim=True)
    return rows_to_one((balanced + balanced.T) / 2)


def divergence(shares: Float[Tensor, "cell class"]) -> Float[Tensor, "cell other_cell"]:
    """Return the Jensen-Shannon divergence of all pairs of cells, in bits: 0 for equal ones, 1 for disjoint ones.

    D(p, q) = H((p + q) / 2) - (H(p) + H(q)) / 2, H being the entropy; class by class, so that memory is that of the
    result.

    Args:
        shares: a distribution over classes for each cell.
    """
    own = -torch.xlogy(shares, shares).sum(1)
    entropy = shares.new_zeros(len(shares), len(shares))
    for share in shares.T:
        middle = (share[:, None] + share[None, :]) / 2
        entropy -= torch.xlogy(middle, middle)
    found = entropy - (own[:, None] + own[None, :]) / 2
    return (found / math.log(2)).clamp(0, 1)


def distribution_affinity(
    similarity: Float[Tensor, "cell class"],
    attention: Float[Tensor, "cell other_cell"],
    *,
    text_temperature: float,
    temperature: float,
) -> Float[Tensor, "cell other_cell"]:
    """Weigh attention by how alike the class distributions of two cells are.

    p = softmax(similarity / text_temperature), A = softmax((1 - D(p, p')) / temperature) * attention, the rows of which
    are divided by their sums. CD-CLIP describes it so; it brings similarities to [0, 1] first, which leaves
    distributions almost flat, where CLIP's own temperature is used here.

    Args:
        similarity: cosines of cells to the texts of all classes.
        attention: positive, between the same cells.
        text_temperature: of the distributions.
        temperature: of the weights.
    """
    shares = (similarity.float() / text_temperature).softmax(1)
    alike = ((1 - divergence(shares)) / temperature).softmax(1)
    return rows_to_one(alike * attention.float())


def cosine_affinity(features: Float[Tensor, "cell dim"], *, temperature: float) -> Float[Tensor, "cell other_cell"]:
    """Weigh cells by the cosine of their features: softmax(cosine / temperature) over each row.

    Args:
        features: of any length; a cell of zeros is equally far from all others.
        temperature: of the softmax.
    """
    directions = F.normalize(features.float(), dim=1)
    return (directions @ directions.T / temperature).softmax(1)


def rows_to_one(weights: Float[Tensor, "cell other_cell"]) -> Float[Tensor, "cell other_cell"]:
    """Divide each row by its sum; a row of zeros stays."""
    return weights / weights.sum(1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)

"""The loss of QA-CLIMS: how well a masked region agrees with its own texts, and how large it is (QA-CLIMS 3.3).

| equation | symbol | function | what it does |
|---|---|---|---|
| 1 | total | `total_loss` | alpha L_FRC + beta L_BRC + gamma L_REG |
| 6 | FRC | `foreground_contrast` | foreground regions to their text, away from the background texts |
| 8 | BRC | `background_contrast` | background regions to the background texts, away from the foreground |
| 11 | REG | `activated_area` of methods/area.py | small activated areas; beside the methods because CLIMS has it too |

One row is a pair: an image and a class that it shows. Similarities are dot products: region features come
L2-normalised, and so do background texts; the mean foreground text is taken as it is, because the released code
does not bring it back to unit length (Q7), so its norm below 1 is part of the score.
"""

from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from qaclims_ray.training.meter import StepResult, weighted


def total_loss(
    foreground: Float[Tensor, ""],
    background: Float[Tensor, ""],
    area: Float[Tensor, ""],
    *,
    foreground_weight: float,
    background_weight: float,
    area_weight: float,
    counts: Mapping[str, int] | None = None,
) -> StepResult:
    """Weigh the three terms.

    QA-CLIMS Eq. 1. Each comes reduced to this worker's share.

    Args:
        foreground: L_FRC, `foreground_contrast` (Eq. 6).
        background: L_BRC, `background_contrast` (Eq. 8).
        area: L_REG, `methods.area.area_share` of the `activated_area` (Eq. 11).
        foreground_weight: alpha.
        background_weight: beta.
        area_weight: gamma.
        counts: see `StepResult`.
    """
    return weighted(
        {"foreground": foreground, "background": background, "area": area},
        {"foreground": foreground_weight, "background": background_weight, "area": area_weight},
        counts,
    )


def foreground_contrast(
    regions: Float[Tensor, "pair dim"],
    foreground: Float[Tensor, "pair dim"],
    background: Float[Tensor, "pair answer dim"],
    is_background: Bool[Tensor, "pair answer"],
    *,
    temperature: float,
) -> Float[Tensor, " pair"]:
    """Pull foreground regions to their foreground text and away from each of their background texts.

    QA-CLIMS Eq. 6, symbol L_FRC. Not reduced: the training step divides the sum over all workers' pairs (R12).
    Computed in at least float32.

    Args:
        regions: features of the foreground regions, unit length.
        foreground: mean foreground text of each pair.
        background: background texts, unit length; rows where `is_background` is False are padding.
        is_background: which rows are texts. Padding has no influence, whatever it holds. A pair without any text
            has loss and gradient zero.
        temperature: tau.
    """
    to_foreground, to_background = _similarities(regions, foreground, background, is_background)
    # The foreground text is one of the candidates, so the loss is a cross-entropy and cannot fall below zero.
    scores = torch.cat([to_foreground.unsqueeze(1), to_background], dim=1) / temperature  # (pair, 1 + answer)
    is_text = F.pad(is_background, (1, 0), value=True)
    return scores.masked_fill(~is_text, -torch.inf).logsumexp(dim=1) - scores[:, 0]


def background_contrast(
    regions: Float[Tensor, "pair dim"],
    foreground: Float[Tensor, "pair dim"],
    background: Float[Tensor, "pair answer dim"],
    is_background: Bool[Tensor, "pair answer"],
    *,
    temperature: float,
    pool: Literal["mean_exp", "exp_mean"] = "mean_exp",
) -> Float[Tensor, " pair"]:
    """Pull background regions to their background texts and away from the foreground text.

    QA-CLIMS Eq. 8, symbol L_BRC. Not reduced, see `foreground_contrast` for arguments and padding.

    Args:
        regions: features of the background regions, unit length.
        foreground: mean foreground text of each pair.
        background: background texts, unit length, padded.
        is_background: which rows are texts.
        temperature: tau.
        pool: mean of the exponentials over background texts (released code) or exponential of the mean similarity
            (the paper's wording) (R11).
    """
    to_foreground, to_background = _similarities(regions, foreground, background, is_background)
    num_texts = is_background.sum(dim=1)
    has_text = num_texts > 0
    # A pair without text gets harmless numbers before the logarithm. Masked afterwards, its gradient would be 0 * NaN.
    counted = num_texts.clamp(min=1).to(to_background.dtype)
    if pool == "exp_mean":
        pooled = to_background.sum(dim=1) / counted / temperature
    else:
        stand_in = is_background | ~has_text.unsqueeze(1)
        # Nothing to take a logarithm of. The zero still depends on the network, as DDP needs it (R21).
        if not stand_in.shape[1]:
            return to_foreground * 0
        pooled = (to_background / temperature).masked_fill(~stand_in, -torch.inf).logsumexp(dim=1) - counted.log()
    # -log(exp(b) / (exp(f) + exp(b))) without overflow at small temperatures.
    loss = F.softplus(to_foreground / temperature - pooled)
    return torch.where(has_text, loss, torch.zeros_like(loss))


def _similarities(
    regions: Tensor, foreground: Tensor, background: Tensor, is_background: Tensor
) -> tuple[Tensor, Tensor]:
    """Return similarities to the foreground text (pair) and to background texts (pair, answer; 0 at padding)."""
    dtype = torch.promote_types(regions.dtype, torch.float32)
    regions, foreground = regions.to(dtype), foreground.to(dtype)
    # Zeroing padding first keeps even NaN in it out of the gradient (0 * NaN is NaN).
    background = background.to(dtype).masked_fill(~is_background.unsqueeze(-1), 0.0)
    return (regions * foreground).sum(dim=-1), torch.einsum("pd,pad->pa", regions, background)

"""Label probabilities as class maps: each class's share against the background, one half being the border."""

import torch
from jaxtyping import Float
from torch import Tensor

HALF = 0.5
"""Background score where a map is the share of its class against the background."""


def foreground_shares(
    probabilities: Float[Tensor, "label height width"],
) -> Float[Tensor, "class height width"]:
    """Return p_k / (p_k + p_background), so that the label map at background score 0.5 is the argmax.

    Where rounding would make a tie of it (a background of 1e-9 lets two classes round to 1), the foremost class keeps
    the lead by the smallest step of float32. Ties are decided as by argmax: the background wins, then the class listed
    first.

    Args:
        probabilities: background first; they need not add up to 1.
    """
    background, classes = probabilities[:1].float(), probabilities[1:].float()
    half = torch.tensor(HALF, device=classes.device)
    shares = classes / (background + classes).clamp_min(torch.finfo(torch.float32).tiny)
    highest, foremost = classes.max(0, keepdim=True)
    lead = shares.gather(0, foremost)
    above = torch.nextafter(half, half + 1)
    lead = torch.where(highest > background, lead.clamp_min(above), lead.clamp_max(half))
    below = torch.nextafter(lead, torch.zeros_like(lead))
    return torch.minimum(shares, below).scatter(0, foremost, lead)


def shares_against(
    foreground: Float[Tensor, "class height width"], background: float
) -> Float[Tensor, "class height width"]:
    """Return foreground / (foreground + background), in [0, 1], where 0/0 counts as 0.

    Args:
        foreground: scores of the classes, not negative.
        background: score of the background everywhere.
    """
    return torch.nan_to_num(foreground / (foreground + background), nan=0.0).clamp(0, 1)

"""Cosine similarities on their way into a logarithm, as CLIMS and SemPLeS use them (rows C5, S6)."""

import torch
from jaxtyping import Float
from torch import Tensor

LOWEST, HIGHEST = 1e-4, 0.9999
"""What a cosine is clamped to, so that log(s) and log(1 - s) are finite."""


def cosine(left: Float[Tensor, "*rows dim"], right: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Return the dot product of each row with its partner, in at least float32; L2-normalised rows make it a cosine."""
    dtype = torch.promote_types(torch.promote_types(left.dtype, right.dtype), torch.float32)
    return (left.to(dtype) * right.to(dtype)).sum(dim=-1)


def clamped(similarity: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """Clamp to [1e-4, 0.9999]; the gradient is zero outside and exactly on a bound.

    `torch.clamp` alone passes the gradient on a bound; the released code of CLIMS does not.
    """
    is_inside = (similarity > LOWEST) & (similarity < HIGHEST)
    return torch.where(is_inside, similarity, similarity.detach().clamp(LOWEST, HIGHEST))


def below_one(similarity: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """Keep cosines below 1: rounding can bring that of equal vectors to 1 or beyond, where log(1 - s) is not finite."""
    return similarity.clamp(max=1 - torch.finfo(similarity.dtype).eps)


def clamped_cosine(left: Float[Tensor, "*rows dim"], right: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows"]:
    """Return the `clamped` cosine of each row with its partner, both L2-normalised."""
    return clamped(cosine(left, right))


def attraction(
    left: Float[Tensor, "pair dim"], right: Float[Tensor, "pair dim"], *, clamp: bool = True
) -> Float[Tensor, " pair"]:
    """Return -log s, s the cosine: small where two vectors agree.

    Args:
        left: unit length.
        right: unit length.
        clamp: take the `clamped` cosine. As it is, one that is not positive has no finite logarithm.
    """
    return -(clamped_cosine(left, right) if clamp else cosine(left, right)).log()


def repulsion(
    left: Float[Tensor, "pair dim"], right: Float[Tensor, "pair dim"], *, clamp: bool = True
) -> Float[Tensor, " pair"]:
    """Return -log(1 - s), s the cosine: small where two vectors do not agree.

    Args:
        left: unit length.
        right: unit length.
        clamp: take the `clamped` cosine; or as it is, `below_one`.
    """
    # log1p: near s = 1e-4 the difference 1 - s alone would lose half of float32's digits.
    return -torch.log1p(-(clamped_cosine(left, right) if clamp else below_one(cosine(left, right))))

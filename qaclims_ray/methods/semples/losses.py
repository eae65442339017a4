"""SemPLeS: matching regions with labels, learning background prompts, refining with them (SemPLeS 3.2, Eq. 1-3).

One row is a pair: an image and a class that it shows. In the paper's symbols v_f and v_b are the features of the
foreground and background region, u_f the class text, u_b the learned prompt of the class; all L2-normalised. Nothing
is reduced or weighted: the training step takes the mean over all workers' pairs and applies the lambdas. Cosines are
clamped to [1e-4, 0.9999] without gradient there, as released; the paper mentions the lower bound only (S6).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from qaclims_ray.methods.similarity import attraction, cosine, repulsion

SHIFTED_FLOOR = 1e-4
"""Least (1 + cosine) / 2 that goes into a logarithm."""


def segment_label_matching(
    foreground_regions: Float[Tensor, "pair dim"],
    background_regions: Float[Tensor, "pair dim"],
    class_texts: Float[Tensor, "pair dim"],
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Match the foreground with the class and the background with anything else.

    SemPLeS Eq. 1, symbol L_match; the two terms are those of CLIMS (L_OTM, L_BTM).

    Args:
        foreground_regions: v_f.
        background_regions: v_b.
        class_texts: u_f.

    Returns:
        -log s(v_f, u_f) and -log(1 - s(v_b, u_f)); the second has the weight lambda_b in the loss.
    """
    return attraction(foreground_regions, class_texts), repulsion(background_regions, class_texts)


def prompt_contrast(
    prompts: Float[Tensor, "pair dim"],
    background_regions: Float[Tensor, "pair dim"],
    class_texts: Float[Tensor, "pair dim"],
    *,
    similarity: Literal["clamp", "shift"],
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Make each class's prompt describe its backgrounds and not the class.

    SemPLeS Eq. 2, symbols L_prompt^I and L_prompt^T.

    Args:
        prompts: u_b, the encoded prompt of each pair's class.
        background_regions: v_b.
        class_texts: u_f.
        similarity: what goes into the logarithm. `clamp` is the paper's and the released code's clamped cosine, whose
            gradient is zero wherever the cosine is not positive. `shift` is (1 + cosine) / 2, ours: random prompts of a
            small CLIP have negative cosines, from which `clamp` never brings them back.

    Returns:
        The image term -log s(u_b, v_b) and the text term +log s(u_b, u_f), negative; the second has the weight
        lambda_T in the loss.
    """
    if similarity == "clamp":
        return attraction(prompts, background_regions), -attraction(prompts, class_texts)
    return -_shifted_log(prompts, background_regions), _shifted_log(prompts, class_texts)


def prompt_refinement(
    foreground_regions: Float[Tensor, "pair dim"], prompts: Float[Tensor, "pair dim"]
) -> Float[Tensor, " pair"]:
    """Push foreground regions away from what the class's prompt describes: -log(1 - s(v_f, u_b)).

    SemPLeS Eq. 3, symbol L_refine; it has the weight lambda in the loss.

    Args:
        foreground_regions: v_f.
        prompts: u_b, the encoded prompt of each pair's class.
    """
    return repulsion(foreground_regions, prompts)


def _shifted_log(left: Tensor, right: Tensor) -> Tensor:
    # Opposite vectors would be log(0).
    return torch.log(((1 + cosine(left, right)) / 2).clamp(min=SHIFTED_FLOOR))

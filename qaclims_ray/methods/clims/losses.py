"""CLIMS: matching regions with class names and fixed background texts (the predecessor of QA-CLIMS; rows C1-C7).

One row is a pair: an image and a class that it shows. All features are L2-normalised. Nothing is reduced: the
released code takes the mean over pairs (C3), which the training step does over all workers' pairs.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qaclims_ray.methods.similarity import attraction, clamped, repulsion


def object_text_matching(
    regions: Float[Tensor, "pair dim"], class_texts: Float[Tensor, "pair dim"]
) -> Float[Tensor, " pair"]:
    """Pull foreground regions to the text of their class: -log s.

    CLIMS, symbol L_OTM; s is the cosine clamped to [1e-4, 0.9999], without gradient there (C5). Not reduced.

    Args:
        regions: features of the foreground regions, unit length.
        class_texts: text of each pair's class, unit length.
    """
    return attraction(regions, class_texts)


def background_text_matching(
    background_regions: Float[Tensor, "pair dim"], class_texts: Float[Tensor, "pair dim"]
) -> Float[Tensor, " pair"]:
    """Push background regions away from the text of the class: -log(1 - s).

    CLIMS, symbol L_BTM; clamp and reduction as in `object_text_matching`.

    Args:
        background_regions: features of the background regions, unit length.
        class_texts: text of each pair's class, unit length.
    """
    return repulsion(background_regions, class_texts)


def background_suppression(
    regions: Float[Tensor, "pair dim"],
    background: Float[Tensor, "pair answer dim"],
    is_background: Bool[Tensor, "pair answer"],
    *,
    threshold: float | None,
) -> Float[Tensor, " pair"]:
    """Push foreground regions away from background texts: minus the sum over texts of log(1 - s).

    CLIMS, symbol L_CBS. A sum, not a mean, over the texts of a pair (C3); not reduced over pairs. Computed in at
    least float32.

    Args:
        regions: features of the foreground regions, unit length.
        background: background texts, unit length; rows where `is_background` is False are padding.
        is_background: which rows are texts. Padding has no influence, whatever it holds. A pair without any text
            has loss and gradient zero.
        threshold: None takes all texts and clamps their cosine as `object_text_matching` does (paper, camera-ready
            code). A number takes only the texts whose cosine is strictly above it, and does not clamp (the released,
            improved code: 0.26 on VOC, 0.285 on COCO).
    """
    dtype = torch.promote_types(torch.promote_types(regions.dtype, background.dtype), torch.float32)
    # Zeroing padding first keeps even NaN in it out of the gradient (0 * NaN is NaN).
    texts = background.to(dtype).masked_fill(~is_background.unsqueeze(-1), 0.0)
    similarity = torch.einsum("pd,pad->pa", regions.to(dtype), texts)
    if threshold is None:
        counts, similarity = is_background, clamped(similarity)
    else:
        counts = is_background & (similarity > threshold)
        # Rounding can bring the cosine of equal vectors to 1 or beyond, where there is no logarithm.
        similarity = similarity.clamp(max=1 - torch.finfo(dtype).eps)
    return -torch.log1p(-similarity.masked_fill(~counts, 0.0)).sum(dim=1)

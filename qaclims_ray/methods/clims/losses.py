"""CLIMS: matching regions with class names and fixed background texts (the predecessor of QA-CLIMS; rows C1-C8).

One row is a pair: an image and a class that it shows. All features are L2-normalised. Nothing is reduced over pairs:
that the training step does, over all workers' pairs (C3).
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from qaclims_ray.methods.similarity import attraction, below_one, clamped, repulsion


def object_text_matching(
    regions: Float[Tensor, "pair dim"], class_texts: Float[Tensor, "pair dim"], *, clamp: bool = True
) -> Float[Tensor, " pair"]:
    """Pull foreground regions to the text of their class: -log s.

    CLIMS, symbol L_OTM; s is the cosine. Not reduced.

    Args:
        regions: features of the foreground regions, unit length.
        class_texts: text of each pair's class, unit length.
        clamp: clamp s to [1e-4, 0.9999], without gradient there (released code, C5). The camera-ready code takes it as
            it is; then a cosine that is not positive gives NaN or infinity.
    """
    return attraction(regions, class_texts, clamp=clamp)


def background_text_matching(
    background_regions: Float[Tensor, "pair dim"], class_texts: Float[Tensor, "pair dim"], *, clamp: bool = True
) -> Float[Tensor, " pair"]:
    """Push background regions away from the text of the class: -log(1 - s).

    CLIMS, symbol L_BTM; clamp and reduction as in `object_text_matching`.

    Args:
        background_regions: features of the background regions, unit length.
        class_texts: text of each pair's class, unit length.
        clamp: as in `object_text_matching`; here any cosine has a logarithm.
    """
    return repulsion(background_regions, class_texts, clamp=clamp)


def background_suppression(
    regions: Float[Tensor, "pair dim"],
    background: Float[Tensor, "pair answer dim"],
    is_background: Bool[Tensor, "pair answer"],
    *,
    threshold: float | None,
    clamp: bool = True,
    over_texts: Literal["sum", "mean"] = "sum",
) -> Float[Tensor, " pair"]:
    """Push foreground regions away from background texts: minus the sum or mean over texts of log(1 - s).

    CLIMS, symbol L_CBS. Not reduced over pairs. Computed in at least float32.

    Args:
        regions: features of the foreground regions, unit length.
        background: background texts, unit length; rows where `is_background` is False are padding.
        is_background: which rows are texts. Padding has no influence, whatever it holds. A pair without any text
            has loss and gradient zero.
        threshold: None takes all texts (paper, camera-ready code). A number takes only the texts whose cosine is
            strictly above it, and never clamps (the released, improved code: 0.26 on VOC, 0.285 on COCO).
        clamp: without a threshold, clamp cosines as `object_text_matching` does.
        over_texts: sum (released) or mean (camera-ready) over the texts of a pair that are taken (C3).
    """
    dtype = torch.promote_types(torch.promote_types(regions.dtype, background.dtype), torch.float32)
    # Zeroing padding first keeps even NaN in it out of the gradient (0 * NaN is NaN).
    texts = background.to(dtype).masked_fill(~is_background.unsqueeze(-1), 0.0)
    similarity = torch.einsum("pd,pad->pa", regions.to(dtype), texts)
    counts = is_background if threshold is None else is_background & (similarity > threshold)
    similarity = clamped(similarity) if clamp and threshold is None else below_one(similarity)
    total = -torch.log1p(-similarity.masked_fill(~counts, 0.0)).sum(dim=1)
    return total if over_texts == "sum" else total / counts.sum(dim=1).clamp(min=1)

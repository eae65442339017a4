"""Affinities of a frozen CLIP (steps clip_attention, class_distribution): nothing is trained."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from qaclims_ray.models.clip.attention import mean_attention
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.patch_features import check_patch_features, patch_features
from qaclims_ray.refine.affinities import attention_affinity, distribution_affinity
from qaclims_ray.refine.affinity_config import ClassDistributionConfig, ClipAttentionConfig
from qaclims_ray.refine.spreading import AffinityOf, CellAffinity, as_seen, cell_grid


def by_clip_attention(clip: FrozenClip, config: ClipAttentionConfig) -> AffinityOf:
    """Return what makes an affinity of an image out of CLIP's own attention.

    Raises:
        ModelError: the CLIP's image tower is no vision transformer that pools its class token.
    """
    check_patch_features(clip.model.visual)

    @torch.no_grad()
    def affinity_of(image: UInt8[Tensor, "3 height width"]) -> CellAffinity:
        pixels, (rows, columns) = _seen(clip, image, config.spread.scale)
        attention = mean_attention(clip.model.visual, pixels, num_blocks=config.num_blocks)[0]
        return CellAffinity(attention_affinity(attention), rows, columns)

    return affinity_of


def by_class_distribution(
    clip: FrozenClip, texts: Float[Tensor, "class dim"], config: ClassDistributionConfig
) -> AffinityOf:
    """Return what makes an affinity of an image out of what CLIP says of all classes at each patch.

    Args:
        clip: whose patches, attention and texts are used.
        texts: one for each class of the data set, L2-normalised, whether or not the image shows it.
        config: temperatures and blocks.

    Raises:
        ModelError: the CLIP's image tower is no vision transformer that pools its class token.
    """
    check_patch_features(clip.model.visual)

    @torch.no_grad()
    def affinity_of(image: UInt8[Tensor, "3 height width"]) -> CellAffinity:
        pixels, (rows, columns) = _seen(clip, image, config.spread.scale)
        features = patch_features(clip.model.visual, pixels, num_blocks=config.num_blocks)[0].flatten(1).T
        weights = distribution_affinity(
            features @ texts.to(features.device).T,
            mean_attention(clip.model.visual, pixels, num_blocks=config.num_blocks)[0],
            text_temperature=config.text_temperature,
            temperature=config.temperature,
        )
        return CellAffinity(weights, rows, columns)

    return affinity_of


def _seen(clip: FrozenClip, image: Tensor, scale: float) -> tuple[Tensor, tuple[int, int]]:
    """Return an image as CLIP sees it, a whole number of patches each way, and how many."""
    patch_px = int(clip.model.visual.conv1.kernel_size[0])
    rows, columns = cell_grid(image.shape[1], image.shape[2], patch_px, scale)
    mean, std = clip.mean[:3], clip.std[:3]
    size = rows * patch_px, columns * patch_px
    return as_seen(image, size, (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])), (rows, columns)

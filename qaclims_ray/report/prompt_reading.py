"""Reading learned prompts: the words nearest to them, and where in a picture CLIP sees them (SemPLeS Fig. 5; S20).

A prompt is a row of numbers. Before one believes that it suppresses what stands around a class, one looks at what it
says: its nearest words, and its map over image patches beside that of a manual prompt, "a photo of {background}".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from qaclims_ray.errors import DataError, ModelError
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.report.contact_sheet import heat_picture
from qaclims_ray.report.figures import plain_text
from qaclims_ray.report.palette import INK, QUIET_INK

_TILE_INCHES = 2.1
_CAPTION_CHARACTERS = 26


@dataclass(frozen=True, kw_only=True)
class PromptPicture:
    """One row of the figure: an image of a class and what its prompts light up."""

    class_name: str
    """Title of the image."""
    image: UInt8[Tensor, "3 height width"]
    """RGB pixels, on the CPU."""
    learned: Float[Tensor, "grid_height grid_width"]
    """Map of the class's learned prompt, in [0, 1]."""
    manual: Mapping[str, Tensor]
    """Text of each manual prompt -> its map, (grid_height, grid_width), in [0, 1]."""
    words: Sequence[str] = ()
    """Words nearest to the learned prompt, shown below its map."""


def nearest_words(
    prompts: Float[Tensor, "class dim"], words: Sequence[str], word_features: Float[Tensor, "word dim"], top: int
) -> list[list[tuple[str, float]]]:
    """Find the words whose texts are most similar to each prompt.

    Args:
        prompts: encoded prompts, L2-normalised.
        words: the vocabulary, e.g. nouns, backgrounds and class names.
        word_features: encoded "a photo of {word}" of each, L2-normalised.
        top: how many words per class; all of them, when there are no more.

    Returns:
        For each class the words with their cosines, the nearest first; the earlier word first where they tie.

    Raises:
        DataError: words and features do not fit, there are none, or `top` is below 1.
    """
    if not words or len(words) != len(word_features) or top < 1:
        raise DataError(
            f"got {len(words)} words, {len(word_features)} word features and top {top}; expected one feature per word, "
            "at least one word, and top at least 1. Encode the words anew."
        )
    cosines = prompts.detach().float().cpu() @ word_features.detach().float().cpu().T  # (class, word)
    values, order = cosines.sort(dim=1, descending=True, stable=True)
    nearest = []
    for own_order, own_values in zip(order[:, :top].tolist(), values[:, :top].tolist(), strict=True):
        nearest.append([(str(words[index]), value) for index, value in zip(own_order, own_values, strict=True)])
    return nearest


@torch.no_grad()
def similarity_maps(
    clip: FrozenClip,
    image: Float[Tensor, "3 height width"],
    text_features: Float[Tensor, "text dim"],
    *,
    tokens: Literal["value", "output"] = "value",
) -> Float[Tensor, "text grid_height grid_width"]:
    """Say how similar each image patch is to each text, from 0 (least in this image) to 1 (most).

    Patch tokens go through the tower's final norm and projection, as its class token does, and are compared by cosine.
    Each map is rescaled on its own, because cosines of different texts have different levels: compare places.

    Args:
        clip: with a vision transformer.
        image: normalised for CLIP, `clip.image_size` square.
        text_features: encoded prompts or texts, L2-normalised.
        tokens: `value` takes what each patch brings into the last attention (its values, each patch attending to
            itself only, without residual and MLP), as MaskCLIP does (Zhou et al., ECCV 2022). `output` takes the last
            block's output, which was never trained to describe its own place and often shows the opposite of it.

    Returns:
        Maps in [0, 1]; zero where a map is flat.

    Raises:
        ModelError: the image tower has no patch tokens in the space of the texts, or the image another size.
    """
    visual = clip.model.visual
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
        kind = f"{type(visual).__name__}{' with attentional pooling' if isinstance(visual, VisionTransformer) else ''}"
        raise ModelError(
            f"similarity maps need a plain vision transformer, this CLIP's image tower is a {kind}: its features at a "
            "place are not comparable with texts. Use a ViT model."
        )
    if image.shape[1:] != (clip.image_size, clip.image_size):
        raise ModelError(
            f"got an image of {image.shape[1]}x{image.shape[2]} pixels, CLIP takes {clip.image_size}x"
            f"{clip.image_size}. Resize it."
        )
    patches = visual.ln_post(_patch_tokens(visual, image, tokens))  # (patch, width)
    if visual.proj is not None:
        patches = patches @ visual.proj
    patches = F.normalize(patches.float(), dim=-1)  # (patch, dim)
    maps = (text_features.detach().to(patches) @ patches.T).unflatten(1, visual.grid_size)
    lowest, highest = maps.amin(dim=(1, 2), keepdim=True), maps.amax(dim=(1, 2), keepdim=True)
    span = highest - lowest
    return torch.where(span > 0, (maps - lowest) / span.clamp(min=torch.finfo(maps.dtype).tiny), 0.0)


def _patch_tokens(visual: VisionTransformer, image: Tensor, tokens: Literal["value", "output"]) -> Tensor:
    """Return (patch, width) for one image, before the final norm."""
    sequence = visual._embeds(image.unsqueeze(0).to(visual.conv1.weight))
    axis = 1 if visual.transformer.batch_first else 0
    sequence = sequence.transpose(1, axis)
    resblocks: Any = visual.transformer.resblocks
    *blocks, last = resblocks
    for block in blocks:
        sequence = block(sequence)
    if tokens == "output":
        sequence = last(sequence)
    else:
        # Attention that sees itself only passes the values on, whatever kind of attention it is.
        alone = torch.full((sequence.shape[axis],) * 2, -torch.inf, device=sequence.device).fill_diagonal_(0)
        normed = last.ln_1(sequence)
        if isinstance(last, ResidualAttentionBlock):
            sequence = last.attention(normed, attn_mask=alone)
        else:
            sequence = last.ln_attn(last.attn(normed, attn_mask=alone))
    return sequence.transpose(1, axis)[0, 1:]


def prompt_figure(pictures: Sequence[PromptPicture]) -> Figure:
    """Draw image, map of the learned prompt and maps of manual prompts, a row per picture (SemPLeS Fig. 5).

    Args:
        pictures: images; rows may have different manual prompts.

    Raises:
        DataError: when there is no picture.
    """
    if not pictures:
        raise DataError("a figure of prompts needs at least one image; give some that show the class.")
    columns = 2 + max(len(picture.manual) for picture in pictures)
    size = (_TILE_INCHES * columns + 0.2, (_TILE_INCHES + 0.5) * len(pictures) + 0.2)
    figure = Figure(figsize=size, layout="constrained")
    for panels, picture in zip(figure.subplots(len(pictures), columns, squeeze=False), pictures, strict=True):
        _show(panels[0], picture.image.permute(1, 2, 0).numpy(), picture.class_name, "")
        _show(panels[1], _lit(picture.image, picture.learned), "learned prompt", ", ".join(picture.words))
        for axes, (text, heat) in zip(panels[2:], picture.manual.items(), strict=False):
            _show(axes, _lit(picture.image, heat), "manual prompt", text)
        for axes in panels[2 + len(picture.manual) :]:
            axes.set_axis_off()
    return figure


def _lit(image: Tensor, heat: Tensor) -> np.ndarray:
    """Lay a map of patches over the image, smoothly between their centres."""
    large = F.interpolate(
        heat[None, None].float().cpu(), (image.shape[1], image.shape[2]), mode="bilinear", align_corners=False
    )
    return heat_picture(image, large[0, 0])


def _show(axes: Axes, pixels: np.ndarray, title: str, caption: str) -> None:
    axes.imshow(pixels, interpolation="nearest")
    axes.set_title(plain_text(title), fontsize=10, fontweight="bold", color=INK, loc="left")
    axes.set_xlabel(plain_text(fill(caption, _CAPTION_CHARACTERS)), fontsize=9, color=QUIET_INK, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)

"""What an exported network computes from a photograph's bytes to its label map, as one module of torch.

Normalisation, mirror images, enlarging, threshold and the choice of the label are inside, so that whoever runs it
hands in pixels and gets a mask. The numbers are those of `segmentation.inference.segment_images` and
`cams.inference.compute_cams` at the image's own scale, without a sliding window and without CRF.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE
from qaclims_ray.models.resampling import SideLength, resized_antialiased

_EPSILON = 1e-5
"""Added to a map's maximum, as in `cams.inference` (row E1)."""
Normalisation = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Mean and standard deviation of red, green and blue, on the 0-1 scale."""


class FinalGraph(nn.Module):
    """A final network from pixels to labels."""

    def __init__(
        self,
        network: nn.Module,
        normalisation: Normalisation,
        *,
        mirrored: bool,
        has_background: bool,
        size: tuple[int, int] | None = None,
    ) -> None:
        """Wrap a network in evaluation mode.

        Args:
            network: a final network.
            normalisation: of its images.
            mirrored: average with the mirror image.
            has_background: whether label 0 is the background.
            size: height and width that the network is given; None leaves the image's own.
        """
        super().__init__()
        self.network, self.mirrored, self.size = network, mirrored, size
        self.first_label = 0 if has_background else 1
        self.normalise = _Normalise(normalisation)

    def forward(
        self, image: UInt8[Tensor, "batch height width 3"]
    ) -> tuple[UInt8[Tensor, "batch height width"], Float[Tensor, "batch label height width"]]:
        """Return label maps, and the probabilities of the labels, which add up to 1."""
        scores = _of_both(lambda pixels: self.network(pixels).float(), self.normalise(image, self.size), self.mirrored)
        parts = [_enlarged(each, (image.shape[1], image.shape[2])).softmax(1) for each in scores]
        found = torch.stack(parts).sum(0) / len(parts)
        # The foremost label, as the border of one half of `refine.shares` makes it; ties go to the first.
        return (found.argmax(1) + self.first_label).to(torch.uint8), found


@dataclass(frozen=True)
class CamRules:
    """How class activation maps become labels."""

    activation: Literal["relu", "sigmoid", "none"]
    """What is done to the logits (`cams.activation`)."""
    normalisation: Literal["max", "minmax"]
    """Each class by its own maximum, or to the full range (`cams.normalisation`)."""
    mirrored: bool
    """Add the mirror image's maps."""
    stride: int
    """Pixels that a cell of the network spans."""
    threshold: float
    """Background score, which every map exceeds where there is no background."""
    label_threshold: float
    """Probability from which the classifier's label counts as present."""
    has_background: bool
    """Whether pixels may show none of the classes."""


class CamGraph(nn.Module):
    """A CAM network and the image-level classifier that tells it the classes, from pixels to labels."""

    def __init__(
        self, network: nn.Module, classifier: nn.Module, normalisation: Normalisation, rules: CamRules
    ) -> None:
        super().__init__()
        self.network, self.classifier, self.rules = network, classifier, rules
        self.normalise = _Normalise(normalisation)

    def forward(
        self, image: UInt8[Tensor, "batch height width 3"], known: Float[Tensor, "batch class"]
    ) -> tuple[
        UInt8[Tensor, "batch height width"],
        Float[Tensor, "batch class height width"],
        Float[Tensor, "batch class"],
    ]:
        """Return label maps, the maps of the classes that are present, and the classifier's probabilities.

        Args:
            image: RGB pixels.
            known: 1 where the image shows a class, 0 where it does not, negative where the classifier is to tell.
        """
        rules = self.rules
        pixels = self.normalise(image, None)
        probabilities = self.classifier(pixels, want="scores")[0].float().sigmoid()
        found = (probabilities >= rules.label_threshold).float()
        if not rules.has_background:  # at least the most probable one
            foremost = F.one_hot(probabilities.argmax(1), found.shape[1]).float()
            found = torch.where(found.amax(1, keepdim=True) > 0, found, foremost)
        present = torch.where(known < 0, found, (known > 0.5).float())  # (batch, class)
        maps = self._maps(pixels) * present[:, :, None, None]
        # Below every background score, so that an absent class never wins.
        scores = torch.where(present[:, :, None, None] > 0, maps, torch.full_like(maps, -2.0))
        highest, foremost = scores.max(1)
        nothing = BACKGROUND_VALUE if rules.has_background else IGNORE_VALUE
        labels = torch.where(highest > rules.threshold, foremost + 1, torch.full_like(foremost, nothing))
        return labels.to(torch.uint8), maps, probabilities

    def _maps(self, pixels: Tensor) -> Float[Tensor, "batch class height width"]:
        rules = self.rules
        response = torch.stack(_of_both(self._activated, pixels, rules.mirrored)).sum(0)
        height, width = pixels.shape[2], pixels.shape[3]
        # Whole cells, then cut: the last cell reaches beyond the image's edge (`cams.inference`).
        whole = tuple((side + rules.stride - 1) // rules.stride * rules.stride for side in (height, width))
        maps = _enlarged(response, (whole[0], whole[1]))[:, :, :height, :width]
        low = maps.amin((2, 3), keepdim=True) if rules.normalisation == "minmax" else maps.new_zeros(1, 1, 1, 1)
        return (maps - low) / (maps.amax((2, 3), keepdim=True) - low + _EPSILON)

    def _activated(self, pixels: Tensor) -> Tensor:
        logits = self.network(pixels).float()
        match self.rules.activation:
            case "relu":
                return logits.relu()
            case "sigmoid":
                return logits.sigmoid()
            case "none":
                return logits


class _Normalise(nn.Module):
    mean: Tensor
    std: Tensor

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        for name, values in zip(("mean", "std"), normalisation, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, image: Tensor, size: tuple[int, int] | None) -> Tensor:
        pixels = image.permute(0, 3, 1, 2).float()
        if size is not None:
            pixels = resized_antialiased(pixels, size)
        return (pixels / 255 - self.mean) / self.std


def _of_both(respond: Callable[[Tensor], Tensor], pixels: Tensor, mirrored: bool) -> list[Tensor]:
    """Return what a network says of images, and of their mirror images, mirrored back.

    Both go through it in one batch, so that the graph holds it once.
    """
    if not mirrored:
        return [respond(pixels)]
    number = pixels.shape[0]  # not its length, which a graph would hold as a constant
    both = respond(torch.cat([pixels, pixels.flip(3)]))
    return [both[:number], both[number:].flip(3)]


def _enlarged(maps: Tensor, size: tuple[SideLength, SideLength]) -> Tensor:
    # PyTorch takes symbols for sizes, and its types do not say so.
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)  # type: ignore[arg-type]

"""From a network's maps to CLIP features of foreground and background regions: what RITC, CLIMS and SemPLeS share.

One row is a pair, an image and a class that it shows; absent classes are never computed. The CLIP is called once for
the foreground and background regions of all pairs. It stays outside DDP and checkpoints: gradients flow through it,
never into it.
"""

import functools
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from qaclims_ray.methods.regions import (
    RegionMode,
    cam_maximum,
    compose_regions,
    crop_regions,
    foreground_mask,
    renormalise,
    resize_bilinear,
)
from qaclims_ray.models import graphs


@runtime_checkable
class RegionEncoder(Protocol):
    """The frozen CLIP, as far as training needs it (`models.clip.frozen.FrozenClip`)."""

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def dim(self) -> int:
        """Width of its features."""
        ...

    @property
    def is_mask_adapted(self) -> bool:
        """Whether regions may carry a token mask."""
        ...

    def encode_regions(self, pixels: Any, token_mask: Any = None) -> Any:
        """Embed regions, unit length, (region, dim)."""
        ...


@dataclass(frozen=True, kw_only=True)
class RegionOptions:
    """How maps become regions."""

    mask: Literal["sigmoid", "minmax", "given"] = "sigmoid"
    """From maps to soft masks: the sigmoid of logits, rectified and brought to [0, 1] pair by pair (S4), or given in
    [0, 1] as they are (S22)."""
    epsilon: float = 1e-4
    """Added to a map's range before it is divided by it; for minmax."""
    omega: float = 0.0
    """Share of its maximum below which a map counts as background (FAT)."""
    mode: RegionMode = "none"
    """How the binary map acts (R2)."""
    max_at: Literal["clip", "cam"] = "clip"
    """Resolution at which the maximum is taken (R4)."""
    crop: bool = False
    """Enlarge each region's bounding box, by FAT's mask, to CLIP's whole input (R6)."""
    normalisation: Literal["image", "clip"] = "image"
    """Pixels CLIP sees: the training crop's own normalisation, or CLIP's (R5)."""
    antialias: bool = False
    """Antialias when resizing to CLIP's input (R6)."""


@dataclass(frozen=True)
class RegionFeatures:
    """What CLIP says of the regions of all pairs."""

    foreground: Float[Tensor, "pair dim"]
    """Features of the foreground regions, unit length."""
    background: Float[Tensor, "pair dim"]
    """Features of the background regions, unit length."""
    area: Float[Tensor, " pair"]
    """Mean of each pair's soft mask over CLIP's input."""


@dataclass(frozen=True, kw_only=True)
class Regions:
    """Makes CLIP features of the regions of pairs; built once, called every step."""

    clip: RegionEncoder
    """Frozen CLIP."""
    options: RegionOptions
    """How maps become regions."""
    image_mean: tuple[float, float, float]
    """Normalisation of the images (0-1 scale)."""
    image_std: tuple[float, float, float]
    """Normalisation of the images (0-1 scale)."""

    def __call__(
        self,
        maps: Float[Tensor, "batch class cam_height cam_width"],
        image: Float[Tensor, "batch 3 height width"],
        image_index: Int[Tensor, " pair"],
        class_id: Int[Tensor, " pair"],
    ) -> RegionFeatures:
        """Mask each pair's image by its map and embed both regions.

        Without any pair CLIP is not called, and what is computed from the empty result still depends on the network
        (R20, R21): all workers take part in the exchange of gradients, also one whose batch shows no class.

        Args:
            maps: of the network.
            image: normalised training crops.
            image_index: position of each pair's image in the batch.
            class_id: class of each pair.
        """
        if not len(image_index):
            return _no_pair(maps, self.clip.dim)
        num_pairs = len(image_index)
        if graphs.are_used(maps.device):  # few numbers of pairs; nothing depends on the rows that are added
            missing = graphs.bucket(num_pairs) - num_pairs
            image_index, class_id = F.pad(image_index, (0, missing)), F.pad(class_id, (0, missing))
        return RegionFeatures(*(each[:num_pairs] for each in self._captured(maps, image, image_index, class_id)))

    @functools.cached_property
    def _captured(self) -> graphs.Captured:
        return graphs.Captured(self._features, "CLIP's look at the regions")

    def _features(
        self,
        maps: Float[Tensor, "batch class cam_height cam_width"],
        image: Float[Tensor, "batch 3 height width"],
        image_index: Int[Tensor, " pair"],
        class_id: Int[Tensor, " pair"],
    ) -> tuple[Float[Tensor, "pair dim"], Float[Tensor, "pair dim"], Float[Tensor, " pair"]]:
        """Return the fields of `RegionFeatures`."""
        clip, options = self.clip, self.options
        chosen = maps[image_index, class_id]  # (pair, cam_height, cam_width)
        cam = probabilities(chosen) if options.mask == "sigmoid" else F.relu(_at_least_float32(chosen))
        large_cam = resize_bilinear(cam.unsqueeze(1), clip.image_size, antialias=options.antialias).squeeze(1)
        if options.mask == "minmax":
            # Both resolutions are scaled, since FAT's maximum may come from either (R4) and has to be a mask's.
            cam, large_cam = (min_max(each, epsilon=options.epsilon) for each in (cam, large_cam))
        maximum = cam_maximum(large_cam if options.max_at == "clip" else cam)
        is_foreground = foreground_mask(large_cam, maximum, omega=options.omega)
        # Resized once per image, then taken once per pair: an image has several pairs.
        regions = compose_regions(self._picture(image)[image_index], large_cam, is_foreground, mode=options.mode)
        if options.crop:
            regions = crop_regions(regions, torch.cat([is_foreground, ~is_foreground]))
        foreground, background = clip.encode_regions(regions.pixels, regions.token_mask).chunk(2)  # (pair, dim)
        return foreground, background, large_cam.mean(dim=(-2, -1))

    def _picture(self, image: Float[Tensor, "batch 3 height width"]) -> Tensor:
        """Return images at CLIP's input size, in the normalisation that CLIP is to see."""
        picture = resize_bilinear(image, self.clip.image_size, antialias=self.options.antialias)
        if self.options.normalisation == "image":
            return picture
        mean, std = self.clip.mean, self.clip.std
        return renormalise(picture, from_mean=self.image_mean, from_std=self.image_std, to_mean=mean, to_std=std)


def _no_pair(maps: Float[Tensor, "batch class cam_height cam_width"], dim: int) -> RegionFeatures:
    # An empty sum is zero even where maps overflowed; zero times the maps would not be.
    nothing = _at_least_float32(maps.flatten(1).sum(dim=1)[:0])  # (0)
    features = nothing[:, None].expand(-1, dim)  # (0, dim)
    return RegionFeatures(features, features, nothing)


def probabilities(logits: Float[Tensor, "*maps"]) -> Float[Tensor, "*maps"]:
    """Return the sigmoid of maps in at least float32."""
    return _at_least_float32(logits).sigmoid()


def min_max(maps: Float[Tensor, "pair height width"], *, epsilon: float) -> Float[Tensor, "pair height width"]:
    """Bring each map to [0, 1): its minimum to 0, its maximum to range / (range + epsilon).

    SemPLeS as released (S4). Gradients flow through minimum and maximum.
    """
    low, high = maps.amin(dim=(-2, -1), keepdim=True), maps.amax(dim=(-2, -1), keepdim=True)
    return (maps - low) / (high - low + epsilon)


def _at_least_float32(values: Tensor) -> Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))

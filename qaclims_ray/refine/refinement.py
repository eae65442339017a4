"""From CAMs to pseudo masks, step by step (rows E7-E11): each step takes maps and hands maps on.

Maps travel with the background score that turns them into labels, so that steps combine and every result can be
scored like a seed. But for IRN's walk, a map is then the share of its class against the background: the border is 1/2.
Without a background (`NO_BACKGROUND`) maps stay scores of the classes, and the foremost one wins.
"""

import functools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import IGNORE_VALUE, NO_BACKGROUND, Classes
from qaclims_ray.models.devices import upload
from qaclims_ray.refine.affinity_config import SpreadConfig
from qaclims_ray.refine.config import MaskConfig, MaskStep, PamrConfig, SamConfig
from qaclims_ray.refine.crf import dense_crf, label_energy, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.refine.full_maps import full_maps
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.random_walk import walk_cams
from qaclims_ray.refine.pamr import refine_by_pamr
from qaclims_ray.refine.sam import refine_by_sam
from qaclims_ray.refine.sam_prompts import PartPrompt, painted, prompts_of
from qaclims_ray.refine.shares import HALF, foreground_shares
from qaclims_ray.refine.spreading import AffinityOf, refine_by_affinity

_CRF_LABEL_PIXELS = 4_000_000
"""Pixels times labels of one CRF batch: bounds its memory."""
_IMAGES_WALKING = 16
"""Images whose maps walk together on a GPU."""

BoundariesOf = Callable[[Sequence[UInt8[Tensor, "3 _height _width"]]], Sequence[Float[Tensor, "_height _width"]]]
MasksOf = Callable[[UInt8[Tensor, "3 height width"]], Bool[Tensor, "mask height width"]]
PartsOf = Callable[
    [UInt8[Tensor, "3 height width"], Sequence[PartPrompt]],
    tuple[Bool[Tensor, "prompt height width"], Float[Tensor, " prompt"]],
]


@dataclass(frozen=True)
class Refiners:
    """The networks that some steps need."""

    boundaries: BoundariesOf | None = None
    """Step irn: boundary maps of images, on the device where the walk runs."""
    segments: MasksOf | None = None
    """Step sam, prompts grid: class-agnostic masks of an image."""
    parts: PartsOf | None = None
    """Step sam, prompts seeds: a mask for each prompt, and how good the model thinks it is."""
    affinities: Mapping[MaskStep, AffinityOf] = field(default_factory=dict)
    """Steps that spread maps over cells: which cells of an image belong together."""


@dataclass(frozen=True)
class Maps:
    """Maps of some images, and the score that makes labels of them: what each step takes and hands on."""

    cams: Sequence[ImageCam]
    """Maps in [0, 1], one set for each image."""
    border: float
    """Background score: a pixel whose highest score exceeds it shows a class."""

    def refined(self, cams: Sequence[ImageCam], border: float) -> "Maps":
        """Return a step's result; where there is no background, no step brings one."""
        return Maps(cams, NO_BACKGROUND if self.border == NO_BACKGROUND else border)


def refined_border(config: MaskConfig) -> float:
    """Return the border that `refine_cams` hands on where there is a background; known before any image is refined."""
    return {"irn": config.irn.walk_threshold}.get(config.steps[-1], HALF) if config.steps else config.threshold


def refine_cams(
    images: Sequence[UInt8[Tensor, "3 _height _width"]],
    cams: Sequence[ImageCam],
    config: MaskConfig,
    refiners: Refiners,
    classes: Classes,
    *,
    device: torch.device | str = "cpu",
) -> Maps:
    """Refine the CAMs of some images; an image without classes is returned as it is.

    Args:
        images: RGB pixels.
        cams: their maps; full ones, and grid ones where the first step is irn.
        config: steps and their settings.
        refiners: networks of the steps.
        classes: of the data set; irn and sam need a background.
        device: where a CRF, PAMR and affinities are computed.

    Returns:
        Maps in [0, 1] at each image's resolution, -1 where the image is white (`masks.white_above`), and their border.

    Raises:
        ArtifactError: when the maps that a step needs were not stored.
    """
    steps: dict[MaskStep, Callable[[Maps], Maps]] = {
        "crf": lambda maps: refine_by_crf(images, maps, config.crf, device=device),
        "irn": lambda maps: _by_irn(images, maps, config.irn, refiners.boundaries),
        "pamr": lambda maps: _by_pamr(images, maps, config.pamr, torch.device(device)),
        "sam": lambda maps: _by_sam(images, maps, config.sam, refiners),
    }
    for step, spread in _spreads(config).items():
        within_boxes = step == "clip_attention" and config.clip_attention.within_boxes
        steps[step] = functools.partial(
            _by_affinity, images, step=step, spread=spread, refiners=refiners, within_boxes=within_boxes, device=device
        )
    maps = Maps(cams, classes.border(config.threshold))
    for step in config.steps:
        maps = steps[step](maps)
    if config.white_above is None:
        return maps
    white_above = config.white_above
    return replace(maps, cams=_each(images, maps, lambda image, cam: without_white(image, cam, white_above)))


def _each(images: Sequence[Tensor], maps: Maps, refine: Callable[[Tensor, ImageCam], ImageCam]) -> list[ImageCam]:
    """Refine image by image; one without classes has no maps, and needs no network."""
    return [refine(image, cam) if cam.class_ids else cam for image, cam in zip(images, maps.cams, strict=True)]


def _by_irn(images: Sequence[Tensor], maps: Maps, config: IrnConfig, boundaries: BoundariesOf | None) -> Maps:
    assert boundaries is not None
    walking = [position for position, cam in enumerate(maps.cams) if cam.class_ids]
    walked = list(maps.cams)
    for start in range(0, len(walking), _IMAGES_WALKING):
        chosen = walking[start : start + _IMAGES_WALKING]
        found = walk_cams([maps.cams[i] for i in chosen], boundaries([images[i] for i in chosen]), config)
        for position, cam in zip(chosen, found, strict=True):
            walked[position] = cam
    # The walk divides all classes of an image by one maximum, so its border is a setting of its own and not one half.
    return maps.refined(walked, config.walk_threshold)


def _by_pamr(images: Sequence[Tensor], maps: Maps, config: PamrConfig, device: torch.device) -> Maps:
    def spread(image: Tensor, cam: ImageCam) -> ImageCam:
        on_device = replace(cam, full=upload(full_maps(cam), device))
        found = refine_by_pamr(upload(image, device), on_device, maps.border, config)
        return replace(found, full=None if found.full is None else found.full.cpu())

    return maps.refined(_each(images, maps, spread), HALF)


def _spreads(config: MaskConfig) -> dict[MaskStep, SpreadConfig]:
    """Return the steps that spread maps over cells, and how each does."""
    return {
        "clip_attention": config.clip_attention.spread,
        "class_distribution": config.class_distribution.spread,
        "feature_affinity": config.feature_affinity.spread,
    }


def _by_affinity(
    images: Sequence[Tensor],
    maps: Maps,
    *,
    step: MaskStep,
    spread: SpreadConfig,
    refiners: Refiners,
    within_boxes: bool,
    device: torch.device | str,
) -> Maps:
    affinity_of = refiners.affinities[step]

    def spread_out(image: Tensor, cam: ImageCam) -> ImageCam:
        pixels = upload(image, torch.device(device))
        return refine_by_affinity(pixels, cam, maps.border, affinity_of, spread, within_boxes=within_boxes)

    return maps.refined(_each(images, maps, spread_out), HALF)


def _by_sam(images: Sequence[Tensor], maps: Maps, config: SamConfig, refiners: Refiners) -> Maps:
    def chosen(image: Tensor, cam: ImageCam) -> ImageCam:
        assert refiners.segments is not None
        return refine_by_sam(cam, label_map(cam, maps.border), refiners.segments(image), config)

    def asked(image: Tensor, cam: ImageCam) -> ImageCam:
        assert refiners.parts is not None
        prompts = prompts_of(cam, maps.border, config)
        return painted(cam, prompts, *refiners.parts(image, prompts))

    return maps.refined(_each(images, maps, chosen if config.prompts == "grid" else asked), HALF)


def refine_by_crf(
    images: Sequence[UInt8[Tensor, "3 _height _width"]],
    maps: Maps,
    config: CrfConfig,
    *,
    device: torch.device | str = "cpu",
) -> Maps:
    """Refine maps by a dense CRF over the background, where there is one, and each image's own classes.

    Images of one size and number of classes run together.

    Args:
        images: RGB pixels.
        maps: maps in [0, 1] and their border.
        config: kernels, and what the CRF starts from: the label map, or the scores as probabilities.
        device: where it is computed.

    Returns:
        Per class its posterior against the background's, p_k / (p_k + p_0), or without a background its posterior.
    """
    cams, refined = maps.cams, list(maps.cams)
    groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position, cam in enumerate(cams):
        if cam.class_ids:
            groups[cam.height, cam.width, len(cam.class_ids)].append(position)
    for (height, width, num_classes), positions in groups.items():
        at_once = max(1, _CRF_LABEL_PIXELS // (height * width * (num_classes + 1)))
        for start in range(0, len(positions), at_once):
            chosen = positions[start : start + at_once]
            full = upload(torch.stack([full_maps(cams[position]) for position in chosen]), torch.device(device))
            pixels = upload(torch.stack([images[position] for position in chosen]), torch.device(device))
            posterior = dense_crf(pixels, _energy(full, maps.border, config), config)
            shares = [one if maps.border == NO_BACKGROUND else foreground_shares(one) for one in posterior]
            for position, share in zip(chosen, torch.stack(shares).cpu(), strict=True):
                refined[position] = replace(cams[position], full=share, grid=None)
    return maps.refined(refined, HALF)


def _energy(maps: Float[Tensor, "batch class height width"], threshold: float, config: CrfConfig) -> Tensor:
    # Without a background the posterior is over the classes alone: -1 is a mark for label maps, no score of a label.
    scores = maps if threshold == NO_BACKGROUND else torch.cat([torch.full_like(maps[:, :1], threshold), maps], 1)
    match config.unary:
        case "label":
            labels: Int64[Tensor, "batch height width"] = scores.argmax(1)
            return label_energy(labels, scores.shape[1], config.label_confidence)
        case "softmax":
            return probability_energy(scores / scores.sum(1, keepdim=True).clamp_min(torch.finfo(scores.dtype).tiny))


def without_uncertain(cam: ImageCam, uncertain: tuple[float, float] | None) -> ImageCam:
    """Return maps that show no class where the foreground score is uncertain: scored as background, a miss (E11)."""
    if uncertain is None or not cam.class_ids:
        return cam
    return replace(cam, full=full_maps(cam).masked_fill(_is_uncertain(cam, uncertain), NO_BACKGROUND))


def without_white(image: UInt8[Tensor, "3 height width"], cam: ImageCam, white_above: int) -> ImageCam:
    """Return maps that show no class where the image is white, as empty glass is on a slide.

    Grey is 0.299 red + 0.587 green + 0.114 blue. As WSSS-Tissue does for LUAD-HistoSeg, which however keeps white
    spots of fewer than 50 pixels.

    Args:
        image: RGB pixels.
        cam: its maps.
        white_above: grey level.
    """
    if not cam.class_ids:
        return cam
    weights = torch.tensor([0.299, 0.587, 0.114], device=image.device)
    is_white = torch.tensordot(weights, image.float(), dims=1) > white_above
    return replace(cam, full=full_maps(cam).masked_fill(is_white.to(full_maps(cam).device), NO_BACKGROUND))


def pseudo_mask(
    cam: ImageCam, threshold: float, uncertain: tuple[float, float] | None
) -> UInt8[Tensor, "height width"]:
    """Return the label map of refined maps, with 255 where the foreground score is uncertain.

    Args:
        cam: refined maps.
        threshold: their background score.
        uncertain: pixels whose highest score lies above the first and not above the second become 255.
    """
    labels = label_map(cam, threshold)
    if uncertain is None or not cam.class_ids:
        return labels
    return torch.where(_is_uncertain(cam, uncertain), IGNORE_VALUE, labels).to(torch.uint8)


def _is_uncertain(cam: ImageCam, uncertain: tuple[float, float]) -> Bool[Tensor, "height width"]:
    low, high = uncertain
    score = full_maps(cam).amax(0)
    # A score at the border is background, as in `label_map`: so the upper bound is still uncertain, the lower certain.
    return (score > low) & (score <= high)

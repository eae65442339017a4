"""Criteria for a background threshold that read no mask: each says of an image how good every threshold looks.

All are given the picture and the maps on a small grid; what an image says is added up over images, and the highest sum
wins. `threshold_without_masks.py` holds them against the best threshold by pixel labels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from qaclims_ray.evaluation.separation import colour_parting
from qaclims_ray.evaluation.threshold import AREA_POWER, COLOURS, agreement_with_colours, main_colours
from qaclims_ray.refine.crf import dense_crf, label_energy
from qaclims_ray.refine.crf_config import CrfConfig

_SUPERPIXELS = 6


@dataclass(frozen=True)
class Cut:
    """An image whose maps are cut at every threshold."""

    pixels: Tensor
    """(3, height, width) in [0, 1]."""
    labels: Tensor
    """(threshold, height, width): 0 background, then the image's classes."""
    num_labels: int
    """The image's classes and the background."""
    crf: CrfConfig
    """Of the run, in pixels of this grid."""

    @property
    def shown(self) -> Tensor:
        """(threshold, height, width): where any class is."""
        return self.labels > 0


def cut(pixels: Tensor, maps: Tensor, thresholds: Tensor, crf: CrfConfig, scale: float) -> Cut:
    """Return an image cut at every threshold.

    Args:
        pixels: (3, height, width) in [0, 1].
        maps: (class, height, width) in [0, 1].
        thresholds: rising.
        crf: of the run, in pixels of the whole image.
        scale: side of the grid over that of the image.
    """
    score, foremost = maps.max(0)
    labels = torch.where(score > thresholds[:, None, None], foremost + 1, 0)
    near, far = max(crf.gaussian_sxy * scale, 1.0), max(crf.bilateral_sxy * scale, 1.0)
    return Cut(pixels, labels, len(maps) + 1, replace(crf, gaussian_sxy=near, bilateral_sxy=far))


def rate(image: Cut, *, with_crf: bool) -> dict[str, Tensor]:
    """Return what an image says for each threshold, by criterion; (threshold,) each.

    Args:
        image: the cut.
        with_crf: whether those that need a CRF of every mask are asked too, which takes most of the time.
    """
    found = {name: criterion(image) for name, criterion in PLAIN.items()}
    background = 1 - image.shown.float().mean((1, 2))
    found |= {f"{name}, less area": found[name] * background**AREA_POWER for name in LESS_AREA}
    if not with_crf:
        return found
    refined = _refined(image)
    found |= {name: criterion(image, refined) for name, criterion in WITH_CRF.items()}
    found["parting of classes x CRF agreement"] = found["parting of classes"] * found["CRF agreement, IoU"]
    return found


def _parting_of_classes(image: Cut) -> Tensor:
    masks = [image.labels == label for label in range(1, image.num_labels)]
    return torch.stack([colour_parting(_repeated(image), mask) for mask in masks]).mean(0)


def _parting_of_foreground(image: Cut) -> Tensor:
    return colour_parting(_repeated(image), image.shown)


def _parting_of_picture(image: Cut) -> Tensor:
    """The share of the whole picture's colour variance that lies between foreground and background."""
    colours, inside = image.pixels.flatten(1).double(), image.shown.flatten(1).double()
    centre = colours.mean(1, keepdim=True)
    spread, count = ((colours - centre) ** 2).sum(), inside.shape[1]
    num = inside.sum(1)
    away = (inside @ (colours - centre).T) ** 2  # of sums: both sides' distances follow from it
    between = away.sum(1) * (1 / num.clamp_min(1) + 1 / (count - num).clamp_min(1))
    return (between / spread.clamp_min(1e-9)).float() * _is_parted(image)


def _mutual_information(image: Cut) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    clusters = main_colours(image.pixels.flatten(1).T)
    flat = image.shown.flatten(1)
    information, of_mask, of_colours = _information(flat, clusters, COLOURS)
    height, width = image.shown.shape[1:]
    moved = [image.shown.roll((height // 2, width // 2), (1, 2)), image.shown.roll((height // 2, 0), (1, 2))]
    moved += [image.shown.roll((0, width // 2), (1, 2)), image.shown.flip(2)]
    chance = torch.stack([_information(mask.flatten(1), clusters, COLOURS)[0] for mask in moved]).mean(0)
    return information, of_mask, of_colours, chance


def _information_by_mask(image: Cut) -> Tensor:
    information, of_mask, _, _ = _mutual_information(image)
    return information / of_mask.clamp_min(1e-3)


def _information_by_both(image: Cut) -> Tensor:
    information, of_mask, of_colours, _ = _mutual_information(image)
    return information / (of_mask * of_colours).clamp_min(1e-6).sqrt()


def _information_beyond_chance(image: Cut) -> Tensor:
    information, of_mask, _, chance = _mutual_information(image)
    return (information - chance) / (of_mask - chance).clamp_min(1e-3) * (of_mask > 1e-3)


def _colour_kappa(image: Cut) -> Tensor:
    return agreement_with_colours(image.pixels, image.shown).float()


def _superpixel_kappa(image: Cut) -> Tensor:
    height, width = image.shown.shape[1:]
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    side = (height * width) ** 0.5 / _SUPERPIXELS
    colours = image.pixels / image.pixels.flatten(1).std(1).mean().clamp_min(0.02)
    points = torch.stack([*colours, 1.5 * rows / side, 1.5 * columns / side]).flatten(1).T
    clusters = _clusters(points, _SUPERPIXELS**2)
    return _kappa(image.shown.flatten(1), _majority(image.shown.flatten(1), clusters, _SUPERPIXELS**2))


def _edges(image: Cut) -> Tensor:
    """Mean change of colour across the outline, over that of the picture."""
    across = (image.pixels.diff(dim=2) ** 2).sum(0).sqrt()
    down = (image.pixels.diff(dim=1) ** 2).sum(0).sqrt()
    cut_across, cut_down = image.labels.diff(dim=2) != 0, image.labels.diff(dim=1) != 0
    num = cut_across.sum((1, 2)) + cut_down.sum((1, 2))
    change = (cut_across * across).sum((1, 2)) + (cut_down * down).sum((1, 2))
    usual = (across.sum() + down.sum()) / (across.numel() + down.numel())
    return change / num.clamp_min(1) / usual.clamp_min(1e-4)


def _crf_iou(image: Cut, refined: Tensor) -> Tensor:
    return _iou(image.shown.flatten(1), refined)


def _crf_kappa(image: Cut, refined: Tensor) -> Tensor:
    return _kappa(image.shown.flatten(1), refined)


def _consensus(image: Cut, refined: Tensor) -> Tensor:
    """Mean IoU with the refined masks of all thresholds, each by the share of area between its neighbours."""
    shown, other = image.shown.flatten(1).float(), refined.float()
    both = shown @ other.T
    overlap = both / (shown.sum(1)[:, None] + other.sum(1)[None] - both).clamp_min(1)
    area = shown.mean(1)
    steps = area.clamp(1e-3, 1).log().diff().abs()
    weight = torch.zeros_like(area)
    weight[:-1] += steps
    weight[1:] += steps
    weight *= (area > 0.02) & (area < 0.9)
    return (overlap * weight).sum(1) / weight.sum().clamp_min(1e-6)


PLAIN: Mapping[str, Callable[[Cut], Tensor]] = {
    "parting of classes": _parting_of_classes,
    "parting of foreground": _parting_of_foreground,
    "parting of whole picture": _parting_of_picture,
    "information / that of mask": _information_by_mask,
    "information / root of both": _information_by_both,
    "information beyond chance": _information_beyond_chance,
    "kappa with colours": _colour_kappa,
    "kappa with superpixels": _superpixel_kappa,
    "change across outline": _edges,
}
LESS_AREA = ("parting of foreground", "parting of whole picture", "information beyond chance", "kappa with superpixels")
"""Those that are tried with the penalty for area of the product too."""
WITH_CRF: Mapping[str, Callable[[Cut, Tensor], Tensor]] = {
    "CRF agreement, IoU": _crf_iou,
    "CRF agreement, kappa": _crf_kappa,
    "consensus of CRF masks": _consensus,
}


def _repeated(image: Cut) -> Tensor:
    return image.pixels.expand(len(image.labels), -1, -1, -1)


def _is_parted(image: Cut) -> Tensor:
    return image.shown.any((1, 2)) & ~image.shown.all((1, 2))


def _refined(image: Cut) -> Tensor:
    """Return where the CRF of each threshold's mask shows a class, (threshold, pixel)."""
    pixels = (image.pixels * 255).round().to(torch.uint8).expand(len(image.labels), -1, -1, -1)
    posterior = dense_crf(pixels, label_energy(image.labels, image.num_labels, 0.7), image.crf)
    return (posterior.argmax(1) > 0).flatten(1)


def _clusters(points: Tensor, number: int) -> Tensor:
    """Return each point's cluster, by k-means from points evenly spread over the picture."""
    centres = points[torch.linspace(0, len(points) - 1, number).long()].clone()
    for _ in range(8):
        nearest = torch.cdist(points, centres).argmin(1)
        count = torch.bincount(nearest, minlength=number)[:, None]
        sums = torch.zeros_like(centres).index_add_(0, nearest, points)
        centres = torch.where(count > 0, sums / count.clamp_min(1), centres)
    return torch.cdist(points, centres).argmin(1)


def _joint(masks: Tensor, clusters: Tensor, number: int) -> Tensor:
    """Return pixels by (threshold, outside or inside, cluster)."""
    cells = masks.long() * number + clusters
    return torch.stack([torch.bincount(row, minlength=2 * number).view(2, number) for row in cells]).float()


def _information(masks: Tensor, clusters: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return mutual information of mask and cluster, and the entropies of the two."""
    share = _joint(masks, clusters, number) / masks.shape[1]
    of_mask, of_clusters, of_both = _entropy(share.sum(2)), _entropy(share.sum(1)), _entropy(share.flatten(1))
    return of_mask + of_clusters - of_both, of_mask, of_clusters


def _entropy(share: Tensor) -> Tensor:
    return -torch.xlogy(share, share).sum(-1)


def _majority(masks: Tensor, clusters: Tensor, number: int) -> Tensor:
    joint = _joint(masks, clusters, number)
    return (joint[:, 1] > joint[:, 0])[:, clusters]


def _iou(one: Tensor, other: Tensor) -> Tensor:
    return (one & other).sum(1) / (one | other).sum(1).clamp_min(1)


def _kappa(one: Tensor, other: Tensor) -> Tensor:
    """Cohen's kappa: agreement beyond that of masks of these areas by chance."""
    share, of_other = one.float().mean(1), other.float().mean(1)
    by_chance = share * of_other + (1 - share) * (1 - of_other)
    return ((one == other).float().mean(1) - by_chance) / (1 - by_chance).clamp_min(1e-6)

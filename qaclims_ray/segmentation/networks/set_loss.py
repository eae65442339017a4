"""Mask2Former's loss (Cheng et al. 2022, section 3.3) as a sum that knows ignored pixels and any number of workers.

The labels of an image are a set of (mask, class). In every decoder layer they are matched with queries, and each
matched query learns its mask and its class, every other one that it stands for nothing.

transformers matches image by image and layer by layer. Here the host waits for a GPU twice a step: for the labels that
the images show, and for the costs of all matches.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from transformers import Mask2FormerForUniversalSegmentation
from transformers.models.mask2former.modeling_mask2former import dice_loss, sample_point

from qaclims_ray.data.classes import IGNORE_VALUE
from qaclims_ray.models.devices import download, upload

_ABSENT = -30.0
"""Mask logit of cells that do not count."""


class LabelSets(NamedTuple):
    """The masks of a batch, image after image."""

    counts: list[int]
    """Masks of each image."""
    image: Int64[Tensor, " mask"]
    """The image of each mask."""
    place: Int64[Tensor, " mask"]
    """Its place among the masks of its image."""
    classes: Int64[Tensor, " mask"]
    """Its label."""
    masks: Float[Tensor, "mask height width"]
    """1 where the label is."""


class Draws(NamedTuple):
    """The random points of one layer's loss; coordinates (x, y) in [0, 1]."""

    matching: Float[Tensor, "batch point 2"]
    """Where predictions and masks of an image are compared to match them."""
    candidates: Float[Tensor, "match candidate 2"]
    """Of these the most uncertain are taken into the loss."""
    others: Float[Tensor, "match other 2"]
    """These are taken as they are."""


def set_loss(
    net: Mask2FormerForUniversalSegmentation,
    class_logits: list[Float[Tensor, "batch query answer"]],
    mask_logits: list[Float[Tensor, "batch query cell_height cell_width"]],
    labels: UInt8[Tensor, "batch height width"],
    *,
    sum_over_workers: Callable[[Tensor], Tensor],
) -> Float[Tensor, ""]:
    """Compute this worker's share of the loss of the global batch (section 3.3 of the paper), over all layers.

    Costs of matches, random points, class and dice loss are transformers' own, and so is the sum while no pixel is
    ignored and one worker trains. What differs:

    - Normalisation: transformers divides the number of masks of all workers by the number of workers twice
      (accelerate's `reduce` already takes the mean), which raises the mask losses with the number of workers, and it
      averages the class losses of workers that hold different numbers of masks. Here sums are divided by global counts,
      so that shares add up to the loss of the global batch. What still depends on the workers are the random points,
      as each worker draws its own.
    - Ignored pixels (255): a point on one is left out of the mean over points and of the dice loss, and the search for
      uncertain points passes over cells that are mostly ignored. The released code trains all masks to be absent there.

    An image without any label has no mask: its queries learn that they stand for nothing. A loss without any mask
    still depends on all parameters.

    Args:
        net: gives the criterion and the weights of its terms.
        class_logits: of every decoder layer.
        mask_logits: of every decoder layer, all of one size; stretched they cover the labels.
        labels: label maps, 255 ignored.
        sum_over_workers: adds up this worker's counts and the others'.
    """
    criterion: Any = net.criterion
    targets, is_ignored = label_sets(labels, criterion.num_labels), labels == IGNORE_VALUE
    num_queries = class_logits[0].shape[1]
    num_masks = sum(min(count, num_queries) for count in targets.counts)
    no_object = net.config.no_object_weight
    # Class losses come as weighted means over queries. With the sums of their weights workers' means can be added up.
    class_weight = num_masks + no_object * (len(labels) * num_queries - num_masks)
    counts = upload(torch.tensor([num_masks, class_weight], dtype=torch.float32), labels.device)
    all_masks, all_class_weight = sum_over_workers(counts).unbind()
    draws = [_draw(criterion, len(labels), num_masks, labels.device) for _ in mask_logits]
    share = F.interpolate(is_ignored[:, None].float(), size=mask_logits[0].shape[2:], mode="area")
    counted = [logits.detach().masked_fill(share > 0.5, _ABSENT) for logits in mask_logits]
    costs = [
        _costs(criterion, classes.detach(), masks, targets, layer.matching)
        for classes, masks, layer in zip(class_logits, counted, draws, strict=True)
    ]
    matches = _matches(download(costs), targets.counts)
    total = sum(logits.sum() * 0.0 for logits in mask_logits)
    for layer, match in enumerate(upload(matches, labels.device)):
        entropy = _class_loss(criterion, class_logits[layer], targets, match)
        total = total + net.config.class_weight * entropy * (class_weight / all_class_weight)
        if num_masks:
            points, dice = _mask_losses(mask_logits[layer], counted[layer], targets, match, is_ignored, draws[layer])
            mask_terms = net.config.mask_weight * points + net.config.dice_weight * dice
            total = total + mask_terms / all_masks.clamp(min=1)
    assert isinstance(total, Tensor)
    return total


def label_sets(labels: UInt8[Tensor, "batch height width"], num_labels: int = IGNORE_VALUE) -> LabelSets:
    """Return the masks of all labels that images show; background is a label, ignored pixels belong to none."""
    shown = torch.zeros(len(labels), IGNORE_VALUE + 1, dtype=torch.bool, device=labels.device)
    rows = shown.scatter_(1, labels.flatten(1).long(), True)[:, :num_labels].tolist()
    classes = [[label for label, is_shown in enumerate(row) if is_shown] for row in rows]
    counts = [len(found) for found in classes]
    masks = [(image, place, label) for image, found in enumerate(classes) for place, label in enumerate(found)]
    image, place, label = upload(torch.tensor(masks, dtype=torch.int64).view(-1, 3), labels.device).unbind(1)
    return LabelSets(counts, image, place, label, (labels[image] == label[:, None, None]).float())


def _draw(criterion: Any, num_images: int, num_matches: int, device: torch.device) -> Draws:
    """Draw a layer's points in transformers' order, before anything is known about the matches."""
    num_points = criterion.num_points
    num_certain = num_points - int(criterion.importance_sample_ratio * num_points)
    return Draws(
        torch.rand(num_images, num_points, 2, device=device),
        torch.rand(num_matches, int(num_points * criterion.oversample_ratio), 2, device=device),
        torch.rand(num_matches, num_certain, 2, device=device),
    )


def _costs(
    criterion: Any,
    class_logits: Float[Tensor, "batch query answer"],
    mask_logits: Float[Tensor, "batch query cell_height cell_width"],
    targets: LabelSets,
    points: Float[Tensor, "batch point 2"],
) -> Float[Tensor, "batch query place"]:
    """Return what it costs to match each query of an image with each of its masks, as transformers' matcher does."""
    matcher = criterion.matcher
    size = (len(points), max(targets.counts, default=0))
    at_points = sample_point(targets.masks[:, None], points[targets.image], align_corners=False).squeeze(1)
    masks = at_points.new_zeros(*size, points.shape[1]).index_put((targets.image, targets.place), at_points)
    classes = targets.classes.new_zeros(size).index_put((targets.image, targets.place), targets.classes)
    logits = sample_point(mask_logits, points, align_corners=False)  # (batch, query, point)

    present = F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits), reduction="none") / points.shape[1]
    absent = F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="none") / points.shape[1]
    cost_mask = present @ masks.mT + absent @ (1 - masks).mT
    probabilities = logits.sigmoid()
    sizes = probabilities.sum(-1)[:, :, None] + masks.sum(-1)[:, None]
    cost_dice = 1 - (2 * (probabilities @ masks.mT) + 1) / (sizes + 1)
    wanted = classes[:, None].expand(-1, logits.shape[1], -1)
    cost_class = -class_logits.softmax(-1).gather(2, wanted)
    costs = matcher.cost_mask * cost_mask + matcher.cost_class * cost_class + matcher.cost_dice * cost_dice
    worst = torch.finfo(costs.dtype).max
    return torch.nan_to_num(costs, nan=worst, posinf=worst, neginf=worst)


def _matches(costs: list[Float[Tensor, "batch query place"]], counts: list[int]) -> Int64[Tensor, "layer kind=3 match"]:
    """Match at the least cost; return image, query and mask of each match, image after image, queries ascending."""
    layers = []
    for layer in costs:
        parts, first = [torch.zeros(3, 0, dtype=torch.int64)], 0
        for image, count in enumerate(counts):
            query, place = map(torch.from_numpy, linear_sum_assignment(layer[image, :, :count].numpy()))
            parts.append(torch.stack([torch.full_like(query, image), query, place + first]))
            first += count
        layers.append(torch.cat(parts, dim=1))
    return torch.stack(layers)


def _class_loss(
    criterion: Any,
    logits: Float[Tensor, "batch query answer"],
    targets: LabelSets,
    match: Int64[Tensor, "kind=3 match"],
) -> Float[Tensor, ""]:
    """Return one layer's class loss, a weighted mean over queries."""
    image, query, mask = match
    wanted = torch.full_like(logits[..., 0], criterion.num_labels, dtype=torch.int64)
    wanted = wanted.index_put((image, query), targets.classes[mask])
    return F.cross_entropy(logits.transpose(1, 2), wanted, weight=criterion.empty_weight)


def _mask_losses(
    mask_logits: Float[Tensor, "batch query cell_height cell_width"],
    counted: Float[Tensor, "batch query cell_height cell_width"],
    targets: LabelSets,
    match: Int64[Tensor, "kind=3 match"],
    is_ignored: Bool[Tensor, "batch height width"],
    draws: Draws,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return the sums over one layer's masks of the losses of points and of dice."""
    image, query, mask = match
    with torch.no_grad():
        points = _uncertain_points(counted[image, query][:, None], draws)
        ignored = sample_point(is_ignored[image, None].float(), points, align_corners=False).squeeze(1)
        matched = sample_point(targets.masks[mask][:, None], points, align_corners=False).squeeze(1)
        # A point lies between pixels, so it mixes their values. Of those that count, the mask has this share.
        expected = matched / (1 - ignored).clamp(min=0.5)
        counts = ignored < 0.5
    logits = sample_point(mask_logits[image, query][:, None], points, align_corners=False).squeeze(1)  # (match, point)
    # With such a logit and no mask a point adds nothing to either loss, and no gradient.
    logits, expected = logits.where(counts, _ABSENT), expected.where(counts, 0.0)
    losses = F.binary_cross_entropy_with_logits(logits, expected, reduction="none") * counts
    per_mask = losses.sum(dim=1) / counts.sum(dim=1).clamp(min=1)
    return per_mask.sum(), dice_loss(logits, expected, 1)


def _uncertain_points(
    logits: Float[Tensor, "match 1 cell_height cell_width"], draws: Draws
) -> Float[Tensor, "match point 2"]:
    """Return the candidates where a logit is nearest to 0, then the other points."""
    uncertainty = -sample_point(logits, draws.candidates, align_corners=False).squeeze(1).abs()
    num_points = draws.matching.shape[1]
    chosen = uncertainty.topk(num_points - draws.others.shape[1], dim=1).indices
    return torch.cat([draws.candidates.gather(1, chosen[:, :, None].expand(-1, -1, 2)), draws.others], dim=1)


def sum_over_workers(counts: Float[Tensor, " count"]) -> Float[Tensor, " count"]:
    """Add up counts over the workers of a training; alone they are the sum."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(counts)
    return counts

"""Fully connected CRF: labels follow the colours of the image (between CAMs and pseudo masks; after final networks).

Kraehenbuehl and Koltun 2011: mean field with Potts compatibility and two Gaussian kernels, one of positions
(smoothness) and one of positions and colours (appearance), each normalised symmetrically. As in pydensecrf, a pixel's
own vote is among those it gets. Settings: rows E7, S17 and D4.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from qaclims_ray.errors import ModelError
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.refine.permutohedral import Lattice, build_lattice, scale_points

MIN_PROBABILITY = 1e-5
"""Probabilities below it count as it, as in pydensecrf."""
_POINTS_TOGETHER = 2**16
"""Pixels of the pictures that a CPU takes together: fewer spend their time on calls, the tables of more leave the
cache."""
_SIZES_KEPT = 8
"""Shapes whose kernel of positions is kept: some 12 MB each for pictures of 500 x 375 pixels."""


def label_energy(
    labels: Int64[Tensor, "batch height width"], num_labels: int, confidence: float
) -> Float[Tensor, "batch label height width"]:
    """Return the energies of a label map that is right with some probability; the other labels share the rest.

    Args:
        labels: 0 to num_labels - 1.
        num_labels: labels that the CRF may choose from.
        confidence: probability that a pixel's label is right, between 0 and 1.
    """
    assert 0 < confidence < 1, f"confidence is {confidence}"
    assert labels.numel() == 0 or (labels.min() >= 0 and labels.max() < num_labels), "labels out of range"
    right, wrong = torch.log(torch.tensor([confidence, (1 - confidence) / max(num_labels - 1, 1)], dtype=torch.float64))
    is_label = labels.unsqueeze(1) == torch.arange(num_labels, device=labels.device)[:, None, None]
    return torch.where(is_label, -right.item(), -wrong.item()).to(torch.float32)


def probability_energy(
    probabilities: Float[Tensor, "batch label height width"],
) -> Float[Tensor, "batch label height width"]:
    """Return minus the logarithm of probabilities, which need not sum to one."""
    return -probabilities.float().clamp(min=MIN_PROBABILITY).log()


@torch.no_grad()
def dense_crf(
    images: UInt8[Tensor, "batch 3 height width"],
    energies: Float[Tensor, "batch label height width"],
    config: CrfConfig,
) -> Float[Tensor, "batch label height width"]:
    """Return the labels' probabilities after mean-field inference (Kraehenbuehl and Koltun 2011, algorithm 1).

    Computed in float32, where the inputs are; on the CPU deterministic, whichever images come together. Images of one
    call share the smoothness kernel's tables.

    Args:
        images: RGB.
        energies: minus the logarithms of the labels' probabilities, up to a constant per pixel. Only labels that can
            win belong here: time grows with their number.
        config: kernels and number of iterations.

    Raises:
        ModelError: an energy is infinite or not a number.
    """
    assert images[:, 0].shape == energies[:, 0].shape, f"images are {images.shape}, energies {energies.shape}"
    _check_energies(energies)
    energies = energies.float()
    if energies.numel() == 0 or energies.shape[1] == 1 or config.iterations == 0:
        return (-energies).softmax(1)
    # A GPU is filled by all of them.
    is_on_cpu = energies.device.type == "cpu"
    group = max(1, _POINTS_TOGETHER // energies[0, 0].numel()) if is_on_cpu else energies.shape[0]
    refined = [
        _mean_field(own, _smoothness(some, config) + _appearance(some, config), config.iterations)
        for some, own in zip(images.split(group), energies.split(group), strict=True)
    ]
    return torch.cat(refined)


def _check_energies(energies: Float[Tensor, "batch label height width"]) -> None:
    """Refuse energies that no inference mends."""
    num_bad = int((~energies.isfinite()).sum())
    if num_bad:
        raise ModelError(
            f"{num_bad} of {energies.numel()} CRF energies are infinite or not a number, expected finite ones: look "
            f"at the scores they were made from (a network that diverged, or the logarithm of zero)"
        )


def _smoothness(images: UInt8[Tensor, "batch 3 height width"], config: CrfConfig) -> list[Lattice]:
    """Return the kernel of positions, or nothing if it has no weight."""
    if config.gaussian_weight == 0:
        return []
    batch, _, height, width = images.shape
    # Those of many large pictures would fill a GPU's memory.
    make = _kept_position_kernel if batch == 1 or images.device.type == "cpu" else _position_kernel
    return [make(batch, height, width, config.gaussian_sxy, config.gaussian_weight, images.device)]


def _position_kernel(batch: int, height: int, width: int, sxy: float, weight: float, device: torch.device) -> Lattice:
    """Return the kernel of positions, which no picture's content enters."""
    return _kernel(_positions(batch, height, width, device) / sxy, weight)


_kept_position_kernel = functools.lru_cache(maxsize=_SIZES_KEPT)(_position_kernel)
"""The same, kept for the sizes met last: pictures of one size mostly follow one another."""


def _appearance(images: UInt8[Tensor, "batch 3 height width"], config: CrfConfig) -> list[Lattice]:
    """Return the kernel of positions and colours, or nothing if it has no weight."""
    if config.bilateral_weight == 0:
        return []
    colours = images.flatten(2).float() / config.bilateral_srgb
    batch, _, height, width = images.shape
    positions = _positions(batch, height, width, images.device) / config.bilateral_sxy
    return [_kernel(torch.cat([positions, colours], dim=1), config.bilateral_weight)]


def _positions(batch: int, height: int, width: int, device: torch.device) -> Float[Tensor, "batch 2 point"]:
    """Return x and y of each pixel."""
    point = torch.arange(height * width, device=device)
    return torch.stack([point % width, point // width]).float().expand(batch, -1, -1)


def _kernel(features: Float[Tensor, "batch dim point"], weight: float) -> Lattice:
    """Return a lattice whose filter is a weighted kernel, divided by the roots of both pixels' row sums."""
    lattice = build_lattice(features)
    row_sums = lattice(features.new_ones(features.shape[0] * features.shape[2], 1))[:, 0]
    return scale_points(lattice, (weight / row_sums).sqrt())


def _mean_field(
    energies: Float[Tensor, "batch label height width"], kernels: list[Lattice], iterations: int
) -> Float[Tensor, "batch label height width"]:
    """Iterate votes and softmax.

    Probabilities sum to one, so the last label's votes are those of all labels less the others': one label less is
    filtered.
    """
    shape = energies.shape
    unary = energies.movedim(1, 0).flatten(1)  # (label, point)
    # The votes of all labels together are the same in every iteration.
    all_votes = _votes(kernels, torch.ones_like(unary[:1]))
    # Over the last label, label k has v_k less the last one's votes, which are all_votes less the sum of v.
    bias = unary[-1] - unary[:-1] - all_votes
    probabilities = (-unary).softmax(0)
    for _ in range(iterations):
        votes = _votes(kernels, probabilities[:-1])
        logits = bias + votes + votes.sum(0)  # of each label over the last one
        if len(logits) == 1:
            share = logits.sigmoid_()
            probabilities = torch.cat([share, 1 - share])
        else:
            probabilities = F.pad(logits, (0, 0, 0, 1)).softmax(0)
    return probabilities.unflatten(1, (shape[0], *shape[2:])).movedim(1, 0)


def _votes(kernels: list[Lattice], probabilities: Float[Tensor, "label point"]) -> Float[Tensor, "label point"]:
    """Return the kernels' sums of all pixels' probabilities."""
    # A lattice gathers rows. Their strides must be those of fresh memory, even of single columns: else it is slow.
    values = probabilities.T.clone(memory_format=torch.contiguous_format)  # (point, label)
    votes = [kernel(values) for kernel in kernels]
    return torch.stack(votes).sum(0).T.contiguous() if votes else torch.zeros_like(probabilities)

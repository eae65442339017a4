"""The dense CRF equals a slow restatement, is as near to the exact mean field as pydensecrf, and agrees with that."""

import itertools
import math
import os
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.refine.crf import dense_crf, label_energy, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf, irn_crf, semples_crf
from qaclims_ray.refine.permutohedral import build_lattice

SETTINGS = {"irn": irn_crf(), "semples": semples_crf(), "deeplab": deeplab_crf()}
each_setting = pytest.mark.parametrize("config", SETTINGS.values(), ids=SETTINGS.keys())


def slow_lattice(features: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Filter point by point, corner by corner, axis by axis (Adams et al. 2010), in float64."""
    dim = features.shape[1]
    corners_of = []
    for feature in features:
        scaled = [x * math.sqrt(2 / 3) * (dim + 1) / math.sqrt((i + 1) * (i + 2)) for i, x in enumerate(feature)]
        position = [sum(scaled[axis:]) - (axis * scaled[axis - 1] if axis else 0) for axis in range(dim + 1)]
        vertex = [round(x / (dim + 1)) * (dim + 1) for x in position]
        excess = sum(vertex) // (dim + 1)
        by_offset = sorted(range(dim + 1), key=lambda axis: position[axis] - vertex[axis])
        for axis in by_offset[: max(excess, 0)]:
            vertex[axis] -= dim + 1
        for axis in by_offset[dim + 1 + min(excess, 0) :]:
            vertex[axis] += dim + 1
        offsets = [x - y for x, y in zip(position, vertex, strict=True)]
        falling = sorted(range(dim + 1), key=lambda axis: -offsets[axis])
        corners = {}
        for remainder in range(dim + 1):
            # The point is the sum of shares times corners; corner k is k up everywhere, dim + 1 down on the k lowest.
            lower = set(falling[dim + 1 - remainder :])
            corner = tuple(vertex[axis] + remainder - (dim + 1) * (axis in lower) for axis in range(dim + 1))
            if remainder == 0:
                share = 1 - (offsets[falling[0]] - offsets[falling[-1]]) / (dim + 1)
            else:
                share = (offsets[falling[dim - remainder]] - offsets[falling[dim + 1 - remainder]]) / (dim + 1)
            corners[corner] = share
        corners_of.append(corners)
    at_vertices = defaultdict(lambda: np.zeros(values.shape[1]))
    for corners, value in zip(corners_of, values, strict=True):
        for corner, share in corners.items():
            at_vertices[corner] += share * value
    for axis in range(dim + 1):
        blurred = {}
        for vertex, value in at_vertices.items():
            sides = [
                tuple(x + sign * (1 - (dim + 1) * (other == axis)) for other, x in enumerate(vertex))
                for sign in (1, -1)
            ]
            blurred[vertex] = value + 0.5 * sum(at_vertices[side] for side in sides if side in at_vertices)
        at_vertices = blurred
    return np.stack([sum(share * at_vertices[c] for c, share in corners.items()) for corners in corners_of])


def kernel_features(image: np.ndarray, config: CrfConfig) -> list[tuple[np.ndarray, float]]:
    """Return each kernel's features (point, dim) in standard deviations, and its weight."""
    height, width, _ = image.shape
    positions = np.array([(x, y) for y, x in itertools.product(range(height), range(width))], dtype=np.float64)
    colours = image.reshape(-1, 3) / config.bilateral_srgb
    return [
        (positions / config.gaussian_sxy, config.gaussian_weight),
        (np.concatenate([positions / config.bilateral_sxy, colours], axis=1), config.bilateral_weight),
    ]


def mean_field(energies: np.ndarray, kernels: list[np.ndarray], iterations: int) -> np.ndarray:
    """Iterate all labels with dense kernels (point, point)."""
    unary = energies.reshape(len(energies), -1).T.astype(np.float64)

    def softmax(scores: np.ndarray) -> np.ndarray:
        powers = np.exp(scores - scores.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    probabilities = softmax(-unary)
    for _ in range(iterations):
        probabilities = softmax(-unary + sum(kernel @ probabilities for kernel in kernels))
    return probabilities.T.reshape(energies.shape)


def normalised(kernel: np.ndarray, weight: float) -> np.ndarray:
    row_sums = kernel.sum(1)
    return weight * kernel / np.sqrt(row_sums[:, None] * row_sums[None])


def exact_crf(image: np.ndarray, energies: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Mean field with every pair of pixels."""
    kernels = []
    for features, weight in kernel_features(image, config):
        points = torch.from_numpy(features)
        distances = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist").numpy()
        kernels.append(normalised(np.exp(-(distances**2) / 2), weight))
    return mean_field(energies, kernels, config.iterations)


def pydensecrf(image: np.ndarray, energies: np.ndarray, config: CrfConfig) -> np.ndarray:
    densecrf = pytest.importorskip("pydensecrf.densecrf", exc_type=ImportError)
    num_labels, height, width = energies.shape
    crf = densecrf.DenseCRF2D(width, height, num_labels)
    crf.setUnaryEnergy(np.ascontiguousarray(energies.reshape(num_labels, -1)))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.ascontiguousarray(image),
        compat=config.bilateral_weight,
    )
    return np.array(crf.inference(config.iterations)).reshape(energies.shape)


def ours(image: np.ndarray, energies: np.ndarray, config: CrfConfig) -> np.ndarray:
    images = torch.from_numpy(image).movedim(-1, 0)[None].contiguous()
    return dense_crf(images, torch.from_numpy(energies)[None], config)[0].numpy()


def structured_picture(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return shaded discs on a shaded ground with noise, and its labels 0 to 2."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    labels = np.zeros((height, width), dtype=np.int64)
    shade = 30 * (rows / height)[..., None] * random.uniform(-1, 1, 3) + 20 * (columns / width)[..., None]
    image = np.broadcast_to(random.uniform(50, 200, 3) + shade, (height, width, 3)).copy()
    for label in (1, 2, 1, 2):
        centre, radius = random.uniform(0.15, 0.85, 2) * (height, width), random.uniform(0.12, 0.25) * height
        inside = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2
        labels[inside] = label
        image[inside] = random.uniform(20, 235, 3) + shade[inside]
    image += random.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), labels


def coarse_energies(labels: np.ndarray, config: CrfConfig, cell: int) -> np.ndarray:
    """Return unaries of shifted labels, or of label shares averaged over cells and interpolated."""
    num_labels = int(labels.max()) + 1
    if config.unary == "label":
        return label_energy(torch.from_numpy(np.roll(labels, cell // 2, 1))[None], num_labels, 0.7)[0].numpy()
    shares = torch.nn.functional.one_hot(torch.from_numpy(labels), num_labels).movedim(-1, 0)[None].float()
    cells = torch.nn.functional.avg_pool2d(shares, cell, ceil_mode=True)
    scores = torch.nn.functional.interpolate(cells, labels.shape, mode="bilinear") * 4
    return probability_energy(scores.softmax(1))[0].numpy()


def agreement(left: np.ndarray, right: np.ndarray) -> float:
    return float((left.argmax(0) == right.argmax(0)).mean())


@pytest.mark.parametrize("dim", [1, 2, 5])
def test_lattice_equals_slow_restatement(dim: int) -> None:
    random = np.random.default_rng(dim)
    features = random.normal(0, 1.5, (150, dim))
    values = random.uniform(0, 1, (150, 2))
    lattice = build_lattice(torch.from_numpy(features.T[None].copy()).float())
    filtered = lattice(torch.from_numpy(values).float()).numpy()
    np.testing.assert_allclose(filtered, slow_lattice(features, values), rtol=1e-4, atol=1e-5)


@each_setting
def test_crf_equals_slow_restatement(config: CrfConfig) -> None:
    """Every label is filtered, and kernels are dense matrices, in float64; those of the lattice are tested above."""
    image, labels = structured_picture(16, 22, seed=0)
    energies = coarse_energies(labels, config, cell=4)
    kernels = []
    for features, weight in kernel_features(image, config):
        lattice = build_lattice(torch.from_numpy(features.T[None].copy()).float())
        kernels.append(normalised(lattice(torch.eye(len(features))).double().numpy(), weight))
    expected = mean_field(energies, kernels, config.iterations)
    assert abs(expected - np.exp(-energies)).max() > 0.2
    np.testing.assert_allclose(ours(image, energies, config), expected, rtol=0, atol=1e-3)


@each_setting
def test_crf_is_near_the_exact_mean_field(config: CrfConfig) -> None:
    agreements, unchanged = [], []
    for seed in range(3):
        image, labels = structured_picture(24, 32, seed)
        energies = coarse_energies(labels, config, cell=6)
        exact = exact_crf(image, energies, config)
        agreements.append(agreement(ours(image, energies, config), exact))
        unchanged.append(agreement(-energies, exact))
    assert np.mean(agreements) >= 0.97
    assert np.mean(agreements) > np.mean(unchanged)


@each_setting
def test_crf_is_as_near_to_the_exact_mean_field_as_pydensecrf(config: CrfConfig) -> None:
    image, labels = structured_picture(24, 32, seed=3)
    energies = coarse_energies(labels, config, cell=6)
    exact = exact_crf(image, energies, config)
    theirs = agreement(pydensecrf(image, energies, config), exact)
    assert agreement(ours(image, energies, config), exact) >= theirs - 0.002


@each_setting
def test_crf_agrees_with_pydensecrf(config: CrfConfig) -> None:
    for seed in range(2):
        image, labels = structured_picture(90, 120, seed)
        energies = coarse_energies(labels, config, cell=12)
        theirs, own = pydensecrf(image, energies, config), ours(image, energies, config)
        assert agreement(own, theirs) >= 0.999
        assert abs(own - theirs).mean() < 1e-4
        assert agreement(-energies, theirs) < 0.999


@pytest.fixture
def photographs() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images and ground truth with the labels present, void as background."""
    default = Path(__file__).resolve().parents[3] / "shared/data/voc_sample"
    root = Path(os.environ.get("QACLIMS_VOC_SAMPLE", default))
    if not (root / "JPEGImages").is_dir():
        pytest.skip("no real photographs here (QACLIMS_VOC_SAMPLE)")
    pairs = []
    for mask_path in sorted((root / "SegmentationClass").glob("*.png"))[::60]:
        mask = np.array(Image.open(mask_path))
        mask[mask == 255] = 0
        _, labels = np.unique(mask, return_inverse=True)
        image = np.array(Image.open(root / "JPEGImages" / f"{mask_path.stem}.jpg").convert("RGB"))
        pairs.append((image, labels.reshape(mask.shape).astype(np.int64)))
    return pairs


@each_setting
def test_crf_agrees_with_pydensecrf_on_photographs(
    photographs: list[tuple[np.ndarray, np.ndarray]], config: CrfConfig
) -> None:
    for image, labels in photographs:
        energies = coarse_energies(labels, config, cell=16)
        assert agreement(ours(image, energies, config), pydensecrf(image, energies, config)) >= 0.99

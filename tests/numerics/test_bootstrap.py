"""Counts per image and the paired bootstrap equal plain restatements, and the intervals cover what they promise."""

import math

import numpy as np
import pytest

from qaclims_ray.cams.label_map import label_map
from qaclims_ray.evaluation import bootstrap
from qaclims_ray.evaluation.bootstrap import iou_of, mean_of, paired_bootstrap
from qaclims_ray.evaluation.image_counts import image_sweep
from qaclims_ray.evaluation.sweep import ThresholdSweep
from tests.numerics.test_sweep import NUM_CLASSES, THRESHOLDS, make_images


def random_counts(seed: int, num_images: int, num_labels: int = 4) -> np.ndarray:
    """(image, label, 3): an image shows about half of the labels, and the last one is in the first image alone."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, 60, (num_images, num_labels)) * (generator.random((num_images, num_labels)) < 0.5)
    truth[:, -1] = 30 * (np.arange(num_images) == 0)
    predicted = generator.integers(0, 60, (num_images, num_labels))
    predicted[truth == 0] //= 10
    predicted[1:, -1] = 0
    both = (np.minimum(truth, predicted) * generator.random((num_images, num_labels))).astype(np.int64)
    return np.stack([both, predicted, truth], -1).astype(np.int64)


def every_label(counts: np.ndarray) -> np.ndarray:
    return np.ones(counts.shape[1], dtype=bool)


def slow_iou(counts: np.ndarray, drawn: list[int]) -> list[float]:
    ious = []
    for label in range(counts.shape[1]):
        both = predicted = truth = 0
        for image in drawn:
            both += int(counts[image, label, 0])
            predicted += int(counts[image, label, 1])
            truth += int(counts[image, label, 2])
        union = predicted + truth - both
        ious.append(both / union if union else math.nan)
    return ious


def slow_mean(ious: list[float]) -> float:
    """Over all labels: one without any pixel counts as 0."""
    return sum(0.0 if math.isnan(iou) else iou for iou in ious) / len(ious)


def slow_interval(values: list[float]) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 with linear interpolation between order statistics."""
    ordered = sorted(value for value in values if not math.isnan(value))
    ends = []
    for share in (0.025, 0.975):
        place = share * (len(ordered) - 1)
        low = math.floor(place)
        high = min(low + 1, len(ordered) - 1)
        ends.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    return ends[0], ends[1]


@pytest.mark.parametrize("at_once", [1, 50, 1 << 22])
def test_bootstrap_equals_the_loop_however_many_resamples_are_held_at_once(at_once, monkeypatch):
    monkeypatch.setattr(bootstrap, "_CELLS_AT_ONCE", at_once)
    first, other = random_counts(0, 7), random_counts(1, 7)
    found = paired_bootstrap(first, other, every_label(first), num_resamples=120, seed=5)
    generator = np.random.default_rng(5)
    means, labels = [], []
    for _ in range(120):
        drawn = generator.integers(7, size=7).tolist()
        one, two = slow_iou(first, drawn), slow_iou(other, drawn)
        means.append(slow_mean(two) - slow_mean(one))
        held = [all(counts[drawn, label, 2].sum() for counts in (first, other)) for label in range(4)]
        labels.append([b - a if is_held else math.nan for a, b, is_held in zip(one, two, held, strict=True)])
    assert found.miou is not None
    assert (found.miou.low, found.miou.high) == pytest.approx(slow_interval(means), abs=1e-12)
    assert any(math.isnan(row[-1]) for row in labels), "the rare label is missing from some resamples"
    for position, interval in enumerate(found.labels):
        assert interval is not None
        expected = slow_interval([row[position] for row in labels])
        assert (interval.low, interval.high) == pytest.approx(expected, abs=1e-12)


def test_equal_runs_differ_by_nothing_and_a_label_without_pixels_has_no_interval():
    counts = random_counts(3, 9)
    counts[:, -1] = 0
    found = paired_bootstrap(counts, counts, every_label(counts), num_resamples=100, seed=0)
    assert found.miou is not None and (found.miou.low, found.miou.high) == (0.0, 0.0)
    assert found.labels[-1] is None and all(found.labels[:-1])


def test_intervals_cover_the_difference_of_the_population():
    """95 % is nominal: with 60 images the percentile interval is a little narrow, never far off."""
    first, other = (random_counts(seed, 20_000)[1:, :-1] for seed in (10, 11))
    other[..., 2] = first[..., 2]
    other[..., 0] = np.minimum(np.minimum(other[..., 1], other[..., 2]), other[..., 0])
    truth = float(mean_of(iou_of(other.sum(0)), every_label(first)) - mean_of(iou_of(first.sum(0)), every_label(first)))
    generator = np.random.default_rng(0)
    hits, width = 0, []
    for trial in range(200):
        chosen = generator.integers(len(first), size=60)
        pair = first[chosen], other[chosen]
        found = paired_bootstrap(*pair, every_label(first), num_resamples=200, seed=trial).miou
        assert found is not None
        hits += found.low <= truth <= found.high
        width.append(found.high - found.low)
    assert 0.88 <= hits / 200 <= 0.99
    assert 0 < np.mean(width) < 0.5


def test_pairing_makes_intervals_of_runs_that_err_alike_narrow():
    first = random_counts(20, 200, 3)
    other = first.copy()
    other[..., 0] = np.minimum(other[..., 0] + 1, np.minimum(other[..., 1], other[..., 2]))
    found = paired_bootstrap(first, other, every_label(first), num_resamples=300, seed=0).miou
    shuffled = paired_bootstrap(first, np.roll(other, 7, axis=0), every_label(first), num_resamples=300, seed=0).miou
    assert found is not None and shuffled is not None
    assert 0 < found.low and (found.high - found.low) < (shuffled.high - shuffled.low) / 3


@pytest.mark.parametrize("seed", [0, 1])
def test_counts_of_an_image_equal_the_pixel_loop_at_every_threshold(seed):
    for cam, truth in make_images(seed):
        sweep = ThresholdSweep(THRESHOLDS, NUM_CLASSES)
        histogram = sweep.update(cam, truth)
        assert histogram is not None
        found = image_sweep(cam.image_id, histogram, cam.class_ids)
        for index, threshold in enumerate(THRESHOLDS):
            expected = {}
            for true, predicted in zip(
                truth.flatten().tolist(), label_map(cam, threshold).flatten().tolist(), strict=True
            ):
                if true == 255:
                    continue
                for value in {true, predicted}:
                    both, pixels, shown = expected.get(value, (0, 0, 0))
                    expected[value] = (
                        both + (true == predicted == value),
                        pixels + (predicted == value),
                        shown + (true == value),
                    )
            for class_id in cam.class_ids:
                expected.setdefault(class_id + 1, (0, 0, 0))
            assert {row[0]: row[1:4] for row in found.at(index)} == expected, (cam.image_id, threshold)
            assert {row[0] - 1 for row in found.at(index) if row[4]} == set(cam.class_ids)

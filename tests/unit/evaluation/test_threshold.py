import pytest
import torch

from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.threshold import otsu_index

THRESHOLDS = [step / 20 for step in range(1, 20)]


def histogram(scores: torch.Tensor) -> torch.Tensor:
    bins = torch.bucketize(scores, torch.tensor(THRESHOLDS))
    return torch.bincount(bins, minlength=len(THRESHOLDS) + 1)


def test_parts_two_humps():
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(8000, generator=generator) * 0.04 + 0.15
    high = torch.randn(2000, generator=generator) * 0.05 + 0.75
    chosen = THRESHOLDS[otsu_index(histogram(torch.cat([low, high])), THRESHOLDS)]
    assert 0.3 <= chosen <= 0.6


def test_equals_the_slow_search_for_the_least_variance_within():
    scores = torch.rand(4000, generator=torch.Generator().manual_seed(1)) ** 3
    counts = histogram(scores)
    centres = [(step + 0.5) / 20 for step in range(20)]
    pixels = [centre for centre, count in zip(centres, counts.tolist(), strict=True) for _ in range(count)]

    def within(cut: float) -> float:
        sides = [p for p in pixels if p < cut], [p for p in pixels if p >= cut]
        return sum(sum((p - sum(side) / len(side)) ** 2 for p in side) for side in sides if side)

    slow = min(range(len(THRESHOLDS)), key=lambda index: within(THRESHOLDS[index]))
    assert otsu_index(counts, THRESHOLDS) == slow


def test_no_scores_no_threshold():
    with pytest.raises(DataError, match="no scores"):
        otsu_index(torch.zeros(20, dtype=torch.int64), THRESHOLDS)

"""What a few masks made by hand would tell."""

import numpy as np
import pytest

from qaclims_ray.evaluation.few_masks import interval_of_few, mean_with_interval


def counts(*iou: float) -> np.ndarray:
    """Images of one label with 100 true pixels, of which a share is found and nothing else."""
    return np.array([[[round(100 * one), round(100 * one), 100]] for one in iou], dtype=np.int64)


def test_images_that_are_all_alike_leave_nothing_open() -> None:
    found = interval_of_few(counts(*[0.5] * 30))
    assert found is not None and (found.low, found.high) == (0.5, 0.5)


def test_more_images_and_less_varied_ones_tell_more() -> None:
    def width(iou: list[float], number: int) -> float:
        found = interval_of_few(counts(*iou), number=number)
        assert found is not None
        return found.high - found.low

    varied, calm = [0.1, 0.9] * 20, [0.4, 0.6] * 20
    assert width(varied, 20) > 1.5 * width(varied, 80) and width(varied, 20) > 3 * width(calm, 20)
    # 20 draws of 0.1 or 0.9: a standard deviation of 0.4 / sqrt(20), of which 95 % are 3.92.
    assert width(varied, 20) == pytest.approx(3.92 * 0.4 / 20**0.5, rel=0.15)


def test_there_is_nothing_to_say_without_images() -> None:
    assert interval_of_few(np.zeros((0, 3, 3), dtype=np.int64)) is None
    assert interval_of_few(np.zeros((4, 3, 3), dtype=np.int64)) is None


def test_a_label_that_no_true_mask_holds_is_in_no_mean() -> None:
    table = np.concatenate([counts(0.5, 0.7), np.array([[[0, 10, 0]], [[0, 0, 0]]])], axis=1)
    mean, interval = mean_with_interval(table, num_resamples=500, seed=0)
    assert mean == pytest.approx(0.6) and interval is not None
    assert 0.5 <= interval.low < 0.6 < interval.high <= 0.7
    assert mean_with_interval(table, num_resamples=500, seed=0) == (mean, interval)

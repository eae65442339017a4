import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.evaluation.confusion import (
    ConfusionMatrix,
    false_negative_rate,
    false_positive_rate,
    iou_per_label,
    mean_iou,
)

NUM_CLASSES = 3
ALL = torch.ones(NUM_CLASSES + 1, dtype=torch.bool)
SHOWN = torch.tensor([True, True, True, False])
pixels = st.lists(st.tuples(st.sampled_from([0, 1, 2, 3, 255]), st.integers(0, NUM_CLASSES)), min_size=1, max_size=30)


def matrix_of(*images: list[tuple[int, int]]) -> ConfusionMatrix:
    matrix = ConfusionMatrix(NUM_CLASSES)
    for image in images:
        truth, prediction = torch.tensor(image, dtype=torch.uint8).T[:, None]
        matrix.update(prediction, truth)
    return matrix


def test_counts_by_hand():
    matrix = matrix_of([(0, 0), (0, 1), (1, 1), (1, 1), (2, 0), (255, 3), (1, 2)])
    assert matrix.counts.tolist() == [[1, 1, 0, 0], [0, 2, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    iou = iou_per_label(matrix.counts)
    assert iou[:3].tolist() == [1 / 3, 2 / 4, 0.0] and math.isnan(iou[3])
    assert float(mean_iou(iou, SHOWN)) == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert float(false_positive_rate(matrix.counts, SHOWN)) == pytest.approx((1 / 4 + 1 / 2) / 2)
    assert float(false_negative_rate(matrix.counts, SHOWN)) == pytest.approx((1 / 4 + 1 / 2) / 2)


def test_a_label_of_the_mean_without_a_pixel_counts_as_zero_and_as_missed():
    matrix = matrix_of([(0, 0), (0, 1), (1, 1), (1, 1), (2, 0), (255, 3), (1, 2)])
    assert float(mean_iou(iou_per_label(matrix.counts), ALL)) == pytest.approx((1 / 3 + 1 / 2 + 0 + 0) / 4)
    assert float(false_positive_rate(matrix.counts, ALL)) == pytest.approx((1 / 4 + 1 / 2 + 0) / 3)
    assert float(false_negative_rate(matrix.counts, ALL)) == pytest.approx((1 / 4 + 1 / 2 + 1) / 3)


def test_a_predicted_ignore_value_is_background():
    matrix = ConfusionMatrix(1)
    matrix.update(torch.tensor([[255, 1]], dtype=torch.uint8), torch.tensor([[1, 1]], dtype=torch.uint8))
    assert matrix.counts.tolist() == [[0, 0], [1, 1]]


def test_unknown_label_values_are_named():
    truth, strange = torch.zeros(2, 2, dtype=torch.uint8), torch.full((2, 2), 4, dtype=torch.uint8)
    with pytest.raises(DataError, match="ground truth holds label value 4, expected 0 to 3 or 255"):
        ConfusionMatrix(NUM_CLASSES).update(truth, strange)
    with pytest.raises(DataError, match="prediction holds label value 4"):
        ConfusionMatrix(NUM_CLASSES).update(strange, truth)


@settings(deadline=None, max_examples=40)
@given(pixels, pixels, pixels)
def test_merging_is_a_commutative_monoid(one, two, three):
    everything = matrix_of(one, two, three).counts
    left = matrix_of(one).merge(matrix_of(two)).merge(matrix_of(three)).counts
    right = matrix_of(three).merge(matrix_of(two).merge(matrix_of(one))).counts
    assert torch.equal(left, everything) and torch.equal(right, everything)
    assert torch.equal(matrix_of(one).merge(ConfusionMatrix(NUM_CLASSES)).counts, matrix_of(one).counts)


@settings(deadline=None, max_examples=40)
@given(pixels)
def test_iou_and_both_errors_add_up_to_one(image):
    counts = matrix_of(image).counts
    foreground_iou = mean_iou(iou_per_label(counts)[1:], ALL[1:])
    total = foreground_iou + false_positive_rate(counts, ALL) + false_negative_rate(counts, ALL)
    assert float(total) == pytest.approx(1.0)


def test_merging_other_class_lists_is_refused():
    with pytest.raises(ArtifactError, match="2 classes to 3"):
        ConfusionMatrix(3).merge(ConfusionMatrix(2))

"""How well a classifier tells the classes of images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.evaluation.average_precision import average_precision, classifier_figures


def slow(scores: list[float], shown: list[bool]) -> float:
    """The precision among all that score at least as much, at each image that shows the class."""
    at = [[i for i, score in enumerate(scores) if score >= scores[j]] for j, there in enumerate(shown) if there]
    return sum(sum(shown[i] for i in found) / len(found) for found in at) / sum(shown)


def test_the_order_counts_and_nothing_else() -> None:
    shown = np.array([True, False, True, False])
    assert average_precision(np.array([0.9, 0.2, 0.8, 0.1]), shown) == 1.0
    assert average_precision(np.array([0.4, 0.9, 0.3, 0.1]), shown) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert average_precision(np.array([0.5] * 4), shown) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1, max_size=12))
def test_it_is_the_mean_precision_of_its_images(images: list[tuple[float, bool]]) -> None:
    scores, shown = [score for score, _ in images], [there for _, there in images]
    found = average_precision(np.array(scores), np.array(shown))
    if all(shown) or not any(shown):
        assert found is None
    else:
        assert found == pytest.approx(slow(scores, shown))


def test_figures_leave_out_classes_that_no_image_shows() -> None:
    probabilities = np.array([[0.9, 0.6, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.1], [0.6, 0.4, 0.1]])
    shown = np.array([[True, True, False], [False, False, False], [False, True, False], [True, False, False]])
    found = classifier_figures(probabilities, shown, ["cat", "dog", "cow"], split="val", is_held_out=True)
    assert found.classes["cow"].average_precision is None and found.classes["cow"].recall is None
    assert found.classes["cat"].average_precision == 1.0 and found.classes["cat"].recall == 1.0
    assert found.classes["dog"].precision == 0.5 and found.classes["dog"].num_images == 2
    assert found.classes["dog"].average_precision == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert found.mean_average_precision == pytest.approx((1 + 0.5) / 2)
    assert found.accuracy == pytest.approx(10 / 12)

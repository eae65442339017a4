import numpy as np
import pytest
import torch

from qaclims_ray.evaluation.image_counts import ScoredImages
from qaclims_ray.evaluation.image_scores import image_scores, own_interval, own_mean
from qaclims_ray.report.contact_sheet import present_iou
from tests.comparisons import scored


def counted(labels: torch.Tensor, truth: torch.Tensor, tagged: tuple[int, ...]) -> ScoredImages:
    both = [
        [int(((labels == v) & (truth == v)).sum()), int((labels == v).sum()), int((truth == v).sum())]
        for v in (0, 1, 2)
    ]
    labelled = np.array([[False, 0 in tagged, 1 in tagged]])
    return ScoredImages(0.3, ("background", "cat", "dog"), ("i",), np.array([both]), labelled)


@pytest.mark.parametrize("tagged", [(0,), (1,), (0, 1), ()])
def test_an_image_scores_what_stands_in_the_corner_of_a_contact_sheet(tagged):
    generator = torch.Generator().manual_seed(3)
    labels, truth = (torch.randint(0, 2, (9, 7), generator=generator, dtype=torch.uint8) for _ in range(2))
    expected = present_iou(labels, truth, tagged, 2)
    assert image_scores(counted(labels, truth, tagged)) == {"i": pytest.approx(expected)}


def test_an_image_without_a_class_has_no_score():
    nothing = torch.zeros(4, 4, dtype=torch.uint8)
    assert image_scores(counted(nothing, nothing, ())) == {}


def test_the_interval_is_around_the_mean_and_narrower_on_more_images():
    widths = []
    for number in (10, 160):
        images = scored(0, num_images=number)
        found = own_interval(images, num_resamples=300, seed=0)
        assert found is not None and found.low < own_mean(images) < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 2

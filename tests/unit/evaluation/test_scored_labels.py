"""The labels of a mean are fixed by truth and image labels: no prediction and no threshold changes them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import Classes
from qaclims_ray.evaluation.confusion import ConfusionMatrix, iou_per_label
from qaclims_ray.evaluation.scored_labels import ScoredLabels, left_out_text
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, seed_scores

THRESHOLDS = tuple(step / 20 for step in range(1, 20))
NAMES = ("bird", "boat", "cow")

Image = tuple[tuple[int, ...], int, int]
"""Classes that the image is labelled with, seed of its maps and truth, highest label value of its truth."""

labels = st.lists(st.integers(0, 2), max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
images = st.lists(st.tuples(labels, st.integers(0, 999), st.integers(0, 3)), min_size=1, max_size=5).filter(
    lambda found: any(image[0] for image in found)  # without any label there is no score to choose a threshold from
)


def cam_and_truth(image: Image, *, of_all: bool = False) -> tuple[ImageCam, torch.Tensor, tuple[int, ...]]:
    """Maps of the image's labels, or as a final network has them of all classes; each map ends somewhere below 1."""
    labelled, seed, highest = image
    generator = torch.Generator().manual_seed(seed)
    class_ids = (0, 1, 2) if of_all else labelled
    tops = torch.rand((len(class_ids), 1, 1), generator=generator)
    maps = torch.rand((len(class_ids), 5, 6), generator=generator) * tops
    truth = torch.randint(0, highest + 1, (5, 6), generator=generator).to(torch.uint8)
    truth[torch.rand((5, 6), generator=generator) < 0.1] = 255
    truth[0, 0] = 0
    return ImageCam(f"{seed}", class_ids, maps, None, 5, 6), truth, labelled


def swept(found: list[Image], *, of_all: bool = False) -> ThresholdSweep:
    sweep = ThresholdSweep(THRESHOLDS, 3)
    for image in found:
        sweep.update(*cam_and_truth(image, of_all=of_all))
    return sweep


def scored(found: list[Image], *, of_all: bool = False) -> SeedScores:
    return seed_scores(swept(found, of_all=of_all), 0.3, Classes(NAMES))


def held(found: list[Image]) -> set[str]:
    """What truth or labels of the images hold, said by hand."""
    names = {"background"}
    for image in found:
        _, truth, labelled = cam_and_truth(image)
        names |= {NAMES[class_id] for class_id in labelled}
        names |= {NAMES[value - 1] for value in truth.unique().tolist() if value not in (0, 255)}
    return names


@settings(max_examples=60, deadline=None)
@given(images, st.booleans())
def test_the_mean_is_over_what_truth_or_labels_hold_at_every_threshold(found: list[Image], of_all: bool):
    scores, names = scored(found, of_all=of_all), held(found)
    assert set(scores.left_out) == {"background", *NAMES} - names
    assert all(math.isnan(scores.iou[name]) == math.isnan(scores.iou_best[name]) for name in scores.iou)
    for index, threshold in enumerate(THRESHOLDS):
        matrix = ConfusionMatrix(3)
        for image in found:
            cam, truth, _ = cam_and_truth(image, of_all=of_all)
            matrix.update(label_map(cam, threshold), truth)
        own = dict(zip(("background", *NAMES), iou_per_label(matrix.counts).tolist(), strict=True))
        expected = sum(0.0 if math.isnan(own[name]) else own[name] for name in names) / len(names)
        assert scores.curve.miou[index] == pytest.approx(expected), threshold
    assert scores.miou_best == max(scores.curve.miou)
    for figures, mean in ((scores.iou, scores.miou_fixed), (scores.iou_best, scores.miou_best)):
        assert mean == pytest.approx(sum(figures[name] for name in names) / len(names))
    for figures, mean in ((scores.dice, scores.mdice_fixed), (scores.dice_best, scores.mdice_best)):
        assert mean == pytest.approx(sum(figures[name] for name in names) / len(names))


@settings(max_examples=40, deadline=None)
@given(images)
def test_a_class_that_only_labels_hold_moves_no_threshold_and_makes_no_jump(found: list[Image]):
    """It takes pixels wherever its map is foremost, and ends at some threshold: only what it takes may be seen."""
    with_class = ThresholdSweep(THRESHOLDS, 4)
    for image in found:
        cam, truth, labelled = cam_and_truth(image)
        with_class.update(cam, truth, (*labelled, 3))  # labelled with a class that has no pixel and takes none
    plain = swept(found)
    one, two = seed_scores(plain, 0.3, Classes(NAMES)), seed_scores(with_class, 0.3, Classes((*NAMES, "in no mask")))
    count = 4 - len(one.left_out)
    assert two.curve.miou == pytest.approx([miou * count / (count + 1) for miou in one.curve.miou])
    assert two.threshold_best == one.threshold_best and two.iou["in no mask"] == 0 == two.dice_best["in no mask"]
    assert "in no mask" in two.in_no_mask and two.left_out == one.left_out


def test_the_best_of_a_sweep_is_not_won_by_a_class_that_vanishes():
    """The map of a labelled class that no mask holds ends at 0.8; the mean is over it from there to the end too."""
    sweep, noise = ThresholdSweep(THRESHOLDS, 3), torch.Generator().manual_seed(0)
    for number in range(8):
        mask = torch.zeros(20, 20, dtype=torch.uint8)
        mask[5:15, 5:15] = 1 + number % 2
        maps = torch.zeros(2, 20, 20)
        maps[0] = 0.3 * torch.rand(20, 20, generator=noise)
        maps[0, 5:15, 5:15] += 0.45
        maps[1] = 0.4 + 0.4 * torch.rand(20, 20, generator=noise)
        sweep.update(ImageCam("x", (number % 2, 2), maps.clamp(max=1), None, 20, 20), mask)
    scores = seed_scores(sweep, 0.3, Classes(NAMES))
    *_, before, end = scores.curve.miou
    assert end == before == pytest.approx(0.75 / 4), "three quarters background, over the same four labels to the end"
    assert scores.in_no_mask == ("cow",) and scores.left_out == () and scores.num_images == 8
    for index in range(len(THRESHOLDS)):
        rates = scores.curve.false_positive_rate[index] + scores.curve.false_negative_rate[index]
        foreground = (4 * scores.curve.miou[index] - iou_per_label(sweep.confusion())[index, 0].item()) / 3
        assert foreground + rates == pytest.approx(1.0)


@settings(max_examples=40, deadline=None)
@given(images, st.integers(0, 5), st.booleans())
def test_parts_merge_to_the_same_labels_and_figures(found: list[Image], cut: int, of_all: bool):
    one, two = swept(found[:cut], of_all=of_all), swept(found[cut:], of_all=of_all)
    merged = ThresholdSweep.from_array(two.merge(one).to_array(), THRESHOLDS, 3)
    whole = swept(found, of_all=of_all)
    assert merged.labels(Classes(NAMES)) == whole.labels(Classes(NAMES))
    assert repr(seed_scores(merged, 0.3, Classes(NAMES))) == repr(seed_scores(whole, 0.3, Classes(NAMES)))


def test_a_falsely_predicted_class_costs_those_whose_pixels_it_takes_and_is_not_averaged():
    """A final network may predict any class; of those that no scored image holds, only the pixels they take count."""
    truth = torch.tensor([[1, 1, 0, 0]], dtype=torch.uint8)
    maps = torch.tensor([[[0.9, 0.2, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]], [[0.0, 0.9, 0.0, 0.0]]])
    sweep = ThresholdSweep(THRESHOLDS, 3)
    sweep.update(ImageCam("a", (0, 1, 2), maps, None, 1, 4), truth, (0,))
    scores = seed_scores(sweep, 0.3, Classes(NAMES))
    assert scores.left_out == ("boat", "cow") and math.isnan(scores.iou["cow"])
    assert scores.iou["bird"] == 0.5 and scores.miou_fixed == pytest.approx((0.5 + 1) / 2)
    assert scores.false_negative_rate == 0.5 and scores.mdice_fixed == pytest.approx((2 / 3 + 1) / 2)


def test_a_background_that_no_truth_holds_is_left_out():
    """Pictures that are filled by objects: a perfect mask scores 100 %, and background in it is a miss of its class."""
    truth = torch.ones((1, 4), dtype=torch.uint8)
    sweep = ThresholdSweep(THRESHOLDS, 3)
    sweep.update(ImageCam("a", (0,), torch.tensor([[[0.9, 0.9, 0.9, 0.4]]]), None, 1, 4), truth)
    scores = seed_scores(sweep, 0.3, Classes(NAMES))
    assert scores.miou_fixed == 1.0 and scores.curve.miou[9] == 0.75 and "background" in scores.left_out


def test_words_name_what_is_left_out_and_why():
    found = ScoredLabels(("background", *NAMES), (True, True, False, False), (False, True, True, False))
    assert found.averaged.tolist() == [True, True, True, False]
    text = left_out_text(found.left_out, found.in_no_mask)
    assert "left out of every mean" in text and text.index("cow") < text.index("in no mask, so IoU 0") < text.index(
        "boat"
    )
    assert left_out_text((), ()) == ""
    assert isinstance(found.averaged, np.ndarray)

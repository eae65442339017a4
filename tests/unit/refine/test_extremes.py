"""From maps to labels and scores where there is next to nothing: one pixel, no class, all classes, one label.

Whatever comes in, label maps hold labels of the image alone, maps stay in their range, and scores are numbers.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map, overlay
from qaclims_ray.data.classes import IGNORE_VALUE, NO_BACKGROUND, Classes
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.evaluation.threshold import rate_thresholds
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.crf_config import deeplab_crf
from qaclims_ray.refine.refinement import Refiners, pseudo_mask, refine_cams
from qaclims_ray.segmentation.inference import as_class_maps, crf_probabilities

SIZES = [(1, 1), (1, 2), (2, 1), (1, 33), (33, 1), (3, 3), (9, 7)]
KINDS = ("zeros", "ones", "half", "one pixel", "random")
EVERY = settings(deadline=None, max_examples=60)


def maps_of(kind: str, num_maps: int, size: tuple[int, int], seed: int) -> Tensor:
    flat = {"zeros": 0.0, "ones": 1.0, "half": 0.5}
    if kind in flat:
        return torch.full((num_maps, *size), flat[kind])
    maps = torch.rand((num_maps, *size), generator=torch.Generator().manual_seed(seed))
    if kind == "random":
        return maps
    one = torch.zeros(num_maps, *size)
    one[:, size[0] - 1, size[1] - 1] = 1.0
    return one


def picture(kind: str, size: tuple[int, int], seed: int) -> Tensor:
    """Return pixels; flat ones where maps are flat, so that nothing tells two pixels apart."""
    if kind in ("zeros", "ones", "half"):
        return torch.full((3, *size), {"zeros": 0, "ones": 255, "half": 128}[kind], dtype=torch.uint8)
    return torch.randint(256, (3, *size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


CASES = st.fixed_dictionaries(
    {
        "num_classes": st.sampled_from([1, 2, 20]),
        "size": st.sampled_from(SIZES),
        "chosen": st.sampled_from(["none", "first", "last", "all"]),
        "kind": st.sampled_from(KINDS),
        "seed": st.integers(0, 9),
        "has_background": st.booleans(),
    }
)


def made(
    num_classes: int, size: tuple[int, int], chosen: str, kind: str, seed: int, has_background: bool
) -> tuple[Tensor, ImageCam, Classes]:
    """Return an image, its maps and the classes: it shows none of them, one, or all, of one class or twenty."""
    class_ids = {"none": (), "first": (0,), "last": (num_classes - 1,), "all": tuple(range(num_classes))}[chosen]
    classes = Classes(tuple(f"class {number}" for number in range(num_classes)), has_background)
    cam = ImageCam("one", class_ids, maps_of(kind, len(class_ids), size, seed), None, *size)
    return picture(kind, size, seed), cam, classes


def allowed(cam: ImageCam, border: float) -> set[int]:
    nothing = IGNORE_VALUE if border == NO_BACKGROUND else 0
    return {nothing, *(class_id + 1 for class_id in cam.class_ids)}


@EVERY
@given(CASES, st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_label_maps_hold_labels_of_the_image_alone(case: dict[str, Any], threshold: float) -> None:
    image, cam, classes = made(**case)
    border = classes.border(threshold)
    labels = label_map(cam, border)
    assert labels.shape == image.shape[1:] and set(labels.flatten().tolist()) <= allowed(cam, border)
    if border == NO_BACKGROUND and cam.class_ids:
        assert IGNORE_VALUE not in labels, "every pixel shows a class"
    assert overlay(image, labels).shape == (*image.shape[1:], 3)
    uncertain = pseudo_mask(cam, border, (0.2, 0.6))
    assert set(uncertain.flatten().tolist()) <= allowed(cam, border) | {IGNORE_VALUE}


@pytest.mark.parametrize("step", ["crf", "pamr"])
@settings(deadline=None, max_examples=40)
@given(case=CASES)
def test_refined_maps_stay_maps(step: str, case: dict[str, Any]) -> None:
    image, cam, classes = made(**case)
    refined = refine_cams([image], [cam], MaskConfig(steps=(step,)), Refiners(), classes)
    (found,) = refined.cams
    assert found.full is not None and found.full.shape == (len(cam.class_ids), *image.shape[1:])
    assert found.full.isfinite().all() and found.class_ids == cam.class_ids
    assert found.full.numel() == 0 or (-1e-6 <= float(found.full.min()) and float(found.full.max()) <= 1 + 1e-5)
    assert set(label_map(found, refined.border).flatten().tolist()) <= allowed(cam, refined.border)


def truths(cam: ImageCam, num_classes: int, seed: int) -> dict[str, Tensor]:
    size = (cam.height, cam.width)
    labels = torch.randint(0, num_classes + 1, size, generator=torch.Generator().manual_seed(seed))
    flat = {"background": 0, "one class": 1, "last class": num_classes}
    return {
        "random": labels.to(torch.uint8),
        **{name: torch.full(size, value, dtype=torch.uint8) for name, value in flat.items()},
    }


@EVERY
@given(CASES, st.sampled_from(["random", "background", "one class", "last class"]), st.integers(0, 5))
def test_scores_of_anything_are_numbers(case: dict[str, Any], kind: str, seed: int) -> None:
    _, cam, classes = made(**case)
    truth = truths(cam, len(classes), seed)[kind]
    if not classes.has_background:
        truth = truth.masked_fill(truth == 0, IGNORE_VALUE)
    thresholds = sweep_thresholds(EvaluationConfig(sweep_step=0.25, fixed_threshold=0.3), classes)
    sweep = ThresholdSweep(thresholds, len(classes))
    sweep.update(cam, truth)
    if bool((truth == IGNORE_VALUE).all()):
        with pytest.raises(DataError, match="no image of the evaluated split has a mask"):
            seed_scores(sweep, 0.3, classes)
        return
    scores = seed_scores(sweep, 0.3, classes)
    figures = (scores.miou_fixed, scores.miou_best, scores.false_positive_rate, scores.false_negative_rate)
    assert all(math.isnan(figure) or 0 <= figure <= 1 for figure in figures)
    held = [value for value in scores.iou.values() if not math.isnan(value)]
    assert math.isnan(scores.miou_fixed) == (not held)
    assert not held or scores.miou_fixed == pytest.approx(sum(held) / len(held))
    assert scores.miou_best >= scores.miou_fixed - 1e-9 or not held


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("value", [0, 1, 3])
def test_an_image_of_one_label_that_is_found_scores_one(size: tuple[int, int], value: int) -> None:
    class_ids = () if value == 0 else (value - 1,)
    cam = ImageCam("one", class_ids, torch.ones(len(class_ids), *size), None, *size)
    sweep = ThresholdSweep((0.3,), 3)
    sweep.update(cam, torch.full(size, value, dtype=torch.uint8))
    scores = seed_scores(sweep, 0.3, Classes(("a", "b", "c")))
    assert scores.miou_fixed == 1.0 and sum(not math.isnan(iou) for iou in scores.iou.values()) == 1


@EVERY
@given(CASES)
def test_thresholds_are_rated_by_numbers(case: dict[str, Any]) -> None:
    image, cam, _ = made(**case)
    if not cam.class_ids:  # the stage asks images with classes alone
        return
    assert cam.full is not None
    rated = rate_thresholds(image, cam.full, (0.1, 0.5, 0.9))
    assert rated.isfinite().all() and -1e-12 <= float(rated.min()) and float(rated.max()) <= 1 + 1e-12


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("num_labels", [1, 2, 21])
@pytest.mark.parametrize("border", [0.5, NO_BACKGROUND])
def test_label_maps_of_final_networks_are_the_argmax(size: tuple[int, int], num_labels: int, border: float) -> None:
    if num_labels == 1 and border != NO_BACKGROUND:
        num_labels = 2  # a background and one class
    for kind in ("flat", "certain", "random"):
        scores = torch.rand((num_labels, *size), generator=torch.Generator().manual_seed(num_labels))
        if kind == "flat":
            scores = torch.zeros(num_labels, *size)
        if kind == "certain":
            scores = torch.zeros(num_labels, *size)
            scores[-1] = 200.0
        probabilities = scores.softmax(0)
        expected = probabilities.argmax(0) + (border == NO_BACKGROUND)
        maps = as_class_maps("one", probabilities, border)
        assert torch.equal(label_map(maps, border).long(), expected)
        image = picture("random", size, 0)[None]
        refined = crf_probabilities(image, probabilities[None], deeplab_crf(), border)
        assert refined.isfinite().all() and torch.allclose(refined.sum(1), torch.ones(1, *size), atol=1e-4)

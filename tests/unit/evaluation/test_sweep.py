import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.sweep import ThresholdSweep, seed_scores, sweep_thresholds

THRESHOLDS = (0.1, 0.3, 0.5, 0.7)
NAMES = ("bird", "boat")
CLASSES = Classes(NAMES)


@dataclass(frozen=True)
class Maps:
    image_id: str
    class_ids: tuple[int, ...]
    full: torch.Tensor | None


def random_image(seed: int, class_ids: tuple[int, ...] = (0, 1)) -> tuple[Maps, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, 3, (8, 8), generator=generator, dtype=torch.uint8)
    return Maps(str(seed), class_ids, torch.rand((len(class_ids), 8, 8), generator=generator)), truth


def sweep_of(*seeds: int) -> ThresholdSweep:
    sweep = ThresholdSweep(THRESHOLDS, 2)
    for seed in seeds:
        sweep.update(*random_image(seed))
    return sweep


def test_scores_by_hand():
    sweep = ThresholdSweep(THRESHOLDS, 2)
    maps = torch.tensor([[[0.9, 0.8, 0.4, 0.2, 0.05]]])
    sweep.update(Maps("one", (0,), maps), torch.tensor([[1, 1, 0, 0, 0]], dtype=torch.uint8))
    scores = seed_scores(sweep, 0.3, CLASSES, label_free=0.5)
    assert scores.threshold_fixed == 0.3
    assert scores.iou["background"] == pytest.approx(2 / 3) and scores.iou["bird"] == pytest.approx(2 / 3)
    assert math.isnan(scores.iou["boat"])
    assert scores.miou_fixed == pytest.approx(2 / 3)
    assert (scores.false_positive_rate, scores.false_negative_rate) == (pytest.approx(1 / 3), 0.0)
    assert (scores.threshold_best, scores.miou_best) == (0.5, 1.0)
    assert scores.iou_best["bird"] == 1.0 and scores.false_positive_rate_best == 0.0
    assert scores.threshold_label_free == 0.5 and scores.miou_label_free == 1.0
    assert scores.curve.miou[1] == pytest.approx(scores.miou_fixed) and len(scores.curve.miou) == 4


def test_the_best_is_the_best_of_the_whole_sweep():
    """Row E3: the released sweep stops at the first decrease and misses a later, better threshold."""
    sweep = ThresholdSweep(THRESHOLDS, 1)
    truth = torch.tensor([[1] * 4 + [0] * 16], dtype=torch.uint8)
    score = torch.tensor([[[0.9, 0.9, 0.9, 0.2] + [0.6] * 16]])
    sweep.update(Maps("one", (0,), score), truth)
    scores = seed_scores(sweep, 0.1, Classes(("bird",)))
    assert scores.curve.miou[0] > scores.curve.miou[1]
    assert scores.threshold_best == 0.7


@settings(deadline=None, max_examples=20)
@given(st.lists(st.integers(0, 99), max_size=4), st.lists(st.integers(0, 99), max_size=4))
def test_merging_equals_one_pass_in_any_order(one: list[int], two: list[int]):
    whole = sweep_of(*one, *two).to_array()
    assert (sweep_of(*one).merge(sweep_of(*two)).to_array() == whole).all()
    assert (sweep_of(*two).merge(sweep_of(*one)).to_array() == whole).all()


def test_array_round_trip_and_its_refusal():
    sweep = sweep_of(1, 2)
    copy = ThresholdSweep.from_array(sweep.to_array(), THRESHOLDS, 2)
    assert torch.equal(copy.confusion(), sweep.confusion())
    copy.update(*random_image(3))
    assert torch.equal(sweep.confusion(), sweep_of(1, 2).confusion())  # no memory is shared
    with pytest.raises(ArtifactError, match="expected 33"):
        ThresholdSweep.from_array(sweep.to_array()[:-1], THRESHOLDS, 2)
    with pytest.raises(ArtifactError, match="different thresholds"):
        sweep.merge(ThresholdSweep(THRESHOLDS, 3))


def test_label_maps_have_no_threshold_left_to_choose():
    scores = seed_scores(sweep_of(1, 2), 0.3, CLASSES)
    assert (scores.threshold_label_free, scores.miou_label_free) == (0.3, scores.miou_fixed)


def test_images_without_classes_are_background_everywhere():
    sweep = ThresholdSweep(THRESHOLDS, 2)
    sweep.update(Maps("none", (), torch.zeros(0, 2, 2)), torch.tensor([[0, 1], [2, 255]], dtype=torch.uint8))
    for counts in sweep.confusion():
        assert counts[:, 0].tolist() == [1, 1, 1] and int(counts[:, 1:].sum()) == 0


def test_bad_input_is_named():
    maps, truth = random_image(0)
    sweep = ThresholdSweep(THRESHOLDS, 2)
    with pytest.raises(DataError, match="the mask of 0 has 8x4 pixels, its CAM 8x8"):
        sweep.update(maps, truth[:4])
    with pytest.raises(DataError, match="mask of 0 holds label value 9"):
        sweep.update(maps, torch.full_like(truth, 9))
    with pytest.raises(ArtifactError, match="full-resolution"):
        sweep.update(Maps("one", (0,), None), truth)
    with pytest.raises(ArtifactError, match="NaN"):
        sweep.update(Maps("one", (0,), torch.full((1, 8, 8), float("nan"))), truth)
    with pytest.raises(DataError, match="no image of the evaluated split has a mask"):
        seed_scores(sweep, 0.3, CLASSES)
    with pytest.raises(ConfigError, match="not among"):
        seed_scores(sweep_of(1), 0.35, CLASSES)
    with pytest.raises(ConfigError, match=r"the label-free threshold 0\.4 is not among"):
        seed_scores(sweep_of(1), 0.3, CLASSES, label_free=0.4)
    with pytest.raises(ConfigError, match="1 class names"):
        seed_scores(sweep_of(1), 0.3, Classes(("bird",)))
    for thresholds in ((), (0.3, 0.3), (0.5, 0.4)):
        with pytest.raises(ConfigError, match="rise"):
            ThresholdSweep(thresholds, 2)


def test_thresholds_cover_the_sweep_and_hold_the_fixed_one():
    thresholds = sweep_thresholds(EvaluationConfig(), CLASSES)
    assert len(thresholds) == 99 and thresholds[0] == 0.01 and thresholds[-1] == 0.99 and 0.15 in thresholds
    odd = sweep_thresholds(
        EvaluationConfig(fixed_threshold=0.155, sweep_min=0.05, sweep_max=0.6, sweep_step=0.1), CLASSES
    )
    assert odd == (0.05, 0.15, 0.155, 0.25, 0.35, 0.45, 0.55)

"""Two runs beside each other: pairs or none, what the notes say, and the JSON that shows it."""

import dataclasses
import json

import pytest

from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.bootstrap import Interval
from qaclims_ray.evaluation.comparison import (
    Difference,
    comparison_json,
    difference_note,
    excludes_zero,
    why_unpaired,
)
from qaclims_ray.evaluation.image_counts import ScoredImages
from tests.comparisons import LABELS, comparison_of, scored, stage_of


def test_a_better_run_is_better_and_the_interval_holds_the_difference():
    found = stage_of(scored(0), scored(1))
    bird = found.classes[1]
    assert bird.first == pytest.approx(0.5, abs=0.03) and bird.other == pytest.approx(0.7, abs=0.03)
    assert found.difference == pytest.approx(found.other - found.first)
    assert found.interval is not None and found.interval.low < found.difference < found.interval.high
    assert excludes_zero(found.interval) and found.interval.low > 0
    assert bird.num_images == 30 and not found.unpaired
    backward = stage_of(scored(1), scored(0))
    assert backward.interval is not None
    assert (backward.interval.low, backward.interval.high) == pytest.approx((-found.interval.high, -found.interval.low))


def test_a_class_that_never_occurs_has_no_figures():
    boat = stage_of(scored(0), scored(1)).classes[2]
    assert (boat.first, boat.other, boat.difference, boat.interval, boat.num_images) == (None, None, None, None, 0)


@pytest.mark.parametrize("other_images", [slice(0, 20), slice(5, 30)])
def test_other_images_are_no_pairs_but_both_figures_are_shown(other_images):
    whole = scored(1)
    other = ScoredImages(
        0.3, LABELS, whole.image_ids[other_images], whole.counts[other_images], whole.labelled[other_images]
    )
    found = stage_of(scored(0), other)
    assert found.interval is None and all(row.interval is None for row in found.classes)
    assert "scored on different images (30 and" in found.unpaired
    assert found.other > found.first and found.num_images == (30, len(other.image_ids))


def test_the_same_names_with_other_true_masks_are_no_pairs():
    other = scored(1)
    other.counts[3, 1, 2] += 1
    assert "those of 1 of 30 images count other pixels, e.g. image_03" in why_unpaired(scored(0), other)
    assert stage_of(scored(0), other).interval is None


def test_other_classes_are_refused():
    other = dataclasses.replace(scored(1), labels=("background", "bird", "cat"))
    with pytest.raises(DataError, match=r"A and B have different classes.*boat <b>, cat"):
        stage_of(scored(0), other)


def _difference(name: str) -> Difference:
    return Difference("settings", name, (1, 2), ("x",))


def test_the_note_says_when_the_seed_alone_differs():
    assert "differ in seed only" in difference_note((_difference("seed"), _difference("cluster.num_workers")))
    assert difference_note((_difference("seed"), _difference("ritc.omega"))) == ""
    assert "same settings" in difference_note((Difference("code", "cams: source hash", ("a", "b"), ("x",)),))


def test_an_interval_that_touches_zero_does_not_exclude_it():
    assert not excludes_zero(Interval(0.0, 0.1)) and not excludes_zero(None)
    assert excludes_zero(Interval(-0.2, -0.1))


def test_json_holds_fractions_and_null_where_there_is_no_figure():
    content = json.loads(comparison_json(comparison_of(stage_of(scored(0), scored(1)))))
    stage = content["stages"][0]
    assert 0 < stage["interval"]["low"] < stage["difference"] < stage["interval"]["high"] < 1
    assert stage["classes"][2]["difference"] is None
    assert content["chosen_by_pixel_labels"] == ["seed_best"]
    assert content["differences"][0]["values"] == [0.1, 0.3]


def _with_boat(side: ScoredImages, *, predicted: int, labelled: bool = True) -> ScoredImages:
    """The last images are labelled with boat, which no mask holds; so many pixels of it are predicted in each."""
    counts, has_label = side.counts.copy(), side.labelled.copy()
    counts[-3:, 2, 1] = predicted
    has_label[-3:, 2] = labelled
    return dataclasses.replace(side, counts=counts, labelled=has_label)


@pytest.mark.parametrize(("one", "two"), [(0, 0), (0, 7), (7, 0)])
def test_a_class_that_only_labels_hold_counts_as_0_on_both_sides_whoever_predicts_it(one: int, two: int):
    plain = stage_of(scored(0), scored(1))
    found = stage_of(_with_boat(scored(0), predicted=one), _with_boat(scored(1), predicted=two))
    assert (found.first, found.other) == (pytest.approx(plain.first * 2 / 3), pytest.approx(plain.other * 2 / 3))
    assert found.in_no_mask == ("boat <b>",) and found.left_out == () and plain.left_out == ("boat <b>",)
    assert found.interval is not None and plain.interval is not None
    assert found.interval.low == pytest.approx(plain.interval.low * 2 / 3), "the same classes in every resample"
    assert (found.classes[2].first, found.classes[2].other, found.classes[2].interval) == (0, 0, None)


def test_a_class_that_neither_labels_nor_truth_hold_is_left_out_also_where_one_side_predicts_it():
    plain = stage_of(scored(0), scored(1))
    found = stage_of(scored(0), _with_boat(scored(1), predicted=7, labelled=False))
    assert (found.first, found.other, found.interval) == (plain.first, plain.other, plain.interval)
    assert found.left_out == ("boat <b>",) and found.classes[2].other is None


def test_a_class_that_one_side_alone_holds_is_no_class_of_either_mean():
    """On different images: else the sides would be means over different classes."""
    other = _with_boat(scored(1), predicted=0)
    other.counts[-3:, 2] = (40, 50, 50)
    found = stage_of(scored(0), dataclasses.replace(other, image_ids=tuple(f"o{i}" for i in range(30))))
    assert found.unpaired and found.left_out == ("boat <b>",)
    assert found.other == pytest.approx(sum(row.other or 0 for row in found.classes[:2]) / 2)
    assert (
        found.classes[2].first is None
        and found.classes[2].other == pytest.approx(2 / 3)
        and found.classes[2].difference is None
    )


def test_every_resample_is_over_the_same_classes():
    """The rare class is in one image of thirty: a third of the resamples have none of it."""
    sides = [_with_boat(scored(seed), predicted=0, labelled=False) for seed in (0, 0)]
    for side in sides:
        side.counts[0, 2] = (30, 50, 50)
    sides[1].counts[1, 2, 1] = 20  # boat predicted where none is
    found = stage_of(*sides)
    assert found.difference < 0 and found.interval is not None
    assert found.interval.high == 0, "without the rare class nothing differs, whoever predicts it"
    assert found.classes[2].interval is not None and found.classes[2].interval.high == 0

"""How far label maps of one image agree."""

import pytest
import torch

from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.agreement import (
    MapPair,
    MapSource,
    compared_image,
    counts_table,
    image_agreement,
    joint_counts,
    pair_agreement,
    pairs_of,
)

CLASSES = Classes(("cat", "dog"))
SEED, MASK, FINAL = (MapSource("one", stage) for stage in ("seed", "mask", "final"))
OTHER = MapSource("two", "seed")


def labels(*rows: list[int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.uint8)


def test_pairs_are_stages_of_one_system_and_systems_at_one_stage() -> None:
    assert pairs_of([SEED, MASK, FINAL, OTHER]) == [
        MapPair("stages", SEED, MASK),
        MapPair("stages", SEED, FINAL),
        MapPair("systems", SEED, OTHER),
        MapPair("stages", MASK, FINAL),
    ]


def test_counts_are_those_of_an_iou_and_left_out_pixels_are_not_among_them() -> None:
    one, two = labels([1, 1, 0, 2], [0, 0, 255, 1]), labels([1, 0, 0, 2], [0, 255, 1, 1])
    assert joint_counts(one, two) == {0: (2, 2, 3), 1: (2, 3, 2), 2: (1, 1, 1)}
    assert joint_counts(two, one) == {value: (both, b, a) for value, (both, a, b) in joint_counts(one, two).items()}


def test_a_table_has_a_row_for_each_label_and_none_for_a_background_that_is_not_there() -> None:
    counts = [{0: (2, 2, 3), 2: (1, 1, 1)}, {1: (0, 4, 0)}]
    table = counts_table(counts, CLASSES)
    assert table.shape == (2, 3, 3) and table[0, 2].tolist() == [1, 1, 1] and table[1, 1].tolist() == [0, 4, 0]
    assert counts_table(counts, Classes(("cat", "dog"), False)).tolist() == table[:, 1:].tolist()


def test_a_tagged_class_that_neither_map_shows_counts_as_nothing_found() -> None:
    assert pair_agreement({0: (4, 4, 4)}, ()) == 1.0
    assert pair_agreement({0: (4, 4, 4)}, (1,)) == 0.0
    assert pair_agreement({0: (2, 2, 2), 1: (1, 2, 1)}, (0, 1)) == pytest.approx(0.25)


def test_an_image_agrees_by_its_stages_and_systems_and_else_by_its_threshold() -> None:
    cat, nothing = labels([1, 1], [0, 0]), labels([0, 0], [0, 0])
    image = compared_image("i", (0,), {SEED: cat, MASK: cat, OTHER: nothing}, {SEED: (cat, nothing)}, CLASSES)
    assert image.areas == {SEED: {0: 2, 1: 2}, MASK: {0: 2, 1: 2}, OTHER: {0: 4}} and image.num_pixels == 4
    assert image_agreement(image) == pytest.approx(0.5)  # seed and mask 1, the two systems 0; thresholds do not count
    alone = compared_image("i", (0,), {SEED: cat}, {SEED: (cat, nothing)}, CLASSES)
    assert image_agreement(alone) == 0.0
    assert image_agreement(compared_image("i", (0,), {SEED: cat}, {}, CLASSES)) is None


def test_maps_of_other_sizes_and_other_classes_are_refused() -> None:
    with pytest.raises(DataError, match="different sizes"):
        compared_image("i", (), {SEED: labels([0, 1]), MASK: labels([0])}, {}, CLASSES)
    with pytest.raises(DataError, match="label value 3"):
        compared_image("i", (), {SEED: labels([0, 3])}, {}, CLASSES)

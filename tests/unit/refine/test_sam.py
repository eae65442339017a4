import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.errors import DataError
from qaclims_ray.refine.config import SamConfig
from qaclims_ray.refine.sam import label_masks, refine_by_sam

CONFIG = SamConfig(min_inside=0.5, min_covered=0.85)


def row(*runs: tuple[int, int]) -> torch.Tensor:
    """A label map of one row: (number of pixels, value) after each other."""
    return torch.tensor([[value for count, value in runs for _ in range(count)]], dtype=torch.uint8)


def spans(*bounds: tuple[int, int], width: int = 20) -> torch.Tensor:
    """Masks of one row, each from the first to before the last column."""
    columns = torch.arange(width)
    return torch.stack([((columns >= first) & (columns < last))[None] for first, last in bounds])


def test_a_mask_takes_the_class_that_fills_it():
    seeds = row((4, 0), (6, 3), (10, 0))  # seed in columns 4-9
    assert label_masks(seeds, spans((6, 14)), CONFIG).tolist() == row((6, 0), (8, 3), (6, 0)).tolist()
    # One pixel more, and less than half of it is seed; it holds 4 of 6 seed pixels, less than 85 %: nothing is chosen.
    assert label_masks(seeds, spans((6, 15)), CONFIG).tolist() == seeds.tolist()


def test_a_mask_takes_the_class_whose_seed_it_covers():
    seeds = row((4, 0), (6, 3), (10, 0))
    assert label_masks(seeds, spans((2, 18)), CONFIG).tolist() == row((2, 0), (16, 3), (2, 0)).tolist()
    # Five of six are 83 %.
    assert label_masks(seeds, spans((5, 20)), CONFIG).tolist() == seeds.tolist()


def test_of_masks_that_only_cover_the_tightest_is_taken():
    seeds = row((8, 0), (2, 3), (10, 0))
    masks = spans((0, 20), (6, 12), (4, 14))
    assert label_masks(seeds, masks, CONFIG).tolist() == row((6, 0), (6, 3), (8, 0)).tolist()


def test_the_whole_image_is_not_taken_where_a_mask_fits():
    seeds = row((6, 0), (8, 3), (6, 0))
    masks = spans((0, 20), (5, 15))  # the second is inside the class and covers it
    assert label_masks(seeds, masks, CONFIG).tolist() == row((5, 0), (10, 3), (5, 0)).tolist()


def test_masks_of_one_class_are_joined_and_the_rest_of_its_seed_goes():
    seeds = row((12, 3), (8, 0))
    masks = spans((0, 3), (5, 8))
    assert label_masks(seeds, masks, CONFIG).tolist() == row((3, 3), (2, 0), (3, 3), (12, 0)).tolist()


def test_a_mask_of_two_classes_goes_to_the_larger_overlap():
    seeds = row((3, 7), (4, 3), (13, 0))
    config = SamConfig(min_inside=0.4, min_covered=0.85)
    assert label_masks(seeds, spans((0, 7)), config)[0, :7].tolist() == [3] * 7
    # Of equals the lower class.
    even = row((4, 7), (4, 3), (12, 0))
    assert label_masks(even, spans((0, 8)), config)[0, :8].tolist() == [3] * 8


def test_masks_of_two_classes_that_overlap_go_to_the_purer():
    seeds = row((6, 3), (4, 7), (10, 0))
    masks = spans((0, 9), (6, 10))  # two thirds are class 3, all is class 7
    expected = row((6, 3), (4, 7), (10, 0)).tolist()
    assert label_masks(seeds, masks, CONFIG).tolist() == expected
    assert label_masks(seeds, masks.flip(0), CONFIG).tolist() == expected


def test_of_equally_pure_masks_the_first_lies_on_top():
    seeds = row((4, 3), (2, 0), (4, 7), (10, 0))
    masks = spans((0, 6), (4, 10))  # both two thirds
    assert label_masks(seeds, masks, CONFIG)[0, 4:6].tolist() == [3, 3]
    assert label_masks(seeds, masks.flip(0), CONFIG)[0, 4:6].tolist() == [7, 7]


def test_a_class_without_a_mask_keeps_its_seed():
    seeds = row((5, 3), (3, 0), (2, 7), (10, 0))
    masks = spans((0, 4))
    assert label_masks(seeds, masks, CONFIG).tolist() == row((4, 3), (4, 0), (2, 7), (10, 0)).tolist()
    # Where a mask of another class lies over that seed, the mask wins.
    swallowed = row((5, 3), (2, 7), (13, 0))
    assert label_masks(swallowed, spans((0, 7)), CONFIG).tolist() == row((7, 3), (13, 0)).tolist()


def test_ignored_pixels_stay_unless_a_mask_explains_them():
    seeds = row((4, 3), (4, 255), (10, 0), (2, 255))
    masks = spans((0, 7))
    assert label_masks(seeds, masks, CONFIG).tolist() == row((7, 3), (1, 255), (10, 0), (2, 255)).tolist()


def test_nothing_to_choose_or_nothing_to_choose_by():
    seeds = row((4, 3), (14, 0), (2, 255))
    assert label_masks(seeds, torch.zeros(0, 1, 20, dtype=torch.bool), CONFIG).tolist() == seeds.tolist()
    empty = row((18, 0), (2, 255))
    assert label_masks(empty, spans((0, 20)), CONFIG).tolist() == empty.tolist()
    assert label_masks(seeds, torch.zeros(3, 1, 20, dtype=torch.bool), CONFIG).tolist() == seeds.tolist()


def test_shares_of_zero_do_not_take_masks_without_any_seed():
    seeds = row((4, 3), (16, 0))
    config = SamConfig(min_inside=0.0, min_covered=0.0)
    assert label_masks(seeds, spans((2, 6), (10, 14)), config).tolist() == row((2, 0), (4, 3), (14, 0)).tolist()


def test_shares_are_reached_exactly():
    seeds = row((17, 3), (3, 0))
    config = SamConfig(min_inside=0.85, min_covered=1.0)
    assert label_masks(seeds, spans((0, 20)), config)[0].tolist() == [3] * 20


def test_seeds_are_left_as_they_are():
    seeds = row((4, 3), (16, 0))
    before = seeds.clone()
    label_masks(seeds, spans((0, 6)), CONFIG).fill_(9)
    assert seeds.tolist() == before.tolist()


def test_maps_say_where_each_class_is():
    seeds = row((5, 3), (3, 0), (2, 7), (10, 0))
    cam = ImageCam("one", (2, 4, 6), None, torch.zeros(3, 1, 5), 1, 20)
    refined = refine_by_sam(cam, seeds, spans((0, 4)), CONFIG)
    assert refined.class_ids == (2, 4, 6) and refined.grid is None and refined.full is not None
    assert refined.full.sum((1, 2)).tolist() == [4.0, 0.0, 2.0]
    assert set(refined.full.unique().tolist()) == {0.0, 1.0}
    assert label_map(refined, 0.5).tolist() == label_masks(seeds, spans((0, 4)), CONFIG).tolist()


def test_maps_of_an_image_without_classes():
    refined = refine_by_sam(ImageCam("one", (), None, None, 1, 20), row((20, 0)), spans((0, 4)), CONFIG)
    assert refined.full is not None and refined.full.shape == (0, 1, 20)


def test_seeds_that_do_not_belong_to_the_image_are_refused():
    cam = ImageCam("one", (2,), None, None, 1, 20)
    for seeds in (row((5, 7), (15, 0)), row((5, 255), (15, 0))):
        with pytest.raises(DataError, match="one hold the label values"):
            refine_by_sam(cam, seeds, spans((0, 4)), CONFIG)
    with pytest.raises(DataError, match="pixels"):
        refine_by_sam(cam, row((19, 0)), spans((0, 4), width=19), CONFIG)

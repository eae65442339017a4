import pytest
import torch

from qaclims_ray.evaluation.threshold import (
    COLOURS,
    LEVELS,
    agreement_with_colours,
    candidates,
    main_colours,
    middle_of_top,
    rate_thresholds,
)


def picture(size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """A red square on noisy green, and a map that falls off smoothly from its middle."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 60, (3, size, size), generator=generator).to(torch.uint8)
    image[1] += 120
    inside = torch.zeros(size, size, dtype=torch.bool)
    inside[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = True
    image[:, inside] = image[:, inside].flip(0).roll(1, 0)
    middle = (torch.arange(size) - (size - 1) / 2).abs() / (size / 2)
    score = 1 - torch.maximum(middle[:, None], middle[None])
    return image, score[None]


def best(image: torch.Tensor, maps: torch.Tensor) -> float:
    return LEVELS[middle_of_top(rate_thresholds(image, maps, LEVELS))]


@pytest.mark.parametrize(
    ("figures", "position"),
    [
        ((0.1, 0.5, 0.1), 1),
        ((0.0, 0.499, 0.498, 0.5, 0.1), 2),  # a broad top, whose end is the highest by chance
        ((0.5, 0.2, 0.4), 0),  # another top that is clearly lower does not count
        ((0.5,), 0),
        ((-0.2, -0.1, -0.3), 1),
        ((0.0, 0.0), 0),
    ],
)
def test_the_middle_of_the_top_is_taken(figures: tuple[float, ...], position: int):
    found = torch.tensor(figures, dtype=torch.float64)
    assert middle_of_top(found) == position == middle_of_top(found * 250)


def test_chance_moves_the_middle_less_than_the_highest_point():
    """A flat top with noise on it, drawn again and again: the highest point wanders over all of it."""
    generator = torch.Generator().manual_seed(0)
    top = torch.tensor([0.1, 0.3, *[0.4] * 9, 0.3, 0.1], dtype=torch.float64)
    drawn = [top + 0.005 * torch.randn(len(top), generator=generator, dtype=torch.float64) for _ in range(100)]
    middles, highest = [middle_of_top(one) for one in drawn], [int(one.argmax()) for one in drawn]
    assert max(abs(found - 6) for found in middles) <= 1 and max(abs(found - 6) for found in highest) == 4


def test_the_edge_of_the_object_wins():
    image, maps = picture()
    assert best(image, maps) == pytest.approx(0.5, abs=0.03)
    assert rate_thresholds(image, maps, LEVELS).max() > 0.5


@pytest.mark.parametrize("power", [0.25, 1.0, 4.0])
def test_peaked_and_flat_maps_get_the_same_mask(power: float):
    image, maps = picture()
    flat = maps**power
    assert best(image, flat) ** (1 / power) == pytest.approx(0.5, abs=0.08)


def test_large_pictures_are_looked_at_small():
    image, maps = picture(400)
    assert best(image, maps) == pytest.approx(0.5, abs=0.03)


def test_classes_that_share_out_a_picture_are_one_foreground():
    """Two halves of different colours, a class on each: a mask over everything would part them, class by class."""
    image = torch.zeros(3, 20, 20, dtype=torch.uint8)
    image[0, :, :10], image[2, :, 10:] = 200, 200
    image[:, 8:12, 8:12] = 255
    maps = torch.full((2, 20, 20), 0.2)
    maps[0, :, 10:], maps[1, :, :10] = 0.1, 0.1
    maps[:, 8:12, 8:12] = 0.8
    assert best(image, maps) >= 0.2


def test_agreement_by_hand():
    """Of ten pixels four are bright; a mask of three of them and one dark pixel is told but for two pixels."""
    pixels = torch.tensor([1.0] * 4 + [0.0] * 6).expand(3, 1, 10)
    masks = torch.tensor([[1, 1, 1, 1] + [0] * 6, [0, 1, 1, 1, 1] + [0] * 5, [1] * 10, [0] * 10]).bool()
    by_chance = 0.4 * 0.4 + 0.6 * 0.6
    expected = [1.0, (0.8 - by_chance) / (1 - by_chance), 0.0, 0.0]
    assert agreement_with_colours(pixels, masks[:, None]).tolist() == pytest.approx(expected)


def test_a_picture_of_one_colour_says_nothing():
    masks = torch.zeros(2, 4, 4, dtype=torch.bool)
    masks[1, :2] = True
    assert agreement_with_colours(torch.full((3, 4, 4), 0.3), masks).tolist() == [0.0, 0.0]


def test_main_colours_part_what_differs():
    colours = torch.arange(COLOURS).repeat_interleave(5)[:, None].expand(-1, 3) / COLOURS
    assert main_colours(colours).view(COLOURS, 5).unique(dim=1).flatten().tolist() == list(range(COLOURS))


def test_candidates_are_thresholds_of_the_sweep():
    sweep = [step / 100 for step in range(1, 100)]
    assert candidates(sweep) == LEVELS
    assert candidates([0.2, 0.4, 0.6]) == (0.2, 0.4, 0.6) and candidates([0.155]) == (0.155,)

import pytest
import torch

from qaclims_ray.evaluation.threshold import LEVELS, candidates, parted_variance, rate_thresholds


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
    return LEVELS[int(rate_thresholds(image, maps, LEVELS).argmax())]


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


def test_share_of_variance_by_hand():
    pixels = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(3, 2, 4)
    masks = torch.tensor([[False, False, True, True], [False, True, True, True], [True] * 4, [False] * 4])
    shares = parted_variance(pixels, masks[:, None].expand(-1, 2, -1))
    assert shares.tolist() == pytest.approx([1.0, 1 / 3, 0.0, 0.0])
    assert parted_variance(torch.full((3, 2, 4), 0.3), masks[:1, None].expand(-1, 2, -1)).tolist() == [0.0]


def test_candidates_are_thresholds_of_the_sweep():
    sweep = [step / 100 for step in range(1, 100)]
    assert candidates(sweep) == LEVELS
    assert candidates([0.2, 0.4, 0.6]) == (0.2, 0.4, 0.6) and candidates([0.155]) == (0.155,)

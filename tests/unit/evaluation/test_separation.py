"""The label-free figure of a mask: right masks win, empty and full ones get nothing."""

import pytest
import torch

from qaclims_ray.evaluation.separation import colour_parting, separation, surroundings


def _picture() -> tuple[torch.Tensor, torch.Tensor]:
    """Return a red square on green, with some noise, and the square's mask."""
    truth = torch.zeros(40, 40, dtype=torch.bool)
    truth[12:26, 14:30] = True
    pixels = torch.where(
        truth, torch.tensor([1.0, 0.0, 0.0])[:, None, None], torch.tensor([0.0, 1.0, 0.0])[:, None, None]
    )
    return pixels + 0.2 * torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0)), truth


def _shifted(mask: torch.Tensor, by: int) -> torch.Tensor:
    return torch.roll(mask, by, dims=1)


def test_the_true_mask_beats_every_other():
    pixels, truth = _picture()
    grown = surroundings(truth[None])[0] | truth
    part = truth.clone()
    part[:, :22] = False
    masks = torch.stack([truth, grown, part, _shifted(truth, 5), ~truth])
    found = colour_parting(pixels.expand(len(masks), -1, -1, -1), masks).tolist()
    assert found[0] > 0.75
    assert max(found[1:4]) < found[0] - 0.2
    # The other side of the same edge parts as well: that is what the class's cosine is for.
    assert found[4] > 0.5
    cosine = torch.tensor([0.3, 0.3, 0.3, 0.3, -0.1])
    rated = separation(pixels.expand(len(masks), -1, -1, -1), masks, cosine).tolist()
    assert rated[0] == pytest.approx(0.3 * found[0])
    assert rated[4] == 0


def test_neither_an_empty_nor_a_full_mask_wins():
    pixels, truth = _picture()
    masks = torch.stack([torch.zeros_like(truth), torch.ones_like(truth)])
    assert separation(pixels.expand(2, -1, -1, -1), masks, torch.ones(2)).tolist() == [0, 0]


def test_a_picture_of_one_colour_parts_nothing():
    _, truth = _picture()
    assert colour_parting(torch.full((1, 3, 40, 40), 0.3), truth[None]).tolist() == pytest.approx([0.0], abs=1e-4)


def test_share_of_variance_by_hand():
    pixels = torch.zeros(1, 3, 1, 5).expand(1, 3, 5, 5).clone()
    mask = torch.zeros(1, 5, 5, dtype=torch.bool)
    mask[:, 2, 2] = True  # the band of 10 % of 5 pixels is at least one wide: the 8 neighbours
    pixels[:, 0, 2, 2], pixels[:, 0, 1, 1] = 9.0, 9.0
    assert int(surroundings(mask).sum()) == 8
    total = 2 * 9.0**2 - 9 * 2.0**2
    between = 1 * (9 - 2.0) ** 2 + 8 * (9 / 8 - 2.0) ** 2
    assert colour_parting(pixels, mask).item() == pytest.approx(between / total, rel=1e-5)

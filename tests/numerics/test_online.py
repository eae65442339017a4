"""What a network's own masks are made of, against slow restatements: one pixel, one cell, one pair at a time."""

import pytest
import torch
from torch import Tensor

from qaclims_ray.methods.online.labels import (
    of_present,
    online_labels,
    present_classes,
    spread_by_affinity,
    stretched,
)
from qaclims_ray.methods.online.losses import likeness, likeness_loss, likeness_sums
from qaclims_ray.refine.config import PamrConfig
from qaclims_ray.refine.pamr import pamr, pamr_together

CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_likeness_loss_is_half_the_mean_over_each_kind_of_pairs() -> None:
    features = (drawn(2, 5, 3) - 0.5).requires_grad_()
    labels = torch.tensor([[0, 1, 1, 255, 0], [2, 2, 255, 255, 2]], dtype=torch.uint8)
    same, other = [], []
    for image in range(2):
        for one in range(5):
            for two in range(5):
                if 255 in (labels[image, one], labels[image, two]):
                    continue
                alike = torch.sigmoid(features[image, one] @ features[image, two] / 3**0.5)
                if labels[image, one] == labels[image, two]:
                    same.append(1 - alike)
                else:
                    other.append(alike)
    expected = 0.5 * torch.stack(same).sum() / len(same) + 0.5 * torch.stack(other).sum() / len(other)
    sums = likeness_sums(likeness(features), labels)
    found = likeness_loss(sums.losses, sums.counts)
    torch.testing.assert_close(found, expected)
    (slow,) = torch.autograd.grad(expected, features, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(found, features)[0], slow)
    assert sums.counts.tolist() == [len(same), len(other)]


def test_the_likeness_loss_of_images_apart_adds_up_to_that_of_all() -> None:
    features, labels = drawn(3, 4, 2), torch.tensor([[0, 0, 1, 255], [1, 1, 1, 1], [0, 2, 2, 0]], dtype=torch.uint8)
    whole = likeness_sums(likeness(features), labels)
    parts = [likeness_sums(likeness(features[i : i + 1]), labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(
        torch.stack([likeness_loss(part.losses, whole.counts) for part in parts]).sum(),
        likeness_loss(whole.losses, whole.counts),
    )


def test_without_any_label_the_likeness_loss_is_zero_and_gives_no_gradient() -> None:
    features = drawn(1, 3, 2).requires_grad_()
    sums = likeness_sums(likeness(features), torch.full((1, 3), 255, dtype=torch.uint8))
    loss = likeness_loss(sums.losses, sums.counts)
    loss.backward()
    assert loss.item() == 0 and features.grad is not None and not features.grad.any()


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_cells_take_the_mean_of_those_that_belong_to_them(steps: int) -> None:
    maps, affinity, alike = drawn(2, 3, 4), drawn(2, 4, 4, seed=1), drawn(2, 4, 4, seed=2)
    expected = maps.clone()
    for _ in range(steps):
        before = expected.clone()
        for image in range(2):
            for cell in range(4):
                weights = [affinity[image, cell, other] * alike[image, cell, other] for other in range(4)]
                for slot in range(3):
                    total = sum(weight * before[image, slot, other] for other, weight in enumerate(weights))
                    expected[image, slot, cell] = total / sum(weights)
    torch.testing.assert_close(spread_by_affinity(maps, affinity, alike, steps=steps), expected)


def test_a_decoder_that_has_learned_nothing_leaves_the_word_to_the_encoder() -> None:
    maps, affinity = drawn(1, 2, 4), drawn(1, 4, 4, seed=1)
    rows = affinity / affinity.sum(2, keepdim=True)
    found = spread_by_affinity(maps, affinity, torch.full((1, 4, 4), 0.5, dtype=torch.float64), steps=1)
    torch.testing.assert_close(found, maps @ rows.transpose(1, 2))


def test_maps_take_their_whole_range_and_flat_ones_stay_finite() -> None:
    found = stretched(torch.tensor([[[1.0, 3.0, 2.0], [5.0, 5.0, 5.0]]]))
    assert found.tolist() == [[[0.0, 1.0, 0.5], [0.0, 0.0, 0.0]]]


def test_only_tagged_classes_have_a_slot() -> None:
    present = present_classes(torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]), CPU)
    assert present.class_ids.tolist() == [[1, 3], [0, 0], [2, 0]]
    assert present.is_tagged.tolist() == [[True, True], [False, False], [True, False]]
    maps = torch.arange(12.0).view(3, 4, 1)
    assert of_present(maps, present)[0, :, 0].tolist() == [1.0, 3.0]
    assert present_classes(torch.zeros(2, 4), CPU).class_ids.shape == (2, 1)


def _slow_label(scores: list[float], ids: list[int], tagged: list[bool], above: float, below: float) -> int:
    there = [(score, class_id) for score, class_id, real in zip(scores, ids, tagged, strict=True) if real]
    if not there:
        return 0
    best = max(score for score, _ in there)
    if best >= above:
        return 1 + next(class_id for score, class_id in there if score == best)
    return 0 if best < below else 255


@pytest.mark.parametrize(("above", "below"), [(0.6, 0.4), (0.5, 0.5), (0.7, 0.0)])
def test_pixels_are_cut_at_two_scores(above: float, below: float) -> None:
    present = present_classes(torch.tensor([[0.0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]), CPU)
    scores = drawn(3, 2, 5, 6).float()
    outside = torch.zeros(3, 5, 6, dtype=torch.uint8)
    outside[:, 4] = 255
    found = online_labels(scores, present, outside, above=above, below=below)
    for image in range(3):
        for row in range(5):
            for column in range(6):
                one = scores[image, :, row, column].tolist()
                expected = _slow_label(
                    one, present.class_ids[image].tolist(), present.is_tagged[image].tolist(), above, below
                )
                assert found[image, row, column] == (255 if row == 4 else expected)
    assert found.dtype == torch.uint8


def test_colours_of_several_images_together_refine_as_those_of_one() -> None:
    images = (drawn(2, 3, 9, 7) * 255).to(torch.uint8)
    maps, config = drawn(2, 2, 9, 7, seed=3).float(), PamrConfig(iterations=3, dilations=(1, 2))
    together = pamr_together(images, maps, config)
    assert torch.equal(together, torch.stack([pamr(*one, config) for one in zip(images, maps, strict=True)]))

"""The loss of the final networks against loops over pixels in float64, and its gradient."""

import math

import pytest
import torch

from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, labels_at, pixel_mean


def some_pixels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = 3 * torch.randn(2, 4, 3, 5, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 4, (2, 3, 5), generator=generator).to(torch.uint8)
    labels[0, 0, :2] = 255
    labels[1, 2] = 255
    return logits, labels


def slow_losses(logits: torch.Tensor, labels: torch.Tensor) -> tuple[list[float], list[float]]:
    """Cross-entropy of each background pixel and of each foreground pixel."""
    background, foreground = [], []
    for image in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                label = int(labels[image, y, x])
                if label == 255:
                    continue
                scores = [float(logits[image, k, y, x]) for k in range(logits.shape[1])]
                loss = math.log(sum(math.exp(score) for score in scores)) - scores[label]
                (background if label == 0 else foreground).append(loss)
    return background, foreground


def test_sums_equal_a_loop() -> None:
    logits, labels = some_pixels()
    sums = cross_entropy_sum(logits, labels)
    background, foreground = slow_losses(logits, labels)
    assert sums.counts.tolist() == [len(background), len(foreground)]
    assert min(sums.counts.tolist()) > 2
    assert sums.losses.tolist() == pytest.approx([sum(background), sum(foreground)], rel=1e-12)


def test_means_equal_a_loop() -> None:
    logits, labels = some_pixels()
    sums = cross_entropy_sum(logits, labels)
    background, foreground = slow_losses(logits, labels)
    every = background + foreground
    assert float(pixel_mean(sums.losses, sums.counts)) == pytest.approx(sum(every) / len(every), rel=1e-12)
    halves = sum(background) / len(background) / 2 + sum(foreground) / len(foreground) / 2
    assert float(balanced(sums.losses, sums.counts)) == pytest.approx(halves, rel=1e-12)


@pytest.mark.parametrize("loss", [pixel_mean, balanced])
def test_gradients(loss) -> None:
    logits, labels = some_pixels()

    def value(logits: torch.Tensor) -> torch.Tensor:
        sums = cross_entropy_sum(logits, labels)
        return loss(sums.losses, sums.counts)

    assert torch.autograd.gradcheck(value, logits.requires_grad_())
    value(logits).backward()
    ignored = (labels == 255).unsqueeze(1).expand_as(logits)
    assert not logits.grad[ignored].any()


def test_nearest_labels_equal_a_loop() -> None:
    labels = torch.randint(0, 9, (1, 23, 17), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
    found = labels_at(labels, (5, 40))
    for i in range(5):
        for j in range(40):
            y, x = math.floor((i + 0.5) * 23 / 5), math.floor((j + 0.5) * 17 / 40)
            assert found[0, i, j] == labels[0, y, x]

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, labels_at, pixel_mean


def picture(seed: int = 0, *, labels: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, labels, 5, 6, generator=generator)
    values = torch.randint(0, labels, (3, 5, 6), generator=generator).to(torch.uint8)
    values[:, :2] = 255
    return logits, values


def test_workers_with_uneven_shares_add_up_to_one_worker() -> None:
    logits, labels = picture()
    whole = cross_entropy_sum(logits, labels)
    parts = [cross_entropy_sum(logits[:1], labels[:1]), cross_entropy_sum(logits[1:], labels[1:])]
    counts = parts[0].counts + parts[1].counts
    assert torch.equal(counts, whole.counts)
    for loss in (pixel_mean, balanced):
        shares = [loss(part.losses, counts) for part in parts]
        torch.testing.assert_close(sum(shares), loss(whole.losses, whole.counts))


def test_background_and_foreground_weigh_the_same_when_balanced() -> None:
    losses, counts = torch.tensor([90.0, 2.0]), torch.tensor([90, 1])
    assert float(pixel_mean(losses, counts)) == pytest.approx(92 / 91)
    assert float(balanced(losses, counts)) == pytest.approx(0.5 * 1 + 0.5 * 2)


@pytest.mark.parametrize("kept", [0, 1], ids=["only background", "only foreground"])
def test_an_absent_kind_is_left_out(kept) -> None:
    """Row D2: the released code divides by zero here."""
    logits, labels = picture()
    labels[(labels == 0) != (kept == 0)] = 255
    logits.requires_grad_()
    sums = cross_entropy_sum(logits, labels)
    assert int(sums.counts[1 - kept]) == 0
    loss = balanced(sums.losses, sums.counts)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(float(0.5 * sums.losses[kept] / sums.counts[kept]))
    assert bool(logits.grad.isfinite().all())


@pytest.mark.parametrize("loss", [pixel_mean, balanced])
def test_without_labels_there_is_neither_loss_nor_gradient(loss) -> None:
    logits, labels = picture()
    logits.requires_grad_()
    sums = cross_entropy_sum(logits, torch.full_like(labels, 255))
    value = loss(sums.losses, sums.counts)
    value.backward()
    assert float(value) == 0 and not logits.grad.any()


def test_half_precision_is_computed_in_float32() -> None:
    logits, labels = picture()
    logits = (logits * 10).half()
    sums = cross_entropy_sum(logits, labels)
    assert sums.losses.dtype == torch.float32
    torch.testing.assert_close(sums.losses, cross_entropy_sum(logits.float(), labels).losses, rtol=0, atol=0)


def test_labels_are_sampled_as_an_image_library_does() -> None:
    labels = torch.randint(0, 21, (2, 321, 241), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    for size in ((41, 31), (20, 15), (321, 61), (7, 241)):
        expected = [np.asarray(Image.fromarray(m.numpy()).resize(size[::-1], Image.Resampling.NEAREST)) for m in labels]
        assert torch.equal(labels_at(labels, size), torch.from_numpy(np.stack(expected)))


def test_labels_at_their_own_size_are_the_same() -> None:
    _, labels = picture()
    assert labels_at(labels, (5, 6)) is labels

import math
from dataclasses import replace

import pytest
import torch

from qaclims_ray.errors import ModelError
from qaclims_ray.refine import crf
from qaclims_ray.refine.crf import dense_crf, label_energy, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf, irn_crf, semples_crf

SETTINGS = [irn_crf(), semples_crf(), deeplab_crf()]


def picture(height: int = 24, width: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a noisy image of two regions and its labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(width) >= width // 2).long().expand(1, height, width).clone()
    colours = torch.tensor([[60, 120, 70], [200, 90, 40]])[labels].movedim(-1, 1)
    noise = torch.randn(colours.shape, generator=generator) * 3
    return (colours + noise).clamp(0, 255).to(torch.uint8), labels


def random_energies(batch: int, labels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.randn(batch, labels, 4, 5, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


@pytest.mark.parametrize("config", SETTINGS)
def test_labels_follow_colours(config: CrfConfig) -> None:
    image, truth = picture()
    wrong = truth.roll(3, 2)
    wrong[0, 5:8, 4:7] = 1
    probabilities = dense_crf(image, label_energy(wrong, 2, 0.7), config)
    assert torch.equal(probabilities.argmax(1), truth) and not torch.equal(wrong, truth)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, 24, 30))


def test_a_batch_is_its_images() -> None:
    images = torch.cat([picture(seed=seed)[0] for seed in range(3)])
    energies = random_energies(3, 3, 24, 30)
    together = dense_crf(images, energies, irn_crf())
    for index in range(3):
        own = slice(index, index + 1)
        assert torch.equal(dense_crf(images[own], energies[own], irn_crf()), together[own])


def test_a_kept_kernel_is_that_of_the_size_and_the_settings() -> None:
    """Pictures of other sizes and settings in turn, and the first again: as if nothing were kept."""
    first = (24, 30, irn_crf())
    cases = [first, (30, 24, irn_crf()), (24, 30, replace(irn_crf(), gaussian_sxy=1.5)), first]
    cases.append((24, 30, replace(irn_crf(), gaussian_weight=7.0)))

    def refined(height: int, width: int, config: CrfConfig) -> torch.Tensor:
        return dense_crf(picture(height, width)[0], random_energies(1, 3, height, width), config)

    kept = [refined(*case) for case in cases]
    assert crf._kept_position_kernel.cache_info().hits >= 1
    for case, found in zip(cases, kept, strict=True):
        crf._kept_position_kernel.cache_clear()
        assert torch.equal(refined(*case), found)


def test_images_together_in_one_lattice_as_on_a_gpu() -> None:
    images = torch.cat([picture(seed=seed)[0] for seed in range(3)])
    energies = random_energies(3, 3, 24, 30)
    kernels = crf._smoothness(images, irn_crf()) + crf._appearance(images, irn_crf())
    together = crf._mean_field(energies, kernels, iterations=10)
    torch.testing.assert_close(together, dense_crf(images, energies, irn_crf()), rtol=0, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    images = torch.cat([picture(seed=seed)[0] for seed in range(3)])
    energies = random_energies(3, 3, 24, 30)
    on_gpu = dense_crf(images.to("cuda"), energies.to("cuda"), irn_crf())
    torch.testing.assert_close(on_gpu.cpu(), dense_crf(images, energies, irn_crf()), rtol=0, atol=1e-3)


@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_labels_have_no_order(num_labels: int) -> None:
    image, _ = picture()
    energies = random_energies(1, num_labels, 24, 30)
    shuffled = torch.randperm(num_labels, generator=torch.Generator().manual_seed(1)).roll(1)
    expected = dense_crf(image, energies, irn_crf())[:, shuffled]
    torch.testing.assert_close(dense_crf(image, energies[:, shuffled], irn_crf()), expected, rtol=0, atol=1e-4)


def test_a_constant_per_pixel_changes_nothing() -> None:
    image, _ = picture()
    energies = random_energies(1, 3, 24, 30)
    shifted = energies + 5 * torch.rand(1, 1, 24, 30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        dense_crf(image, shifted, irn_crf()), dense_crf(image, energies, irn_crf()), rtol=0, atol=1e-4
    )


def test_no_iterations() -> None:
    image, _ = picture()
    energies = random_energies(1, 3, 24, 30)
    untouched = dense_crf(image, energies, replace(irn_crf(), iterations=0))
    assert torch.equal(untouched, (-energies).softmax(1))


def test_a_kernel_without_weight_is_left_out() -> None:
    image, _ = picture()
    energies = random_energies(1, 2, 24, 30)
    smooth = replace(irn_crf(), bilateral_weight=0.0)
    assert torch.equal(dense_crf(image, energies, smooth), dense_crf(255 - image.flip(1), energies, smooth))
    assert not torch.equal(dense_crf(image, energies, irn_crf()), dense_crf(image, energies, smooth))
    colour = replace(irn_crf(), gaussian_weight=0.0)
    narrow = replace(colour, gaussian_sxy=0.5)
    assert torch.equal(dense_crf(image, energies, colour), dense_crf(image, energies, narrow))
    assert not torch.equal(dense_crf(image, energies, irn_crf()), dense_crf(image, energies, colour))
    neither = replace(smooth, gaussian_weight=0.0)
    torch.testing.assert_close(dense_crf(image, energies, neither), (-energies).softmax(1))


def test_one_label() -> None:
    image, labels = picture()
    energies = label_energy(torch.zeros_like(labels), 1, 0.7)
    assert torch.equal(dense_crf(image, energies, irn_crf()), torch.ones(1, 1, 24, 30))


@pytest.mark.parametrize("size", [(1, 1), (1, 17), (13, 1), (2, 2)])
@pytest.mark.parametrize("config", SETTINGS)
def test_tiny_images(size: tuple[int, int], config: CrfConfig) -> None:
    image, _ = picture(*size)
    energies = random_energies(1, 3, *size)
    probabilities = dense_crf(image, energies, config)
    assert probabilities.shape == energies.shape
    torch.testing.assert_close(probabilities.sum(1), torch.ones(1, *size))


def test_an_empty_batch() -> None:
    energies = torch.zeros(0, 2, 8, 9)
    assert dense_crf(torch.zeros(0, 3, 8, 9, dtype=torch.uint8), energies, irn_crf()).shape == energies.shape


def test_twice_the_same() -> None:
    image, _ = picture()
    energies = random_energies(1, 4, 24, 30)
    assert torch.equal(dense_crf(image, energies, irn_crf()), dense_crf(image, energies, irn_crf()))


def test_energies_keep_no_graph_and_their_values() -> None:
    image, _ = picture()
    energies = random_energies(1, 3, 24, 30).requires_grad_()
    before = energies.detach().clone()
    assert not dense_crf(image, energies, irn_crf()).requires_grad
    assert torch.equal(energies, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_computes_in_float32(dtype: torch.dtype) -> None:
    image, _ = picture()
    energies = random_energies(1, 2, 24, 30).to(dtype)
    probabilities = dense_crf(image, energies, irn_crf())
    assert probabilities.dtype == torch.float32
    assert torch.equal(probabilities, dense_crf(image, energies.float(), irn_crf()))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("num_labels", [1, 2])
def test_energies_that_are_no_numbers(bad: float, num_labels: int) -> None:
    image, _ = picture()
    energies = random_energies(1, num_labels, 24, 30)
    energies[0, 0, 3, 4] = bad
    with pytest.raises(ModelError, match=rf"1 of {720 * num_labels} CRF energies are infinite or not a number"):
        dense_crf(image, energies, irn_crf())


def test_large_energies() -> None:
    image, truth = picture()
    sure = torch.nn.functional.one_hot(truth, 3).movedim(-1, 1) * -1e30
    probabilities = dense_crf(image, sure, irn_crf())
    assert torch.equal(probabilities.argmax(1), truth) and probabilities.isfinite().all()


def test_energies_of_labels() -> None:
    labels = torch.tensor([[[0, 2]]])
    energies = label_energy(labels, 3, 0.7)
    right, wrong = -math.log(0.7), -math.log(0.15)
    torch.testing.assert_close(energies, torch.tensor([[[[right, wrong]], [[wrong, wrong]], [[wrong, right]]]]))
    torch.testing.assert_close((-energies).exp().sum(1), torch.ones(1, 1, 2))
    torch.testing.assert_close(label_energy(labels * 0, 1, 0.7), torch.full((1, 1, 1, 2), right))


def test_labels_out_of_range() -> None:
    with pytest.raises(AssertionError, match="out of range"):
        label_energy(torch.tensor([[[0, 255]]]), 2, 0.7)


def test_energies_of_probabilities() -> None:
    probabilities = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1)
    expected = torch.tensor([-math.log(1e-5), math.log(2), 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(probability_energy(probabilities), expected)

"""The whole text-contrast step: against loops over images and classes, and against finite differences."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from qaclims_ray.methods.qa_clims.losses import foreground_contrast
from qaclims_ray.methods.qa_clims.task import pairs_with_texts, ritc_regions, ritc_step, with_prompts
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.models.generators.cam_net import build_cam_net
from tests.numerics.test_ritc_losses import slow_background_contrast, slow_foreground_contrast
from tests.ritc_fakes import CAM_NET, TinyClip, TinyTexts, regions_of, ritc_config

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]).float()
IDS = ["0", "1", "2", "3"]


def _setup() -> tuple:
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3).double().eval()
    clip, texts = TinyClip().double(), TinyTexts(4)
    texts.foreground, texts.background = texts.foreground.double(), texts.background.double()
    return network, clip, texts, torch.randn(4, 3, 32, 32, dtype=torch.float64)


def _step(network, clip, texts, image, config):
    batch = {"image": image, "labels": LABELS}
    return ritc_step(
        network,
        batch,
        IDS,
        bank=texts,
        regions=regions_of(clip, ritc_regions(config)),
        ritc=config,
        images_per_step=len(image),
    )


def _slow_loss(network, clip, texts, image, config) -> torch.Tensor:
    """The released code's way: every image, every class, one region at a time."""
    maps = network(image).sigmoid()
    frc, brc, present, num_pairs = [], [], [], 0
    for i in range(4):
        for k in range(3):
            if not LABELS[i, k]:
                continue
            present.append(maps[i, k].mean())
            count = (i + k) % 4
            if not count:
                continue
            num_pairs += 1
            cam = resize_bilinear(maps[i, k][None, None], clip.image_size)[0, 0]
            picture = resize_bilinear(image[i : i + 1], clip.image_size)[0]
            if config.clip_normalisation == "clip":
                for channel in range(3):
                    raw = picture[channel] * CAM_NET.image_std[channel] + CAM_NET.image_mean[channel]
                    picture[channel] = (raw - clip.mean[channel]) / clip.std[channel]
            peak = (cam if config.max_at == "clip" else maps[i, k]).max().item()
            b = (cam >= config.omega * peak).double()
            fore, back = cam, 1 - cam
            if config.region_mode in ("pixel_mask", "both"):
                fore, back = fore * b, back * (1 - b)
            masks = (b[None, None], 1 - b[None, None]) if config.region_mode in ("token_mask", "both") else (None, None)
            region_f = clip.encode_regions((picture * fore)[None], masks[0])[0]
            region_b = clip.encode_regions((picture * back)[None], masks[1])[0]
            answers = list(texts.background[i, k, :count])
            frc.append(slow_foreground_contrast(region_f, texts.foreground[i, k], answers, config.temperature))
            brc.append(
                slow_background_contrast(
                    region_b, texts.foreground[i, k], answers, config.temperature, config.background_pool
                )
            )
    divisor = 2 if config.pair_reduction == "official" else num_pairs
    area = maps.mean() if config.area_over == "all" else sum(present) / len(present)
    return (
        config.foreground_weight * sum(frc) / divisor
        + config.background_weight * sum(brc) / divisor
        + config.area_weight * area
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"region_mode": "pixel_mask", "background_pool": "exp_mean", "clip_normalisation": "clip"},
        {"region_mode": "both", "pair_reduction": "mean_pairs", "area_over": "present"},
        {"region_mode": "none", "max_at": "cam", "temperature": 0.07},
        {"max_at": "cam", "omega": 0.95, "area_weight": 5.0},
    ],
)
def test_step_equals_the_naive_loops(changes) -> None:
    network, clip, texts, image = _setup()
    config = ritc_config(**{"omega": 0.9, **changes})
    parameters = list(network.parameters())
    result = _step(network, clip, texts, image, config)
    gradient = torch.autograd.grad(result.loss, parameters)
    slow = _slow_loss(network, clip, texts, image.clone(), config)
    expected = torch.autograd.grad(slow, parameters)
    torch.testing.assert_close(result.loss, slow, rtol=1e-10, atol=1e-12)
    for found, wanted in zip(gradient, expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-10)
    assert result.counts == {"pairs": 4, "pairs_skipped": 2}


@pytest.mark.parametrize("mode", ["token_mask", "pixel_mask", "both", "none"])
def test_step_has_the_gradient_of_finite_differences(mode) -> None:
    network, clip, texts, image = _setup()
    config = ritc_config(region_mode=mode, omega=0.9, area_weight=3.0)
    parameters = list(network.parameters())
    gradient = torch.autograd.grad(_step(network, clip, texts, image, config).loss, parameters)
    generator = torch.Generator().manual_seed(1)
    # Small enough that no pixel crosses the threshold: the mask itself is a step function without gradient.
    epsilon = 1e-7
    for _ in range(3):
        direction = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
        losses = []
        for sign in (1, -1):
            shifted = copy.deepcopy(network)
            with torch.no_grad():
                for parameter, change in zip(shifted.parameters(), direction, strict=True):
                    parameter += sign * epsilon * change
            losses.append(_step(shifted, clip, texts, image, config).loss.item())
        numeric = (losses[0] - losses[1]) / (2 * epsilon)
        analytic = sum((g * d).sum() for g, d in zip(gradient, direction, strict=True)).item()
        assert numeric == pytest.approx(analytic, rel=1e-4, abs=1e-5)


def test_absent_classes_and_padding_images_do_not_matter() -> None:
    network, clip, texts, image = _setup()
    config = dataclasses.replace(ritc_config(), area_weight=0.0)
    reference = _step(network, clip, texts, image, config).loss
    image[2] = 7.0  # shows no class
    torch.testing.assert_close(_step(network, clip, texts, image, config).loss, reference)


def test_a_learned_prompt_is_one_more_background_text() -> None:
    generator = torch.Generator().manual_seed(5)
    prompts = F.normalize(torch.randn(3, 6, generator=generator), dim=-1)
    texts = TinyTexts(4)
    present = torch.tensor([[0, 1], [1, 0], [1, 2], [2, 2]])
    pairs = pairs_with_texts(present, ["0", "1", "2"], texts, torch.device("cpu"))
    extended = with_prompts(pairs, prompts)
    regions = F.normalize(torch.randn(len(pairs.image), 6, generator=generator), dim=-1)
    found = foreground_contrast(
        regions, extended.foreground, extended.background, extended.is_background, temperature=0.3
    )
    for row in range(len(pairs.image)):
        own = pairs.background[row][pairs.is_background[row]]
        others = torch.cat([own, prompts[pairs.class_id[row]][None]])
        scores = torch.cat([pairs.foreground[row][None], others]) @ regions[row] / 0.3
        torch.testing.assert_close(found[row], scores.logsumexp(0) - scores[0])

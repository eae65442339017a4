"""The CLIMS step against loops over images, classes and texts, in float64, with the gradients of all weights."""

import pytest
import torch
from torch import Tensor

from qaclims_ray.methods.clims.task import clims_regions, clims_step
from qaclims_ray.methods.regions import resize_bilinear
from tests.numerics.test_semples_steps import LABELS, NUM_PAIRS, assert_same_gradients, network_with_structure, slow_log
from tests.ritc_fakes import CAM_NET, TinyClip, regions_of
from tests.semples_fakes import bright_images, clims_config, near_bank

IDS = ["0", "1", "2", "3"]
# A pair has (image + class) % 4 background texts: (0, 0) and (3, 1) have none, and still take part in the matching.


def slow_suppression(region: Tensor, texts: Tensor, threshold: float | None) -> Tensor:
    total = torch.zeros((), dtype=region.dtype)
    for text in texts:
        s = region @ text
        if threshold is None:
            total = total - slow_log(region, text, complement=True)
        elif s.item() > threshold:
            total = total - torch.log(1 - s)
    return total


def slow_loss(network, clip, bank, image: Tensor, config) -> Tensor:
    maps = 1 / (1 + (-network(image)).exp())
    matching, background, suppression, present = [], [], [], []
    for i in range(4):
        for k in range(3):
            if not LABELS[i, k]:
                continue
            mask = resize_bilinear(maps[i, k][None, None], clip.image_size, antialias=config.antialias)[0, 0]
            picture = resize_bilinear(image[i : i + 1], clip.image_size, antialias=config.antialias)[0]
            if config.clip_normalisation == "clip":
                for channel in range(3):
                    raw = picture[channel] * CAM_NET.image_std[channel] + CAM_NET.image_mean[channel]
                    picture[channel] = (raw - clip.mean[channel]) / clip.std[channel]
            fore, back = (clip.encode_regions((picture * weight)[None])[0] for weight in (mask, 1 - mask))
            matching.append(-slow_log(fore, bank.foreground[i, k], complement=False))
            background.append(-slow_log(back, bank.foreground[i, k], complement=True))
            texts = bank.background[i, k, : (i + k) % 4]
            suppression.append(slow_suppression(fore, texts, config.suppression_threshold))
            present.append(maps[i, k].mean())
    divisor = 1 if config.pair_reduction == "official" else NUM_PAIRS
    area = maps.mean() if config.area_over == "all" else sum(present) / NUM_PAIRS
    return (
        config.matching_weight * sum(matching) / NUM_PAIRS
        + config.background_weight * sum(background) / NUM_PAIRS
        + config.suppression_weight * sum(suppression) / divisor
        + config.area_weight * area
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"suppression_threshold": None, "pair_reduction": "mean_pairs", "clip_normalisation": "clip"},
        {"suppression_threshold": 0.6, "area_over": "present", "area_weight": 3.0, "antialias": True},
        {"matching_weight": 0.0, "background_weight": 0.0, "area_weight": 0.0, "suppression_weight": 2.0},
    ],
)
def test_step_equals_the_naive_loops(changes) -> None:
    network, clip = network_with_structure(torch.float64), TinyClip().double()
    bank, config = near_bank(clip, 4), clims_config(**changes)
    image = bright_images(4, 32, seed=1).double()
    result = clims_step(
        network,
        {"image": image, "labels": LABELS},
        IDS,
        bank=bank,
        regions=regions_of(clip, clims_regions(config)),
        clims=config,
        images_per_step=4,
    )
    slow = slow_loss(network, clip, bank, image.clone(), config)
    assert_same_gradients(result.loss, slow, network, rtol=1e-7, atol=1e-10)
    assert result.counts == {"pairs": NUM_PAIRS}
    if changes.get("suppression_threshold") == 0.6:
        # Some texts are above the threshold and some below, or the case shows nothing.
        everything = clims_config(**changes | {"suppression_threshold": -1.0})
        assert abs(slow_loss(network, clip, bank, image.clone(), everything) - slow) > 1e-2
        assert result.means["loss/suppression"] > 0

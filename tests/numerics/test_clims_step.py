"""The CLIMS step against loops over images, classes and texts, in float64, with the gradients of all weights."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.clims.task import class_weights, clims_regions, clims_step
from qaclims_ray.methods.region_features import RegionFeatures
from qaclims_ray.methods.regions import resize_bilinear
from tests.numerics.test_semples_steps import LABELS, NUM_PAIRS, assert_same_gradients, network_with_structure, slow_log
from tests.ritc_fakes import CAM_NET, CLASSES, TinyClip, TinyTexts, regions_of
from tests.semples_fakes import bright_images, clims_config, near_bank

IDS = ["0", "1", "2", "3"]
# A pair has (image + class) % 4 background texts: (0, 0) and (3, 1) have none, and still take part in the matching.


CAMERA_READY = {"suppression_threshold": None, "clamp": False, "text_reduction": "mean"}


def slow_term(left: Tensor, right: Tensor, config: ClimsConfig, *, complement: bool) -> Tensor:
    """-log s or -log(1 - s), clamped or not."""
    if config.clamp:
        return -slow_log(left, right, complement=complement)
    s = left @ right
    return -torch.log(1 - s if complement else s)


def slow_suppression(region: Tensor, texts: Tensor, config: ClimsConfig) -> Tensor:
    total, count = torch.zeros((), dtype=region.dtype), 0
    for text in texts:
        s = region @ text
        if config.suppression_threshold is None:
            total = total + slow_term(region, text, config, complement=True)
        elif s.item() > config.suppression_threshold:
            total = total - torch.log(1 - s)
        else:
            continue
        count += 1
    return total / count if config.text_reduction == "mean" and count else total


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
            weight = dict(config.class_weights).get(CLASSES[k], 1)
            matching.append(weight * slow_term(fore, bank.foreground[i, k], config, complement=False))
            background.append(weight * slow_term(back, bank.foreground[i, k], config, complement=True))
            texts = bank.background[i, k, : (i + k) % 4]
            suppression.append(slow_suppression(fore, texts, config))
            present.append(maps[i, k].mean())
    divisor = config.published_ranks if config.pair_reduction == "official" else NUM_PAIRS
    area = maps.mean() if config.area_over == "all" else sum(present) / NUM_PAIRS
    return (
        config.matching_weight * sum(matching) / NUM_PAIRS
        + config.background_weight * sum(background) / NUM_PAIRS
        + config.suppression_weight * sum(suppression) / divisor
        + config.area_weight * area
    )


def move_beyond_the_clamp(bank: TinyTexts, found: RegionFeatures) -> None:
    """Bring a pair's class text next to its foreground region, and another's next to its background region."""
    noise = 0.003 * torch.randn(2, found.foreground.shape[1], generator=torch.Generator().manual_seed(0)).double()
    first, second = (tuple(pair) for pair in LABELS.nonzero()[:2].tolist())
    bank.foreground[first] = F.normalize(found.foreground[0].detach() + noise[0], dim=0)
    bank.foreground[second] = F.normalize(found.background[1].detach() + noise[1], dim=0)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"suppression_threshold": None, "pair_reduction": "mean_pairs", "clip_normalisation": "clip"},
        {"suppression_threshold": 0.6, "area_over": "present", "area_weight": 3.0, "antialias": True},
        CAMERA_READY,
        {**CAMERA_READY, "class_weights": (("blue", 3.0), ("red", 3.0)), "suppression_weight": 29.5},
        {"class_weights": (("green", 0.5),), "published_ranks": 2, "suppression_threshold": 0.6},
        {"matching_weight": 0.0, "background_weight": 0.0, "area_weight": 0.0, "suppression_weight": 2.0},
    ],
)
def test_step_equals_the_naive_loops(changes) -> None:
    network, clip = network_with_structure(torch.float64), TinyClip().double()
    bank, config = near_bank(clip, 4), clims_config(**changes)
    image = bright_images(4, 32, seed=1).double()
    regions = regions_of(clip, clims_regions(config))
    if not config.clamp:
        move_beyond_the_clamp(bank, regions(network(image), image, *LABELS.nonzero().unbind(1)))
        clamped = slow_loss(network, clip, bank, image.clone(), clims_config(**changes | {"clamp": True}))
        assert abs(clamped - slow_loss(network, clip, bank, image.clone(), config)) > 0.1
    result = clims_step(
        network,
        {"image": image, "labels": LABELS},
        IDS,
        bank=bank,
        regions=regions,
        clims=config,
        images_per_step=4,
        class_weight=class_weights(CLASSES, config),
    )
    slow = slow_loss(network, clip, bank, image.clone(), config)
    assert_same_gradients(result.loss, slow, network, rtol=1e-7, atol=1e-10)
    assert result.counts == {"pairs": NUM_PAIRS}
    if changes.get("suppression_threshold") == 0.6:
        # Some texts are above the threshold and some below, or the case shows nothing.
        everything = clims_config(**changes | {"suppression_threshold": -1.0})
        assert abs(slow_loss(network, clip, bank, image.clone(), everything) - slow) > 1e-2
        assert result.means["loss/suppression"] > 0

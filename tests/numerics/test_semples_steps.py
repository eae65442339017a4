"""SemPLeS's steps against loops over images, classes and pixels, with the gradients of all weights."""

import math

import pytest
import torch
from torch import Tensor, nn

from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.methods.semples.matching import _Joint, joint_step, matching_step
from qaclims_ray.methods.semples.prompts import PromptContrast, prompt_step, start_of_prompts
from qaclims_ray.models.clip.prompts import LearnedPrompts, encode_prompts
from qaclims_ray.models.generators.cam_net import CamNet, build_cam_net
from tests.ritc_fakes import CAM_NET, TinyClip
from tests.semples_fakes import bright_images, prompt_config, semples_config, semples_regions, shipped_clip, texts_near

LABELS = torch.tensor([[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]).float()
NUM_PAIRS = 6


def network_with_structure(dtype: torch.dtype) -> CamNet:
    """A network whose maps have both signs, and one that is negative everywhere."""
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3, classifier_bias=True).to(dtype).eval()
    network.classifier.weight.data *= 60
    network.classifier.bias.data[1] = -30
    return network


def slow_mask(raw: Tensor, size: int, config) -> Tensor:
    """From one map to its soft mask, pixel by pixel where it matters."""
    if config.mask == "sigmoid":
        return resize_bilinear((1 / (1 + (-raw).exp()))[None, None], size)[0, 0]
    large = resize_bilinear((raw * (raw > 0))[None, None], size, antialias=config.antialias)[0, 0]
    pixels = list(large.flatten())
    values = [pixel.item() for pixel in pixels]
    low, high = pixels[values.index(min(values))], pixels[values.index(max(values))]
    return torch.stack([(pixel - low) / (high - low + config.mask_epsilon) for pixel in pixels]).view(size, size)


def slow_log(left: Tensor, right: Tensor, *, complement: bool) -> Tensor:
    s = sum(a * b for a, b in zip(left, right, strict=True))
    if not 1e-4 < s.item() < 0.9999:
        s = torch.tensor(min(max(s.item(), 1e-4), 0.9999), dtype=left.dtype)
    return torch.log(1 - s) if complement else torch.log(s)


def slow_regions(maps: Tensor, image: Tensor, clip, config) -> list[tuple[int, Tensor, Tensor, Tensor]]:
    """Class, foreground feature, background feature and area of every pair, one region at a time."""
    found = []
    for i in range(4):
        for k in range(3):
            if not LABELS[i, k]:
                continue
            mask = slow_mask(maps[i, k], clip.image_size, config)
            picture = resize_bilinear(image[i : i + 1], clip.image_size, antialias=config.antialias)[0]
            if config.clip_normalisation == "clip":
                for channel in range(3):
                    raw = picture[channel] * CAM_NET.image_std[channel] + CAM_NET.image_mean[channel]
                    picture[channel] = (raw - clip.mean[channel]) / clip.std[channel]
            is_on = (mask.detach() >= config.omega * mask.detach().max()) & (mask.detach().max() > 0)
            b = is_on.to(mask.dtype) if config.omega > 0 else None
            fore, back = (mask, 1 - mask) if b is None else (mask * b, (1 - mask) * (1 - b))
            features = [clip.encode_regions((picture * weight)[None])[0] for weight in (fore, back)]
            found.append((k, *features, mask.mean()))
    return found


def slow_matching(pairs: list, texts: Tensor, prompts: Tensor | None, config) -> Tensor:
    total = torch.zeros((), dtype=texts.dtype)
    for k, fore, back, area in pairs:
        total = total - slow_log(fore, texts[k], complement=False)
        total = total - config.background_weight * slow_log(back, texts[k], complement=True)
        total = total + config.area_weight * area
        if prompts is not None:
            total = total - config.refine_weight * slow_log(fore, prompts[k], complement=True)
    return total / len(pairs)


def assert_same_gradients(found: Tensor, expected: Tensor, module: nn.Module, *, rtol: float, atol: float) -> None:
    parameters = list(module.parameters())
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
    gradients = torch.autograd.grad(found, parameters)
    assert max(gradient.abs().max() for gradient in gradients) > 100 * atol
    for gradient, wanted in zip(gradients, torch.autograd.grad(expected, parameters), strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=rtol, atol=atol)


@pytest.mark.parametrize("with_prompts", [False, True], ids=["match", "refine"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mask_epsilon": 1e-4, "clip_normalisation": "clip", "area_weight": 0.7},
        {"omega": 0.4},
        {"mask": "sigmoid", "area_weight": 0.5},
        {"mask": "sigmoid", "omega": 0.6, "background_weight": 0.75},
        {"antialias": True, "background_weight": 0.0, "refine_weight": 2.0},
    ],
)
def test_matching_and_refinement_equal_the_loops(changes, with_prompts) -> None:
    network, clip = network_with_structure(torch.float64), TinyClip().double()
    config = semples_config(**{"refine_weight": 0.3, **changes})
    texts, prompts = texts_near(clip, 3, seed=3), texts_near(clip, 3, seed=4) if with_prompts else None
    image = bright_images(4, 32, seed=1).double()
    batch = {"image": image, "labels": LABELS}
    result = matching_step(
        network,
        batch,
        regions=semples_regions(clip, config),
        class_texts=texts,
        prompts=prompts,
        semples=config,
    )
    maps = network(image)
    assert (maps[:, 0] > 0).any() and (maps[:, 0] < 0).any() and (maps[:, 1] < 0).all()
    slow = slow_matching(slow_regions(maps, image.clone(), clip, config), texts, prompts, config)
    assert_same_gradients(result.loss, slow, network, rtol=1e-7, atol=1e-10)
    assert result.counts == {"pairs": NUM_PAIRS} and ("loss/prompts" in result.means) == with_prompts


def test_joint_training_equals_the_loops_on_both_sides() -> None:
    """With a real CLIP, so in its float32."""
    clip, names = shipped_clip(), 3
    config = semples_config(
        mask="sigmoid", refine_weight=0.4, prompt=prompt_config(image_weight=0.8, text_weight=0.3, init="uniform")
    )
    vectors, template = start_of_prompts(clip, config.prompt, names, seed=0)
    network = _Joint(network_with_structure(torch.float32), LearnedPrompts(vectors)).eval()
    texts = texts_near(clip, 3, seed=3)
    image = bright_images(4, 32, seed=1)
    result = joint_step(
        network,
        {"image": image, "labels": LABELS},
        clip=clip,
        regions=semples_regions(clip, config),
        template=template,
        class_texts=texts,
        semples=config,
    )
    pairs = slow_regions(network.generator(image), image.clone(), clip, config)
    prompts = torch.stack([encode_prompts(clip, vector[None], template)[0] for vector in network.prompts.vectors])
    expected = slow_matching(pairs, texts, prompts.detach(), config)
    for k, _, back, _ in pairs:
        image_term = -torch.log((1 + prompts[k] @ back.detach()) / 2)
        text_term = torch.log((1 + prompts[k] @ texts[k]) / 2)
        expected = expected + (0.8 * image_term + 0.3 * text_term) / NUM_PAIRS
    assert_same_gradients(result.loss, expected, network, rtol=2e-4, atol=2e-6)
    assert result.means["loss/image"] > 0 > result.means["loss/text"]
    assert result.means["loss/prompts"] > 0.1  # not clamped: a gradient that went astray would show


@pytest.mark.parametrize("similarity", ["clamp", "shift"])
def test_a_prompt_step_equals_the_loop_over_features(similarity) -> None:
    clip = shipped_clip()
    settings = prompt_config(similarity=similarity, image_weight=0.6, text_weight=0.4, batch_size=5)
    vectors, template = start_of_prompts(clip, settings, 4, seed=0)
    prompts, texts, features = LearnedPrompts(vectors), texts_near(clip, 4, seed=3), texts_near(clip, 5, seed=5)
    encoded = encode_prompts(clip, prompts.vectors, template)
    if similarity == "clamp":  # a feature on the prompts' side, so that something is not clamped
        features[0] = encoded[2].detach()
        features[0] = nn.functional.normalize(features[0] + 0.5 * features[1], dim=0)
    classes = [2, 0, 2, 1, 2]  # class 3 is absent
    batch = {"feature": features, "class_id": torch.tensor(classes)}
    contrast = PromptContrast(clip=clip, template=template, class_texts=texts, settings=settings)
    result = prompt_step(prompts, batch, contrast=contrast)
    expected = torch.zeros(())
    for feature, k in zip(features, classes, strict=True):
        if similarity == "clamp":
            image, text = (slow_log(encoded[k], other, complement=False) for other in (feature, texts[k]))
        else:
            image, text = (torch.log((1 + encoded[k] @ other) / 2) for other in (feature, texts[k]))
        expected = expected + (-0.6 * image + 0.4 * text) / 5
    torch.testing.assert_close(result.loss, expected, rtol=1e-5, atol=1e-6)
    found, wanted = (torch.autograd.grad(loss, prompts.vectors)[0] for loss in (result.loss, expected))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-6)
    assert found[2].abs().max() > 1e-4 and found[3].abs().max() == 0
    assert math.isclose(result.loss.item(), 0.6 * result.means["loss/image"] + 0.4 * result.means["loss/text"],
                        rel_tol=1e-5)  # fmt: skip

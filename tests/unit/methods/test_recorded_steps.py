"""Trainings whose launches are recorded against the same trainings the plain way; batches differ in their pairs."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from qaclims_ray.methods.classifier.task import classifier_step
from qaclims_ray.methods.clims.task import clims_regions, clims_step
from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step
from qaclims_ray.methods.semples.matching import _Joint, joint_step, matching_step, region_options
from qaclims_ray.methods.semples.prompts import PromptContrast, prompt_step, start_of_prompts
from qaclims_ray.models.clip.prompts import LearnedPrompts
from qaclims_ray.models.generators.cam_net import build_cam_net
from qaclims_ray.models.graphs import CapturedModule
from qaclims_ray.training.meter import StepResult
from tests.ritc_fakes import CAM_NET, TinyClip, TinyTexts, regions_of, ritc_config
from tests.semples_fakes import clims_config, prompt_config, semples_config, shipped_clip, texts_near
from tests.unit.models.cpu_recorder import record_on_cpu

Step = Callable[[nn.Module, dict[str, Tensor]], StepResult]
IDS = ["0", "1", "2", "3"]
NUM_PAIRS = (3, 5, 4, 0, 6, 3, 2)
"""Pairs of each batch; up to four and up to eight are two shapes."""


def batch_of(step: int, num_pairs: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.zeros(12)
    labels[torch.randperm(12, generator=generator)[:num_pairs]] = 1
    return {"image": 1 + 0.5 * torch.randn(4, 3, 32, 32, generator=generator), "labels": labels.view(4, 3)}


def trained(network: nn.Module, wrapped: nn.Module, step: Step, batches: list[dict[str, Tensor]]) -> list[Tensor]:
    """Return losses and figures of every step, and then the parameters."""
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.01)
    found = []
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        result = step(wrapped, batch)
        result.loss.backward()
        optimizer.step()
        found += [result.loss.detach(), *(value.detach() for value in result.means.values())]
    return [*found, *(parameter.detach() for parameter in network.parameters())]


def assert_same(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[], tuple[nn.Module, Step]],
    batches: list[dict[str, Tensor]],
    *names: str,
    wraps: bool = True,
) -> None:
    torch.manual_seed(0)
    network, step = make()
    expected = trained(network, network, step, batches)
    recorded = record_on_cpu(monkeypatch)
    torch.manual_seed(0)
    network, step = make()
    found = trained(network, CapturedModule(network) if wraps else network, step, batches)
    assert set(recorded) == set(names)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


BATCHES = [batch_of(step, num_pairs) for step, num_pairs in enumerate(NUM_PAIRS)]
REGIONS = "CLIP's look at the regions"


@pytest.mark.parametrize(
    "options",
    [{}, {"region_crop": True, "clip_normalisation": "clip", "antialias": True}, {"region_mode": "both"}],
    ids=["released", "crops", "both masks"],
)
def test_ritc(monkeypatch: pytest.MonkeyPatch, options: Any) -> None:
    def make() -> tuple[nn.Module, Step]:
        ritc, bank = ritc_config(**options), TinyTexts(4)
        regions = regions_of(TinyClip(), ritc_regions(ritc))
        return build_cam_net(CAM_NET, 3), lambda network, batch: ritc_step(
            network, batch, IDS, bank=bank, regions=regions, ritc=ritc, images_per_step=4
        )

    assert_same(monkeypatch, make, BATCHES, "CamNet", REGIONS)


def test_clims(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[nn.Module, Step]:
        clims, bank = clims_config(), TinyTexts(4)
        regions = regions_of(TinyClip(), clims_regions(clims))
        return build_cam_net(CAM_NET, 3), lambda network, batch: clims_step(
            network, batch, IDS, bank=bank, regions=regions, clims=clims, images_per_step=4
        )

    assert_same(monkeypatch, make, BATCHES, "CamNet", REGIONS)


def test_the_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[nn.Module, Step]:
        return build_cam_net(CAM_NET, 3), lambda network, batch: classifier_step(network, batch, images_per_step=4)

    assert_same(monkeypatch, make, BATCHES, "CamNet")


def test_semples_matching_with_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[nn.Module, Step]:
        semples, clip = semples_config(), TinyClip()
        regions = regions_of(clip, region_options(semples, epsilon=1e-4))
        texts, prompts = torch.randn(2, 3, clip.dim)
        return build_cam_net(CAM_NET, 3), lambda network, batch: matching_step(
            network, batch, regions=regions, class_texts=texts, prompts=prompts, semples=semples
        )

    assert_same(monkeypatch, make, BATCHES, "CamNet", REGIONS)


def test_semples_jointly(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> tuple[nn.Module, Step]:
        semples, clip = semples_config(), shipped_clip()
        vectors, template = start_of_prompts(clip, semples.prompt, 3, seed=0)
        regions, texts = regions_of(clip, region_options(semples, epsilon=1e-4)), texts_near(clip, 3, seed=3)
        network = _Joint(build_cam_net(CAM_NET, 3), LearnedPrompts(vectors))
        return network, lambda network, batch: joint_step(
            network, batch, clip=clip, regions=regions, template=template, class_texts=texts, semples=semples
        )

    assert_same(monkeypatch, make, BATCHES, "_Joint", REGIONS)


@pytest.mark.parametrize("similarity", ["clamp", "shift"])
def test_semples_prompts(monkeypatch: pytest.MonkeyPatch, similarity: str) -> None:
    def make() -> tuple[nn.Module, Step]:
        clip, settings = shipped_clip(), prompt_config(batch_size=5, similarity=similarity)
        vectors, template = start_of_prompts(clip, settings, 6, seed=0)
        texts = texts_near(clip, 6, seed=3)
        contrast = PromptContrast(clip=clip, template=template, class_texts=texts, settings=settings)
        return LearnedPrompts(vectors), lambda network, batch: prompt_step(network, batch, contrast=contrast)

    classes = ([0, 1, 1, 3, 0], [5, 2, 0, 1, 3], [2, 2, 2, 2, 4], [0, 1, 2, 3, 5], [4, 4, 4, 4, 4])
    features = [texts_near(shipped_clip(), 5, seed=seed) for seed in range(5)]
    batches = [{"feature": f, "class_id": torch.tensor(c)} for f, c in zip(features, classes, strict=True)]
    assert_same(monkeypatch, make, batches, "SemPLeS's prompt step", wraps=False)

import dataclasses

import pytest
import torch
from torch import nn

from qaclims_ray.errors import ArtifactError
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import (
    build_mask_generator,
    initial_generator,
    load_mask_generator,
    save_mask_generator,
)
from qaclims_ray.models.network_folder import load_weights
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.optim import build_optimizer
from tests.ritc_fakes import CAM_NET


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return build_mask_generator(CAM_NET, 3)


class NoImages:
    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> dict:
        raise IndexError


def _step(wrapped: nn.Module, batch: dict) -> StepResult:
    return StepResult(loss=wrapped(batch["image"]).mean())


def _task(network, **changes):
    optim = OptimConfig(name="adamw", lr=0.01, head_lr_factor=3.0)
    return generator_task(network, _step, NoImages(), optim, freeze_batch_norm=True, **changes)


def test_the_head_alone_learns_and_at_its_own_rate(network) -> None:
    frozen = _task(network, scope="head")
    head = {id(p) for p in network.head_parameters()}
    assert head and {id(p) for p in network.parameters() if p.requires_grad} == head
    frozen.step(network, {"image": torch.randn(1, 3, 16, 16)}).loss.backward()
    assert all((p.grad is not None) == (id(p) in head) for p in network.parameters())
    backbone_group, head_group = build_optimizer(frozen.groups, frozen.optim).param_groups
    assert backbone_group["params"] == [] and {id(p) for p in head_group["params"]} == head
    assert (backbone_group["lr"], head_group["lr"]) == (0.01, 0.03)


def test_by_default_everything_learns(network) -> None:
    task = _task(network)
    groups = build_optimizer(task.groups, task.optim).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(network.parameters()))
    assert all(p.requires_grad for p in network.parameters())


def test_what_is_saved_loads_back(network, tmp_path) -> None:
    task = _task(network)
    task.save(str(tmp_path))
    saved = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    task.load(str(tmp_path))
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_weights_that_do_not_fit_are_refused(network, tmp_path) -> None:
    with pytest.raises(ArtifactError, match=r"network\.safetensors does not exist"):
        load_weights(network, str(tmp_path))
    save_mask_generator(build_mask_generator(CAM_NET, 4), str(tmp_path / "other"))
    with pytest.raises(ArtifactError, match="does not fit the network"):
        load_weights(network, str(tmp_path / "other"))
    (tmp_path / "other/network.safetensors").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match=r"it is a text .*broken"):
        load_weights(network, str(tmp_path / "other"))


def test_a_network_to_start_from_must_be_of_this_training(network, tmp_path) -> None:
    save_mask_generator(network, str(tmp_path))
    found = initial_generator(str(tmp_path), CAM_NET, 3)
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in found.state_dict().items())
    # Where pretrained weights came from no longer matters.
    initial_generator(str(tmp_path), dataclasses.replace(CAM_NET, weights="/old/place"), 3)
    with pytest.raises(ArtifactError, match="has 3 classes, the data set 5"):
        initial_generator(str(tmp_path), CAM_NET, 5)
    other: CamNetConfig = dataclasses.replace(CAM_NET, image_mean=(0.1, 0.1, 0.1))
    with pytest.raises(ArtifactError, match="train the classifier again"):
        initial_generator(str(tmp_path), other, 3)
    with pytest.raises(ArtifactError, match="no trained network"):
        initial_generator(str(tmp_path / "nowhere"), CAM_NET, 3)


def test_a_loaded_network_can_learn(network, tmp_path) -> None:
    """Freezing belongs to a training, not to what it starts from."""
    _task(network, scope="head").save(str(tmp_path))
    assert all(p.requires_grad for p in load_mask_generator(str(tmp_path)).parameters())

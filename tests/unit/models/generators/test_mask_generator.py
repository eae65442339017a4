import json
from pathlib import Path

import pytest
import torch

from qaclims_ray.errors import ArtifactError
from qaclims_ray.models.generators.cam_net import CamNet, build_cam_net, save_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import (
    MaskGenerator,
    build_mask_generator,
    load_mask_generator,
    save_mask_generator,
)
from qaclims_ray.models.generators.weaktr import WeakTr

CNN = CamNetConfig(backbone="miniature", output_stride=4)
WEAKTR = CamNetConfig(generator="weaktr", backbone="miniature_vit", output_stride=8, image_size=32)


@pytest.mark.parametrize(("config", "kind", "num_scores"), [(CNN, CamNet, 1), (WEAKTR, WeakTr, 3)])
def test_every_generator_keeps_the_interface(config: CamNetConfig, kind: type, num_scores: int) -> None:
    network = build_mask_generator(config, 6)
    assert isinstance(network, kind) and isinstance(network, MaskGenerator)
    assert (network.num_classes, network.config) == (6, config)
    image = torch.randn(2, 3, 40, 24)
    assert network(image).shape == (2, 6, 40 // config.output_stride, 24 // config.output_stride)
    scores = network(image, want="scores")
    assert [(tuple(score.shape), score.dtype) for score in scores] == [((2, 6), torch.float32)] * num_scores
    parts = [*network.head_parameters(), *network.backbone_parameters()]
    assert {id(part) for part in parts} == {id(parameter) for parameter in network.parameters()}


def test_a_module_without_the_interface_is_no_mask_generator() -> None:
    assert not isinstance(torch.nn.Conv2d(3, 5, 1), MaskGenerator)


@pytest.mark.parametrize("config", [CNN, WEAKTR])
def test_saved_generators_come_back(tmp_path: Path, config: CamNetConfig) -> None:
    network = build_mask_generator(config, 4).eval()
    save_mask_generator(network, str(tmp_path / "net"))
    loaded = load_mask_generator(str(tmp_path / "net"), "cpu")
    assert type(loaded) is type(network) and loaded.config == config and not loaded.training
    image = torch.randn(1, 3, 24, 40)
    assert torch.equal(loaded(image), network(image))
    assert {path.name for path in (tmp_path / "net").iterdir()} == {"network.json", "network.safetensors"}


@pytest.mark.parametrize("bias", [False, True])
def test_folders_from_before_there_was_a_choice_are_read(tmp_path: Path, bias: bool) -> None:
    network = build_cam_net(CNN, 4, classifier_bias=bias).eval()
    save_cam_net(network, str(tmp_path))
    description = json.loads((tmp_path / "network.json").read_text())
    old = ("backbone", "weights", "output_stride", "image_mean", "image_std", "pad_same")
    description["config"] = {name: description["config"][name] for name in old}
    (tmp_path / "network.json").write_text(json.dumps(description))
    loaded = load_mask_generator(str(tmp_path))
    assert isinstance(loaded, CamNet) and loaded.config == CNN
    assert (loaded.classifier.bias is not None) == bias
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded(image), network(image))


def test_broken_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="there is no trained network"):
        load_mask_generator(str(tmp_path))
    save_mask_generator(build_mask_generator(WEAKTR, 4), str(tmp_path))
    description = json.loads((tmp_path / "network.json").read_text())
    for change in ({"num_classes": 5}, {"config": {**description["config"], "generator": "unet"}}, {"config": None}):
        (tmp_path / "network.json").write_text(json.dumps({**description, **change}))
        with pytest.raises(ArtifactError, match="is broken"):
            load_mask_generator(str(tmp_path))
    (tmp_path / "network.json").write_text(
        json.dumps({**description, "config": {**description["config"], "generator": "cnn"}})
    )
    with pytest.raises(ArtifactError, match="is broken"):
        load_mask_generator(str(tmp_path))

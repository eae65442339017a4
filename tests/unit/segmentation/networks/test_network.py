import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file

from qaclims_ray.data.classes import Classes
from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.models.network_folder import CONFIG_NAME, WEIGHTS_NAME
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.network import (
    SegmentationNetwork,
    build_segmentation_network,
    load_segmentation_network,
    save_segmentation_network,
)

NUM_LABELS = 5
SMALL = {
    "encoder": SegmentationNetConfig(backbone="mobilenetv2_050", weights="random", width=16),
    "miniature": SegmentationNetConfig(backbone="miniature", weights="random", width=32),
    "deeplab_v2": SegmentationNetConfig(architecture="deeplab_v2", backbone="resnet18", weights="random"),
    "segmenter": SegmentationNetConfig(
        architecture="segmenter", backbone="miniature_vit", weights="random", image_size=64
    ),
    "mask2former": SegmentationNetConfig(architecture="mask2former", backbone="miniature", weights="random"),
}
each_network = pytest.mark.parametrize("config", SMALL.values(), ids=SMALL)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, NUM_LABELS, (2, 64, 96), generator=generator).to(torch.uint8)
    labels[0, :8] = 255
    return torch.randn(2, 3, 64, 96, generator=generator), labels


@each_network
def test_every_network_follows_the_protocol(config) -> None:
    net = build_segmentation_network(config, NUM_LABELS)
    assert isinstance(net, SegmentationNetwork)
    assert net.config == config and net.num_labels == NUM_LABELS
    head, backbone = list(net.head_parameters()), list(net.backbone_parameters())
    assert head and backbone
    assert len(head) + len(backbone) == len(list(net.parameters()))
    assert {id(p) for p in head + backbone} == {id(p) for p in net.parameters()}


@each_network
def test_training_reaches_every_parameter(config) -> None:
    """DDP waits for a gradient of each."""
    net = build_segmentation_network(config, NUM_LABELS).train()
    image, labels = batch()
    output = net(image, labels)
    if net.supervision == "dense":
        assert isinstance(output, tuple)
        assert all(logits.shape[:2] == (2, NUM_LABELS) for logits in output)
        loss = sum(logits.float().square().mean() for logits in output)
    else:
        assert output.shape == ()
        loss = output
    loss.backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


@each_network
def test_a_network_survives_its_folder(config, tmp_path) -> None:
    net = build_segmentation_network(config, NUM_LABELS)
    image, labels = batch()
    net(image, labels)  # moves batch norm statistics away from their start
    save_segmentation_network(net, str(tmp_path))
    loaded = load_segmentation_network(str(tmp_path))
    assert loaded.config == config and loaded.num_labels == NUM_LABELS and not loaded.training
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), net.eval()(image), rtol=0, atol=0)


@each_network
def test_the_seed_decides_everything(config) -> None:
    nets = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        nets.append(build_segmentation_network(config, NUM_LABELS).state_dict())
    assert all(torch.equal(nets[0][name], nets[1][name]) for name in nets[0])
    assert any(not torch.equal(nets[0][name], nets[2][name]) for name in nets[0])


def test_initial_weights_must_be_chosen() -> None:
    with pytest.raises(ConfigError, match=r"segmentation\.net\.weights is not chosen"):
        build_segmentation_network(dataclasses.replace(SMALL["encoder"], weights=""), NUM_LABELS)


def test_a_folder_needs_no_initial_weights_again(tmp_path) -> None:
    net = build_segmentation_network(SMALL["miniature"], NUM_LABELS)
    net.config = dataclasses.replace(net.config, weights="long/gone.pth")
    save_segmentation_network(net, str(tmp_path))
    assert load_segmentation_network(str(tmp_path)).config.weights == "long/gone.pth"


def test_broken_folders_are_refused(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="no trained network"):
        load_segmentation_network(str(tmp_path))
    save_segmentation_network(build_segmentation_network(SMALL["miniature"], NUM_LABELS), str(tmp_path))
    description = json.loads((tmp_path / CONFIG_NAME).read_text())
    assert description["num_labels"] == NUM_LABELS
    assert len(load_file(tmp_path / WEIGHTS_NAME)) > 20
    (tmp_path / CONFIG_NAME).write_text(json.dumps(description | {"num_labels": NUM_LABELS + 1}))
    with pytest.raises(ArtifactError, match="is broken"):
        load_segmentation_network(str(tmp_path))


def test_a_folder_says_what_its_labels_mean_and_one_that_does_not_is_read_too(tmp_path) -> None:
    net = build_segmentation_network(SMALL["miniature"], 3)
    save_segmentation_network(net, str(tmp_path / "new"), Classes(("cat", "dog")))
    save_segmentation_network(net, str(tmp_path / "old"))
    new, old = (json.loads((tmp_path / name / "network.json").read_text()) for name in ("new", "old"))
    assert new["class_names"] == ["cat", "dog"] and new["has_background"] is True
    assert "class_names" not in old
    for name in ("new", "old"):
        assert load_segmentation_network(str(tmp_path / name)).num_labels == 3

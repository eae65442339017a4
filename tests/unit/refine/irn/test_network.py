import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from qaclims_ray.errors import ArtifactError, ConfigError, ModelError
from qaclims_ray.models.generators.cam_net import build_cam_net, save_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.weaktr import build_weaktr, save_weaktr
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.network import (
    AffinityNet,
    boundary_maps,
    build_affinity_net,
    load_affinity_net,
    save_affinity_net,
)

SMALL = IrnConfig(backbone="miniature", weights="random", width=32)


def _small(seed: int = 0) -> AffinityNet:
    torch.manual_seed(seed)
    return build_affinity_net(SMALL)


def _classifier(folder, **changes) -> CamNetConfig:
    config = CamNetConfig(**changes)
    torch.manual_seed(3)
    net = build_cam_net(config, 4)
    for name, value in net.backbone.named_buffers():
        if name.endswith("running_mean"):
            value.uniform_(-0.1, 0.1)
    save_cam_net(net, str(folder))
    return config


def test_resnet50_has_the_published_branches() -> None:
    net = build_affinity_net(IrnConfig(weights="random"))

    def parameters(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)

    stages = 64 + 256 + 512 + 1024 + 2048
    assert parameters(net.boundary) == stages * 32 + 5 * 2 * 32 + 5 * 32 + 1
    reduced = 64 * 64 + 256 * 128 + (512 + 1024 + 2048) * 256
    norms = 2 * (64 + 128 + 5 * 256)
    assert parameters(net.displacement) == reduced + 768 * 256 + (64 + 128 + 256) * 256 + norms + 2 * 256
    assert parameters(net) == parameters(net.boundary) + parameters(net.displacement)
    groups = [module.num_groups for module in net.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert groups == [4] * 5 + [8, 16, 16, 16, 16, 16, 16]
    boundary, displacement = net.eval()(torch.randn(1, 3, 70, 93))
    assert boundary.shape == (1, 1, 18, 24) and displacement.shape == (1, 2, 18, 24)


@pytest.mark.parametrize("backbone", ["miniature", "mobilenetv2_100", "resnet18"])
@pytest.mark.parametrize("size", [(64, 64), (45, 50), (21, 70)])
def test_the_grid_has_a_cell_for_every_begun_four_pixels(backbone, size) -> None:
    net = build_affinity_net(IrnConfig(backbone=backbone, weights="random", width=24)).eval()
    boundary, displacement = net(torch.randn(2, 3, *size))
    expected = (-(-size[0] // 4), -(-size[1] // 4))
    assert boundary.shape == (2, 1, *expected) and displacement.shape == (2, 2, *expected)
    assert boundary.std() > 0 and displacement.std() > 0


def test_the_backbone_neither_learns_nor_moves() -> None:
    net = _small().train()
    before = {name: value.clone() for name, value in net.backbone.state_dict().items()}
    boundary, displacement = net(torch.randn(2, 3, 32, 32))
    (boundary.sum() + displacement.square().sum()).backward()
    assert net.training and not any(module.training for module in net.backbone.modules())
    assert all(parameter.grad is None for parameter in net.backbone.parameters())
    for branch in (net.boundary, net.displacement):
        assert all(parameter.grad.abs().sum() > 0 for parameter in branch.parameters())
    assert all(torch.equal(value, before[name]) for name, value in net.backbone.state_dict().items())


def test_the_mean_displacement_is_subtracted_in_evaluation_only() -> None:
    net = _small()
    net.mean_displacement.copy_(torch.tensor([1.0, -2.0]))
    image = torch.randn(1, 3, 24, 24)
    with torch.no_grad():
        training, evaluation = net.train()(image)[1], net.eval()(image)[1]
    expected = torch.tensor([1.0, -2.0]).view(1, 2, 1, 1).expand_as(training)
    torch.testing.assert_close(training - evaluation, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "miniature", "output_stride": 4, "image_mean": (0.4, 0.4, 0.3)},
        {"backbone": "mobilenetv2_100", "pad_same": True, "image_mean": (0.5,) * 3, "image_std": (0.5,) * 3},
        {"backbone": "resnet18", "output_stride": 32},
    ],
    ids=lambda changes: changes["backbone"],
)
def test_the_classifiers_backbone_travels_with_the_folder(tmp_path, changes) -> None:
    config = _classifier(tmp_path / "classifier", **changes)
    irn = IrnConfig(backbone=config.backbone, weights="classifier", width=16)
    net = build_affinity_net(irn, classifier_dir=str(tmp_path / "classifier")).eval()
    torch.manual_seed(3)
    expected = build_cam_net(config, 4).backbone.state_dict()
    found = net.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items() if name.endswith("weight"))
    assert any(name.endswith("running_mean") and value.abs().sum() > 0 for name, value in found.items())
    net.mean_displacement.fill_(0.25)
    save_affinity_net(net, str(tmp_path / "net"))
    loaded = load_affinity_net(str(tmp_path / "net"))
    assert loaded.config == irn and not loaded.training
    image = torch.randn(1, 3, 45, 61)
    for mine, theirs in zip(net(image), loaded(image), strict=True):
        assert torch.equal(mine, theirs)
    mean, std = loaded.normalisation
    assert mean == pytest.approx(config.image_mean) and std == pytest.approx(config.image_std)


def test_weights_from_a_file(tmp_path) -> None:
    torch.manual_seed(5)
    backbone = build_cam_net(CamNetConfig(backbone="resnet18"), 2).backbone
    save_file(backbone.state_dict(), tmp_path / "resnet18.safetensors")
    irn = IrnConfig(backbone="resnet18", weights=str(tmp_path / "resnet18.safetensors"), width=16)
    assert torch.equal(build_affinity_net(irn).backbone.conv1.weight, backbone.conv1.weight)
    with pytest.raises(ModelError, match=r"masks\.irn\.weights"):
        build_affinity_net(dataclasses.replace(irn, backbone="resnet34"))


def test_boundary_maps_come_in_the_order_of_the_images() -> None:
    net = _small().eval()
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((40, 48), (33, 50), (40, 48))]
    alone = [boundary_maps(net, [image], 0)[0] for image in images]
    for found, expected in zip(boundary_maps(net, images, 0), alone, strict=True):
        torch.testing.assert_close(found, expected)


def test_the_boundary_map_is_that_of_the_image_and_its_mirror_image() -> None:
    net = _small().eval()
    image = torch.randint(256, (3, 40, 48), dtype=torch.uint8)
    found = boundary_maps(net, [image], 0)[0]
    assert found.shape == (10, 12) and found.min() > 0 and found.max() < 1
    pixels = (image / 255 - net.image_mean.view(3, 1, 1)) / net.image_std.view(3, 1, 1)
    with torch.no_grad():
        mine, mirrored = net(pixels[None])[0][0, 0], net(pixels.flip(-1)[None])[0][0, 0]
    torch.testing.assert_close(found, ((mine + mirrored.flip(-1)) / 2).sigmoid())
    # Mirror image in, mirror image out.
    torch.testing.assert_close(boundary_maps(net, [image.flip(-1)], 0)[0], found.flip(-1))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_boundary_maps_of_another_precision_are_nearly_those_of_fp32(precision) -> None:
    net, image = _small().eval(), torch.randint(256, (3, 40, 48), dtype=torch.uint8)
    exact, rounded = boundary_maps(net, [image], 0)[0], boundary_maps(net, [image], 0, precision=precision)[0]
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0, atol=0.03)


def test_padding_keeps_the_grid_and_refuses_larger_images() -> None:
    net = _small().eval()
    image = torch.randint(256, (3, 30, 41), dtype=torch.uint8)
    plain, padded = boundary_maps(net, [image], 0)[0], boundary_maps(net, [image], 64)[0]
    assert plain.shape == padded.shape == (8, 11) and not torch.allclose(plain, padded)
    with pytest.raises(ConfigError, match=r"41x30.*masks\.irn\.pad_px 40"):
        boundary_maps(net, [image], 40)


def test_unsuitable_settings_are_explained(tmp_path) -> None:
    _classifier(tmp_path / "classifier", backbone="resnet18")
    save_weaktr(
        build_weaktr(CamNetConfig(generator="weaktr", backbone="miniature_vit", output_stride=8), 2),
        str(tmp_path / "weaktr"),
    )
    classifier = dataclasses.replace(SMALL, weights="classifier")
    with pytest.raises(ConfigError, match="trained none"):
        build_affinity_net(classifier)
    with pytest.raises(ConfigError, match=r"masks\.irn\.backbone miniature.*resnet18"):
        build_affinity_net(classifier, classifier_dir=str(tmp_path / "classifier"))
    with pytest.raises(ConfigError, match="weaktr"):
        build_affinity_net(classifier, classifier_dir=str(tmp_path / "weaktr"))
    with pytest.raises(ConfigError, match=r"masks\.irn\.weights is empty"):
        build_affinity_net(dataclasses.replace(SMALL, weights=""))
    with pytest.raises(ConfigError, match="convnext_atto"):
        build_affinity_net(IrnConfig(backbone="convnext_atto", weights="random"))
    with pytest.raises(ConfigError, match="resnet51"):
        build_affinity_net(IrnConfig(backbone="resnet51", weights="random"))


def test_broken_folders_are_refused(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="no trained network"):
        load_affinity_net(str(tmp_path))
    save_affinity_net(_small(), str(tmp_path))
    description = json.loads((tmp_path / "network.json").read_text())
    description["config"]["width"] = 64
    (tmp_path / "network.json").write_text(json.dumps(description))
    with pytest.raises(ArtifactError, match="broken"):
        load_affinity_net(str(tmp_path))

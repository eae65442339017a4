import json

import pytest
import timm
import torch
from safetensors.torch import load, save_file

from qaclims_ray.errors import ArtifactError, ConfigError, ModelError, QaclimsError
from qaclims_ray.models.generators.cam_net import build_cam_net, load_cam_net, save_cam_net
from qaclims_ray.models.generators.config import CamNetConfig

MINIATURE = CamNetConfig(backbone="miniature", output_stride=4)


def test_miniature_has_stride_four_and_no_bias() -> None:
    net = build_cam_net(MINIATURE, 8)
    assert net(torch.zeros(2, 3, 64, 64)).shape == (2, 8, 16, 16)
    assert net.classifier.bias is None
    assert 0.2e6 < sum(p.numel() for p in net.parameters()) < 0.3e6


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_050"])
def test_timm_backbones_honour_the_stride_and_train_whole(name, stride) -> None:
    net = build_cam_net(CamNetConfig(backbone=name, output_stride=stride), 5)
    logits = net(torch.randn(2, 3, 96, 64))
    assert logits.shape == (2, 5, 96 // stride, 64 // stride)
    logits.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None] == []


def test_resnet_follows_the_released_code() -> None:
    """Row R8: stride 16 without dilation, frozen stem."""
    net = build_cam_net(CamNetConfig(backbone="resnet18", output_stride=16), 3)
    convs = [m for m in net.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    assert {m.dilation for m in convs} == {(1, 1)}
    frozen = {name for name, p in net.named_parameters() if not p.requires_grad}
    assert frozen == {"backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"}


def test_resnet_without_dilation_computes_what_a_plain_resnet_does_before_its_last_stage() -> None:
    net = build_cam_net(CamNetConfig(backbone="resnet18", output_stride=16), 3).eval()
    plain = timm.create_model("resnet18", num_classes=0, global_pool="").eval()
    plain.load_state_dict(net.backbone.state_dict())
    image = torch.randn(1, 3, 64, 64)
    # Every second position of the undilated stage 4 sees other inputs, but its first convolution's grid is shared.
    features = {}
    for key, model in (("net", net.backbone), ("plain", plain)):
        model.layer4[0].conv1.register_forward_hook(lambda m, i, o, key=key: features.__setitem__(key, o))
        model(image)
    torch.testing.assert_close(features["net"][..., ::2, ::2], features["plain"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet5000"}, "timm has no model 'resnet5000'"),
        ({"backbone": "resnet1"}, "did you mean"),
        ({"backbone": "vgg11"}, "cannot be built with output stride 16"),
        ({"backbone": "vit_tiny_patch16_224"}, "must be a convolutional network"),
        ({"backbone": "resnet18", "pad_same": True}, "and pad_same"),
        ({"backbone": "resnet18", "output_stride": 12}, "output stride 12"),
        ({"backbone": "miniature"}, "has stride 4"),
        ({"backbone": "miniature", "output_stride": 4, "weights": "timm"}, "no pretrained weights"),
        ({"backbone": "miniature", "output_stride": 4, "pad_same": True}, "symmetric padding"),
    ],
)
def test_bad_settings_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_cam_net(CamNetConfig(**changes), 3)


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_pretrained_weights_load_without_their_classifier(tmp_path, suffix) -> None:
    source = timm.create_model("mobilenetv2_050", num_classes=7, pad_type="same")
    weights = {
        name: value.half() if value.is_floating_point() else value for name, value in source.state_dict().items()
    }
    path = str(tmp_path / f"weights.{suffix}")
    save_file(weights, path) if suffix == "safetensors" else torch.save({"state_dict": weights}, path)
    net = build_cam_net(CamNetConfig(backbone="mobilenetv2_050", weights=path, pad_same=True), 3)
    for name, value in net.backbone.state_dict().items():
        assert torch.equal(value, weights[name].to(value.dtype)), name
    # TensorFlow's padding: an odd size keeps ceil(size / stride).
    assert net(torch.zeros(1, 3, 65, 65)).shape[2:] == (5, 5)


def test_weights_that_do_not_fit_are_reported(tmp_path) -> None:
    weights = timm.create_model("resnet18").state_dict()
    weights["layer9.weight"] = torch.zeros(1)
    del weights["layer1.0.conv1.weight"]
    weights["layer2.0.bn1.bias"] = torch.zeros(3)
    path = str(tmp_path / "weights.pth")
    torch.save(weights, path)
    told = r"Missing in the file: layer1.0.conv1.* Unknown to the network: layer9.* Other shape: layer2.*\(3,\) instead"
    with pytest.raises(ModelError, match=told):
        build_cam_net(CamNetConfig(backbone="resnet18", weights=path), 3)


class Evil:
    """Unpickling it would run code."""

    def __reduce__(self):
        return print, ("unpickled",)


@pytest.mark.parametrize("content", ["garbage", "list", "pickle", "absent"])
@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_files_that_are_no_weights(tmp_path, capsys, content, suffix) -> None:
    path = tmp_path / f"weights.{suffix}"
    if content == "garbage":
        path.write_bytes(b"not weights at all")
    elif content != "absent":
        torch.save([torch.zeros(1)] if content == "list" else Evil(), path)
    with pytest.raises(QaclimsError, match=r"weights\."):
        build_cam_net(CamNetConfig(backbone="resnet18", weights=str(path)), 3)
    assert "unpickled" not in capsys.readouterr().out


@pytest.mark.parametrize("bias", [True, False])
def test_saved_networks_come_back(tmp_path, bias) -> None:
    net = build_cam_net(MINIATURE, 4, classifier_bias=bias)
    save_cam_net(net, str(tmp_path / "net"))
    loaded = load_cam_net(str(tmp_path / "net"), "cpu")
    assert loaded.config == MINIATURE and not loaded.training
    assert (loaded.classifier.bias is not None) == bias
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded(image), net.eval()(image))


def test_loading_needs_no_pretrained_file(tmp_path) -> None:
    source = timm.create_model("resnet18")
    path = tmp_path / "resnet18.pth"
    torch.save(source.state_dict(), path)
    config = CamNetConfig(backbone="resnet18", weights=str(path))
    save_cam_net(build_cam_net(config, 2), str(tmp_path / "net"))
    path.unlink()
    assert load_cam_net(str(tmp_path / "net")).config == config


def test_absent_and_broken_networks(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="there is no trained network"):
        load_cam_net(str(tmp_path))
    save_cam_net(build_cam_net(MINIATURE, 4), str(tmp_path))
    weights = load((tmp_path / "network.safetensors").read_bytes())
    description = json.loads((tmp_path / "network.json").read_text())
    (tmp_path / "network.json").write_text(json.dumps({**description, "num_classes": 5}))
    with pytest.raises(ArtifactError, match="is broken"):
        load_cam_net(str(tmp_path))
    (tmp_path / "network.json").write_text(json.dumps(description))
    (tmp_path / "network.safetensors").write_bytes(b"short")
    with pytest.raises(ArtifactError, match="is broken"):
        load_cam_net(str(tmp_path))
    save_file({**weights, "surplus": torch.zeros(1)}, tmp_path / "network.safetensors")
    with pytest.raises(ArtifactError, match="surplus"):
        load_cam_net(str(tmp_path))


def test_scores_are_the_mean_logits_in_float32() -> None:
    net = build_cam_net(MINIATURE, 4, classifier_bias=True).bfloat16()
    image = torch.randn(2, 3, 32, 24).bfloat16()
    (score,) = net.eval()(image, want="scores")
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, net(image).float().mean(dim=(2, 3)))


def test_head_and_backbone_share_out_all_parameters() -> None:
    net = build_cam_net(MINIATURE, 4, classifier_bias=True)
    assert [tuple(part.shape) for part in net.head_parameters()] == [(4, 96, 1, 1), (4,)]
    parts = [*net.head_parameters(), *net.backbone_parameters()]
    assert {id(part) for part in parts} == {id(parameter) for parameter in net.parameters()}
    assert net.num_classes == 4

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.generators.cam_net import MiniatureBackbone
from qaclims_ray.segmentation.config import SegmentationConfig, SegmentationNetConfig
from qaclims_ray.segmentation.networks.encoder import build_encoder_segmenter


def settings(**changes) -> SegmentationNetConfig:
    return SegmentationNetConfig(**({"backbone": "miniature", "weights": "random", "width": 24} | changes))


@pytest.mark.parametrize(
    ("backbone", "stride"),
    [("miniature", 2), ("resnet18", 4), ("mobilenetv2_050", 4), ("convnext_atto", 4), ("regnety_002", 4)],
)
def test_logits_have_the_finest_stages_resolution_and_the_labels_in_training(backbone, stride) -> None:
    net = build_encoder_segmenter(settings(backbone=backbone), 6)
    image = torch.randn(2, 3, 64, 96)
    expected = (2, 6, 64 // stride, 96 // stride)
    assert net.eval()(image).shape == expected
    (trained,) = net.train()(image, torch.zeros(2, 64, 96, dtype=torch.uint8))
    assert trained.shape == (2, 6, 64, 96)
    trained.square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("pad_same", [False, True])
def test_images_of_any_size_pass(pad_same) -> None:
    net = build_encoder_segmenter(settings(backbone="mobilenetv2_050", pad_same=pad_same), 3).eval()
    assert net(torch.randn(1, 3, 75, 50)).shape == (1, 3, 19, 13)


@pytest.mark.parametrize(("norm", "own"), [("group", torch.nn.GroupNorm), ("batch", torch.nn.BatchNorm2d)])
def test_a_decoder_is_normalised_as_named(norm, own) -> None:
    decoder = build_encoder_segmenter(settings(decoder_norm=norm), 3).decoder
    norms = [module for module in decoder.modules() if isinstance(module, torch.nn.GroupNorm | torch.nn.BatchNorm2d)]
    assert len(norms) == 3 and {type(module) for module in norms} == {own}


@pytest.mark.parametrize(("width", "groups"), [(128, 32), (48, 16), (5, 1)])
def test_a_group_norm_has_as_many_groups_as_fit(width, groups) -> None:
    decoder = build_encoder_segmenter(settings(width=width), 3).decoder
    assert {module.num_groups for module in decoder.modules() if isinstance(module, torch.nn.GroupNorm)} == {groups}


def test_a_decoder_normalises_features_of_any_scale_beside_a_fixed_batch_norm() -> None:
    """A backbone whose batch norm is fixed gives features as large as its weights make them."""
    decoder = build_encoder_segmenter(settings(), 3).train().decoder
    stages = [torch.randn(2, width, side, side) for width, side in ((24, 16), (96, 8))]
    once, scaled = (decoder([factor * stage for stage in stages]) for factor in (1.0, 20.0))
    assert torch.allclose(once, scaled, atol=1e-2)
    assert decoder([20.0 * stages[0][:1], 20.0 * stages[1][:1]]).allclose(scaled[:1], atol=1e-5), "image by image"


def test_a_new_decoder_has_no_statistics_that_could_be_kept() -> None:
    net = settings(decoder_norm="batch")
    with pytest.raises(ConfigError, match=r"decoder_norm is batch.*set decoder_norm group, or freeze_batch_norm false"):
        SegmentationConfig(net=net, freeze_batch_norm=True)
    assert SegmentationConfig(net=net).net.decoder_norm == "batch"
    assert SegmentationConfig(net=settings(), freeze_batch_norm=True).freeze_batch_norm


def test_every_stage_matters() -> None:
    net = build_encoder_segmenter(settings(backbone="resnet18"), 3).eval()
    image = torch.randn(1, 3, 64, 64)
    before = net(image)
    assert len(net.decoder.laterals) == 4
    for lateral in net.decoder.laterals:
        weight = lateral[0].weight
        kept = weight.detach().clone()
        with torch.no_grad():
            weight.zero_()
            assert not torch.equal(net(image), before)
            weight.copy_(kept)


@pytest.mark.parametrize(
    ("backbone", "pad_same"), [("resnet18", False), ("mobilenetv2_050", True), ("convnext_atto", False)]
)
def test_weights_of_the_whole_timm_network_load(tmp_path, backbone, pad_same) -> None:
    """timm calls layers of some families otherwise once the stages are taken apart."""
    options = {"pad_type": "same"} if pad_same else {}
    source = timm.create_model(backbone, num_classes=7, **options).eval()
    for value in source.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            torch.nn.init.uniform_(value, 0.5, 1.5)
    path = str(tmp_path / "weights.safetensors")
    save_file(source.state_dict(), path)
    net = build_encoder_segmenter(settings(backbone=backbone, weights=path, pad_same=pad_same), 3).eval()
    image = torch.randn(1, 3, 64, 64)
    expected = source.forward_intermediates(image, intermediates_only=True)[-4:]
    for stage, plain in zip(net.encoder(image), expected, strict=True):
        torch.testing.assert_close(stage, plain)


def test_miniature_starts_from_a_mask_generators_backbone(tmp_path) -> None:
    source = MiniatureBackbone()
    path = str(tmp_path / "weights.safetensors")
    save_file(source.state_dict(), path)
    net = build_encoder_segmenter(settings(weights=path), 3).eval()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(net.encoder(image)[1], source.eval()(image))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "resnet5000"}, "timm has no model"),
        ({"backbone": "vit_tiny_patch16_224"}, "cannot take|expected"),
        ({"backbone": "resnet18", "pad_same": True}, "and pad_same"),
        ({"weights": "timm"}, "no timm weights"),
        ({"pad_same": True}, "symmetric padding"),
    ],
)
def test_bad_settings_are_refused(changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        build_encoder_segmenter(settings(**changes), 3)


def test_weights_of_another_network_are_refused(tmp_path) -> None:
    path = str(tmp_path / "weights.safetensors")
    save_file(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(ModelError, match=r"segmentation\.net\.weights .* does not fit"):
        build_encoder_segmenter(settings(backbone="mobilenetv2_050", weights=path), 3)


def test_the_miniature_learns_small_objects() -> None:
    torch.manual_seed(0)
    net = build_encoder_segmenter(settings(width=16), 3)
    image, labels = torch.randn(2, 3, 64, 64) * 0.3, torch.zeros(2, 64, 64, dtype=torch.long)
    for index in range(2):
        top, left = 6 + 9 * index, 40 - 8 * index
        for label, (y, x) in enumerate(((top, left), (top + 14, left)), start=1):
            image[index, label, y : y + 11, x : x + 11] += 1.5
            labels[index, y : y + 11, x : x + 11] = label
    optimizer = torch.optim.AdamW(net.parameters(), lr=5e-3)
    for _ in range(40):
        (logits,) = net(image, labels.to(torch.uint8))
        upsampled = F.interpolate(logits, size=(64, 64), mode="bilinear")
        loss = F.cross_entropy(upsampled, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        predicted = F.interpolate(net(image), size=(64, 64), mode="bilinear").argmax(dim=1)
    for label in range(3):
        hit, own = (predicted == label), (labels == label)
        assert (hit & own).sum() / (hit | own).sum() > 0.9

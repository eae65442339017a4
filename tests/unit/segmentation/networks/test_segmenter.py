import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.network_folder import load_network, save_network
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.segmenter import build_segmenter

TINY = SegmentationNetConfig(architecture="segmenter", backbone="miniature_vit", weights="random", image_size=32)
VIT = dataclasses.replace(TINY, backbone="vit_tiny_patch16_224", image_size=64)


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def changed(config: SegmentationNetConfig, **changes: object) -> SegmentationNetConfig:
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def picture_and_labels() -> tuple[Tensor, Tensor]:
    """Two pictures whose colours say the labels, 0 to 2."""
    labels = torch.zeros(2, 32, 32, dtype=torch.uint8)
    labels[0, 8:24, :16], labels[1, 16:] = 1, 2
    return F.one_hot(labels.long(), 3).permute(0, 3, 1, 2).float(), labels


def test_test_time_logits_have_a_cell_per_patch_and_training_logits_the_images_size() -> None:
    network = build_segmenter(TINY, 5)
    for height, width in ((32, 32), (64, 24)):
        assert network(torch.randn(2, 3, height, width)).shape == (2, 5, height // 8, width // 8)
        labels = torch.zeros(2, height, width, dtype=torch.uint8)
        (logits,) = network(torch.randn(2, 3, height, width), labels)
        assert logits.shape == (2, 5, height, width)
    assert (network.num_labels, network.supervision) == (5, "dense")


def test_an_incomplete_patch_is_padded_with_the_mean_colour_and_cut_off() -> None:
    network = build_segmenter(TINY, 3).eval()
    image = torch.randn(1, 3, 30, 20)
    padded = torch.zeros(1, 3, 32, 24)
    padded[:, :, :30, :20] = image
    expected = F.interpolate(network(padded), size=(32, 24), mode="bilinear", align_corners=False)[:, :, :30, :20]
    assert torch.equal(network(image), expected)


def test_the_encoder_computes_what_timms_own_does() -> None:
    network = build_segmenter(VIT, 3).eval()
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    vit.load_state_dict(network.encoder.state_dict())
    image = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(network._encode(image), vit.forward_features(image)[:, 1:])
    flexible = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0, dynamic_img_size=True).eval()
    flexible.load_state_dict(network.encoder.state_dict())
    image = torch.randn(2, 3, 48, 96)
    torch.testing.assert_close(network._encode(image), flexible.forward_features(image)[:, 1:])


def test_masks_are_normalised_products_of_patches_and_labels() -> None:
    """Longer projections change nothing: vectors have length 1, then the labels of a patch are normalised."""
    decoder = build_segmenter(TINY, 4).eval().decoder
    patches = torch.randn(2, 6, 96)
    logits = decoder(patches)
    with torch.no_grad():
        decoder.project_patches.weight *= 7
        decoder.project_labels.weight *= 0.2
    torch.testing.assert_close(decoder(patches), logits, rtol=1e-3, atol=1e-3)
    products = []
    handle = decoder.mask_norm.register_forward_pre_hook(lambda _, inputs: products.append(inputs[0]))
    decoder(patches)
    handle.remove()
    (cosines,) = products
    assert cosines.shape == (2, 6, 4) and 0 < cosines.abs().max() <= 1
    torch.testing.assert_close(logits, F.layer_norm(cosines, (4,)), rtol=1e-3, atol=1e-3)


def test_the_published_size_has_as_many_parameters_as_published() -> None:
    """Seg-S-Mask/16: 26 M, with ADE20k's 150 labels at 512 pixels."""
    network = build_segmenter(changed(TINY, backbone="deit_small_patch16_224", image_size=512), 21)
    encoder, decoder = (
        sum(parameter.numel() for parameter in parameters)
        for parameters in (network.backbone_parameters(), network.head_parameters())
    )
    # DeiT-S without its classifier; positions of 1024 patches instead of 196.
    assert encoder == 21_665_664 + (1024 - 196) * 384
    # Two blocks, two norms, three projections, 21 label tokens.
    block = 12 * 384**2 + 13 * 384
    assert decoder == 2 * block + 2 * 384 + 2 * 21 + 3 * 384**2 + 384 + 21 * 384
    assert encoder + decoder == 25_984_170
    assert round((encoder + decoder + 129 * (384 + 2)) / 1e6) == 26


def test_every_parameter_learns_and_a_batch_can_be_learnt() -> None:
    network = build_segmenter(TINY, 3).train()
    image, labels = picture_and_labels()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(25):
        (logits,) = network(image, labels)
        loss = F.cross_entropy(logits, labels.long())
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]


def test_backbone_and_head_are_all_parameters() -> None:
    network = build_segmenter(TINY, 3)
    groups = [*network.backbone_parameters(), *network.head_parameters()]
    assert {id(parameter) for parameter in groups} == {id(parameter) for parameter in network.parameters()}
    assert len(groups) == len(list(network.parameters()))


def test_stochastic_depth_acts_in_the_encoder_in_training_only() -> None:
    network = build_segmenter(TINY, 3).train()
    image = torch.randn(8, 3, 32, 32)
    assert not torch.equal(network._encode(image), network._encode(image))
    patches = torch.randn(2, 6, 96)
    assert torch.equal(network.decoder(patches), network.decoder(patches))
    network.eval()
    assert torch.equal(network(image), network(image))


def test_saved_and_read_back_it_computes_the_same(tmp_path: Path) -> None:
    """It starts from a file of another image size, which is gone when it is read back."""
    source = timm.create_model("vit_tiny_patch16_224", img_size=96)
    weights = tmp_path / "vit.pth"
    torch.save(source.state_dict(), weights)
    network = build_segmenter(changed(VIT, weights=str(weights)), 4).eval()
    assert torch.equal(network.encoder.blocks[5].mlp.fc1.weight, source.blocks[5].mlp.fc1.weight)  # type: ignore[union-attr]
    assert network.encoder.pos_embed.shape == (1, 17, 192)
    weights.unlink()
    save_network(network, network.config, str(tmp_path / "net"), num_labels=4)
    again = load_network(
        str(tmp_path / "net"),
        lambda config, description: build_segmenter(config, description["num_labels"]),
        "cpu",
        config_type=SegmentationNetConfig,
    )
    image = torch.randn(1, 3, 64, 80)
    assert torch.equal(again(image), network(image))
    assert again.config == network.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"backbone": "no_such_vit"}, "timm has no model"),
        ({"backbone": "resnet18"}, "plain ViT"),
        ({"backbone": "deit_tiny_distilled_patch16_224"}, "plain ViT"),
        ({"backbone": "vit_tiny_r_s16_p8_224"}, "plain ViT"),
        ({"image_size": 60}, "multiple of 16"),
        ({"backbone": "miniature_vit", "image_size": 36}, "multiple of 8"),
        ({"backbone": "miniature_vit", "weights": "timm"}, "no pretrained weights"),
    ],
)
def test_backbones_that_do_not_do_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_segmenter(changed(VIT, **changes), 3)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    torch.save(timm.create_model("resnet18").state_dict(), path)
    with pytest.raises(ModelError, match=r"segmentation.net.weights .*(does not fit|cannot be read)"):
        build_segmenter(changed(VIT, weights=str(path)), 4)

"""Every family of networks takes the weights of a wild file, and says what a bad one is."""

import json
from collections.abc import Callable
from pathlib import Path

import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Mask2FormerForUniversalSegmentation, SwinConfig, SwinModel

from qaclims_ray.errors import ArtifactError, ModelError
from qaclims_ray.models.backbone import load_backbone_weights
from qaclims_ray.models.class_token_vit import build_vit
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.generators.cam_net import MiniatureBackbone, build_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.network_folder import WEIGHTS_NAME
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.network import (
    build_segmentation_network,
    load_segmentation_network,
    save_segmentation_network,
)
from qaclims_ray.training.checkpoint import Progress, restore_checkpoint, save_checkpoint
from tests.unit.models.wild_files import assert_close, write_wild

ARCHITECTURE = "qaclims-test-wild"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 350000000\n"


@pytest.fixture(scope="module", autouse=True)
def architecture(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    config = {
        "embed_dim": 8, "quick_gelu": True,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }  # fmt: skip
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


def _clip(path: Path) -> nn.Module:
    return load_clip(ARCHITECTURE, str(path), device="cpu", mask_adapted=False).model


def _resnet(path: Path) -> nn.Module:
    return build_cam_net(CamNetConfig(backbone="resnet18", weights=str(path)), 3).backbone


def _vit() -> nn.Module:
    return build_vit(CamNetConfig(generator="weaktr", backbone="miniature_vit", output_stride=8, image_size=32))


def _filled_vit(path: Path) -> nn.Module:
    vit = _vit()
    load_backbone_weights(vit, str(path))
    return vit


def _encoder(path: Path) -> nn.Module:
    return build_segmentation_network(
        SegmentationNetConfig(backbone="miniature", weights=str(path)), 3
    ).encoder.backbone


def _deeplab(path: Path) -> nn.Module:
    config = SegmentationNetConfig(architecture="deeplab_v2", backbone="resnet18", weights=str(path))
    return build_segmentation_network(config, 3).backbone


FAMILIES: dict[str, tuple[Callable[[], nn.Module], Callable[[Path], nn.Module]]] = {
    "CLIP": (lambda: open_clip.create_model(ARCHITECTURE), _clip),
    "CAM network": (lambda: timm.create_model("resnet18"), _resnet),
    "ViT": (_vit, _filled_vit),
    "encoder": (MiniatureBackbone, _encoder),
    "DeepLab": (lambda: timm.create_model("resnet18"), _deeplab),
}  # fmt: skip
each_family = pytest.mark.parametrize("family", FAMILIES)


def _without_head(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in weights.items() if not name.startswith("fc.")}


@each_family
@pytest.mark.parametrize("prefix", ["", "module._orig_mod.", "model.backbone."])
def test_a_wild_file_loads(tmp_path: Path, family: str, prefix: str) -> None:
    make, load = FAMILIES[family]
    weights = make().state_dict()
    network = load(write_wild(tmp_path / "last.safetensors", weights, prefix=prefix))
    assert_close(network.state_dict(), _without_head(weights))


@each_family
def test_bad_files_are_named(tmp_path: Path, family: str) -> None:
    make, load = FAMILIES[family]
    weights = make().state_dict()
    name = next(name for name, value in weights.items() if value.is_floating_point() and value.numel() > 3)
    weights[name].view(-1)[1] = torch.nan
    with pytest.raises(ModelError, match=rf"NaN or infinite numbers in {name} \(1 of"):
        load(write_wild(tmp_path / "a.pth", weights))
    (tmp_path / "b.pth").write_bytes(POINTER)
    with pytest.raises(ModelError, match="git-lfs pointer"):
        load(tmp_path / "b.pth")


def test_a_damaged_network_of_the_run_is_named_by_its_tensor(tmp_path: Path) -> None:
    net = build_segmentation_network(SegmentationNetConfig(backbone="miniature", weights="random", width=16), 3)
    save_segmentation_network(net, str(tmp_path))
    weights = load_file(tmp_path / WEIGHTS_NAME)
    weights["classifier.weight"] = weights["classifier.weight"] * torch.inf
    save_file(weights, tmp_path / WEIGHTS_NAME)
    with pytest.raises(ArtifactError, match=r"is broken .*NaN or infinite numbers in classifier\.weight"):
        load_segmentation_network(str(tmp_path))
    (tmp_path / WEIGHTS_NAME).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"is broken \(network\.safetensors .*empty"):
        load_segmentation_network(str(tmp_path))


def test_a_damaged_state_of_the_optimiser_is_named(tmp_path: Path) -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    progress = Progress(seed=0, settings="x")
    save_checkpoint(str(tmp_path), lambda folder: None, optimizer, progress)
    assert restore_checkpoint(str(tmp_path), lambda folder: None, optimizer, progress) == progress
    path = tmp_path / "optimizer.safetensors"
    save_file(load_file(path) | {"0.exp_avg": torch.full((2, 2), torch.nan)}, path)
    with pytest.raises(ArtifactError, match=r"NaN or infinite numbers in 0\.exp_avg"):
        restore_checkpoint(str(tmp_path), lambda folder: None, optimizer, progress)
    path.write_bytes(POINTER)
    with pytest.raises(ArtifactError, match="git-lfs pointer"):
        restore_checkpoint(str(tmp_path), lambda folder: None, optimizer, progress)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [POINTER, b"<!DOCTYPE html><html>sign in", b""])
def test_a_folder_of_transformers_says_which_file_is_bad(tmp_path: Path, name: str, content: bytes) -> None:
    SwinModel(SwinConfig(embed_dim=8, depths=[1], num_heads=[1])).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    told = rf"In it {name} is (a git-lfs pointer|a web page|empty)"
    with pytest.raises(ModelError, match=told) as caught:
        read_pretrained("weights", str(tmp_path), lambda: SwinModel.from_pretrained(tmp_path), expected="a Swin")
    assert "weights_only=False" not in str(caught.value)
    net = SegmentationNetConfig(architecture="mask2former", backbone="miniature", weights=str(tmp_path))
    with pytest.raises(ModelError):
        build_segmentation_network(net, 3)


def test_broken_numbers_in_models_of_transformers_are_named(tmp_path: Path) -> None:
    net = build_segmentation_network(
        SegmentationNetConfig(architecture="mask2former", backbone="miniature", weights="random"), 3
    )
    assert isinstance(net.net, Mask2FormerForUniversalSegmentation)
    with torch.no_grad():
        net.net.class_predictor.bias[0] = torch.nan
    net.net.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"class_predictor\.bias \(1 of 4\)"):
        read_pretrained("weights", str(tmp_path), lambda: Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path),
                        expected="x")  # fmt: skip
    with torch.no_grad():
        net.net.class_predictor.bias[0] = 0
        next(net.net.model.parameters()).view(-1)[0] = torch.inf
    net.net.save_pretrained(tmp_path)
    config = SegmentationNetConfig(architecture="mask2former", backbone="miniature", weights=str(tmp_path))
    with pytest.raises(ModelError, match=r"segmentation\.net\.weights .* NaN or infinite numbers in model\."):
        build_segmentation_network(config, 3)

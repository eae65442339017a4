"""Exported networks say what PyTorch says, whatever the image's size, and run without PyTorch."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import Classes, voc_palette
from qaclims_ray.deployment import onnx_file
from qaclims_ray.deployment.exported_graph import CamGraph, CamRules, FinalGraph
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.errors import ModelError
from qaclims_ray.models.class_token_vit import build_vit
from qaclims_ray.models.generators import weaktr
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import build_mask_generator
from qaclims_ray.segmentation.config import SegmentationNetConfig, SegmentationTestConfig
from qaclims_ray.segmentation.inference import as_class_maps, segment_images
from qaclims_ray.segmentation.networks import deeplab_v2, wide_resnet38
from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder
from qaclims_ray.segmentation.networks.deeplab_v1 import DeepLabV1
from qaclims_ray.segmentation.networks.network import build_segmentation_network
from tests.semples_fakes import shipped_clip

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

CLASSES = Classes(("cat", "dog", "bird"))
NORMALISATION = ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
SIZES = ((1, 40, 56), (2, 64, 64), (1, 53, 37))


@pytest.fixture(autouse=True)
def _same_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def facts(kind: Any = "final", **changes: Any) -> NetworkFacts:
    base: dict[str, Any] = {
        "name": "mine, qa_clims",
        "kind": kind,
        "architecture": "tiny",
        "classes": CLASSES,
        "normalisation": NORMALISATION,
        "threshold": 0.5,
        "label_threshold": 0.5 if kind == "cam" else None,
        "mirrored": True,
        "example_size": (40, 56),
        "data": {},
        "metrics": {},
        "licence": "mit",
        "version": "0.1.0",
    }
    return NetworkFacts(**(base | changes))


def photographs(number: int, height: int, width: int) -> Tensor:
    """Smooth colours, so that networks find regions: uint8 (image, 3, height, width)."""
    coarse = torch.randint(0, 256, (number, 3, 4, 5)).float()
    return F.interpolate(coarse, (height, width), mode="bilinear").round().to(torch.uint8)


def session(graph: FinalGraph | CamGraph, about: NetworkFacts, folder: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(onnx_file.write_onnx(graph, about, str(folder)), options)


def settings(architecture: Any, backbone: str, **changes: Any) -> SegmentationNetConfig:
    return SegmentationNetConfig(architecture=architecture, backbone=backbone, weights="random", **changes)


class FewBlocks(wide_resnet38.WideResNet38):
    """A few of WideResNet-38's blocks."""

    num_features = 32

    def __init__(self) -> None:
        nn.Module.__init__(self)
        blocks = [wide_resnet38._Block(8, 8, 16, stride=2), wide_resnet38._Block(16, 16, 16, stride=2)]
        last = wide_resnet38._WideBottleneck(16, 32, dilation=4, dropout=0.3)
        self.blocks = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), *blocks, last, nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.blocks(images)


def decided(network: Any) -> Any:
    """Give the last layers weights that tell labels apart: those that trainings start from say one label everywhere."""
    for parameter in network.head_parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def cut(module: Any, name: str, number: int) -> None:
    """Leave a network so many of its layers that are alike: an exporter reasons about every one for any size."""
    assert len(getattr(module, name)) > number
    setattr(module, name, getattr(module, name)[:number])


def network_of(kind: str) -> Any:
    if kind == "clip_decoder":
        clip, net = shipped_clip(), SegmentationNetConfig(architecture="clip_decoder", weights="clip", width=32)
        tower = copy.deepcopy(clip.model.visual)
        cut(tower.transformer, "resblocks", 2)
        network = ClipDecoder(tower, net, CLASSES.num_labels, mean=clip.mean, std=clip.std)
        cut(network.decoder, "blocks", 1)
        return decided(network)
    if kind == "deeplab_v2":
        backbone: Any = timm.create_model("resnet10t", num_classes=0, global_pool="", output_stride=8)
        # The other two stages are dilated ones, as the classifiers are.
        backbone.layer3 = backbone.layer4 = nn.Identity()
        width = backbone.layer2[-1].conv2.out_channels
        config = settings("deeplab_v2", "resnet10t")
        return decided(deeplab_v2.DeepLabV2(backbone, width, config, CLASSES.num_labels))
    if kind == "deeplab_v1":
        return DeepLabV1(FewBlocks(), settings("deeplab_v1", "wide_resnet38"), CLASSES.num_labels)
    config = {
        "encoder": settings("encoder", "miniature", width=16),
        "encoder_same": settings("encoder", "mobilenetv2_035", width=16, pad_same=True),
        "segmenter": settings("segmenter", "miniature_vit", image_size=32),
        "mask2former": settings("mask2former", "miniature"),
    }[kind]
    network: Any = build_segmentation_network(config, CLASSES.num_labels)
    if kind == "segmenter":
        cut(network.encoder, "blocks", 1)
        cut(network.decoder, "blocks", 1)
    if kind == "mask2former":
        cut(network.net.model.pixel_level_module.decoder.encoder, "layers", 1)
        cut(network.net.model.transformer_module.decoder, "layers", 2)
    return network


@pytest.mark.parametrize("kind", ["encoder", "segmenter", "deeplab_v2", "deeplab_v1", "clip_decoder"])
def test_a_final_network_says_what_pytorch_says(kind, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(deeplab_v2, "SCALES", (1.0, 0.75))  # a half is made as three quarters are
    network = network_of(kind).eval()
    mirrored = kind == "encoder"  # the mirror image is no part of a network, and makes the export twice as long
    graph = FinalGraph(network, NORMALISATION, mirrored=mirrored, has_background=True).eval()
    run = session(graph, facts(mirrored=mirrored), tmp_path)
    assert [side.name for side in run.get_inputs()] == ["image"]
    assert run.get_inputs()[0].shape == ["batch", "height", "width", 3]
    for number, height, width in SIZES:
        images = photographs(number, height, width)
        found = segment_images(network, list(images), SegmentationTestConfig(flip=mirrored), *NORMALISATION)
        ((_, expected),) = list(found)
        labels, scores = run.run(None, {"image": images.permute(0, 2, 3, 1).contiguous().numpy()})
        own = torch.stack([label_map(as_class_maps("", each), 0.5) for each in expected])
        assert np.abs(scores - expected.numpy()).max() < 1e-3
        assert (labels == own.numpy()).mean() >= 0.999
        assert labels.dtype == np.uint8
        varies = scores.std(axis=(2, 3)).max()
        assert len(np.unique(labels)) > 1 or varies > 0.002, "one answer for every pixel would be no comparison"


def test_a_network_of_one_size_gets_it_inside_and_answers_at_the_images(tmp_path) -> None:
    network = network_of("mask2former").eval()
    graph = FinalGraph(network, NORMALISATION, mirrored=False, has_background=True, size=(64, 96)).eval()
    run = session(graph, facts(size=(64, 96), example_size=(64, 96), mirrored=False), tmp_path)
    test = SegmentationTestConfig(flip=False)
    for height, width in ((64, 96), (50, 71)):
        images = photographs(1, height, width)
        fed = images.permute(0, 2, 3, 1).contiguous()
        labels, scores = run.run(None, {"image": fed.numpy()})
        assert labels.shape == (1, height, width)
        with torch.no_grad():
            expected = graph(fed)[1]
        if (height, width) == (64, 96):
            ((_, expected),) = list(segment_images(network, list(images), test, *NORMALISATION))
        assert np.abs(scores - expected.numpy()).max() < 1e-3
        assert (labels == expected.argmax(1).numpy()).mean() >= 0.999


def shallow_vit(config: CamNetConfig) -> Any:
    """Make the ViT with two of its blocks, whose attention maps are fused."""
    vit = build_vit(config)
    cut(vit, "blocks", 2)
    return vit


@pytest.mark.parametrize("generator", ["cnn", "weaktr"])
def test_cams_are_those_of_pytorch(generator, tmp_path, monkeypatch) -> None:
    is_cnn = generator == "cnn"
    monkeypatch.setattr(weaktr, "build_vit", shallow_vit)
    config = CamNetConfig(
        generator=generator,
        backbone="miniature" if is_cnn else "miniature_vit",
        output_stride=4 if is_cnn else 8,
        image_size=32,
        fusion_reduction=2,
    )
    network, classifier = (build_mask_generator(config, len(CLASSES)).eval() for _ in range(2))
    rules = CamRules("relu", "max", True, config.output_stride, 0.3, 0.5, True)
    run = session(CamGraph(network, classifier, NORMALISATION, rules).eval(), facts("cam", threshold=0.3), tmp_path)
    cams = CamConfig(scales=(1.0,), flip=True, activation="relu", store="full")
    for number, height, width in SIZES:
        images = photographs(number, height, width)
        fed = images.permute(0, 2, 3, 1).contiguous().numpy()
        present = (0, 2)
        known = np.array([[1.0, 0.0, 1.0]] * number, dtype=np.float32)
        labels, maps, probabilities = run.run(None, {"image": fed, "known": known})
        expected = compute_cams(network, list(images), [present] * number, ["x"] * number, cams, *NORMALISATION)
        for row, cam in enumerate(expected):
            assert cam.full is not None
            assert np.abs(maps[row][list(present)] - cam.full.numpy()).max() < 1e-3 and not maps[row][1].any()
            assert (labels[row] == label_map(cam, 0.3).numpy()).mean() >= 0.999
        with torch.no_grad():
            told = classifier((images.float() / 255 - 0.5) / 0.25, want="scores")[0].sigmoid().numpy()
        assert np.abs(probabilities - told).max() < 1e-3
        asked = run.run(None, {"image": fed, "known": np.full_like(known, -1)})
        shown = told >= 0.5
        assert not asked[1][~shown].any(), "the classifier decides where nobody says"


def test_without_a_background_the_most_probable_class_is_there() -> None:
    network = build_mask_generator(CamNetConfig(backbone="miniature", output_stride=4), 3).eval()
    rules = CamRules("sigmoid", "max", False, 4, -1.0, 1.1, False)
    with torch.no_grad():
        image = photographs(1, 32, 40).permute(0, 2, 3, 1)
        labels, _, told = CamGraph(network, network, NORMALISATION, rules)(image, torch.full((1, 3), -1.0))
    assert labels.unique().tolist() == [int(told.argmax()) + 1]


def test_the_script_writes_masks_in_a_process_without_pytorch(tmp_path) -> None:
    network = network_of("encoder").eval()
    graph = FinalGraph(network, NORMALISATION, mirrored=False, has_background=True).eval()
    run = session(graph, facts(mirrored=False), tmp_path / "net")
    pixels = photographs(1, 48, 60)[0].permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    (tmp_path / "blocked").mkdir()
    for name in ("torch", "qaclims_ray"):
        (tmp_path / "blocked" / f"{name}.py").write_text("raise ImportError('not here')")
    script = tmp_path / "net" / onnx_file.SCRIPT_NAME
    ended = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "photo.png"), "--out", str(tmp_path / "masks")],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path / "blocked")},
        timeout=200,
    )
    assert ended.returncode == 0, ended.stderr
    with Image.open(tmp_path / "masks/photo.png") as mask:
        expected = run.run(["labels"], {"image": pixels[None]})[0][0]
        assert (np.asarray(mask) == expected).all()
        assert mask.getpalette()[:12] == list(voc_palette())[:12]
    assert all(name in ended.stdout for name in {CLASSES.label_names[value] for value in np.unique(expected)})
    assert len(script.read_text().splitlines()) <= 45
    again = [sys.executable, str(script), str(tmp_path / "photo.png"), "--out", str(tmp_path)]
    refused = subprocess.run(again, capture_output=True, text=True)
    assert refused.returncode == 2 and "the folder of a photo" in refused.stderr
    kept = run.get_modelmeta().custom_metadata_map
    assert json.loads(kept["class_names"]) == list(CLASSES.names)
    assert json.loads(kept["image_mean"]) == [0.5] * 3 and json.loads(kept["threshold"]) == 0.5


def test_absent_packages_are_named_with_what_to_install(monkeypatch) -> None:
    monkeypatch.setattr(onnx_file.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else True)
    with pytest.raises(ModelError, match=r'onnxscript is not installed.*pip install "qaclims-ray\[onnx\]"'):
        onnx_file.require_onnx()

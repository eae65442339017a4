"""ONNX Runtime against PyTorch, network by network: equal pixels of label maps, largest difference of scores.

    python -m benchmarks.onnx_parity [--only clip_decoder]

Networks are small and random, their last layers strong enough to tell labels apart; what is compared is the exported
graph with what `qaclims predict` computes at one scale. Every architecture of `SegmentationNetConfig` is there.
DeepLabV1 stands over a few blocks of WideResNet-38, whose whole is half a gigabyte.
"""

import argparse
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import Classes
from qaclims_ray.deployment.exported_graph import CamGraph, CamRules, FinalGraph
from qaclims_ray.deployment.network_facts import NetworkFacts
from qaclims_ray.deployment.onnx_file import write_onnx
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.mask_generator import build_mask_generator
from qaclims_ray.segmentation.config import SegmentationNetConfig, SegmentationTestConfig
from qaclims_ray.segmentation.inference import as_class_maps, segment_images
from qaclims_ray.segmentation.networks import wide_resnet38
from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder
from qaclims_ray.segmentation.networks.deeplab_v1 import DeepLabV1
from qaclims_ray.segmentation.networks.network import build_segmentation_network

SEED = 0
CLASSES = Classes(("cat", "dog", "bird", "boat"))
NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SIZES = ((96, 128), (75, 101), (160, 144))
FIXED = (96, 128)
_THRESHOLD = 0.3


@dataclass(frozen=True)
class Parity:
    """How one network's graph does at one size of image."""

    network: str
    """Its architecture and backbone."""
    size: tuple[int, int]
    """Height and width of the image."""
    equal: float
    """Share of pixels with the same label."""
    difference: float
    """Largest difference of a score."""


def photographs(number: int, height: int, width: int) -> Tensor:
    """Return smooth random colours: uint8 (image, 3, height, width)."""
    coarse = torch.randint(0, 256, (number, 3, 5, 6)).float()
    return F.interpolate(coarse, (height, width), mode="bilinear").round().to(torch.uint8)


def final_networks() -> Iterator[tuple[str, nn.Module, tuple[int, int] | None]]:
    """Yield name, network, and the size that its graph holds for; None: any."""

    def settings(architecture: Any, backbone: str, **more: Any) -> SegmentationNetConfig:
        return SegmentationNetConfig(architecture=architecture, backbone=backbone, weights="random", **more)

    for architecture, backbone, more in (
        ("encoder", "miniature", {}),
        ("deeplab_v2", "resnet18", {}),
        ("segmenter", "miniature_vit", {"image_size": 64}),
        ("mask2former", "miniature", {}),
    ):
        network = build_segmentation_network(settings(architecture, backbone, **more), CLASSES.num_labels)
        yield f"{architecture}, {backbone}", decided(network), FIXED if architecture == "mask2former" else None
    clip = load_clip(str(clip_dir()), None, device="cpu", mask_adapted=False)
    decoder = SegmentationNetConfig(architecture="clip_decoder", weights="clip", width=32)
    network = ClipDecoder(clip.model.visual, decoder, CLASSES.num_labels, mean=clip.mean, std=clip.std)
    yield "clip_decoder, miniature CLIP", decided(network), None
    blocks = [wide_resnet38._Block(8, 8, 16, stride=2), wide_resnet38._Block(16, 16, 16, stride=2)]
    last = wide_resnet38._WideBottleneck(16, 32, dilation=4, dropout=0.3)
    backbone: Any = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), *blocks, last, nn.ReLU())
    backbone.num_features = 32
    network = DeepLabV1(backbone, settings("deeplab_v1", "wide_resnet38"), CLASSES.num_labels)
    yield "deeplab_v1, blocks of wide_resnet38", decided(network), None


def decided(network: Any) -> nn.Module:
    """Give the last layers weights that tell labels apart: those that trainings start from say one label everywhere."""
    for parameter in network.head_parameters():
        nn.init.normal_(parameter, std=0.3)
    return network.eval()


def compare_final(name: str, network: nn.Module, fixed: tuple[int, int] | None) -> Iterator[Parity]:
    """Export a final network and compare it, at the size its graph holds for or at several."""
    graph = FinalGraph(network, NORMALISATION, mirrored=True, has_background=True, size=fixed).eval()
    run = _session(graph, _facts(name, "final", fixed))
    for height, width in SIZES if fixed is None else (fixed,):
        images = photographs(1, height, width)
        ((_, expected),) = list(segment_images(network, list(images), SegmentationTestConfig(), *NORMALISATION))
        labels, scores = run({"image": _fed(images)})[:2]
        own = label_map(as_class_maps("", expected[0]), 0.5).numpy()
        yield Parity(name, (height, width), (labels[0] == own).mean(), float(np.abs(scores - expected.numpy()).max()))


def compare_cams(config: CamNetConfig) -> Iterator[Parity]:
    """Export a CAM network with a classifier and compare it."""
    name = f"CAMs of {config.generator}, {config.backbone}"
    network, classifier = (build_mask_generator(config, len(CLASSES)).eval() for _ in range(2))
    rules = CamRules("relu", "max", True, config.output_stride, _THRESHOLD, 0.5, True)
    run = _session(CamGraph(network, classifier, NORMALISATION, rules).eval(), _facts(name, "cam", None))
    cams = CamConfig(scales=(1.0,), store="full")
    for height, width in SIZES:
        images = photographs(1, height, width)
        labels, maps = run({"image": _fed(images), "known": np.array([[1, 1, 0, 1]], dtype=np.float32)})[:2]
        (cam,) = compute_cams(network, list(images), [(0, 1, 3)], [""], cams, *NORMALISATION)
        assert cam.full is not None
        equal = (labels[0] == label_map(cam, _THRESHOLD).numpy()).mean()
        yield Parity(name, (height, width), equal, float(np.abs(maps[0, [0, 1, 3]] - cam.full.numpy()).max()))


def _facts(name: str, kind: Any, fixed: tuple[int, int] | None) -> NetworkFacts:
    return NetworkFacts(
        name=name,
        kind=kind,
        architecture=name,
        classes=CLASSES,
        normalisation=NORMALISATION,
        threshold=0.5 if kind == "final" else _THRESHOLD,
        label_threshold=None if kind == "final" else 0.5,
        mirrored=True,
        size=fixed,
        example_size=(72, 88),
        data={},
        metrics={},
        licence="other",
        version=version("qaclims-ray"),
    )


def _session(graph: FinalGraph | CamGraph, facts: NetworkFacts) -> Callable[[dict[str, Any]], list[Any]]:
    with tempfile.TemporaryDirectory() as folder:
        session = onnxruntime.InferenceSession(Path(write_onnx(graph, facts, folder)).read_bytes())
    return lambda feeds: list(session.run(None, feeds))


def _fed(images: Tensor) -> Any:
    return images.permute(0, 2, 3, 1).contiguous().numpy()


def compared(only: str = "") -> Iterator[Parity]:
    """Yield all networks at all sizes, one after the other; or those whose name begins so."""
    for network in final_networks():
        if network[0].startswith(only):
            yield from compare_final(*network)
    if only:
        return
    yield from compare_cams(CamNetConfig(backbone="miniature", output_stride=4))
    yield from compare_cams(CamNetConfig(generator="weaktr", backbone="miniature_vit", output_stride=8, image_size=64))


def main() -> None:
    """Print the table as a page, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="final networks whose name begins so")
    asked = parser.parse_args()
    torch.manual_seed(SEED)
    packages = ("torch", "onnx", "onnxscript", "onnxruntime")
    print("# ONNX Runtime against PyTorch\n")
    print("From `python -m benchmarks.onnx_parity`. Small random networks, mirror images included, at one scale.\n")
    print(f"Seed {SEED}; Python {platform.python_version()}, {', '.join(f'{p} {version(p)}' for p in packages)}.\n")
    print("| network | image | equal labels, % of pixels | largest difference of a score |\n|---|---|---|---|")
    for row in compared(asked.only):
        size = f"{row.size[0]}x{row.size[1]}"
        print(f"| {row.network} | {size} | {100 * row.equal:.3f} | {row.difference:.1e} |", flush=True)


if __name__ == "__main__":
    main()

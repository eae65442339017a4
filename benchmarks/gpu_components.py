"""What runs on a GPU, stage by stage, with random weights: for ``gpu.py``, and for tests that count launches.

A component is prepared for a place (a GPU, a CPU, a pretended GPU) and gives a call without arguments. Sizes are those
of the published recipes, or tiny ones that a CPU computes in seconds.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_place import COMPONENTS, Place, component


def _classes(place: Place) -> int:
    return 4 if place.is_tiny else 20


def _batch(place: Place, name: str) -> int:
    return COMPONENTS[name].images[place.is_tiny]


def _labels(batch: int, num_classes: int) -> Tensor:
    """Return labels (batch, class) with two classes an image."""
    first = F.one_hot(torch.arange(batch) % num_classes, num_classes)
    return (first + first.roll(3, dims=1)).clamp(max=1).float()


def _images(place: Place, batch: int) -> list[Tensor]:
    """Return smooth pictures as they are read."""
    height, width = (48, 64) if place.is_tiny else (375, 500)
    coarse = torch.rand(batch, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
    return list((255 * smooth).to(torch.uint8))


def _crop(place: Place, full: int) -> int:
    return 64 if place.is_tiny else full


def _cam_network(place: Place, *, infers: bool = False) -> Any:
    from qaclims_ray.models.generators.cam_net import build_cam_net
    from qaclims_ray.models.generators.config import CamNetConfig

    backbone = "resnet18" if place.is_tiny else "resnet50"
    network = build_cam_net(CamNetConfig(backbone=backbone), _classes(place))
    return place.inferring(network) if infers else place.module(network).train()


def _clip(place: Place, name: str, *, mask_adapted: bool = False) -> Any:
    import open_clip

    from qaclims_ray.models.clip.frozen import FrozenClip

    name = "ViT-B-32-quickgelu" if place.is_tiny else name
    with torch.device(place.built_on):  # by itself it draws the weights first, on the CPU
        model = open_clip.create_model(name, device=place.built_on, load_weights=False, pretrained_text=False)
    patches, width = model.visual.positional_embedding.shape
    tokens = torch.zeros(3, patches - 1, width) if mask_adapted else None
    clip = FrozenClip(model, open_clip.get_tokenizer(name), mask_embedding=tokens)
    return place.module(clip, torch.float32 if place.is_tiny else torch.bfloat16)


def _bank(dim: int, batch: int, num_classes: int) -> Any:
    """Return a text bank where `read_bank` leaves it, on the CPU."""
    from qaclims_ray.text.bank import TextBank

    pairs = [(str(image), class_id) for image in range(batch) for class_id in range(num_classes)]
    return TextBank(
        texts=tuple(str(i) for i in range(50)),
        features=F.normalize(torch.randn(50, dim), dim=-1),
        image_ids=tuple(image for image, _ in pairs),
        class_ids=tuple(class_id for _, class_id in pairs),
        foreground=torch.randint(50, (len(pairs), 4)),
        foreground_weights=torch.full((len(pairs), 4), 0.25),
        background=torch.randint(50, (len(pairs), 6)),
        num_foreground=torch.full((len(pairs),), 4),
        num_background=torch.full((len(pairs),), 6),
        class_names=tuple(f"c{i}" for i in range(num_classes)),
        renormalise_foreground=False,
        origin="here",
    )


def _regions(clip: Any, options: Any) -> Any:
    from qaclims_ray.methods.region_features import Regions
    from qaclims_ray.models.generators.config import CamNetConfig

    net = CamNetConfig()
    return Regions(clip=clip, options=options, image_mean=net.image_mean, image_std=net.image_std)


def _items(place: Place, batch: int, side: int) -> dict[str, Tensor]:
    side = _crop(place, side)
    return {"image": place.tensor(batch, 3, side, side), "labels": _labels(batch, _classes(place))}


def _ritc(place: Place, name: str, **options: Any) -> Callable[[], Any]:
    from qaclims_ray.methods.qa_clims.config import RitcConfig
    from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step

    config, batch = RitcConfig(**options), _batch(place, name)
    clip = _clip(place, "ViT-L-14-quickgelu", mask_adapted=True)
    regions, bank = _regions(clip, ritc_regions(config)), _bank(clip.dim, batch, _classes(place))
    network, items, ids = place.wrapped(_cam_network(place)), _items(place, batch, 512), [str(i) for i in range(batch)]
    return lambda: ritc_step(network, items, ids, bank=bank, regions=regions, ritc=config, images_per_step=batch)


@component(8, 2)
def ritc_step(place: Place) -> Callable[[], Any]:
    """A step of RITC as in the published code."""
    return _ritc(place, "ritc_step")


@component(8, 2)
def ritc_step_as_printed(place: Place) -> Callable[[], Any]:
    """A step of RITC as in the paper."""
    return _ritc(
        place,
        "ritc_step_as_printed",
        region_mode="pixel_mask",
        clip_normalisation="clip",
        background_pool="exp_mean",
        max_at="cam",
        pair_reduction="mean_pairs",
        area_over="present",
    )


@component(16, 2)
def clims_step(place: Place) -> Callable[[], Any]:
    """A step of CLIMS."""
    from qaclims_ray.methods.clims.config import ClimsConfig
    from qaclims_ray.methods.clims.task import clims_regions, clims_step

    config, batch, clip = ClimsConfig(), _batch(place, "clims_step"), _clip(place, "ViT-B-32-quickgelu")
    regions, bank = _regions(clip, clims_regions(config)), _bank(clip.dim, batch, _classes(place))
    network, items, ids = place.wrapped(_cam_network(place)), _items(place, batch, 512), [str(i) for i in range(batch)]
    return lambda: clims_step(network, items, ids, bank=bank, regions=regions, clims=config, images_per_step=batch)


@component(16, 2)
def classifier_step(place: Place) -> Callable[[], Any]:
    """A step of the image-level classifier."""
    from qaclims_ray.methods.classifier.task import classifier_step

    batch = _batch(place, "classifier_step")
    network, items = place.wrapped(_cam_network(place)), _items(place, batch, 512)
    return lambda: classifier_step(network, items, images_per_step=batch)


@component(64, 2)
def semples_refine_step(place: Place) -> Callable[[], Any]:
    """A step of SemPLeS with its prompts."""
    from qaclims_ray.methods.semples.config import SemplesConfig
    from qaclims_ray.methods.semples.matching import matching_step, region_options

    config, clip, batch = SemplesConfig(), _clip(place, "ViT-B-32-quickgelu"), _batch(place, "semples_refine_step")
    network, regions = place.wrapped(_cam_network(place)), _regions(clip, region_options(config, epsilon=1e-4))
    items, size = _items(place, batch, 224), (_classes(place), clip.dim)
    texts, prompts = place.tensor(*size), place.tensor(*size)
    return lambda: matching_step(network, items, regions=regions, class_texts=texts, prompts=prompts, semples=config)


@component(128, 8)
def semples_prompt_step(place: Place) -> Callable[[], Any]:
    """A step of SemPLeS's prompts."""
    from qaclims_ray.methods.semples.config import PromptConfig
    from qaclims_ray.methods.semples.prompts import PromptContrast, prompt_step
    from qaclims_ray.models.clip.prompts import LearnedPrompts, prompt_template

    clip, batch, num_classes = _clip(place, "ViT-B-32-quickgelu"), _batch(place, "semples_prompt_step"), _classes(place)
    template = prompt_template(clip, length=30)
    network = place.wrapped(place.module(LearnedPrompts(0.02 * torch.randn(num_classes, 30, 512))))
    items = {"feature": place.tensor(batch, clip.dim), "class_id": torch.arange(batch) % num_classes}
    texts = place.tensor(num_classes, clip.dim)
    contrast = PromptContrast(clip=clip, template=template, class_texts=texts, settings=PromptConfig())
    return lambda: prompt_step(network, items, contrast=contrast)


@component(16, 2)
def irn_step(place: Place) -> Callable[[], Any]:
    """A step of the affinity network."""
    from qaclims_ray.refine.irn.config import IrnConfig
    from qaclims_ray.refine.irn.network import build_affinity_net
    from qaclims_ray.refine.irn.task import affinity_step

    batch, side, backbone = _batch(place, "irn_step"), _crop(place, 512), "resnet18" if place.is_tiny else "resnet50"
    network = place.wrapped(place.module(build_affinity_net(IrnConfig(weights="random", backbone=backbone))).train())
    labels = torch.arange(side) // 40 % 3
    items = {
        "image": place.tensor(batch, 3, side, side),
        "labels": place.tensor(batch, side, side, dtype=torch.uint8).mul(0).add(labels.to(place.device, torch.uint8)),
    }
    return lambda: affinity_step(network, items, radius=10)


@component(8, 2)
def irn_walk(place: Place) -> Callable[[], Any]:
    """IRN's walk of a batch, from images to maps."""
    from qaclims_ray.cams.inference import ImageCam
    from qaclims_ray.refine.config import MaskConfig
    from qaclims_ray.refine.irn.config import IrnConfig
    from qaclims_ray.refine.irn.network import boundary_maps, build_affinity_net
    from qaclims_ray.refine.irn.random_walk import walk_cams

    irn = IrnConfig(weights="random", backbone="resnet18" if place.is_tiny else "resnet50")
    network, images = place.inferring(build_affinity_net(irn)), _images(place, _batch(place, "irn_walk"))
    height, width = images[0].shape[1:]
    grids = [torch.rand(2, -(-height // 4), -(-width // 4)) for _ in images]
    cams = [ImageCam(str(i), (1, 2), None, grid, height, width) for i, grid in enumerate(grids)]
    precision = place.precision(MaskConfig(gpus_per_actor=1.0).arithmetic)
    return lambda: walk_cams(cams, boundary_maps(network, images, 0, precision=precision), irn)


@component(16, 2)
def cams(place: Place) -> Callable[[], Any]:
    """CAMs of a batch over four scales and mirror images."""
    from qaclims_ray.cams.config import CamConfig
    from qaclims_ray.cams.inference import compute_cams

    network, images, mean = _cam_network(place, infers=True), _images(place, _batch(place, "cams")), (0.5, 0.5, 0.5)
    num_classes, names = _classes(place), [str(i) for i in range(len(images))]
    present = [(i % num_classes, (i + 3) % num_classes) for i in range(len(images))]
    config = CamConfig(gpus_per_actor=1.0)
    precision = place.precision(config.arithmetic)
    return lambda: compute_cams(network, images, present, names, config, mean, mean, precision=precision)


@component(8, 2)
def crf(place: Place) -> Callable[[], Any]:
    """The CRF after a final network, for a batch; four labels of an image can win."""
    from qaclims_ray.refine.crf_config import deeplab_crf
    from qaclims_ray.segmentation.inference import crf_probabilities

    pixels = torch.stack(_images(place, _batch(place, "crf")))
    scores = place.tensor(len(pixels), _classes(place) + 1, *pixels.shape[2:])
    scores[:, 4:] -= 20
    probabilities = scores.softmax(1)
    return lambda: crf_probabilities(pixels, probabilities, deeplab_crf())


@component(1, 1)
def pamr(place: Place) -> Callable[[], Any]:
    """PAMR of one image."""
    from qaclims_ray.cams.inference import ImageCam
    from qaclims_ray.data.classes import Classes
    from qaclims_ray.refine.config import MaskConfig
    from qaclims_ray.refine.refinement import Refiners, refine_cams

    images = _images(place, 1)
    height, width = images[0].shape[1:]
    cam = ImageCam("a", (1, 2), torch.rand(2, height, width), None, height, width)
    classes, config = Classes(tuple(f"c{i}" for i in range(_classes(place)))), MaskConfig(steps=("pamr",))
    return lambda: refine_cams(images, [cam], config, Refiners(), classes, device=place.device)


def _final_network(place: Place, architecture: str, backbone: str, *, infers: bool = False) -> Any:
    from qaclims_ray.segmentation.config import SegmentationNetConfig
    from qaclims_ray.segmentation.networks.network import build_segmentation_network

    options: Any = {"architecture": architecture, "backbone": backbone, "weights": "random"}
    with torch.device("cpu" if infers else place.built_on):  # batch norm is folded where weights have values
        network: Any = build_segmentation_network(SegmentationNetConfig(**options), _classes(place) + 1)
    return place.inferring(network) if infers else place.module(network).train()


@component(10, 2)
def deeplab_v2_step(place: Place) -> Callable[[], Any]:
    """A step of the published final network."""
    from qaclims_ray.segmentation.task import dense_step

    batch, side = _batch(place, "deeplab_v2_step"), _crop(place, 321)
    network = _final_network(place, "deeplab_v2", "resnet18" if place.is_tiny else "resnet101")
    items = {
        "image": place.tensor(batch, 3, side, side),
        "labels": torch.zeros(batch, side, side, dtype=torch.uint8),
    }
    wrapped = place.wrapped(network)
    return lambda: dense_step(wrapped, items, is_balanced=False, parts=1, world_size=1)


@component(4, 2)
def online_step(place: Place) -> Callable[[], Any]:
    """A step of a decoder on a frozen CLIP that makes its own masks, two classes an image."""
    from qaclims_ray.methods.online.clip_task import clip_step
    from qaclims_ray.methods.online.config import OnlineConfig
    from qaclims_ray.segmentation.config import SegmentationNetConfig
    from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder

    batch, side, classes, own = _batch(place, "online_step"), _crop(place, 320), _classes(place), OnlineConfig()
    clip = _clip(place, "ViT-B-16-quickgelu")
    net = SegmentationNetConfig(architecture="clip_decoder", width=own.width)
    network = ClipDecoder(clip.model.visual, net, classes + 1, mean=clip.mean, std=clip.std)
    place.module(network, torch.float32)
    decoder, directions = place.wrapped(network.decoder.train()), place.tensor(classes, clip.dim)
    items = {
        "image": place.tensor(batch, 3, side, side),
        "tags": _labels(batch, classes),
        "outside": place.tensor(batch, side, side, dtype=torch.uint8),
    }
    normalisation = net.image_mean, net.image_std
    return lambda: clip_step(
        decoder, items, network=network, directions=directions, normalisation=normalisation, own=own, num_blocks=5
    )


@component(16, 2)
def mask2former_step(place: Place) -> Callable[[], Any]:
    """A step of SemPLeS's final network: three labels an image, and some pixels without any."""
    from qaclims_ray.segmentation.task import sets_step

    batch, side, classes = _batch(place, "mask2former_step"), _crop(place, 512), _classes(place)
    network = _final_network(place, "mask2former", "miniature" if place.is_tiny else "swin_large")
    wrapped = place.wrapped(network, is_captured=False)  # as `Task.is_captured` says of it
    rows = (torch.arange(side) * 3 // side)[None, :, None] + torch.arange(batch)[:, None, None]
    labels = (rows % (classes + 1)).expand(-1, -1, side).to(torch.uint8).contiguous()
    labels[:, :, : side // 8] = 255
    items = {"image": place.tensor(batch, 3, side, side), "labels": labels}
    return lambda: sets_step(wrapped, items, parts=1, world_size=1)


@component(4, 2)
def final_network(place: Place) -> Callable[[], Any]:
    """A final network at test time, over two scales and mirror images."""
    from qaclims_ray.segmentation.config import SegmentationTestConfig
    from qaclims_ray.segmentation.inference import segment_images

    backbone, mean = "resnet18" if place.is_tiny else "resnet50", (0.5, 0.5, 0.5)
    network = _final_network(place, "encoder", backbone, infers=True)
    images, test = _images(place, _batch(place, "final_network")), SegmentationTestConfig(scales=(0.75, 1.0))
    precision = place.precision(test.arithmetic(gpus=1.0))
    return lambda: list(segment_images(network, images, test, mean, mean, precision=precision))


@component(8, 1)
def blip(place: Place) -> Callable[[], Any]:
    """BLIP's answers to 16 questions about each of two classes of every image, with three beams."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    from qaclims_ray.models.vqa.blip import BlipVqa

    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BlipConfig()
    if place.is_tiny:
        vision, text = {**small, "image_size": 64}, {**small, **_TINY_TEXT}
        config = BlipConfig(vision_config=vision, text_config=text)
    with torch.device(place.built_on):
        model = BlipForQuestionAnswering(config)
    model = place.module(model, torch.float32 if place.is_tiny else torch.bfloat16)
    side, batch = config.vision_config.image_size if place.is_tiny else 480, _batch(place, "blip")
    processing = SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    vqa = BlipVqa(model, SimpleNamespace(tokenizer=_Tokenizer(), image_processor=processing), image_size=side)
    images = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    questions = [["what is this ?"] * 32] * batch
    return lambda: vqa.answer(images, questions, questions_per_batch=192)


_TINY_TEXT = {
    "encoder_hidden_size": 32,
    "vocab_size": 200,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "sep_token_id": 2,
    "pad_token_id": 0,
}


class _Tokenizer:
    """Has words of one token, and gives CPU tensors as transformers' do."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, Tensor]:
        ones = torch.ones(len(texts), 12, dtype=torch.int64)
        return {"input_ids": ones, "attention_mask": ones.clone()}

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        """Return an answer per row."""
        return [str(row) for row in rows]

"""What runs on a GPU, called once each on a pretended one: ``python -m tests.launches.components [WORD ...]``.

Prints a line per component (launches, waits, uploads) and below it where the host waits or uploads. With ``--json`` it
prints the counts alone. Sizes are those of the published recipes; weights are random.
"""

import json
import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.launches import fake_cuda
from tests.launches.fake_cuda import Autocast, FakeGpu, moved, on_gpu

K, PAIRS_EACH = 20, 2
COMPONENTS: dict[str, Callable[[], Callable[[], Any]]] = {}
"""Name -> what prepares it and returns the call that is counted."""


def component(prepare: Callable[[], Callable[[], Any]]) -> Callable[[], Callable[[], Any]]:
    """Give a component its name."""
    COMPONENTS[prepare.__name__] = prepare
    return prepare


def labels_of(batch: int) -> Tensor:
    """Return labels (batch, class) with two classes an image."""
    first = F.one_hot(torch.arange(batch) % K, K)
    return (first + first.roll(3, dims=1)).float()


def images_of(batch: int) -> list[Tensor]:
    """Return images as they are read."""
    return [torch.zeros(3, 375, 500, dtype=torch.uint8) for _ in range(batch)]


def cam_network() -> Any:
    """Return a ResNet-50 that gives CAMs."""
    from qaclims_ray.models.generators.cam_net import build_cam_net
    from qaclims_ray.models.generators.config import CamNetConfig

    return moved(build_cam_net(CamNetConfig(), K)).train()


def clip_of(name: str, *, mask_adapted: bool = False) -> Any:
    """Return a frozen CLIP with random weights."""
    import open_clip

    from qaclims_ray.models.clip.frozen import FrozenClip

    model = open_clip.create_model(name, device="meta", load_weights=False, pretrained_text=False)
    patches, width = model.visual.positional_embedding.shape
    tokens = torch.zeros(3, patches - 1, width) if mask_adapted else None
    return moved(FrozenClip(model, open_clip.get_tokenizer(name), mask_embedding=tokens), torch.bfloat16)


def bank_of(dim: int, batch: int) -> Any:
    """Return a text bank where `read_bank` leaves it, on the CPU."""
    from qaclims_ray.text.bank import TextBank

    pairs = [(str(image), class_id) for image in range(batch) for class_id in range(K)]
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
        class_names=tuple(f"c{i}" for i in range(K)),
        renormalise_foreground=False,
        origin="here",
    )


def regions_of(clip: Any, options: Any) -> Any:
    """Return what makes CLIP features of regions."""
    from qaclims_ray.methods.region_features import Regions
    from qaclims_ray.models.generators.config import CamNetConfig

    net = CamNetConfig()
    return Regions(clip=clip, options=options, image_mean=net.image_mean, image_std=net.image_std)


def ritc(**options: Any) -> Callable[[], Any]:
    """Prepare a step of RITC."""
    from qaclims_ray.methods.qa_clims.config import RitcConfig
    from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step

    config, batch = RitcConfig(**options), 8
    clip = clip_of("ViT-L-14-quickgelu", mask_adapted=True)
    network, regions, bank = Autocast(cam_network()), regions_of(clip, ritc_regions(config)), bank_of(clip.dim, batch)
    items = {"image": on_gpu(batch, 3, 512, 512), "labels": labels_of(batch)}
    ids = [str(i) for i in range(batch)]
    return lambda: ritc_step(network, items, ids, bank=bank, regions=regions, ritc=config, images_per_step=batch)


@component
def ritc_step() -> Callable[[], Any]:
    """The published code's step."""
    return ritc()


@component
def ritc_step_as_printed() -> Callable[[], Any]:
    """The paper's step."""
    return ritc(
        region_mode="pixel_mask",
        clip_normalisation="clip",
        background_pool="exp_mean",
        max_at="cam",
        pair_reduction="mean_pairs",
        area_over="present",
    )


@component
def clims_step() -> Callable[[], Any]:
    """A step of CLIMS."""
    from qaclims_ray.methods.clims.config import ClimsConfig
    from qaclims_ray.methods.clims.task import clims_regions, clims_step

    config, batch, clip = ClimsConfig(), 16, clip_of("ViT-B-32-quickgelu")
    network, regions, bank = Autocast(cam_network()), regions_of(clip, clims_regions(config)), bank_of(clip.dim, batch)
    items = {"image": on_gpu(batch, 3, 512, 512), "labels": labels_of(batch)}
    ids = [str(i) for i in range(batch)]
    return lambda: clims_step(network, items, ids, bank=bank, regions=regions, clims=config, images_per_step=batch)


@component
def classifier_step() -> Callable[[], Any]:
    """A step of the image-level classifier."""
    from qaclims_ray.methods.classifier.task import classifier_step

    network, items = Autocast(cam_network()), {"image": on_gpu(16, 3, 512, 512), "labels": labels_of(16)}
    return lambda: classifier_step(network, items, images_per_step=16)


@component
def semples_refine_step() -> Callable[[], Any]:
    """A step of SemPLeS with its prompts."""
    from qaclims_ray.methods.semples.config import SemplesConfig
    from qaclims_ray.methods.semples.matching import matching_step, region_options

    config, clip = SemplesConfig(), clip_of("ViT-B-32-quickgelu")
    network, regions = Autocast(cam_network()), regions_of(clip, region_options(config, epsilon=1e-4))
    items = {"image": on_gpu(64, 3, 224, 224), "labels": labels_of(64)}
    texts, prompts = on_gpu(K, clip.dim), on_gpu(K, clip.dim)
    return lambda: matching_step(network, items, regions=regions, class_texts=texts, prompts=prompts, semples=config)


@component
def semples_prompt_step() -> Callable[[], Any]:
    """A step of SemPLeS's prompts."""
    from qaclims_ray.methods.semples.config import PromptConfig
    from qaclims_ray.methods.semples.prompts import prompt_step
    from qaclims_ray.models.clip.prompts import LearnedPrompts, prompt_template

    clip = clip_of("ViT-B-32-quickgelu")
    template = prompt_template(clip, length=30)
    network = Autocast(moved(LearnedPrompts(torch.zeros(K, 30, 512))))
    items, texts = {"feature": on_gpu(128, clip.dim), "class_id": torch.arange(128) % K}, on_gpu(K, clip.dim)
    return lambda: prompt_step(network, items, clip=clip, template=template, class_texts=texts, settings=PromptConfig())


@component
def irn_step() -> Callable[[], Any]:
    """A step of the affinity network."""
    from qaclims_ray.refine.irn.config import IrnConfig
    from qaclims_ray.refine.irn.network import build_affinity_net
    from qaclims_ray.refine.irn.task import affinity_step

    network = Autocast(moved(build_affinity_net(IrnConfig(weights="random"))).train())
    items = {"image": on_gpu(16, 3, 512, 512), "labels": on_gpu(16, 512, 512, dtype=torch.uint8)}
    return lambda: affinity_step(network, items, radius=10)


@component
def irn_walk_of_8_images() -> Callable[[], Any]:
    """IRN's walk of a batch, from images to maps."""
    from qaclims_ray.cams.inference import ImageCam
    from qaclims_ray.refine.irn.config import IrnConfig
    from qaclims_ray.refine.irn.network import boundary_maps, build_affinity_net
    from qaclims_ray.refine.irn.random_walk import walk_cams

    irn = IrnConfig(weights="random")
    network, images = moved(build_affinity_net(irn)).eval(), images_of(8)
    cams = [ImageCam(str(i), (1, 2), None, torch.rand(2, 94, 125), 375, 500) for i in range(8)]
    return lambda: walk_cams(cams, boundary_maps(network, images, 0), irn)


@component
def cams_of_16_images() -> Callable[[], Any]:
    """CAMs of a batch over four scales."""
    from qaclims_ray.cams.config import CamConfig
    from qaclims_ray.cams.inference import compute_cams

    network, images, mean = cam_network(), images_of(16), (0.5, 0.5, 0.5)
    names, present = [str(i) for i in range(16)], [(i % K, (i + 3) % K) for i in range(16)]
    return lambda: compute_cams(network, images, present, names, CamConfig(), mean, mean)


@component
def crf_of_8_images() -> Callable[[], Any]:
    """The CRF after a final network, for a batch."""
    from qaclims_ray.refine.crf_config import deeplab_crf
    from qaclims_ray.segmentation.inference import crf_probabilities

    pixels, probabilities = torch.stack(images_of(8)), on_gpu(8, K + 1, 375, 500)
    return lambda: crf_probabilities(pixels, probabilities, deeplab_crf())


@component
def pamr_of_one_image() -> Callable[[], Any]:
    """PAMR."""
    from qaclims_ray.cams.inference import ImageCam
    from qaclims_ray.data.classes import Classes
    from qaclims_ray.refine.config import MaskConfig
    from qaclims_ray.refine.refinement import Refiners, refine_cams

    cam = ImageCam("a", (1, 2), torch.rand(2, 375, 500), None, 375, 500)
    classes = Classes(tuple(f"c{i}" for i in range(K)))
    config = MaskConfig(steps=("pamr",))
    return lambda: refine_cams(images_of(1), [cam], config, Refiners(), classes, device="cuda:0")


def final_network(architecture: str, backbone: str) -> Any:
    """Return a final network with random weights."""
    from qaclims_ray.segmentation.config import SegmentationNetConfig
    from qaclims_ray.segmentation.networks.network import build_segmentation_network

    config: Any = SegmentationNetConfig(architecture=architecture, backbone=backbone, weights="random")  # type: ignore[arg-type]
    return moved(build_segmentation_network(config, K + 1)).train()


@component
def deeplab_v2_step() -> Callable[[], Any]:
    """A step of the published final network."""
    from qaclims_ray.segmentation.task import dense_step

    network = Autocast(final_network("deeplab_v2", "resnet101"))
    items = {"image": on_gpu(10, 3, 321, 321), "labels": torch.zeros(10, 321, 321, dtype=torch.uint8)}
    return lambda: dense_step(network, items, is_balanced=False, parts=1, world_size=1)


@component
def final_network_of_4_images() -> Callable[[], Any]:
    """A final network at test time, over two scales and mirror images."""
    from qaclims_ray.segmentation.config import SegmentationTestConfig
    from qaclims_ray.segmentation.inference import segment_images

    network, mean = final_network("encoder", "resnet50"), (0.5, 0.5, 0.5)
    test = SegmentationTestConfig(scales=(0.75, 1.0), batch_size=4)
    return lambda: list(segment_images(network, images_of(4), test, mean, mean))


@component
def blip_of_8_images() -> Callable[[], Any]:
    """BLIP's answers to 16 questions about each of two classes, with three beams."""
    from transformers import BlipConfig, BlipForQuestionAnswering

    from qaclims_ray.models.vqa.blip import BlipVqa

    with torch.device("meta"):
        model = moved(BlipForQuestionAnswering(BlipConfig()), torch.bfloat16)
    processor = SimpleNamespace(
        tokenizer=_Tokenizer(), image_processor=SimpleNamespace(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    )
    vqa = BlipVqa(model, processor, image_size=480)
    images, questions = torch.zeros(8, 3, 480, 480, dtype=torch.uint8), [["what is this ?"] * 32] * 8
    return lambda: vqa.answer(images, questions, questions_per_batch=192)


class _Tokenizer:
    """Has words of one token, and gives CPU tensors as transformers' do."""

    def __call__(self, texts: list[str], **_: Any) -> dict[str, Tensor]:
        ones = torch.ones(len(texts), 12, dtype=torch.int64)
        return {"input_ids": ones, "attention_mask": ones.clone()}

    def batch_decode(self, rows: list[list[int]], **_: Any) -> list[str]:
        """Return an answer per row."""
        return ["a"] * len(rows)


def counted(name: str) -> FakeGpu:
    """Return what is counted in a component's second call: the first makes what is kept."""
    call = COMPONENTS[name]()
    with FakeGpu():
        call()
    with FakeGpu() as counts:
        call()
    return counts


def main(words: list[str]) -> None:
    """Count and print."""
    warnings.simplefilter("ignore")
    fake_cuda.pretend()
    is_json = "--json" in words
    words = [word for word in words if word != "--json"]
    names = [name for name in COMPONENTS if not words or any(word in name for word in words)]
    found = {}
    for name in names:
        counts = counted(name)
        found[name] = (counts.launches, counts.count("wait"), counts.count("upload"))
        if not is_json:
            print("{:28} {:6} launches {:4} waits {:4} uploads".format(name, *found[name]), flush=True)
            for (kind, place), number in counts.places.most_common():
                print(f"    {number:4} {kind:7} {place}")
    if is_json:
        print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])

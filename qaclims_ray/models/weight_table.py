"""Weights of third parties that presets name or the documentation recommends: licence, size, source.

`models.known_weights` says which of them a setting means, and where one lies on this machine. Sizes are those
of the files where these were seen, and else rounded, counted from the network's parameters. A checksum stands here only
where it is certain: of files that were hashed, and those that a publisher writes into the file's own name.
"""

from dataclasses import dataclass

SHIPPED = "this package"
"""Source of weights that need not be fetched."""
_HUB = "https://huggingface.co/{}/resolve/main/{}"
_DRIVE = "https://drive.usercontent.google.com/download?id={}&export=download&confirm=t"
_TIMM = (
    "https://github.com/huggingface/pytorch-image-models/releases/download/{}",
    "https://github.com/rwightman/pytorch-image-models/releases/download/{}",
)
_ANYONE = "anyone, also commercially"


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file of a weight."""

    name: str
    """What it is called in the folder of weights."""
    urls: tuple[str, ...] = ()
    """Where it can be had, the best first; all hold the same bytes."""
    sha256: str = ""
    """Its hash in hex digits, or the first of them that its publisher writes into its name; empty where not known."""


@dataclass(frozen=True, kw_only=True)
class KnownWeight:
    """What a user has to know of a weight before a network learns from it."""

    name: str
    """Its word for `qaclims fetch`."""
    title: str
    """What it is."""
    purpose: str
    """What it is for here."""
    num_bytes: int
    """Size of all its files."""
    is_size_exact: bool = False
    """Whether the size was read from the file; else it is rounded."""
    licence: str
    """SPDX identifier, or words."""
    is_permissive: bool
    """Whether anyone may use it and hand on what is made of it, also commercially, whatever for. Where no licence is
    stated nobody may."""
    users: str = _ANYONE
    """Who may use it."""
    files: tuple[WeightFile, ...] = ()
    """What `qaclims fetch` brings; none where it is shipped."""
    page: str = ""
    """Where a person reads about it and can take it by hand."""
    hub: str = ""
    """Name on the Hugging Face hub, by which settings and libraries may name it."""
    timm: str = ""
    """timm model whose default pretrained weights it is ("timm" in settings)."""
    open_clip: tuple[str, ...] = ()
    """Architectures for which open_clip's tag "openai" means it."""
    instead: str = ""
    """What takes its place where only permissive licences may be used."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of files, named as a whole."""
        return len(self.files) > 1


def _hub_files(repository: str, *names: str) -> tuple[WeightFile, ...]:
    return tuple(WeightFile(name=name, urls=(_HUB.format(repository, name),)) for name in names)


def _timm_weight(name: str, num_bytes: int, released: str, tag: str, purpose: str) -> KnownWeight:
    """Return the default weights of a timm model; the end of the released file's name is the start of its hash."""
    file = released.rpartition("/")[2]
    return KnownWeight(
        name=name,
        title=f"timm's {name}, ImageNet-1k",
        purpose=purpose,
        num_bytes=num_bytes,
        licence="Apache-2.0",
        is_permissive=True,
        files=(
            WeightFile(
                name=file,
                urls=tuple(place.format(released) for place in _TIMM),
                sha256=file.rpartition(".")[0].rpartition("-")[2],
            ),
        ),
        page=f"https://huggingface.co/timm/{name}.{tag}",
        hub=f"timm/{name}.{tag}",
        timm=name,
    )


_BLIP_FILES = ("config.json", "preprocessor_config.json", "special_tokens_map.json", "tokenizer.json",
               "tokenizer_config.json", "vocab.txt", "model.safetensors")  # fmt: skip
_SAM_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
_OF_SAM, _OF_SAM2 = "masks of objects that seeds choose from", "masks of objects, smaller and faster than SAM's"


def _clip(size: str, short: str, repository: str, num_bytes: int) -> KnownWeight:
    return KnownWeight(
        name=f"clip-{short}",
        title=f"OpenAI's CLIP {size}",
        purpose="the frozen CLIP, plain: it has seen no masks",
        num_bytes=num_bytes,
        licence="MIT",
        is_permissive=True,
        users=f"{_ANYONE}; OpenAI's model card asks for tests of one's own before it is deployed",
        files=(
            WeightFile(
                name=f"{size}.openai.safetensors", urls=(_HUB.format(repository, "open_clip_model.safetensors"),)
            ),
        ),
        page=f"https://huggingface.co/{repository}",
        hub=repository,
        open_clip=(size, f"{size}-quickgelu"),
    )


def _apache(
    name: str, title: str, purpose: str, num_bytes: int, repository: str, files: tuple[WeightFile, ...], timm: str = ""
) -> KnownWeight:
    return KnownWeight(
        name=name,
        title=title,
        purpose=purpose,
        num_bytes=num_bytes,
        licence="Apache-2.0",
        is_permissive=True,
        files=files,
        page=f"https://huggingface.co/{repository}",
        hub=repository,
        timm=timm,
    )


def _sam(name: str, title: str, repository: str, num_bytes: int, purpose: str) -> KnownWeight:
    title, repository = f"Segment Anything{title}", f"facebook/{repository}"
    return _apache(
        name, title, f"{purpose} (mask step sam)", num_bytes, repository, _hub_files(repository, *_SAM_FILES)
    )


def _dinov2(size: str, num_bytes: int) -> KnownWeight:
    model, hub = f"vit_{size}_patch14_dinov2", f"timm/vit_{size}_patch14_dinov2.lvd142m"
    purpose = "says which cells belong together (mask step feature_affinity); learned without any label"
    file = WeightFile(name=f"{model}.lvd142m.safetensors", urls=(_HUB.format(hub, "model.safetensors"),))
    return _apache(f"dinov2-{size}", f"DINOv2 ViT-{size[0].upper()}/14", purpose, num_bytes, hub, (file,), model)


def _blip(name: str, repository: str, title: str) -> KnownWeight:
    return KnownWeight(
        name=name,
        title=title,
        purpose="answers questions about images (the corpus)",
        num_bytes=1_540_000_000,
        licence="BSD-3-Clause",
        is_permissive=True,
        files=_hub_files(repository, *_BLIP_FILES),
        page=f"https://huggingface.co/{repository}",
        hub=repository,
    )


def _weaktr(name: str, data_set: str, drive: str) -> KnownWeight:
    return KnownWeight(
        name=name,
        title=f"WeakTr's CAM network, trained on {data_set}",
        purpose="starts SemPLeS without training its classifier; convert it first (docs/masks_and_segmentation.md)",
        num_bytes=90_000_000,
        licence="none stated",
        is_permissive=False,
        users="ask its authors: without a licence nothing is allowed",
        files=(WeightFile(name=f"{name}.pth", urls=(_DRIVE.format(drive),)),),
        page="https://github.com/hustvl/WeakTr",
        instead="leave out --classifier.network: the network is then trained from DeiT-S (Apache-2.0)",
    )


KNOWN_WEIGHTS: tuple[KnownWeight, ...] = (
    KnownWeight(
        name="ovseg",
        title="OVSeg's mask-adapted CLIP ViT-L/14",
        purpose="the frozen CLIP of QA-CLIMS as published (preset voc12); it has seen masks of COCO",
        num_bytes=1_300_000_000,
        licence="CC-BY-NC-4.0",
        is_permissive=False,
        users="NON-COMMERCIAL use only",
        files=(
            WeightFile(
                name="ovseg_swinbase_vitL14_ft_mpt.pth",
                urls=(
                    "https://huggingface.co/spaces/facebook/ov-seg/resolve/main/ovseg_swinbase_vitL14_ft_mpt.pth",
                    _DRIVE.format("1cn-ohxgXDrDfkzC1QdO-fi8IjbjXmgKy"),
                ),
            ),
        ),
        page="https://github.com/facebookresearch/ov-seg",
        instead="option plain-clip (e.g. `voc12 plain-clip`): OpenAI's CLIP, MIT",
    ),
    _clip("ViT-B-16", "vit-b-16", "timm/vit_base_patch16_clip_224.openai", 599_000_000),
    _clip("ViT-B-32", "vit-b-32", "timm/vit_base_patch32_clip_224.openai", 605_000_000),
    _clip("ViT-L-14", "vit-l-14", "timm/vit_large_patch14_clip_224.openai", 1_710_000_000),
    _timm_weight(
        "resnet50", 102_500_000, "v0.1-rsb-weights/resnet50_a1_0-14fe96d1.pth", "a1_in1k",
        "start of the CAM network and of IRN",
    ),
    _timm_weight(
        "resnet101", 178_800_000, "v0.1-rsb-weights/resnet101_a1h-36d3f2aa.pth", "a1h_in1k",
        "start of DeepLabV2",
    ),
    _timm_weight(
        "mobilenetv2_100", 14_200_000, "v0.1-weights/mobilenetv2_100_ra-b33bc2c4.pth", "ra_in1k",
        "start of small networks, without a GPU",
    ),
    _timm_weight(
        "tf_efficientnet_lite2", 24_700_000, "v0.1-weights/tf_efficientnet_lite2-dcccb7df.pth", "in1k",
        "start of small networks, without a GPU; better than MobileNetV2",
    ),
    KnownWeight(
        name="deit-small",
        title="DeiT-S, ImageNet-1k",
        purpose="start of WeakTr and of the Segmenter",
        num_bytes=88_300_000,
        licence="Apache-2.0",
        is_permissive=True,
        files=(
            WeightFile(
                name="deit_small_patch16_224-cd65a155.pth",
                urls=("https://dl.fbaipublicfiles.com/deit/deit_small_patch16_224-cd65a155.pth",),
                sha256="cd65a155",
            ),
        ),
        page="https://huggingface.co/timm/deit_small_patch16_224.fb_in1k",
        hub="timm/deit_small_patch16_224.fb_in1k",
        timm="deit_small_patch16_224",
    ),
    _weaktr("weaktr-voc12", "VOC 2012", "1TW6HSSOnhzdAHpUrarM8-nhJTV3MvIgM"),
    _weaktr("weaktr-coco14", "COCO 2014", "1tFUDIQDXuD1f8MhWAza-jJP1hYeYhvSb"),
    _blip("blip-vqa", "Salesforce/blip-vqa-capfilt-large", "BLIP VQA with CapFilt, the papers'"),
    _blip("blip-vqa-base", "Salesforce/blip-vqa-base", "BLIP VQA, base"),
    _sam("sam-huge", ", ViT-H", "sam-vit-huge", 2_570_000_000, _OF_SAM),
    _sam("sam-large", ", ViT-L", "sam-vit-large", 1_250_000_000, _OF_SAM),
    _sam("sam-base", ", ViT-B", "sam-vit-base", 375_000_000, _OF_SAM),
    _sam("sam2-large", " 2.1, Hiera-L", "sam2.1-hiera-large", 898_000_000, _OF_SAM2),
    _sam("sam2-base-plus", " 2.1, Hiera-B+", "sam2.1-hiera-base-plus", 323_000_000, _OF_SAM2),
    _sam("sam2-small", " 2.1, Hiera-S", "sam2.1-hiera-small", 184_000_000, _OF_SAM2),
    _sam("sam2-tiny", " 2.1, Hiera-T", "sam2.1-hiera-tiny", 156_000_000, _OF_SAM2),
    KnownWeight(
        name="sam3",
        title="Segment Anything 3",
        purpose="masks by names of classes (system sam3_names) or of objects (mask step sam); trained on masks",
        num_bytes=3_400_000_000,
        licence="SAM License",
        is_permissive=False,
        users="who accepts Meta's terms: nothing military, nuclear, for espionage or weapons; handed on, also changed, "
        "under the same terms alone; publications name it; access is asked for on its page",
        files=tuple(
            WeightFile(name=name)
            for name in ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json",
                         "model.safetensors")
        ),
        page="https://huggingface.co/facebook/sam3",
        hub="facebook/sam3",
        instead="for mask step sam --masks.sam.model facebook/sam2.1-hiera-large (Apache-2.0); leave out system "
        "sam3_names",
    ),
    _dinov2("base", 346_000_000), _dinov2("small", 88_000_000),
    KnownWeight(
        name="swin-large",
        title="Swin-L of ImageNet-22k, 384 pixels",
        purpose="start of Mask2Former",
        num_bytes=920_000_000,
        licence="Apache-2.0",
        is_permissive=True,
        files=_hub_files(
            "microsoft/swin-large-patch4-window12-384-in22k",
            *("config.json", "preprocessor_config.json", "pytorch_model.bin"),
        ),
        page="https://huggingface.co/microsoft/swin-large-patch4-window12-384-in22k",
        hub="microsoft/swin-large-patch4-window12-384-in22k",
    ),
    KnownWeight(
        name="resnet38",
        title="WideResNet-38, ImageNet-1k",
        purpose="start of DeepLabV1; published for MXNet: convert it to a torch file of the name res38_imagenet.pth",
        num_bytes=500_000_000,
        licence="Apache-2.0",
        is_permissive=True,
        files=(WeightFile(name="res38_imagenet.pth"),),
        page="https://github.com/itijyou/ademxapp",
    ),
    KnownWeight(
        name="deeplab-coco",
        title="DeepLab ResNet-101, trained on COCO's masks",
        purpose="start of DeepLabV2 with pixel labels of COCO (option from-coco)",
        num_bytes=170_000_000,
        licence="none stated",
        is_permissive=False,
        users="ask its authors: the converter is MIT, for the weights no licence is stated",
        files=(
            WeightFile(
                name="deeplabv1_resnet101-coco.pth",
                urls=("https://nsrom-2.oss-cn-shanghai.aliyuncs.com/deeplabv1_resnet101-coco.pth",),
            ),
        ),
        page="https://github.com/kazuto1011/deeplab-pytorch",
        instead="leave out option from-coco: DeepLabV2 then starts from timm's resnet101 (Apache-2.0)",
    ),
    KnownWeight(
        name="mobilenetv2-float16",
        title="MobileNetV2 from an int8 model, float16, ImageNet-1k",
        purpose="start of small networks; taken by hand, as --cam-net.weights",
        num_bytes=7_101_024,
        is_size_exact=True,
        licence="Apache-2.0",
        is_permissive=True,
        files=(
            WeightFile(
                name="mobilenetv2_100.imagenet.safetensors",
                sha256="453ff7951406927d2bab17ac76d1fd172b4063b0d3032b8fa23e106f27126c0e",
            ),
        ),
    ),
    KnownWeight(
        name="efficientnet-lite2-float32",
        title="EfficientNet-Lite2, float32, ImageNet-1k",
        purpose="start of small networks; taken by hand, as --cam-net.weights",
        num_bytes=24_635_736,
        is_size_exact=True,
        licence="Apache-2.0",
        is_permissive=True,
        files=(
            WeightFile(
                name="tf_efficientnet_lite2.imagenet.safetensors",
                sha256="57fa2d5d0a66461c418d8710597621b83b62e7f1201624dd9b949ebd03382bf0",
            ),
        ),
    ),
    KnownWeight(
        name="blip2-opt",
        title="BLIP-2 with OPT 2.7B",
        purpose="another model that answers questions (docs/vqa_models.md)",
        num_bytes=15_000_000_000,
        licence="MIT; OPT inside it: Meta's, for research",
        is_permissive=False,
        users="NON-COMMERCIAL research only, for the OPT inside it",
        page="https://huggingface.co/Salesforce/blip2-opt-2.7b",
        hub="Salesforce/blip2-opt-2.7b",
        instead="--corpus.model Salesforce/blip-vqa-capfilt-large with --corpus.engine blip (BSD-3-Clause)",
    ),
    KnownWeight(
        name="smolvlm",
        title="SmolVLM 500M",
        purpose="another model that answers questions (docs/vqa_models.md)",
        num_bytes=1_020_000_000,
        licence="Apache-2.0",
        is_permissive=True,
        page="https://huggingface.co/HuggingFaceTB/SmolVLM-500M-Instruct",
        hub="HuggingFaceTB/SmolVLM-500M-Instruct",
    ),
    KnownWeight(
        name="qwen2.5-vl-3b",
        title="Qwen2.5-VL 3B",
        purpose="another model that answers questions (docs/vqa_models.md)",
        num_bytes=7_500_000_000,
        licence="Qwen Research License",
        is_permissive=False,
        users="NON-COMMERCIAL research only",
        page="https://huggingface.co/Qwen/Qwen2.5-VL-3B-Instruct",
        hub="Qwen/Qwen2.5-VL-3B-Instruct",
        instead="--corpus.model HuggingFaceTB/SmolVLM-500M-Instruct (Apache-2.0)",
    ),
    KnownWeight(
        name="miniature",
        title="the miniature world's CLIPs and BLIP",
        purpose="the presets of the miniature; trained here on drawings",
        num_bytes=4_206_688,
        is_size_exact=True,
        licence="MIT",
        is_permissive=True,
        page=SHIPPED,
    ),
)  # fmt: skip
"""All that are known."""


def weight_named(name: str) -> KnownWeight | None:
    """Return the weight of a name: its own, one on the hub, or that of its file; None where it is not known."""
    for weight in KNOWN_WEIGHTS:
        files = [] if weight.is_folder else [file.name for file in weight.files]
        if name and name in (weight.name, weight.hub, *files):
            return weight
    return None

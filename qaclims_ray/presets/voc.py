"""Complete runs on PASCAL VOC 2012."""

from dataclasses import replace

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.data.config import AugmentConfig, DataConfig
from qaclims_ray.methods.classifier.config import ClassifierConfig
from qaclims_ray.models.clip.config import ClipConfig
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.presets.option import Base, Option, published
from qaclims_ray.presets.small import LITE2, MOBILENET, on_a_small_network
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.crf_config import semples_crf
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.segmentation.recipes import deeplab_v1, deeplab_v2, deeplab_v2_from_coco, mask2former, segmenter
from qaclims_ray.systems.table import system_of, training_order
from qaclims_ray.training.config import OptimConfig

_PLAIN_VIT_B = {"clip.model": "ViT-B-32-quickgelu", "clip.weights": "openai", "clip.mask_adapted": False}
"""OpenAI's plain CLIP, which CLIMS and SemPLeS use."""

_QA_CLIMS_PAPER = {
    "corpus.questions": "paper",
    "text.foreground_mix": "uniform",
    "text.renormalise_foreground": True,
    "ritc.region_mode": "pixel_mask",
    "ritc.clip_normalisation": "clip",
    "ritc.background_pool": "exp_mean",
    "ritc.optim.momentum": 0.9,
    "ritc.pair_reduction": "mean_pairs",
}
"""QA-CLIMS in the paper's wording where the released code differs."""
_SEMPLES_PAPER = {
    "semples.match.lr": 5e-4,
    "semples.refine.lr": 5e-4,
    "semples.refine_init": "matched",
    "semples.train_scope": "full",
    "semples.clip_normalisation": "clip",
    "text.class_words": [],
}
"""SemPLeS in the paper's wording where the released code differs."""


def voc12() -> RunConfig:
    """QA-CLIMS on PASCAL VOC 2012 as released (profile official); its CLIP, OVSeg's, is for NON-COMMERCIAL use only.

    `python jobs/train_voc.py --preset voc12 --data-root VOCdevkit/VOC2012 --out s3://bucket/run`. Two GPUs of
    24 GiB; IRN, then DeepLabV2 with ResNet-101. Published mIoU 67.3 (seed, train), 77.4 (mask, train), 72.4 (val), not
    reproduced here: the real weights are the user's to supply.
    Needs the OVSeg checkpoint (CC BY-NC 4.0: non-commercial) as `clip.weights` (`qaclims fetch ovseg`);
    `voc12 plain-clip` runs without it, on weights that anyone may use (docs/weights.md).
    """
    return RunConfig(
        name="voc12",
        data=DataConfig(dataset="voc12", train_split="train_aug", eval_split="train"),
        corpus=CorpusConfig(gpus_per_actor=1.0),
        cam_net=CamNetConfig(weights="timm"),
        clip=ClipConfig(weights="ovseg_swinbase_vitL14_ft_mpt.pth"),
        cams=CamConfig(gpus_per_actor=1.0),
        goal="segmentation",
        masks=MaskConfig(gpus_per_actor=1.0),
        segmentation=deeplab_v2(),
        cluster=ClusterConfig(use_gpu=True),
    )


def clims(config: RunConfig) -> RunConfig:
    """CLIMS, improved and camera-ready, with OpenAI's plain CLIP ViT-B/32."""
    systems = ["baseline", "clims_camera_ready", "clims"]
    words = [["person", "player"]]
    return with_overrides(config, {"systems": systems, **_PLAIN_VIT_B, "text.class_words": words})


def combined(config: RunConfig) -> RunConfig:
    """Answers and learned prompts together: SemPLeS on QA-CLIMS's network, and RITC with learned prompts."""
    return with_overrides(config, {"systems": ["qa_clims", "semples_on_qa_clims", "qa_clims_prompts"]})


def weaktr(config: RunConfig) -> RunConfig:
    """SemPLeS and its controls on WeakTr, with OpenAI's plain CLIP ViT-B/32 and a Segmenter."""
    final = segmenter()
    scaled = OptimConfig(
        name="adamw", lr=7.5e-5, head_lr_factor=1.0, weight_decay=0.03, schedule="cosine", epochs=60, batch_size=64
    )
    base = with_overrides(
        config,
        {
            "systems": ["baseline", "semples_match_longer", "semples_random_prompts", "semples"],
            **_PLAIN_VIT_B,
            "text.class_words": [["person", "player"]],
            "cam_net.generator": "weaktr",
            "cam_net.backbone": "deit_small_patch16_224",
            "cams.scales": [1.0, 1.2],
            "cams.normalisation": "minmax",
        },
    )
    return replace(
        base,
        augment=AugmentConfig(
            kind="random_resized_crop", crop_px=224, rand_augment_magnitude=9, erasing_probability=0.25
        ),
        classifier=ClassifierConfig(optim=scaled, freeze_batch_norm=False),
        masks=MaskConfig(steps=("crf",), seed_threshold=0.4, crf=semples_crf(), gpus_per_actor=1.0),
        segmentation=replace(
            final,
            optim=replace(final.optim, epochs=config.segmentation.optim.epochs),
            steps_per_epoch=config.segmentation.steps_per_epoch,
        ),
    )


def plain_clip(config: RunConfig) -> RunConfig:
    """OpenAI's plain CLIP, which has seen no masks: the strictly image-level setting, without OVSeg's weights."""
    plain = {"clip.weights": "openai", "clip.mask_adapted": False, "ritc.region_mode": "pixel_mask"}
    return with_overrides(config, plain)


def paper(config: RunConfig) -> RunConfig:
    """The papers' wording of what is trained, where the released code differs (profile paper)."""
    methods = {system_of(config, name).method for name in training_order(config)}
    wording = {
        **(_QA_CLIMS_PAPER if "qa_clims" in methods else {}),
        **(_SEMPLES_PAPER if "semples" in methods else {}),
    }
    return with_overrides(config, {"profile": "paper", **wording})


def deeplab_v1_on_resnet38(config: RunConfig) -> RunConfig:
    """DeepLabV1 on WideResNet-38; needs its ImageNet weights as `segmentation.net.weights`."""
    return replace(config, segmentation=deeplab_v1("res38_imagenet.pth"))


def from_coco(config: RunConfig) -> RunConfig:
    """DeepLabV2 from COCO's segmentation weights, which were trained with pixel labels."""
    return replace(config, segmentation=deeplab_v2_from_coco("deeplabv1_resnet101-coco.pth"))


def mask2former_on_sam(config: RunConfig) -> RunConfig:
    """SAM's masks and Mask2Former with Swin-L, as far as FMA-WSSS's recipe is known."""
    return replace(
        config,
        masks=MaskConfig(steps=("sam",), seed_threshold=config.masks.seed_threshold, gpus_per_actor=1.0),
        segmentation=mask2former("microsoft/swin-large-patch4-window12-384-in22k"),
    )


def mobilenet(config: RunConfig) -> RunConfig:
    """The baseline alone with a MobileNetV2, up to a small final network, without a GPU."""
    return on_a_small_network(config, MOBILENET)


def efficientnet_lite2(config: RunConfig) -> RunConfig:
    """The baseline alone with an EfficientNet-Lite2, larger and better than mobilenet's network."""
    return on_a_small_network(config, LITE2)


_OWN_CLIP = "brings a plain CLIP of its own, ViT-B/32"
_NO_CLIP = "small networks train the baseline alone, without CLIP, answers or texts"
_WITHOUT_CLIP = {name: _NO_CLIP for name in ("clims", "combined", "weaktr", "plain-clip", "paper")}
PLAIN_CLIP = Option("plain-clip", "CLIP", plain_clip, {"clims": f"clims {_OWN_CLIP}", "weaktr": f"weaktr {_OWN_CLIP}"})
PAPER_OPTION = Option("paper", "profile", paper, {"clims": "clims runs both published forms of CLIMS"})
_PUBLISHED = (
    published(
        "voc12_deeplab_v1",
        "voc12 deeplab-v1",
        """QA-CLIMS on VOC 2012 with DeepLabV1 on WideResNet-38 as final network; published mIoU 75.6 on val.

    Needs ImageNet weights of ResNet-38 as `segmentation.net.weights`, besides what `voc12` needs.
    """,
    ),
    published(
        "voc12_from_coco",
        "voc12 from-coco",
        """QA-CLIMS on VOC 2012, the DeepLabV2 starting from COCO's segmentation weights (rows D1, D5).

    Needs them in deeplab-pytorch's names as `segmentation.net.weights`; they were trained with pixel labels.
    """,
    ),
    published(
        "voc12_paper",
        "voc12 paper",
        """QA-CLIMS on VOC 2012 with the paper's wording where the released code differs (profile paper).""",
    ),
    published(
        "voc12_plain_clip",
        "voc12 plain-clip",
        """QA-CLIMS on VOC 2012 with OpenAI's plain CLIP: the strictly image-level setting, without OVSeg's weights.""",
    ),
    published(
        "voc12_clims",
        "voc12 clims",
        """CLIMS on VOC 2012, improved and camera-ready (rows C1-C6), with OpenAI's plain CLIP ViT-B/32.

    `python jobs/train_voc.py --preset voc12_clims --data-root VOCdevkit/VOC2012 --out s3://bucket/run`. Published
    seed mIoU 56.6 (camera-ready) and 58.6 (improved); not reproduced here.
    """,
    ),
    published(
        "voc12_combined",
        "voc12 combined",
        """Answers and learned prompts together on VOC 2012; neither paper has it, so no figure is published.

    Needs what `voc12` needs, and runs as it does: `python jobs/train_voc.py --preset voc12_combined ...`.
    """,
    ),
    published(
        "voc12_weaktr",
        "voc12 weaktr",
        """SemPLeS on WeakTr, on VOC 2012, as released (profile official; rows S2-S16): the paper's main result.

    `python jobs/train_voc.py --preset voc12_weaktr --data-root VOCdevkit/VOC2012 --out s3://bucket/run`; with WeakTr's
    own checkpoint, converted, as `--classifier.network`, its 60 epochs are not trained again. Published seed mIoU 65.9
    (WeakTr) and 68.7 (SemPLeS), the epoch chosen with pixel labels; not reproduced here. The last epoch counts here.
    """,
    ),
    published(
        "voc12_mask2former",
        "voc12 weaktr mask2former",
        """SemPLeS on WeakTr with SAM's masks and Mask2Former Swin-L, as far as FMA-WSSS's recipe is known (row D8).

    Published mIoU 83.4 on val, on other seeds (FMA-WSSS's own) and with the best checkpoint chosen on val.
    """,
    ),
    published(
        "voc12_weaktr_paper",
        "voc12 weaktr paper",
        """SemPLeS on WeakTr with the paper's wording where the released code differs (profile paper).""",
    ),
    published(
        "voc12_mobilenet",
        "voc12 mobilenet",
        """The baseline on VOC-layout photographs with a MobileNetV2, up to the final network, without a GPU.

    `python jobs/train_voc.py --preset voc12_mobilenet --data-root DIR --cam-net.weights FILE --out DIR`; measured in
    docs/results/voc_sample.md. The affinity and the final network start from the image-level classifier.
    """,
    ),
    published(
        "voc12_efficientnet_lite2",
        "voc12 lite2",
        """The baseline on VOC-layout photographs with an EfficientNet-Lite2, up to the final network, without a GPU.

    `python jobs/train_voc.py --preset voc12_efficientnet_lite2 --data-root DIR --cam-net.weights FILE --out DIR`; FILE
    holds ImageNet weights of timm's tf_efficientnet_lite2. As `voc12_mobilenet` in all else.
    """,
    ),
)

VOC12 = Base(
    voc12,
    options=(
        Option("clims", "method", clims),
        Option("combined", "method", combined),
        Option("weaktr", "method", weaktr),
        PLAIN_CLIP,
        PAPER_OPTION,
        Option("deeplab-v1", "final network", deeplab_v1_on_resnet38),
        Option("from-coco", "final network", from_coco),
        Option("mask2former", "final network", mask2former_on_sam),
        Option("mobilenet", "final network", mobilenet, _WITHOUT_CLIP),
        Option("lite2", "final network", efficientnet_lite2, _WITHOUT_CLIP),
    ),
    published=_PUBLISHED,
)

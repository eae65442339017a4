"""Complete named runs, and the systems a run compares.

A preset is a function that returns a ``RunConfig``; a system is a name for a few overrides on top of it, so that
one run trains several variants of the method on the same data, corpus and starting point.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from qaclims_ray.config import (
    AugmentConfig,
    CamConfig,
    CamNetConfig,
    ClassifierConfig,
    ClipConfig,
    CorpusConfig,
    DataConfig,
    EvaluationConfig,
    OptimConfig,
    RitcConfig,
)
from qaclims_ray.errors import ConfigError
from qaclims_ray.miniature import vocabulary
from qaclims_ray.run_config import ClusterConfig, RunConfig, with_overrides


@dataclass(frozen=True, kw_only=True)
class System:
    """One row of the table of systems."""

    label: str
    """Short name for tables and figures."""
    description: str
    """One sentence for the report."""
    kind: Literal["classifier", "ritc"] = "ritc"
    """Which network's CAMs are scored."""
    miniature_only: bool = False
    """Whether its texts name things of the miniature world."""
    overrides: dict[str, Any] = field(default_factory=dict)
    """Settings on top of the run's, by dotted name."""


CLIMS_BACKGROUND = ("tree", "river", "sea", "lake", "water", "railway", "railroad", "track", "stone", "rock")
"""CLIMS's ten background texts for VOC, shared by all classes (row C4)."""


def _groups(*names: str) -> dict[str, Any]:
    """Overrides for a row of QA-CLIMS Table 5: no background answers means the text "no {class}"."""
    return {"text.groups": list(names), "text.empty_background": "no_class"}


def _fixed(lists: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {"text.source": "fixed", "text.fixed_background": [[name, list(texts)] for name, texts in lists.items()]}


def _miniature_fixed(*, with_secondary: bool) -> dict[str, Any]:
    generic = ("tree", "sky", "wall")
    lists = {}
    for class_id, name in enumerate(vocabulary.CLASSES):
        own = (vocabulary.PRIMARY_STUFF[class_id],)
        if with_secondary:
            own += (vocabulary.SECONDARY_STUFF[class_id],)
        lists[name] = tuple(dict.fromkeys(own + generic))
    return _fixed(lists)


SYSTEMS: dict[str, System] = {
    "baseline": System(
        label="baseline CAM",
        description="The image-level classifier's own CAM (multi-label soft margin).",
        kind="classifier",
        overrides={"cams.activation": "relu"},
    ),
    "ritc_class_names": System(
        label="RITC, class names only",
        description='RITC without answers: the class against "no {class}" (QA-CLIMS Table 5, row 1).',
        overrides={"text.source": "class_names"},
    ),
    "qa_clims": System(label="QA-CLIMS", description="RITC with all adapted answers: the full method."),
    "fine_grained": System(
        label="+ fine-grained names", description="Table 5, row 2.", overrides=_groups("fine_grained")
    ),
    "alias": System(label="+ object aliases", description="Table 5, row 3.", overrides=_groups("alias")),
    "objects": System(label="+ surrounding objects", description="Table 5, row 4.", overrides=_groups("objects")),
    "scene": System(label="+ scene", description="Table 5, row 5.", overrides=_groups("scene")),
    "fine_grained_alias": System(
        label="fine + alias", description="Table 5, row 6.", overrides=_groups("fine_grained", "alias")
    ),
    "fine_grained_alias_objects": System(
        label="fine + alias + objects",
        description="Table 5, row 7.",
        overrides=_groups("fine_grained", "alias", "objects"),
    ),
    "background_only": System(
        label="background answers only",
        description="Control: the foreground text is the class name, the background texts are adapted.",
        overrides=_groups("objects", "scene"),
    ),
    "shuffled": System(
        label="shuffled answers",
        description="Control: every image gets the answers of another image of the same class.",
        overrides={"text.shuffle_answers": True},
    ),
    "frc_only": System(
        label="FRC", description="Table 4, row 1.", overrides={"ritc.background_weight": 0.0, "ritc.area_weight": 0.0}
    ),
    "brc_only": System(
        label="BRC", description="Table 4, row 2.", overrides={"ritc.foreground_weight": 0.0, "ritc.area_weight": 0.0}
    ),
    "frc_brc": System(label="FRC + BRC", description="Table 4, row 3.", overrides={"ritc.area_weight": 0.0}),
    "no_fat": System(
        label="QA-CLIMS, FAT off",
        description="Regions weighted by the CAM alone, without the adaptive threshold.",
        overrides={"ritc.region_mode": "none"},
    ),
    "pixel_mask": System(
        label="QA-CLIMS, pixel masks",
        description="The binary map acts on pixels, as the paper's formula prints it (row R2).",
        overrides={"ritc.region_mode": "pixel_mask"},
    ),
    "fixed_clims": System(
        label="fixed list: CLIMS's ten",
        description="The same losses with CLIMS's ten fixed background texts.",
        overrides=_fixed({"*": CLIMS_BACKGROUND}),
    ),
    "fixed_primary": System(
        label="fixed list: primary + 3 common",
        description="Miniature only: each class's most frequent background and three common ones.",
        miniature_only=True,
        overrides=_miniature_fixed(with_secondary=False),
    ),
    "fixed_secondary": System(
        label="fixed list: primary + secondary + 3",
        description="Miniature only: the same and one of the class's secondary backgrounds.",
        miniature_only=True,
        overrides=_miniature_fixed(with_secondary=True),
    ),
}
"""All systems by name."""


def system_config(config: RunConfig, name: str) -> RunConfig:
    """Return the run's configuration with one system's overrides on top.

    Raises:
        ConfigError: for a name that is not in `SYSTEMS`.
    """
    if name not in SYSTEMS:
        raise ConfigError(f"there is no system {name!r}; known: {', '.join(SYSTEMS)}")
    return with_overrides(config, SYSTEMS[name].overrides)


def miniature() -> RunConfig:
    """The miniature world: `qaclims run miniature --out runs/miniature`, about 4 minutes on 2 cores, no GPU.

    Seed mIoU of its systems: docs/results/miniature.md. What differs from VOC, and why: docs/design/miniature.md.
    """
    return RunConfig(
        name="miniature",
        data=DataConfig(dataset="miniature", num_images=600),
        corpus=CorpusConfig(model="miniature", image_size=64),
        clip=ClipConfig(model="miniature"),
        cam_net=CamNetConfig(
            backbone="miniature", output_stride=4, image_mean=(0.5, 0.5, 0.5), image_std=(0.25, 0.25, 0.25)
        ),
        augment=AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=64),
        classifier=ClassifierConfig(
            optim=OptimConfig(name="adamw", lr=3e-3, head_lr_factor=1.0, epochs=20, batch_size=32),
            freeze_batch_norm=False,
            calibrate=True,
        ),
        ritc=RitcConfig(
            optim=OptimConfig(
                name="adamw",
                lr=1e-3,
                head_lr_factor=1.0,
                warmup_steps=60,
                epochs=9,
                batch_size=32,
                clip_grad_norm=5.0,
            ),
            area_weight=0.5,
            area_over="present",
            pair_reduction="mean_pairs",
            freeze_batch_norm=True,
        ),
        cams=CamConfig(scales=(1.0,), activation="sigmoid", batch_size=64),
        evaluation=EvaluationConfig(fixed_threshold=0.1),
        cluster=ClusterConfig(num_workers=2),
    )


def voc12() -> RunConfig:
    """QA-CLIMS on PASCAL VOC 2012 as the released code runs it (profile official).

    `python jobs/train_voc.py --preset voc12 --data-root VOCdevkit/VOC2012 --out s3://bucket/run`. Two GPUs of
    24 GiB; published seed mIoU 67.3 on train (not reproduced here: the real weights are the user's to supply).
    Needs the OVSeg checkpoint (non-commercial) as `clip.weights`; `voc12_plain_clip` runs without it.
    """
    return RunConfig(
        name="voc12",
        data=DataConfig(dataset="voc12", train_split="train_aug", eval_split="train"),
        corpus=CorpusConfig(gpus_per_actor=1.0),
        cam_net=CamNetConfig(weights="timm"),
        clip=ClipConfig(weights="ovseg_swinbase_vitL14_ft_mpt.pth"),
        cams=CamConfig(gpus_per_actor=1.0),
        cluster=ClusterConfig(num_workers=2, use_gpu=True, cpus_per_worker=4, loader_workers=3, precision="bf16"),
    )


def voc12_paper() -> RunConfig:
    """QA-CLIMS on VOC 2012 with the paper's wording where the released code differs (profile paper)."""
    return with_overrides(
        voc12(),
        {
            "name": "voc12_paper",
            "profile": "paper",
            "corpus.questions": "paper",
            "text.foreground_mix": "uniform",
            "text.renormalise_foreground": True,
            "ritc.region_mode": "pixel_mask",
            "ritc.clip_normalisation": "clip",
            "ritc.background_pool": "exp_mean",
            "ritc.optim.momentum": 0.9,
            "ritc.pair_reduction": "mean_pairs",
        },
    )


def voc12_plain_clip() -> RunConfig:
    """QA-CLIMS on VOC 2012 with OpenAI's plain CLIP: the strictly image-level setting, without OVSeg's weights."""
    return with_overrides(
        voc12(),
        {
            "name": "voc12_plain_clip",
            "clip.weights": "openai",
            "clip.mask_adapted": False,
            "ritc.region_mode": "pixel_mask",
        },
    )


def voc12_mobilenet() -> RunConfig:
    """The baseline CAM on VOC-layout photographs with a MobileNetV2, for machines without a GPU.

    `python jobs/train_voc.py --preset voc12_mobilenet --data-root DIR --cam-net.weights FILE --out DIR`; measured
    in docs/results/voc_sample.md.
    """
    return RunConfig(
        name="voc12_mobilenet",
        systems=("baseline",),
        data=DataConfig(dataset="voc12", train_split="train", eval_split="train"),
        cam_net=CamNetConfig(
            backbone="mobilenetv2_100",
            weights="timm",
            output_stride=16,
            image_mean=(0.5, 0.5, 0.5),
            image_std=(0.5, 0.5, 0.5),
            pad_same=True,
        ),
        augment=AugmentConfig(min_long_side_px=256, max_long_side_px=416, crop_px=320),
        classifier=ClassifierConfig(
            optim=OptimConfig(name="adamw", lr=2e-4, batch_size=8, epochs=8, weight_decay=1e-4), freeze_batch_norm=True
        ),
        cams=CamConfig(scales=(1.0, 0.5, 1.5), batch_size=4),
    )


PRESETS: dict[str, Callable[[], RunConfig]] = {
    "miniature": miniature,
    "voc12": voc12,
    "voc12_paper": voc12_paper,
    "voc12_plain_clip": voc12_plain_clip,
    "voc12_mobilenet": voc12_mobilenet,
}
"""All presets by name."""


def preset(name: str) -> RunConfig:
    """Return a preset by name.

    Raises:
        ConfigError: for a name that is not in `PRESETS`.
    """
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]()


def check_run(config: RunConfig) -> None:
    """Resolve every system of a run once, so that a bad name or combination fails before any work starts.

    Raises:
        ConfigError: naming the setting or system that cannot be used and why.
    """
    if config.data.dataset != "miniature" and not config.data.root:
        raise ConfigError("data.root is empty: give the folder of the data set with --data-root")
    for name in config.systems:
        resolved = system_config(config, name)
        if SYSTEMS[name].kind != "ritc":
            continue
        if resolved.ritc.region_mode in ("token_mask", "both") and not resolved.clip.mask_adapted:
            raise ConfigError(
                f"system {name}: ritc.region_mode is {resolved.ritc.region_mode}, but a plain CLIP has no mask "
                "tokens; set ritc.region_mode to pixel_mask, or clip.mask_adapted with an OVSeg checkpoint"
            )
        if SYSTEMS[name].miniature_only and config.data.dataset != "miniature":
            raise ConfigError(
                f"system {name} holds texts of the miniature world; data.dataset is {config.data.dataset}"
            )


def needs_corpus(config: RunConfig) -> bool:
    """Whether any system of the run reads the VQA corpus."""
    return any(
        SYSTEMS[name].kind == "ritc" and system_config(config, name).text.source == "qape" for name in config.systems
    )

"""Complete runs on tissue: BCSS-WSSS and LUAD-HistoSeg (Han et al. 2022). Nobody has run them yet.

Neither the data sets nor real weights were at hand; what was tested is the layout, on tiny files, and the pipeline
without a background. Third parties who ran QA-CLIMS as published, with its questions about photographs, report a Dice
of 37.4 on BCSS-WSSS and an mIoU of 22.0 on LUAD-HistoSeg, far below methods made for tissue.
"""

from dataclasses import replace

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cluster.config import ClusterConfig
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.data.config import AugmentConfig, DataConfig, JointCropConfig
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.models.clip.config import ClipConfig
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.presets.option import Base
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.run_config import RunConfig
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.recipes import deeplab_v2
from qaclims_ray.text.config import TextConfig

_PATCH_PX = 224
"""Side of every patch of both data sets."""


def bcss_wsss() -> RunConfig:
    """QA-CLIMS on BCSS-WSSS, breast tissue: tumor, stroma, lymphocytic infiltrate, necrosis. Never run in full.

    `qaclims run bcss_wsss --data-root BCSS-WSSS --out DIR`, with a GPU. The questions (`corpus.questions histology`)
    and texts are ours, and were not tried with a real BLIP or CLIP. CLIP is OpenAI's, which has seen little tissue:
    `--clip.model` and `--clip.weights` take any CLIP of open_clip. Seeds and pseudo masks are scored on val, with its
    masks' labels given; the final network on test. For a first look set `--goal seed`.
    """
    return RunConfig(
        name="bcss_wsss",
        data=DataConfig(dataset="bcss_wsss", train_split="train", eval_split="val", test_split="test"),
        corpus=CorpusConfig(questions="histology", gpus_per_actor=1.0),
        clip=ClipConfig(model="ViT-B-32-quickgelu", weights="openai", mask_adapted=False),
        text=TextConfig(
            template="a histopathology image of {}.",
            class_synonyms=(("lymphocytic infiltrate", "lymphocyte"), ("necrosis", "necrotic")),
        ),
        cam_net=CamNetConfig(weights="timm"),
        augment=AugmentConfig(min_long_side_px=0, max_long_side_px=0, crop_px=_PATCH_PX),
        ritc=RitcConfig(region_mode="pixel_mask"),
        cams=CamConfig(gpus_per_actor=1.0),
        goal="segmentation",
        masks=MaskConfig(steps=(), gpus_per_actor=1.0),
        segmentation=_deeplab(),
        cluster=ClusterConfig(use_gpu=True),
    )


def luad_histoseg() -> RunConfig:
    """QA-CLIMS on LUAD-HistoSeg, lung: tumor epithelium, necrosis, lymphocytes, tumor-associated stroma. Never run.

    `qaclims run luad_histoseg --data-root LUAD-HistoSeg --out DIR`; everything said of `bcss_wsss` holds. White pixels
    (empty air sacs) are left out of the pseudo masks, as Han et al. do here and not on BCSS.
    """
    base = bcss_wsss()
    return replace(
        base,
        name="luad_histoseg",
        data=replace(base.data, dataset="luad_histoseg"),
        text=replace(
            base.text,
            class_synonyms=(
                ("tumor epithelium", "tumor"),
                ("necrosis", "necrotic"),
                ("lymphocytes", "lymphocyte"),
                ("tumor-associated stroma", "stroma"),
            ),
        ),
        masks=replace(base.masks, white_above=200),
    )


def _deeplab() -> SegmentationConfig:
    """DeepLabV2 at the patches' size; its loss cannot weigh a background against the rest where there is none."""
    crop = JointCropConfig(min_scale=0.75, max_scale=1.5, crop_px=_PATCH_PX)
    return replace(deeplab_v2(), loss="cross_entropy", crop=crop)


BCSS_WSSS = Base(bcss_wsss)
LUAD_HISTOSEG = Base(luad_histoseg)

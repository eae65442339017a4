"""Published recipes of final networks (rows D1-D8); presets choose one, and say what it starts from."""

from dataclasses import replace

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.segmentation.config import (
    CAFFE_MEAN,
    CAFFE_STD,
    SegmentationConfig,
    SegmentationNetConfig,
    SegmentationTestConfig,
    deeplab_optim,
)
from qaclims_ray.training.config import OptimConfig

STEPS_PER_EPOCH = 1_000
"""Optimiser steps of an epoch of every recipe here: they are published with counts of steps, not of passes."""


def deeplab_v2(weights: str = "timm") -> SegmentationConfig:
    """DeepLabV2 with ResNet-101 from ImageNet weights, as QA-CLIMS and CLIMS train it on VOC (rows D1-D5).

    Published with QA-CLIMS's masks: mIoU 72.4 on val, CRF included.

    Args:
        weights: ImageNet weights; from COCO's segmentation weights `deeplab_v2_from_coco` is the recipe.
    """
    return SegmentationConfig(
        net=SegmentationNetConfig(architecture="deeplab_v2", backbone="resnet101", weights=weights),
        crop=JointCropConfig(min_scale=0.5, max_scale=2.0, crop_px=321),
        test=SegmentationTestConfig(flip=False),
        loss="balanced",
        optim=replace(deeplab_optim(), schedule_every=10),
        steps_per_epoch=STEPS_PER_EPOCH,
        accumulation=2,
        freeze_batch_norm=True,
    )


def deeplab_v2_from_coco(weights: str) -> SegmentationConfig:
    """DeepLabV2 from weights that were trained on COCO's masks, which moves VOC val by 1 to 2.7 points (D1, D5).

    Args:
        weights: file in deeplab-pytorch's names; they hold pixel labels of COCO, and every result says what it used.
    """
    return SegmentationConfig(
        net=SegmentationNetConfig(
            architecture="deeplab_v2",
            backbone="resnet101_caffe",
            weights=weights,
            image_mean=CAFFE_MEAN,
            image_std=CAFFE_STD,
        ),
        crop=JointCropConfig(min_scale=0.5, max_scale=1.5, crop_px=321),
        test=SegmentationTestConfig(flip=False),
        optim=replace(deeplab_optim(), schedule_every=10, epochs=20),
        steps_per_epoch=STEPS_PER_EPOCH,
        accumulation=2,
        freeze_batch_norm=True,
    )


def deeplab_v1(weights: str) -> SegmentationConfig:
    """DeepLabV1 with WideResNet-38, in the configuration that QA-CLIMS's authors gave (row D6).

    Published with QA-CLIMS's masks: mIoU 75.6 on val. The batch norm momentum is part of the network.

    Args:
        weights: ImageNet weights of ResNet-38, a local file.
    """
    return SegmentationConfig(
        net=SegmentationNetConfig(architecture="deeplab_v1", backbone="wide_resnet38", weights=weights),
        crop=JointCropConfig(min_scale=0.5, max_scale=2.0, crop_px=512, jitter=0.06),
        test=SegmentationTestConfig(scales=(0.5, 0.75, 1.0, 1.25, 1.5, 1.75)),
        optim=replace(deeplab_optim(), lr=8e-4, batch_size=6),
        steps_per_epoch=STEPS_PER_EPOCH,
    )


def segmenter(weights: str = "timm") -> SegmentationConfig:
    """Segmenter with DeiT-S, which WeakTr and SemPLeS train on their masks.

    Published with SemPLeS's masks: mIoU 74.2 on VOC val. Neither paper prints the schedule; this is Segmenter's own
    (SGD, 1e-3, poly), with the length of the DeepLab recipe. WeakTr's clipping by patches is not built.
    """
    return SegmentationConfig(
        net=SegmentationNetConfig(
            architecture="segmenter", backbone="deit_small_patch16_224", weights=weights, image_size=512
        ),
        crop=JointCropConfig(min_scale=0.5, max_scale=2.0, crop_px=512),
        test=SegmentationTestConfig(scales=(0.75, 1.0, 1.25), window_px=512),
        optim=replace(deeplab_optim(), lr=1e-3, head_lr_factor=1.0, weight_decay=0.0, batch_size=8),
        steps_per_epoch=STEPS_PER_EPOCH,
    )


def mask2former(weights: str) -> SegmentationConfig:
    """Mask2Former with Swin-L, as FMA-WSSS and SemPLeS train it (row D8).

    Published with SemPLeS's masks: mIoU 83.4 on VOC val, of an intermediate checkpoint called the best; the last one
    counts here.

    Args:
        weights: transformers Swin-L of ImageNet-22k, hub name or local folder.
    """
    return SegmentationConfig(
        net=SegmentationNetConfig(architecture="mask2former", backbone="swin_large", weights=weights),
        crop=JointCropConfig(min_scale=0.5, max_scale=2.0, crop_px=512),
        optim=OptimConfig(
            name="adamw",
            lr=1e-5,
            head_lr_factor=10.0,
            momentum=0.9,
            weight_decay=0.05,
            clip_grad_norm=0.01,
            epochs=80,
            batch_size=4,
        ),
        steps_per_epoch=STEPS_PER_EPOCH,
    )

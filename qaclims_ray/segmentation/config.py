"""Settings of the final segmentation networks, their training and their test time (rows D1-D8)."""

from dataclasses import field
from typing import Literal

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.models.precision import Arithmetic, Precision, stands_for
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf
from qaclims_ray.settings import require, require_at_least, require_text, settings
from qaclims_ray.training.config import OptimConfig

CAFFE_MEAN = (0.481078, 0.457525, 0.407875)
"""Normalisation of the Caffe models: mean of red, green, blue: 122.675, 116.669, 104.008 of 255."""
CAFFE_STD = (1 / 255, 1 / 255, 1 / 255)
"""Keeps pixels in 0-255."""
WEIGHTS_SETTING = "segmentation.net.weights"
"""The setting that errors about initial weights name."""


@settings
class SegmentationNetConfig:
    """The network and what it starts from."""

    architecture: Literal["deeplab_v2", "deeplab_v1", "segmenter", "mask2former", "encoder", "clip_decoder"] = "encoder"
    """deeplab_v2: ResNet, ASPP, three scales (D1-D5); deeplab_v1: WideResNet-38 (D6); segmenter: plain ViT and mask
    transformer; mask2former: transformers' own (D8); encoder: any timm network and a light decoder; clip_decoder: of
    the systems online, which choose it themselves."""
    backbone: str = "resnet50"
    """timm model (deeplab_v2: resnet101, segmenter: deit_small_patch16_224), or "miniature" (segmenter:
    "miniature_vit"); deeplab_v2 also "resnet101_caffe", for weights in deeplab-pytorch's names; deeplab_v1
    "wide_resnet38"; mask2former a size of Swin, "swin_large", "swin_base", "swin_small", "swin_tiny"."""
    weights: str = ""
    """Initial weights, required: "random", "timm" for the model's default pretrained ones, "classifier" for the
    backbone of the run's image-level classifier (encoder), or a local file or folder (mask2former: also a hub name).
    Recorded with every figure, which it moves by points (D5)."""
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Normalisation of the image (0-1 scale)."""
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Normalisation of the image (0-1 scale)."""
    pad_same: bool = False
    """encoder: build the backbone with TensorFlow's padding (timm pad_type="same")."""
    width: int = 128
    """encoder: channels of the decoder."""
    decoder_norm: Literal["group", "batch"] = "group"
    """encoder: what the decoder is normalised by. group (Wu and He, 2018) takes no statistics of a batch: it works
    beside a backbone whose batch norm is fixed, on any number of workers; batch learns faster on the miniature."""
    image_size: int = 512
    """segmenter: side in pixels for which position embeddings are stored; other sizes interpolate them."""

    def __post_init__(self) -> None:
        require_text(self, "segmentation.net", "backbone")
        require_at_least(self, "segmentation.net", 1, "width", "image_size")
        require(min(self.image_std) > 0, f"segmentation.net.image_std is {self.image_std}, expected positive numbers")
        require(
            self.weights != "classifier" or self.architecture == "encoder",
            f"segmentation.net.weights is classifier, which only architecture encoder takes, not {self.architecture}",
        )
        expected = {"deeplab_v1": "wide_resnet38"}.get(self.architecture, self.backbone)
        require(
            self.backbone == expected,
            f"segmentation.net.backbone is {self.backbone!r}; {self.architecture} needs {expected!r}",
        )


@settings
class SegmentationTestConfig:
    """How the final network segments, when it is scored and when it is used."""

    scales: tuple[float, ...] = (1.0,)
    """Scales of the image; probabilities are averaged."""
    flip: bool = True
    """Add each scale's mirror image."""
    window_px: int = 0
    """Side of a sliding window with half overlap; 0 sees the whole image at once."""
    crf: CrfConfig = field(default_factory=deeplab_crf)
    """CRF of the second figure; both are reported (D4)."""
    batch_size: int | None = None
    """Images of equal size computed together. None takes 8 on a CPU, and on a GPU one for every 2 GiB of its memory, at
    most 32."""
    precision: Precision = "auto"
    """Arithmetic of the network: fp32, bf16, fp16; auto is fp16 on GPUs, fp32 on CPUs. Probabilities and CRF are
    float32."""

    def arithmetic(self, gpus: float | int) -> Arithmetic:
        """Return what `precision` stands for in an actor with so many GPUs."""
        return stands_for(self.precision, gpus=gpus, auto="fp16")

    def __post_init__(self) -> None:
        require(bool(self.scales) and min(self.scales) > 0, "segmentation.test.scales must hold positive numbers")
        require_at_least(self, "segmentation.test", 0, "window_px")
        if self.batch_size is not None:
            require_at_least(self, "segmentation.test", 1, "batch_size")


def deeplab_optim() -> OptimConfig:
    """Return what DeepLab trains with, in 30 epochs of 1,000 steps (D1); recipes depart from it and name the steps."""
    return OptimConfig(lr=2.5e-4, momentum=0.9, weight_decay=5e-4, epochs=30, batch_size=10)


@settings
class SegmentationConfig:
    """The final network, trained on pseudo masks as if they were ground truth."""

    net: SegmentationNetConfig = field(default_factory=SegmentationNetConfig)
    """Network and initial weights."""
    crop: JointCropConfig = field(default_factory=JointCropConfig)
    """Training crops."""
    test: SegmentationTestConfig = field(default_factory=SegmentationTestConfig)
    """How the final network segments, when it is scored and when it is used."""
    loss: Literal["cross_entropy", "balanced"] = "cross_entropy"
    """cross_entropy: mean over labelled pixels; balanced: half the mean over background pixels and half the mean over
    foreground pixels, which DeepLabV2 needs from ImageNet weights (D2). mask2former has a loss of its own."""
    optim: OptimConfig = field(default_factory=deeplab_optim)
    """Optimiser and schedule; `lr` is of pretrained layers, new ones learn at `head_lr_factor` times it. The training
    takes `epochs` passes over the training images, or `epochs` times `steps_per_epoch` steps."""
    steps_per_epoch: int | None = None
    """Optimiser steps of an epoch, which ends with a checkpoint; None makes it one pass over the training images, so
    that the training grows with the data set. Published recipes count steps, which fit the data set they were made
    for (D1)."""
    rounds: int = 1
    """Trainings of the final network, one after the other and each from the start. From the second on it learns from
    what the network before says of the same images within their tags, at test time's scales and after its CRF. Systems
    with given, true or their own masks train once."""
    accumulation: int = 1
    """Parts of a worker's share of a batch that are computed one after the other, to save memory (D1)."""
    freeze_batch_norm: bool = False
    """Keep batch norm statistics fixed."""

    def __post_init__(self) -> None:
        require_at_least(self, "segmentation", 1, "rounds", "accumulation")
        steps = self.steps_per_epoch
        require(steps is None or steps >= 1, f"segmentation.steps_per_epoch is {steps}, expected at least 1, or None")
        is_unsettled = self.net.architecture == "encoder" and self.net.decoder_norm == "batch"
        require(
            not (is_unsettled and self.freeze_batch_norm),
            "segmentation.net.decoder_norm is batch and segmentation.freeze_batch_norm is true: a decoder is new and "
            "has no statistics to keep, so it would not normalise at all; set decoder_norm group, or freeze_batch_norm "
            "false",
        )

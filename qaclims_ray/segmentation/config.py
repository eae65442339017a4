"""Settings of the final segmentation networks, their training and their test time (rows D1-D8)."""

from dataclasses import field
from typing import Literal

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf
from qaclims_ray.settings import require, require_at_least, require_text, settings
from qaclims_ray.training.config import OptimConfig


@settings
class SegmentationNetConfig:
    """The network and what it starts from."""

    architecture: Literal["deeplab_v2", "deeplab_v1", "segmenter", "mask2former", "encoder"] = "encoder"
    """deeplab_v2: ResNet, ASPP, three scales (D1-D5); deeplab_v1: WideResNet-38 (D6); segmenter: plain ViT and mask
    transformer; mask2former: transformers' own (D8); encoder: any timm network and a light decoder."""
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
    """Test time."""

    scales: tuple[float, ...] = (1.0,)
    """Scales of the image; probabilities are averaged."""
    flip: bool = True
    """Add each scale's mirror image."""
    window_px: int = 0
    """Side of a sliding window with half overlap; 0 sees the whole image at once."""
    crf: CrfConfig = field(default_factory=deeplab_crf)
    """CRF of the second figure; both are reported (D4)."""
    batch_size: int = 8
    """Images of equal size computed together."""

    def __post_init__(self) -> None:
        require(bool(self.scales) and min(self.scales) > 0, "segmentation.test.scales must hold positive numbers")
        require_at_least(self, "segmentation.test", 0, "window_px")
        require_at_least(self, "segmentation.test", 1, "batch_size")


@settings
class SegmentationConfig:
    """The final network, trained on pseudo masks as if they were ground truth."""

    net: SegmentationNetConfig = field(default_factory=SegmentationNetConfig)
    """Network and initial weights."""
    crop: JointCropConfig = field(default_factory=JointCropConfig)
    """Training crops."""
    test: SegmentationTestConfig = field(default_factory=SegmentationTestConfig)
    """Test time."""
    loss: Literal["cross_entropy", "balanced"] = "cross_entropy"
    """cross_entropy: mean over labelled pixels; balanced: half the mean over background pixels and half the mean over
    foreground pixels, which DeepLabV2 needs from ImageNet weights (D2). mask2former has a loss of its own."""
    iterations: int = 30_000
    """Optimiser steps."""
    iterations_per_checkpoint: int = 1_000
    """Steps between checkpoints."""
    accumulation: int = 1
    """Parts of a worker's share of a batch that are computed one after the other, to save memory (D1)."""
    freeze_batch_norm: bool = False
    """Keep batch norm statistics fixed."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""
    lr: float = 2.5e-4
    """Learning rate of pretrained layers (effective)."""
    head_lr_factor: float = 10.0
    """New layers learn at this multiple of `lr`."""
    momentum: float = 0.9
    """SGD momentum."""
    weight_decay: float = 5e-4
    """Weight decay."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Learning rate over the iterations."""
    poly_power: float = 0.9
    """Power of the poly schedule."""
    schedule_every: int = 1
    """Steps between updates of the learning rate (D1: 10)."""
    warmup_steps: int = 0
    """Linear warm-up in steps."""
    clip_grad_norm: float | None = None
    """Gradient norm limit; None does not clip."""
    batch_size: int = 10
    """Images in one step over all workers together."""

    def __post_init__(self) -> None:
        require_at_least(
            self, "segmentation", 1, "iterations", "iterations_per_checkpoint", "accumulation", "batch_size"
        )
        require(
            self.iterations % min(self.iterations_per_checkpoint, self.iterations) == 0,
            f"segmentation.iterations ({self.iterations}) is not a multiple of segmentation.iterations_per_checkpoint "
            f"({self.iterations_per_checkpoint})",
        )
        _ = self.optim  # checks its fields

    @property
    def optim(self) -> OptimConfig:
        """Optimiser and schedule as the training loop takes them; an epoch ends with a checkpoint."""
        return OptimConfig(
            name=self.optimizer,
            lr=self.lr,
            head_lr_factor=self.head_lr_factor,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            poly_power=self.poly_power,
            schedule_every=self.schedule_every,
            warmup_steps=self.warmup_steps,
            epochs=self.iterations // self.steps_per_epoch,
            batch_size=self.batch_size,
            clip_grad_norm=self.clip_grad_norm,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps between two checkpoints."""
        return min(self.iterations_per_checkpoint, self.iterations)

"""Settings of steps that spread maps over the cells of an image by an affinity which nothing was trained for."""

from dataclasses import field

from qaclims_ray.settings import require, require_at_least, require_text, settings


@settings
class SpreadConfig:
    """How maps spread over the cells of an image."""

    iterations: int = 1
    """How often the affinity is applied: t of A^t. CLIP-ES takes 2."""
    scale: float = 1.0
    """The network looks at the image at this multiple of its size; its cells are so much finer."""

    def __post_init__(self) -> None:
        require_at_least(self, "spread", 1, "iterations")
        require(self.scale > 0, f"spread.scale is {self.scale}, expected a positive number")


@settings
class ClipAttentionConfig:
    """CLIP's own attention between patches, made symmetric (CLIP-ES, Lin et al., CVPR 2023)."""

    num_blocks: int = 8
    """Last blocks of CLIP's image tower whose attention is averaged; at most all there are."""
    within_boxes: bool = True
    """Keep a class within the boxes around the parts of its seed; without a background there are none."""
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    """How maps spread."""

    def __post_init__(self) -> None:
        require_at_least(self, "masks.clip_attention", 1, "num_blocks")


@settings
class ClassDistributionConfig:
    """Patches that say the same of all classes belong together (class-distribution affinity of CD-CLIP, CVPR 2026)."""

    num_blocks: int = 5
    """Last blocks of CLIP's image tower whose self-correlations give the patches' features, as patch_text.num_blocks,
    and whose attention is averaged."""
    text_temperature: float = 0.01
    """Cosines of a patch to the texts of the classes are divided by this before they become shares: CLIP's own."""
    temperature: float = 0.1
    """Likenesses of two patches, one less their divergence, are divided by this before they become weights."""
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    """How maps spread."""

    def __post_init__(self) -> None:
        require_at_least(self, "masks.class_distribution", 1, "num_blocks")
        for name in ("text_temperature", "temperature"):
            value = getattr(self, name)
            require(value > 0, f"masks.class_distribution.{name} is {value}, expected a positive number")


@settings
class FeatureAffinityConfig:
    """Cells of a timm network whose features point the same way belong together; DINOv2 is what others take."""

    backbone: str = "vit_base_patch14_dinov2"
    """timm model: a vision transformer, or a convolutional one."""
    weights: str = "timm"
    """Local safetensors/pth file, or "timm" for the model's default pretrained weights."""
    stage: int = -1
    """Which of the model's blocks (transformers) or stages (convolutional ones) gives the features; -1 is the last."""
    temperature: float = 0.05
    """Cosines of two cells are divided by this before they become weights."""
    spread: SpreadConfig = field(default_factory=SpreadConfig)
    """How maps spread."""

    def __post_init__(self) -> None:
        require_text(self, "masks.feature_affinity", "backbone", "weights")
        require(
            self.temperature > 0,
            f"masks.feature_affinity.temperature is {self.temperature}, expected a positive number",
        )

"""Settings of final networks that make their own masks while they learn."""

from dataclasses import field

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.refine.config import PamrConfig
from qaclims_ray.settings import require, require_at_least, settings
from qaclims_ray.training.config import OptimConfig


def online_optim() -> OptimConfig:
    """Return what the published decoders on a frozen CLIP train with: AdamW, 30 epochs of 1,000 steps (row O1)."""
    return OptimConfig(
        name="adamw", lr=1e-4, head_lr_factor=1.0, momentum=0.9, weight_decay=0.01, epochs=30, batch_size=4
    )


@settings
class OnlineConfig:
    """Final networks that make their own masks while they learn."""

    width: int = 256
    """Channels of the decoder on a frozen CLIP; of `online_classifier` they are `segmentation.net.width`."""
    spread_steps: int = 2
    """How often maps are spread over cells that belong together, by the encoder's and the decoder's own features."""
    object_above: float = 0.6
    """Lowest score of a pixel of an object; between this and `background_below` a pixel is not learned from."""
    background_below: float = 0.4
    """Scores of background pixels stay under it."""
    tag_epochs: int = 5
    """Of `online_classifier`: epochs at the start in which it learns the tags alone. A head that does not know the
    classes yet makes masks of noise, and a network that has learned these does not get over them."""
    affinity_weight: float = 0.1
    """Weight of the loss that draws features of one label together, beside the cross-entropy (row O2)."""
    pamr: PamrConfig = field(default_factory=PamrConfig)
    """How maps follow the image's colours before they are cut."""
    crop: JointCropConfig = field(default_factory=lambda: JointCropConfig(crop_px=320))
    """Training crops."""
    optim: OptimConfig = field(default_factory=online_optim)
    """Optimiser and schedule; the training takes `epochs` times `steps_per_epoch` steps."""
    steps_per_epoch: int | None = 1_000
    """Optimiser steps of an epoch, which ends with a checkpoint; None makes it one pass over the training images."""

    def __post_init__(self) -> None:
        require_at_least(self, "online", 1, "width")
        require_at_least(self, "online", 0, "spread_steps", "affinity_weight", "tag_epochs")
        require(
            0 <= self.background_below <= self.object_above <= 1,
            f"online: 0 <= background_below ({self.background_below}) <= object_above ({self.object_above}) <= 1 is "
            "required",
        )
        steps = self.steps_per_epoch
        require(steps is None or steps >= 1, f"online.steps_per_epoch is {steps}, expected at least 1, or None")

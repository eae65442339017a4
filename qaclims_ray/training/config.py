"""Settings that every training has: optimiser, schedule, and which epoch's network it ends with.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from typing import Literal

from qaclims_ray.settings import require, require_at_least, settings


@settings
class OptimConfig:
    """Optimiser and schedule (rows R14, R15, R17)."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""
    lr: float = 3.5e-4
    """Learning rate of the backbone at the start (effective, never scaled behind your back)."""
    head_lr_factor: float = 10.0
    """The classifier learns at this multiple of `lr`."""
    momentum: float = 1e-4
    """SGD momentum: 1e-4 is what the released code really does, 0.9 what it meant (R14); adamw has none of it."""
    weight_decay: float = 1e-4
    """Weight decay."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Learning rate over the steps of the run."""
    poly_power: float = 0.9
    """Power of the poly schedule."""
    schedule_every: int = 1
    """Steps between changes of the learning rate."""
    warmup_steps: int = 0
    """Linear warm-up in steps."""
    epochs: int = 15
    """Passes over the training split; of prompts, which see random draws, and of final networks whose recipe counts
    steps, `steps_per_epoch` steps each. Every epoch ends with a checkpoint."""
    batch_size: int = 8
    """Images, of prompts cached features, in one step over all workers together."""
    clip_grad_norm: float | None = None
    """Gradient norm limit; None does not clip."""

    def __post_init__(self) -> None:
        for name in ("lr", "head_lr_factor"):
            require(getattr(self, name) > 0, f"optim.{name} is {getattr(self, name)}, expected a positive number")
        require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}, expected a number in [0, 1)")
        require_at_least(self, "optim", 0, "weight_decay", "poly_power", "warmup_steps")
        require_at_least(self, "optim", 1, "epochs", "batch_size", "schedule_every")
        require(self.clip_grad_norm is None or self.clip_grad_norm > 0, "optim.clip_grad_norm must be positive or None")


@settings
class SelectionConfig:
    """Which epoch's network a training of CAMs ends with (row S15). Classifier and prompts end with their last."""

    criterion: Literal["last", "clip_score", "separation", "oracle"] = "last"
    """last: the last epoch. clip_score: where foreground regions look most like their class to CLIP and background
    regions least, label-free. separation: where maps part objects from their surroundings best (what searches rate
    by), label-free. oracle: the best mIoU against pixel labels, as released; every table says so."""
    num_images: int = 200
    """Images that rate an epoch: training images for clip_score and separation, images with a mask for oracle."""
    split: str = ""
    """oracle: the split whose masks rate an epoch; empty takes the scored split."""

    def __post_init__(self) -> None:
        require(not self.split or self.criterion == "oracle", "selection.split is for selection.criterion oracle alone")
        require_at_least(self, "selection", 1, "num_images")

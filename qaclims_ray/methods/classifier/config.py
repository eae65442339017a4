"""Settings of the image-level classifier.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from dataclasses import field
from typing import Literal

from qaclims_ray.settings import require, settings
from qaclims_ray.training.config import OptimConfig

CALIBRATED_DIR = "calibrated"
"""Folder of the calibrated network inside the last checkpoint."""


@settings
class ClassifierConfig:
    """The image-level classifier: the baseline CAM, and where the other methods start (row R9)."""

    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.1, batch_size=16, epochs=5))
    """Optimiser and schedule; momentum and weight decay are 1e-4, in the profile paper too (R14)."""
    train_scope: Literal["full", "head"] = "full"
    """full: the whole network; head: the layer that tells the classes apart, on a backbone that stays as it is (a
    linear probe), for a third of the time."""
    freeze_batch_norm: bool = True
    """Keep batch norm statistics fixed; scale and shift still learn (IRN's fixed-BN ResNet)."""
    calibrate: bool = False
    """Map each class's logits so that their 75th percentile is 0 and their 95th 1.5, before QA-CLIMS goes on."""
    network: str = ""
    """Folder of a trained network to take as it is, e.g. a converted WeakTr checkpoint; empty trains one (S2)."""

    def __post_init__(self) -> None:
        require(
            not (self.network and self.calibrate),
            "classifier.network is taken as it is; set classifier.calibrate to false, or give no network",
        )

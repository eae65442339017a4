"""Settings of CLIMS.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from dataclasses import field
from typing import Literal

from qaclims_ray.settings import require, require_at_least, settings
from qaclims_ray.training.config import OptimConfig


@settings
class ClimsConfig:
    """CLIMS (rows C1-C7): the predecessor, with fixed background texts. The defaults are the improved version's."""

    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2.5e-4, batch_size=16, epochs=15))
    """Optimiser and schedule (C2)."""
    matching_weight: float = 10.0
    """alpha, weight of OTM: foreground regions against the class text."""
    background_weight: float = 24.0
    """beta, weight of BTM: background regions against the class text."""
    suppression_weight: float = 1.0
    """gamma, weight of CBS: foreground regions against the class's background texts."""
    area_weight: float = 0.2
    """delta, weight of REG."""
    suppression_threshold: float | None = 0.26
    """Only background texts more similar than this are suppressed, unclamped (improved); None takes all, clamped."""
    pair_reduction: Literal["official", "mean_pairs"] = "official"
    """official: matching terms are means over pairs, suppression is a sum; mean_pairs: all are means (C3)."""
    area_over: Literal["all", "present"] = "all"
    """REG averages over all classes (official) or present ones."""
    clip_normalisation: Literal["image", "clip"] = "image"
    """Pixels CLIP sees: the training crop's own normalisation (official) or CLIP's (R5)."""
    antialias: bool = False
    """Antialias when resizing to CLIP's input (R6)."""
    freeze_batch_norm: bool = False
    """Keep batch norm statistics fixed; scale and shift still learn."""

    def __post_init__(self) -> None:
        require_at_least(self, "clims", 0, "matching_weight", "background_weight", "suppression_weight", "area_weight")
        require(
            self.suppression_threshold is None or -1 <= self.suppression_threshold < 1,
            f"clims.suppression_threshold is {self.suppression_threshold}, expected a cosine in [-1, 1) or None",
        )

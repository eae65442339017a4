"""Settings of CLIMS.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from dataclasses import field
from typing import Literal

from qaclims_ray.settings import require, require_at_least, settings
from qaclims_ray.training.config import OptimConfig


@settings
class ClimsConfig:
    """CLIMS (rows C1-C8): the predecessor, with fixed background texts. Defaults: the improved version, on VOC."""

    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=2.5e-4, batch_size=16, epochs=15))
    """Optimiser and schedule (C2)."""
    matching_weight: float = 10.0
    """Weight of foreground regions against the class text (OTM; alpha in CLIMS)."""
    background_weight: float = 24.0
    """Weight of background regions against the class text (BTM; beta in CLIMS)."""
    suppression_weight: float = 1.0
    """Weight of foreground regions against the class's background texts (CBS; gamma in CLIMS)."""
    area_weight: float = 0.2
    """Weight of the activated area, which keeps maps small (REG; delta in CLIMS)."""
    class_weights: tuple[tuple[str, float], ...] = ()
    """Pairs (class name, what both matching terms weigh for its pairs); other classes weigh 1 (C6)."""
    clamp: bool = True
    """Clamp cosines to [1e-4, 0.9999] before their logarithm: True in the improved version, where suppression above a
    threshold is not clamped all the same, False in the camera-ready one. A cosine of a region and its class text that
    is not positive then has no logarithm, and the training ends with an error (C5)."""
    suppression_threshold: float | None = 0.26
    """Only background texts more similar than this are suppressed, unclamped (improved; on COCO 0.285); None takes all
    (C3, C8)."""
    text_reduction: Literal["sum", "mean"] = "sum"
    """Suppression over the texts of a pair that count: their sum (improved) or their mean (camera-ready) (C3)."""
    pair_reduction: Literal["official", "mean_pairs"] = "official"
    """official: matching terms are means over pairs, suppression is a sum; mean_pairs: all are means (C3)."""
    published_ranks: int = 1
    """Workers of the published run, over which gradients were averaged: the sum over pairs is divided by them, however
    many workers there are here. 1 on VOC, 2 on COCO (C8); a mean has no use for it."""
    area_over: Literal["all", "present"] = "all"
    """The activated area is averaged over all classes (official) or present ones."""
    clip_normalisation: Literal["image", "clip"] = "image"
    """Pixels CLIP sees: the training crop's own normalisation (official) or CLIP's (R5)."""
    antialias: bool = False
    """Antialias when resizing to CLIP's input (R6)."""
    freeze_batch_norm: bool = False
    """Keep batch norm statistics fixed; scale and shift still learn."""

    def __post_init__(self) -> None:
        require_at_least(self, "clims", 0, "matching_weight", "background_weight", "suppression_weight", "area_weight")
        require_at_least(self, "clims", 1, "published_ranks")
        require(
            self.pair_reduction == "official" or self.published_ranks == 1,
            f"clims.published_ranks is {self.published_ranks}, which divides the sum of clims.pair_reduction official; "
            f"with {self.pair_reduction} set it to 1",
        )
        names = [name for name, _ in self.class_weights]
        require(len(set(names)) == len(names), f"clims.class_weights names a class twice: {names}")
        for name, weight in self.class_weights:
            require(weight >= 0, f"clims.class_weights gives {name!r} {weight}, expected at least 0")
        require(
            self.suppression_threshold is None or -1 <= self.suppression_threshold < 1,
            f"clims.suppression_threshold is {self.suppression_threshold}, expected a cosine in [-1, 1) or None",
        )

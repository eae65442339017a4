"""Settings of region image-text contrast, RITC (QA-CLIMS 3.3).

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from dataclasses import field
from typing import Literal

from qaclims_ray.settings import require, require_at_least, settings
from qaclims_ray.training.config import OptimConfig


@settings
class RitcConfig:
    """Regions of images against texts: region image-text contrast, RITC (QA-CLIMS 3.3, rows R1-R21)."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    foreground_weight: float = 10.0
    """Weight of foreground regions against their answers (FRC; alpha in QA-CLIMS Eq. 1)."""
    background_weight: float = 8.0
    """Weight of foreground regions against background answers (BRC; beta in QA-CLIMS Eq. 1)."""
    area_weight: float = 0.2
    """Weight of the activated area, which keeps maps small (REG; gamma in QA-CLIMS Eq. 1)."""
    temperature: float = 0.7
    """Temperature of both contrasts (tau in QA-CLIMS Eq. 6 and 8)."""
    omega: float = 0.1
    """Share of the maximum below which a CAM counts as background (QA-CLIMS Eq. 9)."""
    region_mode: Literal["token_mask", "pixel_mask", "both", "none"] = "token_mask"
    """How the foreground's binary map acts on CLIP: on its tokens (official), on pixels (paper), on both, or not at
    all; the paper calls it FAT (R2)."""
    region_crop: bool = False
    """Enlarge each region's bounding box to CLIP's whole input, as OVSeg does; the released code does not (R6)."""
    max_at: Literal["clip", "cam"] = "clip"
    """Resolution at which the maximum of the CAM is taken (R4)."""
    clip_normalisation: Literal["image", "clip"] = "image"
    """Pixels CLIP sees: the training crop's own normalisation (official) or CLIP's (R5)."""
    antialias: bool = False
    """Antialias when resizing to CLIP's input (R6)."""
    background_pool: Literal["mean_exp", "exp_mean"] = "mean_exp"
    """How background texts of a pair are pooled: mean of exp (official) or exp of mean (QA-CLIMS Eq. 8) (R11)."""
    pair_reduction: Literal["official", "mean_pairs"] = "official"
    """Sum over all pairs divided by 2, the published number of ranks, or by the number of pairs (R12)."""
    area_over: Literal["all", "present"] = "all"
    """The activated area is averaged over all classes (official) or present ones (R13)."""
    freeze_batch_norm: bool = False
    """Keep batch norm statistics fixed; scale and shift still learn (R8: statistics move by default)."""
    prompt_text: bool = False
    """Give each pair its class's learned prompt as one more background text; learned as `semples.prompt` says."""
    prompt_weight: float = 0.0
    """Weight of SemPLeS's refinement by learned prompts, beside the contrasts (lambda in SemPLeS Eq. 3)."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"ritc.temperature (tau) is {self.temperature}, expected a positive number")
        require(0 <= self.omega <= 1, f"ritc.omega is {self.omega}, expected a number in [0, 1]")
        require_at_least(self, "ritc", 0, "foreground_weight", "background_weight", "area_weight", "prompt_weight")

"""Settings of IRN: confident seeds, affinity network, random walk (rows E7-E10)."""

import dataclasses
from dataclasses import field

from qaclims_ray.refine.crf_config import CrfConfig, irn_crf
from qaclims_ray.settings import require, require_at_least, require_text, settings
from qaclims_ray.training.config import OptimConfig

GRID_STRIDE = 4
"""Pixels along the side of a cell of its grid."""


@settings
class IrnConfig:
    """Inter-pixel relation network and random walk (Ahn et al. 2019, rows E7-E10)."""

    foreground_threshold: float = 0.30
    """CAM score above which a pixel is a confident foreground seed (E7)."""
    background_threshold: float = 0.10
    """CAM score below which a pixel is a confident background seed; IRN itself has 0.05 (E7)."""
    around_seed: float | None = None
    """Take the three thresholds from the seeds' (`masks.seed_threshold`) instead: the walk's is the same, those of
    confident seeds lie this share of it above and below. None takes the numbers given."""
    crf: CrfConfig = field(default_factory=irn_crf)
    """CRF of the confident seeds (E7)."""
    backbone: str = "resnet50"
    """timm model with stages at strides 4 to 32, frozen; or "miniature", that of the miniature world."""
    weights: str = "timm"
    """Local safetensors/pth file, "timm" for the model's default pretrained weights, or "classifier" for the
    backbone of the run's own image-level classifier."""
    width: int = 256
    """Channels of the displacement branch's fused features; the boundary branch has an eighth."""
    radius: int = 10
    """Training: cells less than this far apart are a pair (E8); that of the random walk is `walk_radius`."""
    min_scale: float = 0.5
    """Training: smallest random scale of the image (E8)."""
    max_scale: float = 1.5
    """Training: largest random scale (E8)."""
    crop_px: int = 512
    """Training: side of the random crop in pixels (E8)."""
    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=0.1, head_lr_factor=10.0, weight_decay=1e-4, epochs=3, batch_size=32)
    )
    """Optimiser; `lr` is of the boundary branch, `head_lr_factor` times it of the displacement branch (E8)."""
    walk_radius: int = 5
    """Random walk: cells that one step reaches (E9)."""
    beta: float = 10.0
    """Random walk: power of the affinities (E9)."""
    log2_steps: int = 8
    """Random walk: log2 of the number of steps (E9)."""
    walk_threshold: float = 0.20
    """Background score after the random walk: 0.20 QA-CLIMS and CLIMS, 0.25 IRN (E9)."""
    pad_px: int = 0
    """Inference: pad the image to a square of this side, as IRN does with 512; 0 takes its own size (E10)."""

    def around(self, seed_threshold: float) -> "IrnConfig":
        """Return the settings with the thresholds that follow from the seeds', where they are to.

        Args:
            seed_threshold: background score, in (0, 1).
        """
        if self.around_seed is None:
            return self
        above = min(seed_threshold * (1 + self.around_seed), (1 + seed_threshold) / 2)
        return dataclasses.replace(
            self,
            foreground_threshold=round(above, 4),
            background_threshold=round(seed_threshold * (1 - self.around_seed), 4),
            walk_threshold=seed_threshold,
        )

    def __post_init__(self) -> None:
        require_text(self, "masks.irn", "backbone")
        require(
            self.around_seed is None or 0 < self.around_seed < 1,
            f"masks.irn.around_seed is {self.around_seed}, expected a share in (0, 1), or None",
        )
        require_at_least(self, "masks.irn", 1, "width", "radius", "walk_radius", "crop_px")
        require_at_least(self, "masks.irn", 0, "log2_steps", "pad_px")
        require(self.width % 8 == 0, f"masks.irn.width is {self.width}, expected a multiple of 8")
        require(self.beta > 0, f"masks.irn.beta is {self.beta}, expected a positive number")
        require(0 < self.min_scale <= self.max_scale, "masks.irn: 0 < min_scale <= max_scale is required")
        require(0 < self.walk_threshold < 1, f"masks.irn.walk_threshold is {self.walk_threshold}, expected in (0, 1)")
        require(
            0 < self.background_threshold <= self.foreground_threshold < 1,
            f"masks.irn: 0 < background_threshold ({self.background_threshold}) <= foreground_threshold "
            f"({self.foreground_threshold}) < 1 is required",
        )

"""Settings of CAM inference.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from typing import Literal

from qaclims_ray.models.precision import Arithmetic, Precision, stands_for
from qaclims_ray.settings import require, require_at_least, settings

RESOURCE_FIELDS = ("num_actors", "gpus_per_actor", "batch_size", "max_failed_fraction")
"""Settings that say where CAMs are computed, and nothing about what is in them."""


@settings
class CamConfig:
    """CAM inference (rows E1, E2)."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """Scales of the image, bicubic; the maps are summed."""
    flip: bool = True
    """Add each scale's mirror image."""
    activation: Literal["relu", "sigmoid", "none"] = "relu"
    """What is done to the logits (R7); none leaves them as they are, for similarities to texts."""
    normalisation: Literal["max", "minmax"] = "max"
    """Each class by its own maximum, or to the full range."""
    grid_stride: int = 4
    """Stride of the stored small maps, in pixels."""
    store: Literal["full", "grid", "both"] = "both"
    """Stored maps: full resolution (scoring), the small grid (random walk), or both."""
    dtype: Literal["float16", "float32"] = "float16"
    """Stored type."""
    precision: Precision = "auto"
    """Arithmetic of the network: fp32, bf16, fp16; auto is fp16 on GPUs, fp32 on CPUs. Maps are summed in float32."""
    batch_size: int | None = None
    """Images of equal size computed together. None takes 16 on a CPU, and on a GPU one for each GiB of its memory, at
    most 64."""
    num_actors: int | None = None
    """Actors that compute CAMs; also those of the final network on the test split and of `predict`. None takes all
    GPUs, or where they need none one for every core as far as memory goes; beside other runs on one Ray it takes
    one."""
    gpus_per_actor: float = 0.0
    """GPUs of one actor."""
    max_failed_fraction: float = 0.01
    """Fail when more than this share of images cannot be read."""

    @property
    def arithmetic(self) -> Arithmetic:
        """What `precision` stands for in the stage."""
        return stands_for(self.precision, gpus=self.gpus_per_actor, auto="fp16")

    def __post_init__(self) -> None:
        require(bool(self.scales) and min(self.scales) > 0, "cams.scales must hold positive numbers")
        require_at_least(self, "cams", 1, "grid_stride", *(["batch_size"] if self.batch_size is not None else []))
        require(
            self.num_actors is None or self.num_actors >= 1,
            f"cams.num_actors is {self.num_actors}, expected at least 1, or None",
        )
        require_at_least(self, "cams", 0, "gpus_per_actor")
        require(0 <= self.max_failed_fraction <= 1, "cams.max_failed_fraction must lie in [0, 1]")

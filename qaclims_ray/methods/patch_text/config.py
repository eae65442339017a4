"""Settings of training-free seeds."""

from qaclims_ray.settings import require_at_least, settings


@settings
class PatchTextConfig:
    """Seeds without training: patches of a frozen CLIP against texts (rows P1, P2)."""

    num_blocks: int = 5
    """Last blocks of CLIP's image tower whose self-correlations are averaged; at most all there are (P1)."""
    background_weight: float = 0.0
    """How much of a patch's mean similarity to the background answers of its class is taken off; 0 asks for the class
    alone (P2)."""

    def __post_init__(self) -> None:
        require_at_least(self, "patch_text", 1, "num_blocks")
        require_at_least(self, "patch_text", 0, "background_weight")

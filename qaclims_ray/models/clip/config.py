"""Settings of the frozen CLIP.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from qaclims_ray.settings import require_text, settings

PROMPTS_NAME = "prompts.json"
"""What learned prompts are, beside their vectors."""
VECTORS_NAME = "prompts.safetensors"
"""The vectors of learned prompts."""


@settings
class ClipConfig:
    """The frozen CLIP that supervises (rows R1, R5, R6, Q12)."""

    model: str = "ViT-L-14-quickgelu"
    """open_clip architecture, or a local folder with open_clip_config.json; "miniature" and "miniature_context" are
    shipped, the second biased to what surrounds a class."""
    weights: str = ""
    """Weights: local file (OVSeg or open_clip checkpoint) or open_clip's pretrained tag; empty for a folder model."""
    mask_adapted: bool = True
    """Whether the weights hold mask tokens (OVSeg); False is plain CLIP, the strictly image-level setting."""

    def __post_init__(self) -> None:
        require_text(self, "clip", "model")

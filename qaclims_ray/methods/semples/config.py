"""Settings of SemPLeS: matching, prompt learning, refinement.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from dataclasses import field
from typing import Literal

from qaclims_ray.settings import require, require_at_least, settings
from qaclims_ray.training.config import OptimConfig

PROMPTS_DIR = "prompts"
"""Folder of the prompts in a joint training's checkpoint, and beside a network that was trained with them."""


def _prompt_optim() -> OptimConfig:
    return OptimConfig(
        name="adamw", lr=0.025, head_lr_factor=1.0, weight_decay=0.03, schedule="cosine", epochs=60, batch_size=128
    )


@settings
class PromptConfig:
    """Contrastive prompt learning (SemPLeS Eq. 2; rows S7, S12, S13)."""

    length: int = 30
    """Learned tokens of each class (K in SemPLeS)."""
    prefix: str = "a photo of"
    """Words in front of them."""
    full_stop: Literal["end_of_word", "vocabulary"] = "end_of_word"
    """Full stop behind them: the token that ends texts, or the vocabulary entry "." of the released code (S13)."""
    init: Literal["uniform", "normal", "vocabulary"] = "uniform"
    """Start: uniform in [0, 1) (official), normal with deviation 0.02, or scattered like the vocabulary's (S12)."""
    image_weight: float = 1.0
    """Weight of the image term: prompts towards background regions (L_I in SemPLeS, Table 4)."""
    text_weight: float = 0.02
    """Weight of the text term: prompts away from the class text (lambda_T and L_T in SemPLeS, Table 4)."""
    similarity: Literal["clamp", "shift"] = "clamp"
    """Inside the logarithm: the cosine, clamped from below (official), or (1 + cosine) / 2."""
    mask_epsilon: float = 1e-4
    """In prompt learning: added to the range of a map before it is divided by it; for `semples.mask = minmax` (S4)."""
    num_views: int = 4
    """Random crops of every image whose background features are computed once and kept."""
    learn: bool = True
    """False keeps the random start, a control."""
    optim: OptimConfig = field(default_factory=_prompt_optim)
    """Optimiser and schedule; 0.025 is the released code's 0.1 scaled by 128 / 512, its effective rate (S7-S9). Joint
    training takes the learning rate alone, the rest from `match`."""
    steps_per_epoch: int = 100
    """Steps between checkpoints: what an epoch is here."""

    def __post_init__(self) -> None:
        require_at_least(self, "semples.prompt", 1, "length", "num_views", "steps_per_epoch")
        require_at_least(self, "semples.prompt", 0, "image_weight", "text_weight")
        require(self.mask_epsilon > 0, "semples.prompt.mask_epsilon must be positive")
        require(
            self.optim.head_lr_factor == 1,
            f"semples.prompt.optim.head_lr_factor is {self.optim.head_lr_factor}: prompts have no head, so it would do "
            "nothing; set semples.prompt.optim.lr and leave it at 1",
        )
        require(
            self.image_weight > 0 or self.text_weight > 0 or not self.learn,
            "semples.prompt: image_weight and text_weight are both 0, so there is nothing to learn; set learn to False",
        )


def _semples_optim() -> OptimConfig:
    return OptimConfig(
        name="adamw", lr=6.4e-5, head_lr_factor=1.0, weight_decay=0.03, schedule="cosine", epochs=60, batch_size=64
    )


@settings
class SemplesConfig:
    """SemPLeS: matching, prompt learning, prompt-guided refinement (rows S2-S11, S19)."""

    match: OptimConfig = field(default_factory=_semples_optim)
    """Segment-label matching (SemPLeS Eq. 1); 6.4e-5 is the paper's 5e-4 after its scaling by 64 / 512 (S7)."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    """What prompts are learned with."""
    refine: OptimConfig = field(default_factory=_semples_optim)
    """Prompt-guided refinement (SemPLeS Eq. 3)."""
    schedule: Literal["sequential", "joint"] = "sequential"
    """Phases in sequence, or prompts and masks together over `match` and `refine` epochs (Table 6)."""
    rounds: int = 1
    """Rounds of prompt learning and refinement; 0 stops after matching; above 1 they alternate (Table 6, S19)."""
    refine_init: Literal["start", "matched"] = "start"
    """Refinement starts from where matching started (official), or from the network before it (S2)."""
    train_scope: Literal["head", "full"] = "head"
    """What learns: classifier and fusion (official), or the whole network (S3)."""
    background_weight: float = 2.4
    """Weight of the background term of matching (lambda_b in SemPLeS Eq. 1)."""
    refine_weight: float = 0.05
    """Weight of the prompt term (lambda in SemPLeS Eq. 3); 0 goes on matching, a control."""
    area_weight: float = 0.0
    """Weight of the activated area of present classes; 0 as in the paper."""
    mask: Literal["minmax", "sigmoid"] = "minmax"
    """From maps to masks: rectified and brought to [0, 1] (official), or the sigmoid of logits (S4)."""
    mask_epsilon: float = 0.1
    """In matching, refinement and joint training: added to the range of a map before it is divided by it, in
    `methods.region_features.min_max`; for `mask = minmax` (S4). Prompt learning has one of its own."""
    omega: float = 0.0
    """Share of its maximum below which a mask counts as background, as in QA-CLIMS; 0 is off."""
    clip_normalisation: Literal["image", "clip"] = "image"
    """Pixels CLIP sees: the training crop's own normalisation (official) or CLIP's (S11)."""
    antialias: bool = False
    """Antialias when resizing to CLIP's input."""
    freeze_batch_norm: bool = True
    """Keep batch norm statistics fixed; scale and shift still learn where they are in scope."""

    def __post_init__(self) -> None:
        require_at_least(self, "semples", 0, "rounds", "background_weight", "refine_weight", "area_weight")
        require(0 <= self.omega <= 1, f"semples.omega is {self.omega}, expected a number in [0, 1]")
        require(self.mask_epsilon > 0, "semples.mask_epsilon must be positive")
        require(
            self.schedule == "sequential" or self.rounds == 1,
            f"semples.rounds is {self.rounds}: joint training has no rounds, set it to 1",
        )

"""Settings of the training methods: RITC (QA-CLIMS), CLIMS and SemPLeS.

As in ``config.py``, letters and numbers such as "R12" name rows of the table in ``docs/method.md``.
"""

from dataclasses import field
from typing import Literal

from qaclims_ray.config import OptimConfig, require, require_at_least, settings

PairReduction = Literal["official", "mean_pairs"]
ClipNormalisation = Literal["image", "clip"]


@settings
class RitcConfig:
    """Region image-text contrast (QA-CLIMS 3.3, rows R1-R21)."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimiser and schedule."""
    foreground_weight: float = 10.0
    """alpha, weight of FRC (Eq. 1)."""
    background_weight: float = 8.0
    """beta, weight of BRC (Eq. 1)."""
    area_weight: float = 0.2
    """gamma, weight of REG (Eq. 1)."""
    temperature: float = 0.7
    """tau (Eq. 6, 8)."""
    omega: float = 0.1
    """Share of the maximum below which a CAM counts as background (Eq. 9)."""
    region_mode: Literal["token_mask", "pixel_mask", "both", "none"] = "token_mask"
    """How FAT's binary map acts: on tokens (official), on pixels (paper), on both, or not at all (FAT off) (R2)."""
    region_crop: bool = False
    """Enlarge each region's bounding box to CLIP's whole input, as OVSeg does; the released code does not (R6)."""
    max_at: Literal["clip", "cam"] = "clip"
    """Resolution at which the maximum of the CAM is taken (R4)."""
    clip_normalisation: Literal["image", "clip"] = "image"
    """Pixels CLIP sees: the training crop's own normalisation (official) or CLIP's (R5)."""
    antialias: bool = False
    """Antialias when resizing to CLIP's input (R6)."""
    background_pool: Literal["mean_exp", "exp_mean"] = "mean_exp"
    """BRC over background texts: mean of exp (official) or exp of mean (paper, Eq. 8) (R11)."""
    pair_reduction: Literal["official", "mean_pairs"] = "official"
    """Sum over all pairs divided by 2, the published number of ranks, or by the number of pairs (R12)."""
    area_over: Literal["all", "present"] = "all"
    """REG averages over all classes (official) or present ones (R13)."""
    freeze_batch_norm: bool = False
    """Keep batch norm statistics fixed; scale and shift still learn (R8: statistics move by default)."""
    prompt_text: bool = False
    """Give each pair its class's learned prompt as one more background text; learned as `semples.prompt` says."""
    prompt_weight: float = 0.0
    """Weight of SemPLeS's refinement by learned prompts (SemPLeS Eq. 3, lambda), beside the contrasts."""

    def __post_init__(self) -> None:
        require(self.temperature > 0, f"ritc.temperature (tau) is {self.temperature}, expected a positive number")
        require(0 <= self.omega <= 1, f"ritc.omega is {self.omega}, expected a number in [0, 1]")
        require_at_least(self, "ritc", 0, "foreground_weight", "background_weight", "area_weight", "prompt_weight")


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
    pair_reduction: PairReduction = "official"
    """official: matching terms are means over pairs, suppression is a sum; mean_pairs: all are means (C3)."""
    area_over: Literal["all", "present"] = "all"
    """REG averages over all classes (official) or present ones."""
    clip_normalisation: ClipNormalisation = "image"
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


@settings
class PromptConfig:
    """Contrastive prompt learning (SemPLeS Eq. 2; rows S7, S12, S13)."""

    length: int = 30
    """Learned tokens of each class (K)."""
    prefix: str = "a photo of"
    """Words in front of them."""
    full_stop: Literal["end_of_word", "vocabulary"] = "end_of_word"
    """Full stop behind them: the token that ends texts, or the vocabulary entry "." of the released code (S13)."""
    init: Literal["uniform", "normal", "vocabulary"] = "uniform"
    """Start: uniform in [0, 1) (official), normal with deviation 0.02, or scattered like the vocabulary's (S12)."""
    image_weight: float = 1.0
    """Weight of the image term: prompts towards background regions (Table 4, L_I)."""
    text_weight: float = 0.02
    """lambda_T, weight of the text term: prompts away from the class text (Table 4, L_T)."""
    similarity: Literal["clamp", "shift"] = "clamp"
    """Inside the logarithm: the cosine, clamped from below (official), or (1 + cosine) / 2."""
    mask_epsilon: float = 1e-4
    """Added to the range of a map before it is divided by it, for `semples.mask = minmax` (S4)."""
    num_views: int = 4
    """Random crops of every image whose background features are computed once and kept."""
    epochs: int = 60
    """Epochs, each of `steps_per_epoch` steps; 0 keeps the random start, a control."""
    steps_per_epoch: int = 100
    """Steps between checkpoints."""
    batch_size: int = 128
    """Cached features of a step, over all workers together (S8)."""
    lr: float = 0.025
    """Learning rate: the released code's 0.1 scaled by 128 / 512, its effective value (S7)."""
    weight_decay: float = 0.03
    """Weight decay of AdamW (S9)."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """Learning rate over the steps."""

    def __post_init__(self) -> None:
        require_at_least(self, "semples.prompt", 1, "length", "num_views", "steps_per_epoch", "batch_size")
        require_at_least(self, "semples.prompt", 0, "epochs", "image_weight", "text_weight", "weight_decay")
        require(self.lr > 0, f"semples.prompt.lr is {self.lr}, expected a positive number")
        require(self.mask_epsilon > 0, "semples.prompt.mask_epsilon must be positive")
        require(
            self.image_weight > 0 or self.text_weight > 0 or self.epochs == 0,
            "semples.prompt: image_weight and text_weight are both 0, so there is nothing to learn; set epochs to 0",
        )

    def optim(self) -> OptimConfig:
        """Return the settings in the form the training loop takes."""
        return OptimConfig(
            name="adamw",
            lr=self.lr,
            head_lr_factor=1.0,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            epochs=max(self.epochs, 1),
            batch_size=self.batch_size,
        )


def _semples_optim() -> OptimConfig:
    return OptimConfig(
        name="adamw", lr=6.4e-5, head_lr_factor=1.0, weight_decay=0.03, schedule="cosine", epochs=60, batch_size=64
    )


@settings
class SemplesConfig:
    """SemPLeS: matching, prompt learning, prompt-guided refinement (rows S2-S11, S19)."""

    match: OptimConfig = field(default_factory=_semples_optim)
    """Segment-label matching (Eq. 1); 6.4e-5 is the paper's 5e-4 after its scaling by 64 / 512 (S7)."""
    prompt: PromptConfig = field(default_factory=PromptConfig)
    """Contrastive prompt learning (Eq. 2)."""
    refine: OptimConfig = field(default_factory=_semples_optim)
    """Prompt-guided refinement (Eq. 3)."""
    schedule: Literal["sequential", "joint"] = "sequential"
    """Phases in sequence, or prompts and masks together over `match` and `refine` epochs (Table 6)."""
    rounds: int = 1
    """Rounds of prompt learning and refinement; 0 stops after matching; above 1 they alternate (Table 6, S19)."""
    refine_init: Literal["start", "matched"] = "start"
    """Refinement starts from where matching started (official), or from the network before it (S2)."""
    train_scope: Literal["head", "full"] = "head"
    """What learns: classifier and fusion (official), or the whole network (S3)."""
    background_weight: float = 2.4
    """lambda_b, weight of the background term (Eq. 1)."""
    refine_weight: float = 0.05
    """lambda, weight of the prompt term (Eq. 3); 0 goes on matching, a control."""
    area_weight: float = 0.0
    """Weight of the activated area of present classes; 0 as in the paper."""
    mask: Literal["minmax", "sigmoid"] = "minmax"
    """From maps to masks: rectified and brought to [0, 1] (official), or the sigmoid of logits (S4)."""
    mask_epsilon: float = 0.1
    """Added to the range of a map before it is divided by it (S4)."""
    omega: float = 0.0
    """Share of its maximum below which a mask counts as background, as in QA-CLIMS's FAT; 0 is off."""
    clip_normalisation: ClipNormalisation = "image"
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

"""Settings of what turns CAMs into pseudo masks: dense CRF, IRN, local refinement, SAM (rows E7-E11, S17, D4)."""

from dataclasses import field
from typing import Literal

from qaclims_ray.config import OptimConfig, require, require_at_least, require_text, settings

MaskStep = Literal["crf", "irn", "pamr", "sam"]


@settings
class CrfConfig:
    """Fully connected CRF with two Gaussian kernels (Kraehenbuehl and Koltun 2011); defaults are IRN's (row E7)."""

    iterations: int = 10
    """Mean-field iterations."""
    gaussian_sxy: float = 3.0
    """Standard deviation of the smoothness kernel in pixels."""
    gaussian_weight: float = 3.0
    """Weight of the smoothness kernel; 0 leaves it out."""
    bilateral_sxy: float = 50.0
    """Standard deviation of the appearance kernel in pixels."""
    bilateral_srgb: float = 5.0
    """Standard deviation of the appearance kernel in grey levels (0-255)."""
    bilateral_weight: float = 10.0
    """Weight of the appearance kernel; 0 leaves it out."""
    unary: Literal["label", "softmax"] = "label"
    """What it starts from: a label map that is right with `label_confidence`, or scores as probabilities."""
    label_confidence: float = 0.7
    """unary label: probability that a pixel's label is right."""

    def __post_init__(self) -> None:
        require_at_least(self, "crf", 0, "iterations", "gaussian_weight", "bilateral_weight")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            require(getattr(self, name) > 0, f"crf.{name} is {getattr(self, name)}, expected a positive number")
        require(0 < self.label_confidence < 1, f"crf.label_confidence is {self.label_confidence}, expected in (0, 1)")


def irn_crf() -> CrfConfig:
    """Return IRN's CRF, which QA-CLIMS and SemPLeS on COCO also use (rows E7, S17)."""
    return CrfConfig()


def semples_crf() -> CrfConfig:
    """Return the CRF of WeakTr's and SemPLeS's CAMs on VOC (row S17)."""
    return CrfConfig(
        gaussian_sxy=4.0, gaussian_weight=3.0, bilateral_sxy=83.0, bilateral_srgb=5.0, bilateral_weight=3.0
    )


def deeplab_crf() -> CrfConfig:
    """Return the CRF of DeepLabV2's test time (row D4)."""
    return CrfConfig(
        gaussian_sxy=1.0,
        gaussian_weight=3.0,
        bilateral_sxy=67.0,
        bilateral_srgb=3.0,
        bilateral_weight=4.0,
        unary="softmax",
    )


@settings
class IrnConfig:
    """Inter-pixel relation network and random walk (Ahn et al. 2019, rows E7-E10)."""

    foreground_threshold: float = 0.30
    """CAM score above which a pixel is a confident foreground seed (E7)."""
    background_threshold: float = 0.10
    """CAM score below which a pixel is a confident background seed; IRN itself has 0.05 (E7)."""
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
    """Training: pairs of cells up to this distance (E8)."""
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

    def __post_init__(self) -> None:
        require_text(self, "masks.irn", "backbone")
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


@settings
class PamrConfig:
    """Pixel-adaptive mask refinement (Araslanov and Roth 2020): local averages with colour affinities."""

    iterations: int = 10
    """Updates."""
    dilations: tuple[int, ...] = (1, 2, 4, 8, 12, 24)
    """Distances of the eight neighbours, in pixels."""

    def __post_init__(self) -> None:
        require_at_least(self, "masks.pamr", 1, "iterations")
        require(bool(self.dilations) and min(self.dilations) >= 1, "masks.pamr.dilations must hold positive numbers")


@settings
class SamConfig:
    """Seeds choose and label the class-agnostic masks of a Segment Anything model."""

    model: str = "facebook/sam-vit-huge"
    """Hub name or local folder of a transformers SAM."""
    points_per_side: int = 32
    """Prompt points along each side of the image."""
    points_per_batch: int = 64
    """Prompt points decoded together."""
    min_predicted_iou: float = 0.88
    """Masks that SAM itself rates below are left out."""
    min_stability: float = 0.95
    """Masks that change more than this with the binarisation threshold are left out."""
    max_overlap: float = 0.7
    """Non-maximum suppression: boxes that overlap more (IoU) are duplicates."""
    min_inside: float = 0.5
    """A mask takes a class when at least this share of it is that class's seed."""
    min_covered: float = 0.85
    """It also does when it covers at least this share of the class's seed."""

    def __post_init__(self) -> None:
        require_text(self, "masks.sam", "model")
        require_at_least(self, "masks.sam", 1, "points_per_side", "points_per_batch")
        for name in ("min_predicted_iou", "min_stability", "max_overlap", "min_inside", "min_covered"):
            require(0 <= getattr(self, name) <= 1, f"masks.sam.{name} is {getattr(self, name)}, expected in [0, 1]")


@settings
class MaskConfig:
    """From CAMs to pseudo masks."""

    steps: tuple[MaskStep, ...] = ("irn",)
    """Refinement in order, e.g. ("irn",), ("crf",), ("pamr", "crf"), ("sam",); irn first; empty takes the seeds."""
    seed_threshold: float = 0.15
    """Background score of the seeds, for every step that starts from a label map, and where there is no step."""
    uncertain: tuple[float, float] | None = None
    """Pixels whose foreground score after the last step lies between these become 255, ignored by the final network;
    None labels every pixel. After crf and sam the score is the share of the foreground, one half being the border."""
    white_above: int | None = None
    """After the last step, pixels of a brighter grey level than this (0-255) show no class: they become background, or
    255 where the data set has none. LUAD-HistoSeg: 200; None asks no colour."""
    crf: CrfConfig = field(default_factory=irn_crf)
    """Step crf."""
    irn: IrnConfig = field(default_factory=IrnConfig)
    """Step irn."""
    pamr: PamrConfig = field(default_factory=PamrConfig)
    """Step pamr."""
    sam: SamConfig = field(default_factory=SamConfig)
    """Step sam."""
    num_actors: int = 1
    """Refinement actors."""
    gpus_per_actor: float = 0.0
    """GPUs of one actor."""

    def __post_init__(self) -> None:
        require(len(set(self.steps)) == len(self.steps), "masks.steps holds a step twice")
        require("irn" not in self.steps[1:], "masks.steps: irn works on the CAMs' small maps, so it comes first")
        require_at_least(self, "masks", 1, "num_actors")
        require_at_least(self, "masks", 0, "gpus_per_actor")
        require(0 < self.seed_threshold < 1, f"masks.seed_threshold is {self.seed_threshold}, expected in (0, 1)")
        require(
            self.white_above is None or 0 <= self.white_above < 255,
            f"masks.white_above is {self.white_above}, expected a grey level from 0 to 254, or None",
        )
        require(
            self.uncertain is None or 0 <= self.uncertain[0] <= self.uncertain[1] <= 1,
            f"masks.uncertain is {self.uncertain}, expected two rising numbers in [0, 1], or None",
        )

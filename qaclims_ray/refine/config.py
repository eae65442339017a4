"""Settings of what turns CAMs into pseudo masks (rows E7-E11, S17)."""

from dataclasses import field
from typing import Literal

from qaclims_ray.models.precision import Arithmetic, Precision, stands_for
from qaclims_ray.refine.affinity_config import ClassDistributionConfig, ClipAttentionConfig, FeatureAffinityConfig
from qaclims_ray.refine.crf_config import CrfConfig, irn_crf
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.settings import Threshold, require, require_at_least, require_text, settings

MaskStep = Literal["crf", "irn", "pamr", "sam", "clip_attention", "class_distribution", "feature_affinity"]
CLIP_STEPS: tuple[MaskStep, ...] = ("clip_attention", "class_distribution")
"""Steps that look at images by the run's frozen CLIP."""


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
    """Seeds choose and label the masks of a Segment Anything model, or ask it for them."""

    model: str = "facebook/sam-vit-huge"
    """Hub name or local folder of a SAM, SAM 2 or SAM 3 of transformers; which one it is its configuration says."""
    prompts: Literal["grid", "seeds"] = "grid"
    """What the model is asked: grid asks about points all over the image, and seeds choose among the masks; seeds asks
    about the box and the points of every part of a seed, and paints the answer."""
    least_part: float = 0.005
    """Prompts seeds: parts of a seed below this share of the image are not asked about, unless a class has no larger
    one."""
    points_per_part: int = 3
    """Prompts seeds: at most so many points inside a part, and as many outside of its class; 0 gives the box alone."""
    points_per_side: int = 32
    """Prompts grid: points along each side of the image."""
    points_per_batch: int = 64
    """Prompts grid: points decoded together."""
    min_predicted_iou: float = 0.88
    """Prompts grid: masks that SAM itself rates below are left out."""
    min_stability: float = 0.95
    """Prompts grid: masks that change more than this with the binarisation threshold are left out."""
    max_overlap: float = 0.7
    """Prompts grid: boxes that overlap more (IoU) are duplicates."""
    min_inside: float = 0.5
    """Prompts grid: a mask takes a class when at least this share of it is that class's seed."""
    min_covered: float = 0.85
    """Prompts grid: it also does when it covers at least this share of the class's seed."""

    def __post_init__(self) -> None:
        require_text(self, "masks.sam", "model")
        require_at_least(self, "masks.sam", 0, "points_per_part")
        require_at_least(self, "masks.sam", 1, "points_per_side", "points_per_batch")
        for name in ("least_part", "min_predicted_iou", "min_stability", "max_overlap", "min_inside", "min_covered"):
            require(0 <= getattr(self, name) <= 1, f"masks.sam.{name} is {getattr(self, name)}, expected in [0, 1]")


SAM_FIELDS = {
    "grid": (
        *("model", "points_per_side", "points_per_batch"),
        *("min_predicted_iou", "min_stability", "max_overlap", "min_inside", "min_covered"),
    ),
    "seeds": ("model", "prompts", "least_part", "points_per_part"),
}
"""Settings of the step that masks depend on, by `prompts`. Those of grid are all there were before it could be set, so
that masks of earlier versions stay what they are."""


@settings
class MaskConfig:
    """From CAMs to pseudo masks."""

    steps: tuple[MaskStep, ...] = ("irn",)
    """Refinement in order, e.g. ("irn",), ("crf",), ("pamr", "crf"), ("clip_attention", "crf"); irn first; empty takes
    the seeds."""
    seed_threshold: Threshold = 0.15
    """Background score of the seeds, for every step that starts from a label map, and where there is no step; and the
    one at which seeds are scored (`evaluation.fixed_threshold`). auto takes the one that `evaluate` chooses of the
    system's CAMs without masks, a number for each system."""
    uncertain: tuple[float, float] | None = None
    """Pixels whose foreground score after the last step lies between these become 255, ignored by the final network;
    None labels every pixel. After crf and sam the score is the share of the foreground, one half being the border."""
    white_above: int | None = None
    """After the last step, pixels of a brighter grey level than this (0-255) show no class: they become background, or
    255 where the data set has none. LUAD-HistoSeg: 200; None asks no colour."""
    given: str = ""
    """Label maps made elsewhere, which the system given_masks learns from: a folder, URI or file of PNGs, of LabelMe's,
    CVAT's, COCO's or YOLO's (docs/artefacts.md)."""
    given_rest: str = ""
    """What given_masks does with training images that have no given mask: the name of another system of the run takes
    that one's pseudo masks, leave_out learns without these images; empty refuses a run in which any lacks one."""
    given_unchanged: bool = False
    """Whether given masks count that are, pixel for pixel, what qaclims export-masks or label-these handed out: nobody
    corrected them. Say so once somebody has looked at all of them and found them right."""
    crf: CrfConfig = field(default_factory=irn_crf)
    """Fully connected CRF, the step crf."""
    irn: IrnConfig = field(default_factory=IrnConfig)
    """Step irn."""
    pamr: PamrConfig = field(default_factory=PamrConfig)
    """Step pamr."""
    sam: SamConfig = field(default_factory=SamConfig)
    """Step sam."""
    clip_attention: ClipAttentionConfig = field(default_factory=ClipAttentionConfig)
    """Step clip_attention."""
    class_distribution: ClassDistributionConfig = field(default_factory=ClassDistributionConfig)
    """Step class_distribution."""
    feature_affinity: FeatureAffinityConfig = field(default_factory=FeatureAffinityConfig)
    """Step feature_affinity."""
    precision: Precision = "auto"
    """Arithmetic of IRN's network where it refines: fp32, bf16, fp16; auto is fp16 on GPUs, fp32 on CPUs. All other
    steps, and the walk, compute in float32."""
    num_actors: int | None = None
    """Refinement actors; None as of `cams.num_actors`."""
    gpus_per_actor: float = 0.0
    """GPUs of one actor."""

    @property
    def arithmetic(self) -> Arithmetic:
        """What `precision` stands for."""
        return stands_for(self.precision, gpus=self.gpus_per_actor, auto="fp16")

    @property
    def threshold(self) -> float:
        """The seeds' background score, of settings in which it is a number: auto has become one by then."""
        assert self.seed_threshold != "auto", "stages that cut seeds work by the threshold that `evaluate` chose"
        return self.seed_threshold

    @property
    def cuts_seeds(self) -> bool:
        """Whether masks depend on `seed_threshold`: irn starts from scores and brings thresholds of its own."""
        return "irn" not in self.steps

    def __post_init__(self) -> None:
        require(len(set(self.steps)) == len(self.steps), "masks.steps holds a step twice")
        require("irn" not in self.steps[1:], "masks.steps: irn works on the CAMs' small maps, so it comes first")
        require(
            self.num_actors is None or self.num_actors >= 1,
            f"masks.num_actors is {self.num_actors}, expected at least 1, or None",
        )
        require_at_least(self, "masks", 0, "gpus_per_actor")
        require(
            self.seed_threshold == "auto" or 0 < self.seed_threshold < 1,
            f"masks.seed_threshold is {self.seed_threshold}, expected in (0, 1), or auto",
        )
        require(
            self.white_above is None or 0 <= self.white_above < 255,
            f"masks.white_above is {self.white_above}, expected a grey level from 0 to 254, or None",
        )
        require(
            self.uncertain is None or 0 <= self.uncertain[0] <= self.uncertain[1] <= 1,
            f"masks.uncertain is {self.uncertain}, expected two rising numbers in [0, 1], or None",
        )

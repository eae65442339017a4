"""Every setting of the shared stages, one frozen dataclass each; ``run_config.py`` nests them in ``RunConfig``.

The settings of the training methods are in ``method_config.py``.

Field docstrings give the unit and the source; letters and numbers such as "R12" name rows of the table in
``docs/method.md`` in which the papers and the authors' released code are compared. Complete, named runs are
functions in ``presets.py``. Unknown keys and bad values fail here, before any work starts.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict

from qaclims_ray.errors import ConfigError

_Config = TypeVar("_Config")
Profile = Literal["official", "paper"]
TextGroup = Literal["fine_grained", "alias", "objects", "scene"]
BackgroundFilter = Literal["synonyms", "other_labels", "containing", "empty"]
ALL_TEXT_GROUPS: tuple[TextGroup, ...] = ("fine_grained", "alias", "objects", "scene")


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
def settings(cls: type[_Config]) -> type[_Config]:
    """A frozen, keyword-only dataclass in which pydantic refuses unknown keys and infinite numbers."""
    cls.__pydantic_config__ = ConfigDict(extra="forbid", allow_inf_nan=False)  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def require(claim: bool, message: str) -> None:
    """Raise a `ConfigError` unless the claim holds."""
    if not claim:
        raise ConfigError(message)


def require_at_least(config: Any, section: str, least: float, *names: str) -> None:
    """Raise a `ConfigError` naming the first field that is below `least`."""
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{section}.{name} is {value}, expected at least {least}")


def require_text(config: Any, section: str, *names: str) -> None:
    """Raise a `ConfigError` naming the first field that is empty."""
    for name in names:
        require(bool(getattr(config, name).strip()), f"{section}.{name} is empty")


@settings
class DataConfig:
    """Which images, labels and masks."""

    dataset: Literal["miniature", "voc12", "coco14", "folder", "bcss_wsss", "luad_histoseg"]
    """Layout of the data set; the miniature world generates itself, the last two are tissue without a background."""
    root: str = ""
    """Folder or URI of the data set (VOC: of JPEGImages; COCO: of annotations and train2014); miniature: none."""
    train_split: str = "train"
    """Split whose images are trained on (VOC: train, train_aug or any list in ImageSets/Segmentation)."""
    eval_split: str = "train"
    """Split whose CAMs are scored; the papers score the training images (E4)."""
    test_split: str = "val"
    """Split on which final networks are scored; read where the data set has it."""
    labels: Literal["auto", "annotations", "file", "masks"] = "auto"
    """Where image-level labels come from: VOC XML, a label file, or the masks; auto takes the first that is there."""
    label_file: str = ""
    """CSV or JSON of image-level labels, for `labels = file` and for the folder layout."""
    class_names: tuple[str, ...] = ()
    """Classes in label order, for the folder layout; empty takes them from the label file, sorted."""
    num_images: int = 600
    """Miniature: number of weakly labelled images to generate."""
    limit: int | None = None
    """Use only the first so many images of each split; None uses all."""
    check_images: bool = True
    """Decode every image and mask once before work starts, and report all faults together."""

    def __post_init__(self) -> None:
        require_at_least(self, "data", 8, "num_images")
        require_text(self, "data", "train_split", "eval_split", "test_split")
        require(len(set(self.class_names)) == len(self.class_names), "data.class_names holds a class twice")
        require(self.limit is None or self.limit >= 1, f"data.limit is {self.limit}, expected at least 1")


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


@settings
class TextConfig:
    """From answers to the texts a pair is contrasted with (rows Q4-Q11, Q14; QA-CLIMS Table 5)."""

    source: Literal["qape", "class_names", "fixed"] = "qape"
    """qape: the corpus; class_names: the class against "no {class}" (Table 5, row 1); fixed: one list for all."""
    groups: tuple[TextGroup, ...] = ALL_TEXT_GROUPS
    """Answer groups in use (Table 5)."""
    fixed_background: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """For `source = fixed`: pairs (class name or "*", background texts)."""
    shuffle_answers: bool = False
    """Control: give each pair the answers of another image of the same class."""
    foreground_mix: Literal["half", "uniform"] = "half"
    """Weights of the mean foreground text: half on the class name (official) or 1/(L+1) each (paper) (Q6)."""
    renormalise_foreground: bool = False
    """Bring the mixed foreground text back to unit length: False official, True paper (Q7)."""
    suffix_rule: Literal["substring", "word"] = "substring"
    """When an answer counts as naming the class already: anywhere (official) or as a whole word (Q5)."""
    class_synonyms: tuple[tuple[str, str], ...] = (
        ("dining table", "table"),
        ("tv monitor", "monitor"),
        ("potted plant", "plant"),
    )
    """Pairs (class, short form) that also count as naming the class (Q5)."""
    background_filters: tuple[BackgroundFilter, ...] = ()
    """Background answers that fall out besides those equal to the class (Q9): its synonyms, other labels of the
    image, answers containing such a name as a word instead of being equal to it, empty ones."""
    empty_background: Literal["skip", "no_class"] = "skip"
    """A pair without background text: skipped in both losses (official) or given "no {class}" (Q10)."""
    template: str = "a photo of {}."
    """Prompt template (Q11, S14)."""
    class_words: tuple[tuple[str, str], ...] = ()
    """Pairs (class name, words used for it in texts), e.g. (("person", "player"),) as in CLIMS and SemPLeS (C6)."""
    seed: int = 0
    """Seed of `shuffle_answers`."""

    def __post_init__(self) -> None:
        require(self.template.count("{}") == 1, f"text.template {self.template!r} must hold exactly one {{}}")
        require(
            self.source != "fixed" or bool(self.fixed_background), "text.source is fixed: give text.fixed_background"
        )
        require(len(set(self.groups)) == len(self.groups), "text.groups holds a group twice")
        require_at_least(self, "text", 0, "seed")


@settings
class CamNetConfig:
    """The mask generator: a convolutional CAM network (rows R7-R9), or WeakTr (rows S2, S3)."""

    generator: Literal["cnn", "weaktr"] = "cnn"
    """cnn: backbone and 1x1 classifier; weaktr: a plain ViT with class tokens and fused attention."""
    backbone: str = "resnet50"
    """timm model name (weaktr: deit_small_patch16_224), or one of the miniature world's: "miniature", a small stride-4
    network, or for weaktr "miniature_vit" (patch 8)."""
    weights: str = ""
    """Local safetensors/pth file, or "timm" for the model's default pretrained weights; empty starts at random;
    "miniature" is for backbone miniature_vit, the image tower of the miniature world's CLIP."""
    output_stride: int = 16
    """Stride of the CAM in pixels; for weaktr the side of a patch."""
    image_mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Normalisation of the training crop (0-1 scale); official feeds the same pixels to CLIP (R5)."""
    image_std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Normalisation of the training crop (0-1 scale)."""
    pad_same: bool = False
    """cnn: build the backbone with TensorFlow's padding (timm pad_type="same")."""
    image_size: int = 224
    """weaktr: side in pixels for which position embeddings are stored; other sizes interpolate them."""
    fusion_pool: Literal["max", "mean"] = "max"
    """weaktr: pooling over tokens of what weighs the attention maps; max for VOC, mean for COCO."""
    fusion_reduction: int = 8
    """weaktr: attention maps per hidden unit of the fusion's MLP; 8 for VOC, 4 for COCO."""
    drop_path: float = 0.1
    """weaktr: highest rate of stochastic depth, of the last block; on in training, even with a frozen backbone (S3)."""
    detach_attention: bool = True
    """weaktr: no gradient through attention maps into the backbone, as WeakTr and SemPLeS have it (S3)."""
    extra_tokens: int = 0
    """weaktr: class tokens that belong to no class; 10 after conversion of the 90-way COCO network (S18)."""

    def __post_init__(self) -> None:
        require_text(self, "cam_net", "backbone")
        require_at_least(self, "cam_net", 0, "extra_tokens")
        require_at_least(self, "cam_net", 1, "fusion_reduction")
        require(0 <= self.drop_path < 1, f"cam_net.drop_path is {self.drop_path}, expected a number in [0, 1)")
        require(self.generator == "cnn" or not self.pad_same, "cam_net.pad_same is for generator cnn; set it to false")
        strides = (1, 2, 4, 8, 16, 32)
        require(
            self.output_stride in strides,
            f"output stride {self.output_stride} (cam_net.output_stride) is not one of {strides}",
        )
        require(
            self.image_size >= self.output_stride and self.image_size % self.output_stride == 0,
            f"cam_net.image_size {self.image_size} is not a multiple of cam_net.output_stride {self.output_stride}",
        )
        require(min(self.image_std) > 0, f"cam_net.image_std is {self.image_std}, expected positive numbers")


@settings
class OptimConfig:
    """Optimiser and schedule (rows R14, R15, R17)."""

    name: Literal["sgd", "adamw"] = "sgd"
    """Optimiser."""
    lr: float = 3.5e-4
    """Learning rate of the backbone at the start (effective, never scaled behind your back)."""
    head_lr_factor: float = 10.0
    """The classifier learns at this multiple of `lr`."""
    momentum: float = 0.0
    """SGD momentum: 0 is what the released code really does, 0.9 what it meant (R14)."""
    weight_decay: float = 1e-4
    """Weight decay."""
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    """Learning rate over the steps of the run."""
    poly_power: float = 0.9
    """Power of the poly schedule."""
    schedule_every: int = 1
    """Steps between changes of the learning rate."""
    warmup_steps: int = 0
    """Linear warm-up in steps."""
    epochs: int = 15
    """Passes over the training split."""
    batch_size: int = 8
    """Images in one step over all workers together."""
    clip_grad_norm: float | None = None
    """Gradient norm limit; None does not clip."""

    def __post_init__(self) -> None:
        for name in ("lr", "head_lr_factor"):
            require(getattr(self, name) > 0, f"optim.{name} is {getattr(self, name)}, expected a positive number")
        require(0 <= self.momentum < 1, f"optim.momentum is {self.momentum}, expected a number in [0, 1)")
        require_at_least(self, "optim", 0, "weight_decay", "poly_power", "warmup_steps")
        require_at_least(self, "optim", 1, "epochs", "batch_size", "schedule_every")
        require(self.clip_grad_norm is None or self.clip_grad_norm > 0, "optim.clip_grad_norm must be positive or None")


@settings
class AugmentConfig:
    """Training crops (QA-CLIMS: row R18; WeakTr and SemPLeS: row S10)."""

    kind: Literal["resize_crop", "random_resized_crop"] = "resize_crop"
    """resize_crop: a random long side, then a padded crop (R18); random_resized_crop: a random part of the image,
    enlarged or shrunk to the crop (S10)."""
    min_long_side_px: int = 320
    """resize_crop: shortest random length of the long side after resizing; 0 keeps the image's own size."""
    max_long_side_px: int = 640
    """resize_crop: longest random length of the long side."""
    min_crop_scale: float = 0.08
    """random_resized_crop: smallest share of the image's area that is cut out; the labelled object may be outside."""
    crop_px: int = 512
    """Side of the random square crop; resize_crop pads it with zeros after normalisation."""
    flip: bool = True
    """Mirror half of the images."""
    rand_augment_magnitude: int = 0
    """Strength of RandAugment from 0 (off) to 10, as in timm's "m9"."""
    erasing_probability: float = 0.0
    """Share of crops in which a random box is filled with noise."""

    def __post_init__(self) -> None:
        for name, low, high in (("rand_augment_magnitude", 0, 10), ("erasing_probability", 0, 1)):
            value = getattr(self, name)
            require(low <= value <= high, f"augment.{name} is {value}, expected a number in [{low}, {high}]")
        scale = self.min_crop_scale
        require(0 < scale <= 1, f"augment.min_crop_scale is {scale}, expected a number in (0, 1]")
        require(
            0 < self.min_long_side_px <= self.max_long_side_px or self.min_long_side_px == self.max_long_side_px == 0,
            f"augment: 0 < min_long_side_px ({self.min_long_side_px}) <= max_long_side_px ({self.max_long_side_px}) "
            "is required; 0 for both keeps the image's own size",
        )
        require(self.crop_px >= 16, f"augment.crop_px is {self.crop_px}, expected at least 16")


@settings
class ClassifierConfig:
    """The image-level classifier: the baseline CAM and RITC's starting point (row R9)."""

    optim: OptimConfig = field(
        default_factory=lambda: OptimConfig(lr=0.1, batch_size=16, epochs=5, weight_decay=1e-4, momentum=0.0)
    )
    """Optimiser and schedule."""
    freeze_batch_norm: bool = True
    """Keep batch norm statistics fixed; scale and shift still learn (IRN's fixed-BN ResNet)."""
    calibrate: bool = False
    """Map each class's logits so that their 75th percentile is 0 and their 95th 1.5, before RITC starts."""
    network: str = ""
    """Folder of a trained network to take as it is, e.g. a converted WeakTr checkpoint; empty trains one (S2)."""

    def __post_init__(self) -> None:
        require(
            not (self.network and self.calibrate),
            "classifier.network is taken as it is; set classifier.calibrate to false, or give no network",
        )


@settings
class CamConfig:
    """CAM inference (rows E1, E2)."""

    scales: tuple[float, ...] = (1.0, 0.5, 1.5, 2.0)
    """Scales of the image, bicubic; the maps are summed."""
    flip: bool = True
    """Add each scale's mirror image."""
    activation: Literal["relu", "sigmoid"] = "relu"
    """What is done to the logits (R7)."""
    normalisation: Literal["max", "minmax"] = "max"
    """Each class by its own maximum, or to the full range."""
    grid_stride: int = 4
    """Stride of the stored small maps, in pixels."""
    store: Literal["full", "grid", "both"] = "both"
    """Stored maps: full resolution (scoring), the small grid (random walk), or both."""
    dtype: Literal["float16", "float32"] = "float16"
    """Stored type."""
    batch_size: int = 16
    """Images of equal size computed together."""
    num_actors: int = 1
    """Inference actors."""
    gpus_per_actor: float = 0.0
    """GPUs of one actor."""
    max_failed_fraction: float = 0.01
    """Fail when more than this share of images cannot be read."""
    given: str = ""
    """For the systems on given CAMs: folder or URI of CAMs made elsewhere, shards or .npz (docs/artefacts.md, S22)."""

    def __post_init__(self) -> None:
        require(bool(self.scales) and min(self.scales) > 0, "cams.scales must hold positive numbers")
        require_at_least(self, "cams", 1, "grid_stride", "batch_size", "num_actors")
        require_at_least(self, "cams", 0, "gpus_per_actor")
        require(0 <= self.max_failed_fraction <= 1, "cams.max_failed_fraction must lie in [0, 1]")


@settings
class EvaluationConfig:
    """Scoring of seeds (row E3)."""

    fixed_threshold: float = 0.15
    """Background score of the fixed-threshold figure."""
    sweep_min: float = 0.01
    """First threshold of the sweep."""
    sweep_max: float = 0.99
    """Last threshold of the sweep."""
    sweep_step: float = 0.01
    """Step of the sweep; the whole of it is evaluated, without early stop."""
    contact_sheet_images: int = 12
    """Images in the contact sheet."""

    def __post_init__(self) -> None:
        require(0 < self.sweep_min < self.sweep_max < 1, "evaluation: 0 < sweep_min < sweep_max < 1 is required")
        require(self.sweep_step >= 1e-4, f"evaluation.sweep_step is {self.sweep_step}, expected at least 0.0001")
        require(
            0 < self.fixed_threshold < 1,
            f"evaluation.fixed_threshold is {self.fixed_threshold}, expected a number between 0 and 1",
        )
        require_at_least(self, "evaluation", 1, "contact_sheet_images")

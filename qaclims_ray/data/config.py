"""Settings of the data set and of the training crops.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from dataclasses import replace
from typing import Literal

from qaclims_ray.data.mask_values import check_entries
from qaclims_ray.settings import require, require_at_least, require_text, settings

ALL_IMAGES = "all"
"""A split of a folder that every image belongs to, where no file or sub-folder of it uses the word."""


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
    """Split whose CAMs are scored; the papers score the training images (E4). Of a folder, "all" is every image."""
    test_split: str = "val"
    """Split on which final networks are scored; read where the data set has it."""
    held_out_share: float = 0.2
    """Share of the images that is held out as `test_split` where a folder's files and folders name no splits; 0 trains
    on all. At most 500 images, each class with 5 or more among them."""
    labels: Literal["auto", "annotations", "file", "folders", "masks"] = "auto"
    """Where image-level labels come from: one file of annotations per image (VOC XML; folder layout: also LabelMe and
    X-AnyLabeling JSON), a label file, one sub-folder per class (folder layout), or the masks; auto takes the first of
    the others that is there, and never the masks: these are pixel labels."""
    label_file: str = ""
    """CSV, TSV, JSON or JSON lines of image-level labels, an export of Label Studio, CVAT or in COCO's form, or for the
    folder layout also a folder of annotation files; for `labels = file` and for the folder layout."""
    label_separator: str = ""
    """What parts several names in one cell of a label file: a mark, "space" or "tab"; "none" makes every cell one name;
    empty finds it from all cells."""
    class_names: tuple[str, ...] = ()
    """Classes in label order, for the folder layout; empty takes them from the label file, sorted."""
    num_images: int = 600
    """Miniature: number of weakly labelled images to generate."""
    limit: int | None = None
    """Use only the first so many images of each split; None uses all."""
    mask_values: tuple[str, ...] = ()
    """What masks hold, where it is not label values: 255=polyp, 1=dog, '#800000=cat' or 128,0,0=cat (a colour),
    nonzero=polyp, 7=ignore, 9=background; voc-colours reads VOC's palette. Folder and voc12."""
    mask_check: Literal["refuse", "warn"] = "refuse"
    """What becomes of masks that contradict the image labels: an error, or a printed line and the run goes on."""
    check_images: bool = True
    """Decode every image and mask once before work starts, and report all faults together; without it image headers
    alone, and at most 1000 masks."""

    def __post_init__(self) -> None:
        require_at_least(self, "data", 8, "num_images")
        require_text(self, "data", "train_split", "eval_split", "test_split")
        require(len(set(self.class_names)) == len(self.class_names), "data.class_names holds a class twice")
        require(self.limit is None or self.limit >= 1, f"data.limit is {self.limit}, expected at least 1")
        share = self.held_out_share
        require(0 <= share < 1, f"data.held_out_share is {share}, expected a number in [0, 1)")
        check_entries(self.mask_values)
        require(
            not self.mask_values or self.dataset in ("folder", "voc12"),
            f"data.mask_values is for folder and voc12; the masks of {self.dataset} have a fixed form: leave it empty",
        )


@settings
class AugmentConfig:
    """How random squares are cut out of the training images (rows R18, S10)."""

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

    def light(self) -> "AugmentConfig":
        """Return the crops of prompt learning, and of rating an epoch: no RandAugment, no erasing (S10)."""
        return replace(self, rand_augment_magnitude=0, erasing_probability=0.0)


@settings
class JointCropConfig:
    """Joint random crops of image and label map."""

    min_scale: float = 0.5
    """Smallest random scale of the image."""
    max_scale: float = 2.0
    """Largest random scale of the image."""
    crop_px: int = 321
    """Side of the random square crop; the image is padded with its mean, the label map with 255."""
    flip: bool = True
    """Mirror half of the images."""
    jitter: float = 0.0
    """Random change of brightness, contrast and saturation, and a tenth of it of the hue; 0 is off (D6)."""

    def __post_init__(self) -> None:
        require(0 < self.min_scale <= self.max_scale, "segmentation.crop: 0 < min_scale <= max_scale is required")
        require_at_least(self, "segmentation.crop", 16, "crop_px")
        require(0 <= self.jitter < 1, f"segmentation.crop.jitter is {self.jitter}, expected in [0, 1)")

"""Class names, label values and the palette: the only place that knows background, ignore and the mapping.

``class_id`` is 0-based over the foreground classes everywhere; ``label_value`` is what a label map holds. Some data
sets have no background: tissue fills the whole picture. Their label maps hold the same values but for 0, their
background score is `NO_BACKGROUND`, and their final networks have one output less.
"""

from collections.abc import Sequence

BACKGROUND_VALUE = 0
"""Label-map value of the background."""
IGNORE_VALUE = 255
"""Label-map value of pixels that are not scored (VOC "void")."""
NO_BACKGROUND = -1.0
"""Background score of a data set without background: every score exceeds it, so a pixel takes its foremost class.
A map that is -1 itself shows no class."""

_WITHOUT_BACKGROUND = frozenset({"bcss_wsss", "luad_histoseg"})

VOC_FILE_NAMES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 VOC classes as VOC's files spell them, in label order."""

_NATURAL = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}

VOC_CLASSES: tuple[str, ...] = tuple(_NATURAL.get(name, name) for name in VOC_FILE_NAMES)
"""The 20 VOC classes in natural words, as questions and prompts use them (row Q3)."""

COCO_CLASSES: tuple[str, ...] = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow",
    "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee",
    "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard",
    "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
    "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard", "cell phone",
    "microwave", "oven", "toaster", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "hair drier", "toothbrush",
)  # fmt: skip
"""The 80 COCO classes as its annotation files name them, in the order of their category ids."""

COCO_GAPS: tuple[int, ...] = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
"""COCO category ids in 1 to 90 that no category has."""

COCO_CATEGORY_IDS: tuple[int, ...] = tuple(number for number in range(1, 91) if number not in COCO_GAPS)
"""Category id of each of `COCO_CLASSES` in the annotation files."""

BCSS_CLASSES: tuple[str, ...] = ("tumor", "stroma", "lymphocytic infiltrate", "necrosis")
"""The tissues of BCSS-WSSS (TUM, STR, LYM, NEC), in the order of its file names and masks."""

LUAD_CLASSES: tuple[str, ...] = ("tumor epithelium", "necrosis", "lymphocytes", "tumor-associated stroma")
"""The tissues of LUAD-HistoSeg (TE, NEC, LYM, TAS), in the order of its file names and masks."""


def label_value(class_id: int) -> int:
    """Return the label-map value of a foreground class."""
    return class_id + 1


def class_id(value: int) -> int:
    """Return the foreground class of a label-map value."""
    return value - 1


def has_background(dataset: str) -> bool:
    """Whether pixels of a data set (`data.dataset`) may show none of its classes."""
    return dataset not in _WITHOUT_BACKGROUND


def num_labels(num_classes: int, *, has_background: bool) -> int:
    """Return the outputs of a final network: the background first, where there is one, then the classes."""
    return num_classes + has_background


def label_names(class_names: Sequence[str], *, has_background: bool) -> tuple[str, ...]:
    """Return the names of what is scored: the background first, where there is one, then the classes."""
    return ("background", *class_names) if has_background else tuple(class_names)


def background_score(score: float, *, has_background: bool) -> float:
    """Return a background score, or `NO_BACKGROUND` where there is no background."""
    return score if has_background else NO_BACKGROUND


def natural_name(file_name: str) -> str:
    """Return the words for a class as VOC's files spell it; other names pass."""
    return _NATURAL.get(file_name, file_name)


def voc_palette(num_colours: int = 256) -> list[int]:
    """Return VOC's palette, flat RGB: bit k of a label spreads over the high bits of red, green and blue."""
    palette = []
    for label in range(num_colours):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
        palette.extend(colour)
    return palette

"""Class names, label values and the palette: the only place that knows background, ignore and the mapping.

``class_id`` is 0-based over the foreground classes everywhere; ``label_value`` is what a label map holds. Some data
sets have no background: tissue fills the whole picture. Their label maps hold the same values but for 0; what else
differs for them is what `Classes` says.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from qaclims_ray.errors import ConfigError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
BACKGROUND_VALUE = 0
"""Label-map value of the background."""
IGNORE_VALUE = 255
"""Label-map value of pixels that are not scored (VOC "void")."""
NO_BACKGROUND = -1.0
"""Background score of a data set without background: every score exceeds it, so a pixel takes its foremost class.
A map that is -1 itself shows no class."""

_WITHOUT_BACKGROUND = frozenset({"bcss_wsss", "luad_histoseg"})


@dataclass(frozen=True)
class Classes:
    """What pixels may show."""

    names: tuple[str, ...]
    """Natural names of the foreground classes; the position is the class id."""
    has_background: bool = True
    """Whether pixels may show none of them."""

    def __len__(self) -> int:
        """Return the number of foreground classes."""
        return len(self.names)

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of what a final network tells apart and a score counts: the background first, where there is one."""
        return ("background", *self.names) if self.has_background else self.names

    @property
    def num_labels(self) -> int:
        """Number of `label_names`."""
        return len(self.label_names)

    def border(self, score: float) -> float:
        """Return a background score, or `NO_BACKGROUND` where there is no background."""
        return score if self.has_background else NO_BACKGROUND


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


def require_classes(setting: str, names: Iterable[str], class_names: Sequence[str], *, or_all: str = "") -> None:
    """Refuse names that no class has.

    Args:
        setting: where they stand, for the message.
        names: what it names.
        class_names: of the data set.
        or_all: a name that stands for all classes, where the setting knows one.

    Raises:
        ConfigError: naming those that are unknown.
    """
    known = {*class_names, or_all} if or_all else {*class_names}
    if unknown := sorted(set(names) - known):
        also = f"{or_all!r} or " if or_all else ""
        raise ConfigError(f"{setting} names {unknown}; expected {also}classes: {', '.join(class_names)}")


def label_value(class_id: int) -> int:
    """Return the label-map value of a foreground class."""
    return class_id + 1


def class_id(value: int) -> int:
    """Return the foreground class of a label-map value."""
    return value - 1


def has_background(dataset: str) -> bool:
    """Whether pixels of a data set (`data.dataset`) may show none of its classes."""
    return dataset not in _WITHOUT_BACKGROUND


@functools.cache
def voc_palette(num_colours: int = 256) -> tuple[int, ...]:
    """Return VOC's palette, flat RGB: bit k of a label spreads over the high bits of red, green and blue."""
    palette = []
    for label in range(num_colours):
        colour = [0, 0, 0]
        for bit in range(8):
            for channel in range(3):
                colour[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
        palette.extend(colour)
    return tuple(palette)


def voc_colours(num_classes: int = IGNORE_VALUE - 1) -> dict[Colour, int]:
    """Return colour -> label value of VOC's palette, for so many classes, background and void."""
    flat = voc_palette()
    labels = [*range(num_classes + 1), IGNORE_VALUE]
    return {(flat[3 * label], flat[3 * label + 1], flat[3 * label + 2]): label for label in labels}


def hexadecimal(colour: Colour) -> str:
    """Return a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)

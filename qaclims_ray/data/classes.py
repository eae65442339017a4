"""Class names, label values and the palette: the only place that knows background, ignore and the mapping.

``class_id`` is 0-based over the foreground classes everywhere; ``label_value`` is what a label map holds.
"""

BACKGROUND_VALUE = 0
"""Label-map value of the background."""
IGNORE_VALUE = 255
"""Label-map value of pixels that are not scored (VOC "void")."""

VOC_FILE_NAMES: tuple[str, ...] = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
"""The 20 VOC classes as VOC's files spell them, in label order."""

_NATURAL = {"diningtable": "dining table", "pottedplant": "potted plant", "tvmonitor": "tv monitor"}

VOC_CLASSES: tuple[str, ...] = tuple(_NATURAL.get(name, name) for name in VOC_FILE_NAMES)
"""The 20 VOC classes in natural words, as questions and prompts use them (row Q3)."""


def label_value(class_id: int) -> int:
    """Return the label-map value of a foreground class."""
    return class_id + 1


def class_id(value: int) -> int:
    """Return the foreground class of a label-map value."""
    return value - 1


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

"""``labelmap.txt`` beside painted masks, as CVAT's "Segmentation mask 1.1" has it: which class each colour is."""

from collections.abc import Iterable

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes, Colour, voc_palette
from qaclims_ray.data.mask_values import Translation
from qaclims_ray.data.value_names import value_names, value_of
from qaclims_ray.errors import DataError

COLOURS_NAME = "labelmap.txt"


def labelmap_text(classes: Classes, shown: Iterable[int]) -> str:
    """Return the file for masks of VOC's palette.

    Args:
        classes: those of the data set.
        shown: label values that any mask holds; the ignored one is listed only then.
    """
    palette, lines = voc_palette(), ["# label:color_rgb:parts:actions"]
    for value, name in value_names(classes).items():
        if value != IGNORE_VALUE or IGNORE_VALUE in shown:
            colour = ",".join(str(channel) for channel in palette[3 * value : 3 * value + 3])
            lines.append(f"{name}:{colour}::")
    return "\n".join(lines) + "\n"


def read_labelmap(uri: str, classes: Classes) -> Translation:
    """Return which label value each colour stands for.

    Raises:
        DataError: for a line that cannot be read, or a name of no class.
    """
    colours: dict[Colour, int] = {(0, 0, 0): BACKGROUND_VALUE if classes.has_background else IGNORE_VALUE}
    for number, line in enumerate(storage.read_bytes(uri).decode("utf-8", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(channel) for channel in rest.split(":")[0].split(","))
            colours[red, green, blue] = value_of(name.strip(), classes)
        except ValueError:
            raise DataError(f"{uri}: line {number} is {line!r}, expected NAME:R,G,B::") from None
        except DataError as error:
            raise DataError(f"{uri}: line {number} names {error}") from None
    return Translation(colours=colours)

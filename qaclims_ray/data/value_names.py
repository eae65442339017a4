"""Names of label values in files where people draw: the classes, the background, and pixels that nobody scores."""

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes, label_value
from qaclims_ray.data.label_words import folded
from qaclims_ray.errors import DataError

BACKGROUND_NAME, IGNORE_NAME = "background", "__ignore__"
"""Names of what shows no class, such as a hole in an object, and of pixels that are not to be scored."""
_ALSO_IGNORED = ("ignore", "ignored", "void")


def value_names(classes: Classes) -> dict[int, str]:
    """Return label value -> name, in the order of the values."""
    names = {label_value(number): name for number, name in enumerate(classes.names)}
    background = {BACKGROUND_VALUE: BACKGROUND_NAME} if classes.has_background else {}
    return {**background, **names, IGNORE_VALUE: IGNORE_NAME}


def nothing_value(classes: Classes) -> int:
    """Return the value of pixels that nobody drew: the background, or ignored where there is none."""
    return BACKGROUND_VALUE if classes.has_background else IGNORE_VALUE


def value_of(name: object, classes: Classes) -> int:
    """Return the label value that a name in a drawn file stands for; case and marks between words do not count.

    Raises:
        DataError: for a name of no class.
    """
    names = value_names(classes)
    if isinstance(name, str):
        exact = {spelt: value for value, spelt in names.items()}
        alike = {folded(word): IGNORE_VALUE for word in _ALSO_IGNORED} | {
            folded(spelt): v for spelt, v in exact.items()
        }
        if folded(name) == BACKGROUND_NAME and BACKGROUND_NAME not in map(folded, classes.names):
            return nothing_value(classes)  # CVAT lists it for every data set
        if (value := exact.get(name, alike.get(folded(name)))) is not None:
            return value
    raise DataError(f"{name!r}, expected one of {', '.join(names.values())}")

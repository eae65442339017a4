"""Label maps as YOLO's segmentation format has them: a text file of polygons an image, and ``data.yaml``.

A line is a class, counted from 0 in the order of ``names``, and x and y of each corner as shares of width and height.
The format knows no ignored pixels: they are written as background.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import yaml
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes, class_id
from qaclims_ray.data.mask_outlines import filled
from qaclims_ray.data.mask_parts import mask_parts
from qaclims_ray.data.value_names import nothing_value, value_of
from qaclims_ray.errors import DataError

YOLO_INDEX = "data.yaml"
"""Names of the classes and places of the images."""


def yolo_lines(labels: UInt8[Tensor, "height width"]) -> str:
    """Return the text file that draws a label map, a line for each part of a class."""
    pixels = labels.numpy()
    size = np.array([pixels.shape[1], pixels.shape[0]], dtype=np.float64)
    lines = []
    for value in np.unique(pixels).tolist():
        if value in (BACKGROUND_VALUE, IGNORE_VALUE):
            continue
        for part in mask_parts(pixels == value):
            shares = (np.array(part) / size).ravel()
            lines.append(
                " ".join([str(class_id(value)), *(f"{share:.6f}".rstrip("0").rstrip(".") for share in shares)])
            )
    return "".join(f"{line}\n" for line in lines)


def yolo_index(classes: Classes, splits: Sequence[str]) -> str:
    """Return the content of ``data.yaml``.

    Args:
        classes: those of the data set.
        splits: those that have images; without one of images to train on and one to rate on, one stands for both.
    """
    train = next((name for name in splits if name.startswith("train")), splits[0])
    apart = [name for name in splits if name != "test"]  # an epoch is not chosen on what is scored at the end
    rated = next((name for name in splits if name.startswith("val")), apart[-1] if apart else splits[-1])
    places = {"train": train, "val": rated, **{name: name for name in splits if name == "test"}}
    content = {
        **{split: f"images/{folder}" for split, folder in places.items()},
        "names": dict(enumerate(classes.names)),
    }
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)


def yolo_values(content: str, classes: Classes, where: str) -> dict[int, int]:
    """Return the label value of each class of a ``data.yaml``.

    Raises:
        DataError: when it lists no names, or one that is no class of the run.
    """
    try:
        found: Any = yaml.safe_load(content)
    except yaml.YAMLError as error:
        raise DataError(f"{where} is no YAML ({str(error).splitlines()[0]})") from None
    names = found.get("names") if isinstance(found, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise DataError(f"{where} has no names of classes")
    values = {}
    for number, name in names.items():
        try:
            values[int(number)] = value_of(name, classes)
        except (DataError, TypeError, ValueError) as error:
            raise DataError(f"{where} has a class {error}") from None
    return values


def yolo_label_map(
    height: int, width: int, *, text: str, values: dict[int, int], classes: Classes, where: str
) -> UInt8[Tensor, "_height _width"]:
    """Return the label map that a text file draws; of two parts that overlap the smaller one lies on top.

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        text: content of the file.
        values: see `yolo_values`.
        classes: those of the data set.
        where: the file, for messages.

    Raises:
        DataError: for a line that is no polygon of a class.
    """
    polygons = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not (words := line.split()):
            continue
        try:
            value, shares = values[int(words[0])], np.array(words[1:], dtype=np.float64)
        except (KeyError, ValueError):
            raise DataError(f"{where}: line {number} does not begin with a class of {YOLO_INDEX} and numbers") from None
        if len(shares) < 6 or len(shares) % 2 or not np.isfinite(shares).all():
            raise DataError(
                f"{where}: line {number} has {len(shares)} numbers, expected x and y of at least three corners"
            )
        if shares.min() < 0 or shares.max() > 1:
            raise DataError(f"{where}: line {number} has corners outside the image: expected shares from 0 to 1")
        corners = shares.reshape(-1, 2) * [width, height]
        x, y = corners.T
        area = abs(float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()))
        polygons.append((area, value, [(float(one), float(two)) for one, two in corners]))
    polygons.sort(key=lambda one: -one[0])
    drawn = [(value, corners) for _, value, corners in polygons]
    return torch.from_numpy(filled(drawn, height, width, nothing_value(classes)))

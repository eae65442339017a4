"""Tiny data sets of tissue in the layouts of BCSS-WSSS and LUAD-HistoSeg: coloured textures, one per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PALETTE = [205, 51, 51, 0, 255, 0, 65, 105, 225, 255, 165, 0, 255, 255, 255]
"""Of LUAD-HistoSeg's masks: the classes, then white."""
WHITE = 4
"""Value of white glass in the masks, after those of the four classes."""

_COLOURS = np.array([[150, 60, 150], [120, 110, 100], [70, 50, 170], [230, 150, 190], [245, 245, 245]])
_SPREADS = np.array([8, 30, 40, 15, 3])


def tissue(values: np.ndarray, seed: int) -> np.ndarray:
    """Return a picture (height, width, 3) of a map of mask values."""
    noise = np.random.default_rng(seed).normal(size=(*values.shape, 1)) * _SPREADS[values][..., None]
    return (_COLOURS[values] + noise).clip(0, 255).astype(np.uint8)


def regions(classes: Sequence[int], side: int, seed: int, *, has_white: bool = True) -> np.ndarray:
    """Return a map of mask values: each class around a random centre of its own, and a white corner."""
    generator = np.random.default_rng(seed)
    rows, columns = np.indices((side, side))
    centres = generator.uniform(0, side, (len(classes), 2))
    distances = [np.hypot(rows - row, columns - column) for row, column in centres]
    values = np.asarray(classes, np.uint8)[np.argmin(distances, 0)]
    if has_white:
        values[: side // 8, : side // 4] = WHITE
    return values


def save_mask(path: Path, values: np.ndarray) -> None:
    """Write a mask as the data sets have it: a palette PNG whose values are class ids, and 4 for white."""
    picture = Image.fromarray(values.astype(np.uint8), "P")
    picture.putpalette(PALETTE)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def write_luad(root: Path, *, num_train: int = 8, num_val: int = 4, num_test: int = 2, side: int = 16) -> Path:
    """Write LUAD-HistoSeg's layout: labels with spaces in the names of train, ``img`` and ``mask`` in val and test."""
    subsets = ([0], [1], [2], [3], [0, 3], [1, 2], [0, 2, 3], [2, 3])
    (root / "train").mkdir(parents=True)
    for number in range(num_train):
        classes = subsets[number % len(subsets)]
        labels = " ".join(str(int(index in classes)) for index in range(4))
        picture = tissue(regions(classes, side, number), number)
        Image.fromarray(picture).save(root / "train" / f"1031280-{2300 + number}-27920-[{labels}].png")
    for split, count, start in (("val", num_val, 1000), ("test", num_test, 2000)):
        (root / split / "img").mkdir(parents=True)
        for number in range(start, start + count):
            values = regions(subsets[(number + 4) % len(subsets)], side, number)
            Image.fromarray(tissue(values, number)).save(root / split / "img" / f"385277-{number}-46781.png")
            save_mask(root / split / "mask" / f"385277-{number}-46781.png", values)
    return root

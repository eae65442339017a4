"""Generated sets of label maps and image labels, and what people's tools do to label maps."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from qaclims_ray.data.classes import voc_palette
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.inspection import Inspection, inspect_images
from qaclims_ray.data.mask_translation import translated_masks
from qaclims_ray.data.validation import RawImage

SIDE = 16


@dataclass(frozen=True)
class MadeSet:
    """Label maps in this package's form, and the labels of their images."""

    class_names: tuple[str, ...]
    maps: tuple[np.ndarray, ...]
    labels: tuple[tuple[int, ...], ...]

    def changed(self, change: Callable[[np.ndarray], np.ndarray]) -> "MadeSet":
        return replace(self, maps=tuple(change(one) for one in self.maps))


def make_set(
    rng: np.random.Generator,
    num_classes: int,
    count: int,
    *,
    most: int = 3,
    void: float = 0.0,
    borders: bool = False,
    unlabelled: float = 0.0,
    chances: Sequence[float] | None = None,
    background: bool = True,
) -> MadeSet:
    """Draw images with 1 to `most` classes each, as stripes.

    Args:
        rng: source of chance.
        num_classes: classes.
        count: images.
        most: classes in an image.
        void: share of objects that are 255 in the mask, though labelled.
        borders: whether objects have a line of 255.
        unlabelled: share of masks with a class that is not labelled.
        chances: share of each class; evenly by default.
        background: whether a part of each image is 0.
    """
    maps, labels = [], []
    weights = None if chances is None else np.asarray(chances) / np.sum(chances)
    for _ in range(count):
        number = int(rng.integers(1, min(most, num_classes) + 1))
        shown = sorted(rng.choice(num_classes, size=number, replace=False, p=weights).tolist())
        drawn = [255 if rng.random() < void else one + 1 for one in shown]
        others = sorted(set(range(num_classes)) - set(shown))
        if others and rng.random() < unlabelled:
            drawn.append(int(rng.choice(others)) + 1)
        one = np.zeros((SIDE, SIDE), np.uint8)
        rows = np.array_split(np.arange(0 if not background else 4, SIDE), len(drawn))
        for value, place in zip(drawn, rows, strict=True):
            one[place] = value
            if borders:
                one[place[-1]] = 255
        maps.append(one)
        labels.append(tuple(shown))
    return MadeSet(tuple(f"class {n}" for n in range(num_classes)), tuple(maps), tuple(labels))


def save_grey(one: np.ndarray, path: Path) -> None:
    Image.fromarray(one).save(path)


def save_palette(one: np.ndarray, path: Path) -> None:
    picture = Image.fromarray(one, "P")
    picture.putpalette(voc_palette())
    picture.save(path)


def save_numbered_anew(one: np.ndarray, path: Path) -> None:
    """Write what an image editor makes of VOC's palette: the colours in use, numbered as they come."""
    values, indices = np.unique(one, return_inverse=True)
    picture = Image.fromarray(indices.reshape(one.shape).astype(np.uint8), "P")
    palette = voc_palette()
    picture.putpalette([channel for value in values.tolist() for channel in palette[3 * value : 3 * value + 3]])
    picture.save(path)


def save_colours(one: np.ndarray, path: Path) -> None:
    Image.fromarray(np.asarray(voc_palette(), np.uint8).reshape(-1, 3)[one]).save(path)


def save_bits(one: np.ndarray, path: Path, bits: int) -> None:
    """Write a grey TIFF, or a palette PNG, of few bits (PIL writes no grey PNG of 2 or 4)."""
    picture = Image.fromarray(one, "P")
    picture.putpalette(voc_palette(2**bits))
    picture.save(path, bits=bits)


def write_set(
    made: MadeSet, folder: Path, save: Callable[[np.ndarray, Path], None] = save_grey, ending: str = ".png"
) -> list[RawImage]:
    """Write the masks, and one photograph for all."""
    folder.mkdir(parents=True, exist_ok=True)
    photograph = folder / "photograph.png"
    Image.fromarray(np.zeros((SIDE, SIDE, 3), np.uint8)).save(photograph)
    images = []
    for number, (one, labels) in enumerate(zip(made.maps, made.labels, strict=True)):
        path = folder / f"{number:03d}{ending}"
        save(one, path)
        images.append(RawImage(path.stem, str(photograph), labels, str(path), None, ("train",)))
    return images


def inspect(made: MadeSet, images: Sequence[RawImage], folder: Path, **settings: object) -> Inspection:
    """Translate masks where settings ask for it, then inspect them."""
    config = DataConfig(**{"dataset": "folder", **settings})
    checked, faults = translated_masks(images, config, made.class_names, str(folder / "translated"))
    found = inspect_images(checked, made.class_names, config)
    return found._replace(faults=[*faults, *found.faults])


def advised(report: str) -> tuple[str, ...]:
    """Return the first `data.mask_values` that stands on a line of its own in a report."""
    for line in report.splitlines():
        words = shlex.split(line.strip()) if line.strip().startswith("--data.mask-values") else []
        if words:
            return tuple(words[1:])
    return ()

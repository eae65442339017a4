"""The weakly labelled miniature data set on disk, in the layout of a VOCdevkit year.

    JPEGImages/ID.png               the picture (lossless PNG; the folder keeps VOC's name)
    SegmentationClass/ID.png        palette PNG: 0 background, class_id + 1 for the classes
    SegmentationContext/ID.png      palette PNG: stuff identifier of every pixel, under objects too
    ImageSets/Segmentation/*.txt    train.txt and val.txt, one identifier a line
    image_labels.json               {identifier: [class names]}
    classes.json                    {"classes": [...], "stuff": [...]}

`SegmentationContext` serves one diagnosis only: how many false positives lie on the class's own primary stuff, whose
identifier equals the 0-based class identifier. Nothing trains on it.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from qaclims_ray.data.classes import voc_palette
from qaclims_ray.miniature.scenes import WEAK_SET, Scene, SceneSettings, scenes
from qaclims_ray.miniature.vocabulary import CLASSES, STUFF

WEAK_STREAM = 0
"""Stream of scenes of the weakly labelled set."""

_VAL_FIRST_INDEX = 500_000
"""Validation pictures start here, so that they do not depend on how many training pictures there are."""


def write_dataset(
    root: Path | str, *, num_images: int, seed: int, num_val: int = 150, settings: SceneSettings = WEAK_SET
) -> None:
    """Draw the data set and write it (about 5 ms a picture).

    Args:
        root: folder to write into; made if need be.
        num_images: training pictures, named mini_000000, mini_000001, ...
        seed: fixes every pixel.
        num_val: validation pictures, named from mini_500000.
        settings: how often things appear together.
    """
    root = Path(root)
    for folder in ("JPEGImages", "SegmentationClass", "SegmentationContext", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    labels: dict[str, list[str]] = {}
    for split, first, count in (("train", 0, num_images), ("val", _VAL_FIRST_INDEX, num_val)):
        image_ids = [image_id(first + offset) for offset in range(count)]
        drawn = scenes(count, stream=WEAK_STREAM, seed=seed, settings=settings, first_index=first)
        for name, scene in zip(image_ids, drawn, strict=True):
            _write_scene(root, name, scene)
            labels[name] = [CLASSES[class_id] for class_id in scene.class_ids]
        lines = "".join(f"{name}\n" for name in image_ids)
        (root / "ImageSets/Segmentation" / f"{split}.txt").write_text(lines, encoding="ascii")
    (root / "image_labels.json").write_text(json.dumps(labels, indent=0) + "\n", encoding="ascii")
    names = {"classes": list(CLASSES), "stuff": list(STUFF)}
    (root / "classes.json").write_text(json.dumps(names, indent=2) + "\n", encoding="ascii")


def image_id(index: int) -> str:
    """Name of a picture."""
    return f"mini_{index:06d}"


def _write_scene(root: Path, name: str, scene: Scene) -> None:
    Image.fromarray(scene.image).save(root / "JPEGImages" / f"{name}.png")
    _write_palette(root / "SegmentationClass" / f"{name}.png", scene.label_map)
    _write_palette(root / "SegmentationContext" / f"{name}.png", scene.stuff_map)


def _write_palette(path: Path, values: np.ndarray) -> None:
    image = Image.fromarray(values, mode="P")
    image.putpalette(voc_palette())
    image.save(path)

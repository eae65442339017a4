"""A tiny COCO 2014 in its true layout: annotation files with gaps in the category ids, polygons, crowds, JPEGs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qaclims_ray.data.classes import COCO_CATEGORY_IDS, COCO_CLASSES

PERSON, STOP_SIGN, TOOTHBRUSH = 1, 13, 90
"""Category ids; 12 is a gap, 90 the last: classes 0, 11 and 79."""
COLOURS = {PERSON: (200, 60, 60), STOP_SIGN: (60, 200, 60), TOOTHBRUSH: (60, 60, 200)}

Edit = Callable[[dict[str, Any]], None]


def name_of(number: int, split: str = "train") -> str:
    return f"COCO_{split}2014_{number:012d}"


def box(left: float, top: float, right: float, bottom: float) -> list[float]:
    """Return the polygon of a box."""
    return [left, top, right, top, right, bottom, left, bottom]


def annotation(number: int, image: int, category: int, segmentation: Any, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": number, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": crowd,
        "area": 0.0, "bbox": [0, 0, 1, 1],
    }  # fmt: skip


def crowd_box(side: int, left: int, top: int, right: int, bottom: int) -> dict[str, Any]:
    """Return the uncompressed run lengths of a box, column by column, as COCO writes crowds."""
    inside = np.zeros((side, side), bool)
    inside[top:bottom, left:right] = True
    flat = inside.T.ravel()
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flat, [not flat[-1]]])))
    return {"counts": np.diff(np.concatenate([[0], changes])).tolist(), "size": [side, side]}


def write_split(root: Path, split: str, images: Sequence[int], annotations: list[dict], *, side: int = 24) -> None:
    """Write pictures and annotation file of a split; objects are drawn in the colours of their categories."""
    generator = np.random.default_rng(len(images))
    (root / f"{split}2014").mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for number in images:
        pixels = generator.integers(100, 140, (side, side, 3))
        for entry in annotations:
            if entry["image_id"] == number and isinstance(entry["segmentation"], list):
                left, top, _, _, right, bottom, *_ = (round(value) for value in entry["segmentation"][0])
                pixels[top:bottom, left:right] = COLOURS[entry["category_id"]]
        path = root / f"{split}2014" / f"{name_of(number, split)}.jpg"
        Image.fromarray(pixels.astype(np.uint8)).save(path, quality=95)
    content = {
        "info": {}, "licenses": [],
        "images": [{"id": n, "file_name": f"{name_of(n, split)}.jpg", "width": side, "height": side} for n in images],
        "annotations": annotations,
        "categories": [
            {"supercategory": "thing", "id": number, "name": name}
            for number, name in zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True)
        ],
    }  # fmt: skip
    (root / "annotations" / f"instances_{split}2014.json").write_text(json.dumps(content))


def edit_annotations(root: Path, edit: Edit, split: str = "train") -> None:
    """Change an annotation file in place."""
    path = root / "annotations" / f"instances_{split}2014.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def write_coco(root: Path, *, num_train: int = 5, num_val: int = 2, side: int = 24) -> Path:
    """Write train and val; every image shows one or two of three categories, and each split has one image of none."""
    half, third = side / 2, side / 3
    subsets = ([PERSON], [STOP_SIGN], [TOOTHBRUSH], [PERSON, STOP_SIGN], [STOP_SIGN, TOOTHBRUSH])
    for split, count, start in (("train", num_train, 9), ("val", num_val, 42)):
        annotations = []
        for number in range(count):
            for place, category in enumerate(subsets[number % len(subsets)]):
                left = 2 + place * half
                polygon = box(left, third - number % 3, left + half - 4, 2 * third + number % 3)
                annotations.append(annotation(len(annotations) + 100, start + number, category, [polygon]))
        write_split(root, split, range(start, start + count + 1), annotations, side=side)
    return root

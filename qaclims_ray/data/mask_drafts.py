"""Masks that were handed out to be corrected, as `qaclims label-these` writes them, and what came back of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.json_files import parse_json_file, read_json_file
from qaclims_ray.data.labelme import labels_of, shapes_of
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.mask_outlines import require_size
from qaclims_ray.errors import ConfigError, DataError

DRAFTS_NAME = "label_these.json"
"""What was handed out, in the folder of the drafts."""


@dataclass(frozen=True)
class Draft:
    """One exported image."""

    image: str
    """File of the image, in ``images/``."""
    height: int
    """In pixels."""
    width: int
    """In pixels."""
    drawn_by: str
    """`MapSource.key` of the mask that is to be corrected."""
    mask: str
    """Hash of the draft's pixels."""
    shapes: str
    """Hash of the draft's polygons."""


@dataclass(frozen=True)
class LabelList:
    """What was exported."""

    run: str
    """The run's folder."""
    by: str
    """disagreement or random: how the images were chosen."""
    drafts: dict[str, Draft]
    """Image id -> draft."""


def read_drafts(out: str) -> LabelList:
    """Return what was exported into a folder.

    Raises:
        ConfigError: when nothing was, or the list is damaged.
    """
    uri = storage.join(out, DRAFTS_NAME)
    if not storage.exists(uri):
        raise ConfigError(f"{out} holds no drafts (no {DRAFTS_NAME}): `qaclims label-these RUN --out DIR` makes them")
    remedy = "Make the drafts again into another folder, and copy the corrected files there"
    return read_json_file(uri, TypeAdapter(LabelList).validate_python, remedy=remedy, error=ConfigError)


def shapes_uri(out: str, image_id: str) -> str:
    """Return the file of an image's polygons."""
    return storage.join(out, "images", f"{image_id}.json")


def mask_uri(out: str, image_id: str) -> str:
    """Return the file of an image's painted mask."""
    return storage.join(out, "masks", f"{image_id}.png")


def hash_of_mask(labels: Tensor) -> str:
    """Return what tells a painted mask from a corrected one."""
    return hashlib.sha256(labels.to(torch.uint8).contiguous().numpy().tobytes()).hexdigest()[:16]


def hash_of_shapes(shapes: Sequence[dict[str, Any]]) -> str:
    """Return what tells polygons from corrected ones: names, corners and painted masks, whatever else a tool writes."""
    try:
        kept = [
            [shape.get("label"), [[round(float(v), 2) for v in p] for p in shape.get("points", [])]]
            + ([shape["mask"]] if shape.get("mask") else [])
            for shape in shapes
        ]
    except (TypeError, ValueError):
        raise DataError("a shape has no list of points: save the file again in the tool") from None
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()[:16]


def corrected_draft(out: str, name: str, draft: Draft, classes: Classes, *, accepts: bool) -> Tensor | None:
    """Return an image's corrected mask; None where it was left as it is.

    Args:
        out: folder of the drafts.
        name: of the image.
        draft: what was handed out.
        classes: those of the data set.
        accepts: whether a draft that was left as it is counts as right.

    Raises:
        DataError: when it was corrected twice, has another size, or cannot be read.
    """
    painted, drawn = mask_uri(out, name), shapes_uri(out, name)
    labels = load_mask(painted) if storage.exists(painted) else None
    is_painted = labels is not None and hash_of_mask(labels) != draft.mask
    content = (
        parse_json_file(drawn, remedy="Save it again in the tool", error=DataError) if storage.exists(drawn) else None
    )
    is_drawn = content is not None and hash_of_shapes(shapes_of(content, drawn)) != draft.shapes
    if is_painted and is_drawn:
        raise DataError(f"{name} was corrected twice, in {painted} and in {drawn}: remove the one that does not count")
    if is_drawn:
        labels = labels_of(content, draft.height, draft.width, classes, drawn)
    elif not is_painted and not accepts:
        return None
    if labels is None:
        raise DataError(f"{name} has no mask any more: neither {painted} nor {drawn}")
    require_size(painted, (labels.shape[1], labels.shape[0]), draft.height, draft.width)
    return labels

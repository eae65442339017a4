"""Opening a data set's images and masks: whether they can be read, fit each other, and fit the labels."""

import dataclasses
import functools
import random
from collections.abc import Sequence
from typing import NamedTuple

from qaclims_ray.data import storage
from qaclims_ray.data.classes import class_id
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.mask_agreement import judge_masks
from qaclims_ray.data.mask_evidence import MaskFacts
from qaclims_ray.data.mask_files import MaskPicture, colours_complaint, read_mask
from qaclims_ray.data.photographs import PhotoHeader, inspect_photograph
from qaclims_ray.data.slices import each_in_threads
from qaclims_ray.data.turned_photographs import size_complaint, turned_note
from qaclims_ray.data.validation import Fault, OnProgress, RawImage
from qaclims_ray.errors import DataError

MASK_SAMPLE = 1000
"""Masks that are held against labels where not everything is decoded."""
SOON_DECODED = 2000
"""So many images are decoded within seconds, so that their faults may join those of the labels in one report."""


class Inspection(NamedTuple):
    """What came of opening images and masks."""

    records: tuple[ImageRecord, ...]
    """Sound images."""
    faults: list[Fault]
    """All that is wrong."""
    notes: list[str]
    """What a person should know of the masks."""


class _Opened(NamedTuple):
    """One image and its mask."""

    record: ImageRecord | None
    """None where something is wrong."""
    faults: list[Fault]
    header: PhotoHeader | None
    facts: MaskFacts | None


def inspect_images(
    images: Sequence[RawImage],
    class_names: Sequence[str],
    config: DataConfig,
    *,
    known: Sequence[Fault] = (),
    has_background: bool = True,
    masks_follow: bool = False,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """Open every image and mask, and hold masks against labels.

    With `check_images` all pixels are decoded. Otherwise only image headers are read, masks where labels come from
    them, and a sample of the other masks.

    Args:
        images: what to open.
        class_names: foreground classes in label order.
        config: the data set.
        known: what is wrong with lists and labels. Then masks are judged by themselves alone, and pixels of a large
            data set are not decoded for hours first.
        has_background: whether pixels may show no class.
        masks_follow: whether masks are drawn later, so that what is told of photographs with masks holds for all.
        on_progress: told after each image.
    """
    records, faults, looked_at, turned = [], [], [], []
    inspect = functools.partial(
        _inspect,
        num_classes=len(class_names),
        decode=config.check_images and (not known or len(images) <= SOON_DECODED),
        mask_sample=_mask_sample(images),
    )
    with each_in_threads(inspect, images) as results:
        for done, opened in enumerate(results, start=1):
            faults += opened.faults
            if opened.record is not None:
                records.append(opened.record)
            if opened.facts is not None:
                looked_at.append(opened.facts)
            if opened.record is not None and opened.header is not None and opened.header.orientation != 1:
                turned += [opened.record.image_id] * (masks_follow or opened.record.mask_uri is not None)
            if on_progress is not None:
                on_progress(done, len(images))
    if known:
        looked_at = [dataclasses.replace(facts, labels=None) for facts in looked_at]
    judgement = judge_masks(looked_at, class_names, config, has_background=has_background)
    faults += [Fault(sort, f"{len(looked_at)} masks", detail) for sort, detail in judgement.refusals]
    return Inspection(tuple(records), faults, [*turned_note(turned), *judgement.notes])


def _mask_sample(images: Sequence[RawImage]) -> frozenset[str]:
    """Draw images whose masks are looked at in any case; the same ones each time."""
    masked = [image.image_id for image in images if image.mask_uri is not None]
    return frozenset(masked if len(masked) <= MASK_SAMPLE else random.Random(0).sample(masked, MASK_SAMPLE))


def _inspect(image: RawImage, *, num_classes: int, decode: bool, mask_sample: frozenset[str]) -> _Opened:
    faults: list[Fault] = []
    facts = header = None
    labels = image.labels
    try:
        header = inspect_photograph(image.image_uri, decode=decode)
    except DataError as error:
        faults.append(Fault("unreadable image", image.image_id, str(error)))
    if image.mask_uri is not None and (decode or labels is None or image.image_id in mask_sample):
        picture, found = _inspect_mask(image, image.mask_uri, "mask", header)
        faults += found
        facts = None if picture is None else _facts(image, picture)
        if facts is not None and labels is None:
            # Values beyond the classes are judged with those of all masks.
            labels = tuple(sorted(class_id(value) for value in facts.objects if 0 < value <= num_classes))
        elif labels is None:
            labels = ()  # the fault is reported already, as what it is
    if image.context_uri is not None and decode:
        context, found = _inspect_mask(image, image.context_uri, "context map", header)
        faults += found
        if context is not None and context.numbers is None:
            faults.append(Fault("unreadable context map", image.image_id, colours_complaint(context.shown_colours())))
    if labels is None:
        faults.append(Fault("missing labels", image.image_id, "no label and no mask to take them from"))
    if faults or header is None or labels is None:
        return _Opened(None, faults, header, facts)
    return _Opened(_record(image, header, labels), faults, header, facts)


def _record(image: RawImage, header: PhotoHeader, labels: tuple[int, ...]) -> ImageRecord:
    return ImageRecord(
        image_id=image.image_id,
        image_uri=storage.absolute(image.image_uri),
        width=header.width,
        height=header.height,
        labels=labels,
        mask_uri=None if image.mask_uri is None else storage.absolute(image.mask_uri),
        context_uri=None if image.context_uri is None else storage.absolute(image.context_uri),
        splits=image.splits,
    )


def _facts(image: RawImage, picture: MaskPicture) -> MaskFacts:
    return MaskFacts(
        image.image_id,
        None if image.labels is None else frozenset(image.labels),
        picture.values(),
        picture.shown_colours() if picture.numbers is None else {},
        picture.used_palette(),
        picture.bits,
    )


def _inspect_mask(
    image: RawImage, uri: str, what: str, header: PhotoHeader | None
) -> tuple[MaskPicture | None, list[Fault]]:
    """Return a label map, and its faults."""
    try:
        picture = read_mask(uri)
    except DataError as error:
        return None, [Fault(f"unreadable {what}", image.image_id, str(error))]
    if (
        header is not None
        and (complaint := size_complaint(what, picture.size, header, picture.orientation)) is not None
    ):
        sort, detail = complaint
        return picture, [Fault(sort, image.image_id, detail)]
    return picture, []

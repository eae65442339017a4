"""Everything about a data set that can be wrong, found before work starts and reported at once.

The readers (``voc.py``, ``folder.py``) collect `Fault`s while they read lists and labels; `inspect_images` opens
the images and masks; `fail_on` turns all faults into one message.
"""

import difflib
import functools
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from typing import NamedTuple, TypeVar

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, class_id
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import image_size, load_image
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.mask_agreement import judge_masks
from qaclims_ray.data.mask_evidence import MaskFacts
from qaclims_ray.data.mask_files import MaskPicture, colours_complaint, read_mask
from qaclims_ray.errors import ConfigError, DataError

MAX_LISTED_FAULTS = 50
"""Faults spelled out in one report; the rest are counted."""
NUM_THREADS = 8
"""Files opened at a time: remote stores are slow to answer."""
MASK_SAMPLE = 1000
"""Masks that are held against labels where not everything is decoded."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
OnProgress = Callable[[int, int], None]
"""Called with the number of images done and the number in all."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a data set."""

    sort: str
    """Heading under which such faults are reported, e.g. "unknown label"."""
    subject: str
    """Image, file or split."""
    detail: str
    """What was found and what was expected."""


@dataclass(frozen=True)
class RawImage:
    """An image as the lists name it, not yet opened."""

    image_id: str
    image_uri: str
    labels: tuple[int, ...] | None
    """Class ids; None takes them from the mask."""
    mask_uri: str | None
    context_uri: str | None
    splits: tuple[str, ...]


def fail_on(faults: Sequence[Fault], place: str) -> None:
    """Report all faults in one error; without any, do nothing.

    Args:
        faults: what was found.
        place: the data set's folder, for the message.

    Raises:
        DataError: when there is a fault.
    """
    if not faults:
        return
    by_sort: dict[str, list[Fault]] = defaultdict(list)
    for fault in dict.fromkeys(faults):
        by_sort[fault.sort].append(fault)
    # The shortest groups come first in the sharing, so that a sort with thousands cannot hide the others.
    left, quota = MAX_LISTED_FAULTS, {}
    for position, sort in enumerate(sorted(by_sort, key=lambda name: len(by_sort[name]))):
        quota[sort] = min(len(by_sort[sort]), max(1, left // (len(by_sort) - position)))
        left -= quota[sort]
    lines = []
    for sort, group in by_sort.items():
        lines.append(f"{sort} ({len(group)}):")
        lines += [f"  {fault.subject}: {fault.detail}" for fault in group[: quota[sort]]]
        if len(group) > quota[sort]:
            lines.append(f"  ... and {len(group) - quota[sort]} more")
    total = sum(map(len, by_sort.values()))
    raise DataError(
        f"the data set at {place} has {total} fault{'s' * (total != 1)}; mend all of them before a run:\n"
        + "\n".join(lines)
    )


def unknown_label(image_id: str, unknown: Sequence[str], known: Iterable[str]) -> Fault:
    """Return the fault of an image that carries names of no class, with the likely spelling of the first."""
    names = list(dict.fromkeys(known))
    close = difflib.get_close_matches(unknown[0], names, n=1)
    listed = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    hint = f"did you mean {close[0]!r}?" if close else f"the classes are {listed}"
    return Fault("unknown label", image_id, f"{', '.join(map(repr, unknown))}; {hint}")


def check_class_names(class_names: Sequence[str]) -> None:
    """Refuse class names that cannot label anything.

    Raises:
        ConfigError: for none, empty or repeated ones, for "background", and for more than a mask can hold.
    """
    if not class_names:
        raise ConfigError("there is no class: name at least one")
    if repeated := [name for name, count in Counter(class_names).items() if count > 1]:
        raise ConfigError(f"class names stand more than once: {repeated}")
    if any(not name.strip() for name in class_names):
        raise ConfigError("a class name is empty")
    if "background" in class_names:
        raise ConfigError(f'"background" is no class: it is implied as label value {BACKGROUND_VALUE}; leave it out')
    if len(class_names) >= IGNORE_VALUE:
        raise ConfigError(f"{len(class_names)} classes: an 8-bit mask can tell at most {IGNORE_VALUE - 1}")


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> list[_Result]:
    """Return ``function`` of each item, in order, several at a time."""
    with ThreadPool(NUM_THREADS) as pool:
        return list(pool.imap(function, items))


class Inspection(NamedTuple):
    """What came of opening images and masks."""

    records: tuple[ImageRecord, ...]
    """Sound images."""
    faults: list[Fault]
    """All that is wrong."""
    notes: list[str]
    """What a person should know of the masks."""


def inspect_images(
    images: Sequence[RawImage],
    class_names: Sequence[str],
    config: DataConfig,
    *,
    has_background: bool = True,
    on_progress: OnProgress | None = None,
) -> Inspection:
    """Open every image and mask, and hold masks against labels.

    With `check_images` all pixels are decoded. Otherwise only image headers are read, masks where labels come from
    them, and a sample of the other masks.

    Args:
        images: what to open.
        class_names: foreground classes in label order.
        config: the data set.
        has_background: whether pixels may show no class.
        on_progress: told after each image.
    """
    records, faults, looked_at = [], [], []
    sample = _mask_sample(images)
    with ThreadPool(NUM_THREADS) as pool:
        inspect = functools.partial(
            _inspect, num_classes=len(class_names), decode=config.check_images, mask_sample=sample
        )
        for done, (record, found, facts) in enumerate(pool.imap(inspect, images), start=1):
            faults += found
            if record is not None:
                records.append(record)
            if facts is not None:
                looked_at.append(facts)
            if on_progress is not None:
                on_progress(done, len(images))
    judgement = judge_masks(looked_at, class_names, config, has_background=has_background)
    faults += [Fault(sort, f"{len(looked_at)} masks", detail) for sort, detail in judgement.refusals]
    return Inspection(tuple(records), faults, list(judgement.notes))


def _mask_sample(images: Sequence[RawImage]) -> frozenset[str]:
    """Draw images whose masks are looked at in any case; the same ones each time."""
    masked = [image.image_id for image in images if image.mask_uri is not None]
    return frozenset(masked if len(masked) <= MASK_SAMPLE else random.Random(0).sample(masked, MASK_SAMPLE))


def check_splits(splits: Iterable[str], images: Sequence[RawImage], *, scored: str) -> list[Fault]:
    """Return faults for splits without images, and for masks that only some images of the scored split lack."""
    faults = []
    for split in dict.fromkeys(splits):
        if not any(split in image.splits for image in images):
            faults.append(Fault("empty split", split, "no image belongs to it"))
    to_score = [image for image in images if scored in image.splits]
    without = [image for image in to_score if image.mask_uri is None]
    if len(without) < len(to_score):
        faults += [Fault("missing mask", image.image_id, f"split {scored} is scored") for image in without]
    return faults


def _inspect(
    image: RawImage, *, num_classes: int, decode: bool, mask_sample: frozenset[str]
) -> tuple[ImageRecord | None, list[Fault], MaskFacts | None]:
    faults: list[Fault] = []
    facts = None
    labels = image.labels
    size = None
    try:
        size = _decoded_size(image.image_uri) if decode else image_size(image.image_uri)
    except DataError as error:
        faults.append(Fault("unreadable image", image.image_id, str(error)))
    if image.mask_uri is not None and (decode or labels is None or image.image_id in mask_sample):
        picture, found = _inspect_mask(image, image.mask_uri, "mask", size)
        faults += found
        facts = None if picture is None else _facts(image, picture)
        if facts is not None and labels is None:
            # Values beyond the classes are judged with those of all masks.
            labels = tuple(sorted(class_id(value) for value in facts.objects if 0 < value <= num_classes))
        elif labels is None:
            labels = ()  # the fault is reported already, as what it is
    if image.context_uri is not None and decode:
        context, found = _inspect_mask(image, image.context_uri, "context map", size)
        faults += found
        if context is not None and context.numbers is None:
            faults.append(Fault("unreadable context map", image.image_id, colours_complaint(context.shown_colours())))
    if labels is None:
        faults.append(Fault("missing labels", image.image_id, "no label and no mask to take them from"))
    if faults or size is None or labels is None:
        return None, faults, facts
    record = ImageRecord(
        image_id=image.image_id,
        image_uri=storage.absolute(image.image_uri),
        width=size[0],
        height=size[1],
        labels=labels,
        mask_uri=None if image.mask_uri is None else storage.absolute(image.mask_uri),
        context_uri=None if image.context_uri is None else storage.absolute(image.context_uri),
        splits=image.splits,
    )
    return record, faults, facts


def _facts(image: RawImage, picture: MaskPicture) -> MaskFacts:
    return MaskFacts(
        image.image_id,
        None if image.labels is None else frozenset(image.labels),
        picture.values(),
        picture.shown_colours() if picture.numbers is None else {},
        picture.used_palette(),
        picture.bits,
    )


def _decoded_size(uri: str) -> tuple[int, int]:
    height, width = load_image(uri).shape[1:]
    return width, height


def _inspect_mask(
    image: RawImage, uri: str, what: str, size: tuple[int, int] | None
) -> tuple[MaskPicture | None, list[Fault]]:
    """Return a label map, and its faults."""
    try:
        picture = read_mask(uri)
    except DataError as error:
        return None, [Fault(f"unreadable {what}", image.image_id, str(error))]
    width, height = picture.size
    if size is not None and (width, height) != size:
        detail = f"{what} is {width} x {height}, the image is {size[0]} x {size[1]}"
        return picture, [Fault("size mismatch", image.image_id, detail)]
    return picture, []

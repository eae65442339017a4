"""Masks that are written once in this package's own form, so that nothing else knows of a data set's values."""

import dataclasses
import hashlib
import shlex
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import UInt8

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, hexadecimal
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.mask_files import MaskPicture, packed, read_mask, unpacked
from qaclims_ray.data.mask_values import BLACK, Translation, translation_of
from qaclims_ray.data.slices import in_threads
from qaclims_ray.data.validation import Fault, RawImage
from qaclims_ray.errors import ConfigError, DataError

_IN_COLOURS = "is in colours, not in numbers"
_LISTED = 8
"""Unlisted values that are spelled out."""


def translated_masks(
    images: Sequence[RawImage], config: DataConfig, class_names: Sequence[str], masks_uri: str
) -> tuple[list[RawImage], list[Fault]]:
    """Write the images' masks as `data.mask_values` says; without that setting, return the images as they are.

    Args:
        images: as the lists name them.
        config: the data set.
        class_names: in label order.
        masks_uri: folder, local or remote; each translation has one of its own in it.

    Returns:
        The images with their translated masks, without any where there are faults; and the faults.

    Raises:
        ConfigError: when an entry names no class, or there is no folder to write to.
    """
    if not config.mask_values:
        return list(images), []
    if not masks_uri:
        raise ConfigError("data.mask_values needs a folder for the translated masks (masks_uri)")
    translation = translation_of(config.mask_values, class_names)
    # Other entries give another folder: what was made of the old masks is then known to be of others.
    digest = hashlib.sha256("\n".join([*config.mask_values, "", *class_names]).encode()).hexdigest()[:8]
    folder = storage.join(masks_uri, digest)
    masked = [image for image in images if image.mask_uri is not None]
    tasks = [(str(one.mask_uri), storage.join(folder, f"{one.image_id}.png"), translation) for one in masked]
    results = dict(zip((one.image_id for one in masked), in_threads(_attempt, tasks), strict=True))
    targets = {task[0]: task[1] for task in tasks}
    faults = [Fault("unreadable mask", name, found) for name, found in results.items() if isinstance(found, str)]
    unlisted = {name: found for name, found in results.items() if isinstance(found, dict) and found}
    faults += _unlisted(unlisted, config)
    # Of faulty masks the rest would be judged by an accidental part; the fault is reported already.
    return [_with_mask(image, None if faults else targets.get(str(image.mask_uri))) for image in images], faults


def _with_mask(image: RawImage, target: str | None) -> RawImage:
    if image.mask_uri is None or target is not None:
        return dataclasses.replace(image, mask_uri=target)
    return dataclasses.replace(image, mask_uri=None, labels=image.labels or ())


def translate(
    picture: MaskPicture, translation: Translation
) -> tuple[UInt8[np.ndarray, "height width"], dict[str, int]]:
    """Return a mask in label values, and what it holds that the translation does not know (with its pixels).

    Raises:
        DataError: when the mask is in colours and the translation knows numbers only.
    """
    if translation.colours is not None:
        found, known = picture.packed_colours(), {packed(key): label for key, label in translation.colours.items()}
    elif picture.numbers is None and translation.nonzero is not None and not _listed(translation):
        found, known = picture.packed_colours(), {packed(BLACK): BACKGROUND_VALUE}
    elif picture.numbers is None:
        raise DataError(_IN_COLOURS)
    else:
        found, known = picture.numbers, translation.numbers
    values, positions = np.unique(found, return_inverse=True)
    unlisted: dict[str, int] = {}
    table = np.full(len(values), IGNORE_VALUE, np.uint8)
    for index, value in enumerate(values.tolist()):
        label = known.get(value, translation.nonzero if value != 0 else None)
        if label is None:
            name = str(value) if translation.colours is None else hexadecimal(unpacked(value))
            unlisted[name] = int((positions == index).sum())
        else:
            table[index] = label
    return table[positions.reshape(found.shape)], unlisted


def write_translated(uri: str, target: str, translation: Translation) -> dict[str, int]:
    """Write a mask in label values, unless it holds what the translation does not know; return that.

    Args:
        uri: the mask as the data set has it.
        target: where the translated one goes.
        translation: what its values mean.

    Raises:
        DataError: when the mask cannot be read.
    """
    picture = read_mask(uri)
    try:
        labels, unlisted = translate(picture, translation)
    except DataError as error:
        raise DataError(f"mask {uri} {error}") from None
    if not unlisted:
        save_label_map(torch.from_numpy(labels), target)
    return unlisted


def _attempt(task: tuple[str, str, Translation]) -> dict[str, int] | str:
    try:
        return write_translated(*task)
    except DataError as error:
        hint = "; list them in data.mask_values, as in '#800000=CLASS'" if str(error).endswith(_IN_COLOURS) else ""
        return f"{error}{hint}"


def _unlisted(found: dict[str, dict[str, int]], config: DataConfig) -> list[Fault]:
    """Return one fault for all values that no entry names."""
    if not found:
        return []
    pixels, masks = Counter[str](), defaultdict(list)
    for name, counts in found.items():
        pixels.update(counts)
        for value in counts:
            masks[value].append(name)
    often = sorted(masks, key=lambda value: (-len(masks[value]), value))
    lines = [
        f"{value} in {len(masks[value])} masks ({pixels[value]} pixels; e.g. {masks[value][0]})"
        for value in often[:_LISTED]
    ]
    if len(often) > _LISTED:
        lines.append(
            f"{len(often) - _LISTED} more values: smoothed or compressed masks have values between those meant"
        )
    known = shlex.join(config.mask_values)
    detail = (
        f"{'; '.join(lines)}. data.mask_values lists {known}; add an entry for each, as in "
        f"{shlex.quote(often[0] + '=CLASS')} or {shlex.quote(often[0] + '=ignore')}"
    )
    return [Fault("mask values that data.mask_values does not list", f"{len(found)} masks", detail)]


def _listed(translation: Translation) -> set[int]:
    return set(translation.numbers) - {BACKGROUND_VALUE, IGNORE_VALUE}

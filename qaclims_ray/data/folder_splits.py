"""Which splits the images of a plain folder belong to: those that its files or folders name, or held out by itself."""

from collections.abc import Collection

from qaclims_ray.data.config import ALL_IMAGES, DataConfig
from qaclims_ray.data.held_out import held_out_images, held_out_note
from qaclims_ray.data.label_files import LabelTable
from qaclims_ray.data.validation import Fault


def splits_of_images(
    image_ids: Collection[str], table: LabelTable | None, config: DataConfig
) -> tuple[dict[str, frozenset[str]], list[str]]:
    """Return the splits of every image, and notes for the user.

    Args:
        image_ids: all images.
        table: what is said of them; None where their masks say the labels.
        config: names of the splits in use, and the share that is held out where none is named.
    """
    if table is not None and table.splits is not None:
        everywhere = {ALL_IMAGES} - named_splits(table)
        return {name: frozenset(table.splits.get(name, ())) | everywhere for name in image_ids}, []
    used = (config.train_split, config.eval_split)
    both = " and ".join(dict.fromkeys(used))
    if config.test_split in used or not config.held_out_share:
        return {name: frozenset((*used, ALL_IMAGES)) for name in image_ids}, [
            f"no split is named: every image is in {both}"
        ]
    labels = {name: () if table is None else table.labels.get(name, ()) for name in image_ids}
    held = held_out_images(labels, config.held_out_share)
    apart = {config.test_split, ALL_IMAGES} | ({config.eval_split} - {config.train_split})
    splits = {name: frozenset(apart if name in held else (*used, ALL_IMAGES)) for name in image_ids}
    return splits, [held_out_note(len(held), len(labels), config.test_split)]


def unknown_splits(table: LabelTable | None, config: DataConfig) -> list[Fault]:
    """Return faults of settings that name a split which the data set has not."""
    if table is None or table.splits is None:
        return []
    known = sorted(named_splits(table))
    named = {"data.train_split": config.train_split, "data.eval_split": config.eval_split}
    return [
        Fault(
            "unknown split", split, f"{name}; the data set has {', '.join(known) or 'none'}: set {name} to one of them"
        )
        for name, split in named.items()
        if split not in (*known, ALL_IMAGES)
    ]


def named_splits(table: LabelTable | None) -> frozenset[str]:
    """Return the splits that files or folders name; empty where they name none."""
    by_image = (table.splits if table is not None else None) or {}
    return frozenset(split for splits in by_image.values() for split in splits)

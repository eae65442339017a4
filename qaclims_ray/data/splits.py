"""Which images of a manifest each part of a run works on."""

import dataclasses

from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.manifest import Manifest


def training_images(manifest: Manifest, data: DataConfig) -> Manifest:
    """Return the images that are trained on."""
    return manifest.subset(data.train_split)


def scored_images(manifest: Manifest, data: DataConfig) -> Manifest:
    """Return the images whose CAMs are scored."""
    return manifest.subset(data.eval_split)


def images_with_cams(manifest: Manifest, data: DataConfig, *, with_training: bool) -> Manifest:
    """Return the images whose CAMs are computed: the scored ones, and those that a final network learns from.

    Args:
        manifest: all images.
        data: names of the splits.
        with_training: whether the run goes on to pseudo masks.
    """
    return _of_splits(manifest, data.eval_split, *([data.train_split] if with_training else []))


def segmented_images(manifest: Manifest, data: DataConfig) -> Manifest:
    """Return the images that final networks segment: those of the test split, and those whose seeds are scored.

    Raises:
        DataError: when the data set has no test split.
    """
    manifest.subset(data.test_split)
    return _of_splits(manifest, data.test_split, data.eval_split)


def _of_splits(manifest: Manifest, *splits: str) -> Manifest:
    records = tuple(record for record in manifest.records if set(splits) & set(record.splits))
    return dataclasses.replace(manifest, records=records)

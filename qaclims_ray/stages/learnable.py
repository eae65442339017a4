"""Whether a data set holds what a run learns from: labels, classes that some images show and others do not, masks.

Every stage takes this for granted. It is checked by `stages.data`, before any pixel is decoded where labels do not come
from masks, so that an empty split or a class on every image ends a run at once and not after hours.
"""

from collections.abc import Sequence

from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.splits import segmented_images
from qaclims_ray.data.validation import Labelled
from qaclims_ray.errors import DataError
from qaclims_ray.methods.table import method_of
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.needs import methods_of, needs_classifier
from qaclims_ray.systems.table import (
    SUPERVISED,
    learns_from_masks_alone,
    system_config,
    system_of,
    training_order,
)

_WHERE = "Look at the label file (data.label_file), data.limit and the splits (data.train_split, data.eval_split)"


def check_labels(config: RunConfig, class_names: Sequence[str], images: Sequence[Labelled]) -> None:
    """Refuse image-level labels that the run cannot learn from.

    Args:
        config: the run.
        class_names: in label order.
        images: of all splits; where the labels of any come from its mask and are not known yet, nothing is checked.

    Raises:
        DataError: saying what was found, what is needed and what to do.
    """
    if any(image.labels is None for image in images):
        return
    data = config.data
    trained = [image for image in images if data.train_split in image.splits]
    scored = [image for image in images if data.eval_split in image.splits]
    for split, found in ((data.train_split, trained), (data.eval_split, scored)):
        if not found:
            raise DataError(f"no image belongs to split {split}: there is nothing to work on. {_WHERE}")
    by_masks = learns_from_masks_alone(config)
    if _learns(config) and not by_masks and not any(image.labels for image in trained):
        raise DataError(
            f"none of the {len(trained)} images of split {data.train_split} has a label: there is no (image, class) "
            f"pair to learn from. {_WHERE}"
        )
    if not by_masks and not any(image.labels for image in scored):
        raise DataError(
            f"none of the {len(scored)} images of split {data.eval_split} has a label: they would have no CAM. {_WHERE}"
        )
    if _trains_classifier(config):
        _check_contrast(config, class_names, trained)
    if _learns(config) and len(trained) < config.cluster.least_workers:
        raise DataError(
            f"split {data.train_split} has {len(trained)} images, fewer than the {config.cluster.least_workers} "
            "training workers, which share every batch: lower cluster.num_workers or add images"
        )


def check_masks(config: RunConfig, manifest: Manifest) -> None:
    """Refuse a data set without the masks, or the test split, that the run cannot do without.

    Raises:
        DataError: saying what was found, what is needed and what to do.
    """
    data = config.data
    if config.goal == "segmentation":
        segmented_images(manifest, data)
        trained = manifest.subset(data.train_split).records
        if SUPERVISED in config.systems and not any(record.mask_uri for record in trained):
            raise DataError(
                f"system {SUPERVISED} learns from true masks, but none of the {len(trained)} images of split "
                f"{data.train_split} has one: leave it out of systems, or add masks"
            )
    for name in training_order(config):
        selection = system_config(config, name).selection
        if selection.criterion != "oracle" or not method_of(system_of(config, name).method).rates_epochs:
            continue
        split = selection.split or data.eval_split
        if not any(record.mask_uri for record in manifest.subset(split).records):
            raise DataError(
                f"selection.criterion is oracle, which rates epochs with masks, but no image of split {split} has one: "
                "set selection.criterion to last, or add masks"
            )


def _learns(config: RunConfig) -> bool:
    """Whether anything is trained: CAMs made elsewhere, or by a network that the user brings, may just be scored."""
    has_networks = any(method.phases and not method.is_classifier for method in methods_of(config))
    has_affinity = config.goal != "seed" and "irn" in config.masks.steps
    return has_networks or has_affinity or config.goal == "segmentation" or _trains_classifier(config)


def _trains_classifier(config: RunConfig) -> bool:
    return needs_classifier(config) and not config.classifier.network


def _check_contrast(config: RunConfig, class_names: Sequence[str], trained: Sequence[Labelled]) -> None:
    """Refuse labels in which no class tells any two images apart: a classifier would learn to say yes."""
    shown = [sum(class_id in (image.labels or ()) for image in trained) for class_id in range(len(class_names))]
    if any(0 < count < len(trained) for count in shown):
        return
    split, always = config.data.train_split, [n for n, count in zip(class_names, shown, strict=True) if count]
    if len(trained) == 1:
        found = f"split {split} has a single image"
    else:
        found = f"every one of the {len(trained)} images of split {split} shows {', '.join(always[:8])}"
    raise DataError(
        f"{found}: the labels tell no two images apart, so that nothing can be learned from them. Add images that do "
        "not show the class (their list of labels is empty), or a second class"
    )

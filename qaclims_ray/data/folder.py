"""Reader for a plain folder of images with image-level labels in any form -> `Manifest`.

`folder_labels` brings images and labels together; here images and masks are opened.
"""

from collections.abc import Sequence

from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder_labels import gather_folder
from qaclims_ray.data.inspection import inspect_images
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_translation import translated_masks
from qaclims_ray.data.validation import CheckLabels, OnProgress, RawImage, check_splits, fail_on, unscored_note


def read_folder(
    config: DataConfig,
    *,
    masks_uri: str = "",
    on_progress: OnProgress | None = None,
    check_labels: CheckLabels | None = None,
) -> Manifest:
    """Read and check a folder of images.

    Without a split column some images are held out as the test split (`data.held_out_share`); the others are in both
    the training and the scored split.

    Args:
        config: the data set; ``labels`` may be auto, file, annotations, folders or masks (which need ``class_names``).
        masks_uri: folder, local or remote, for the masks that `data.mask_values` translates.
        on_progress: told after each inspected image.
        check_labels: see `validation.CheckLabels`.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    gathered = gather_folder(config)
    class_names, faults = gathered.class_names, list(gathered.faults)
    if check_labels is not None and not faults:
        check_labels(class_names, gathered.images)
    checked, found = translated_masks(gathered.images, config, class_names, masks_uri)
    faults += found
    records, found, seen = inspect_images(checked, class_names, config, known=faults, on_progress=on_progress)
    faults += [*found, *check_splits((config.train_split, config.eval_split), gathered.images)]
    fail_on(faults, gathered.root)
    notes = [*gathered.notes, *seen, *_mask_notes(checked, config.eval_split)]
    return Manifest(tuple(class_names), records, tuple(notes))


def _mask_notes(images: Sequence[RawImage], scored: str) -> list[str]:
    masked = sum(image.mask_uri is not None for image in images)
    notes = [f"masks: {masked} of {len(images)} images have one"] if masked else []
    return notes + unscored_note(images, scored)

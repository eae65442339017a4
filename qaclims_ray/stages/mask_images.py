"""Images with the label maps that a training takes for true: pseudo masks, confident seeds, or the true masks."""

from typing import Any

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.label_map_dataset import LabelledImage
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import DataError
from qaclims_ray.refine.mask_index import MaskRow, failed_row, read_mask_index
from qaclims_ray.stages.image_stage import ReadImage, ReadShard


def mask_rows(masks_uri: str) -> list[MaskRow]:
    """Return the index of pseudo masks, without images that could not be read."""
    rows, _ = read_mask_index(masks_uri)
    return [row for row in rows if row.status == "ok"]


def truth_images(manifest: Manifest, split: str) -> list[LabelledImage]:
    """Return the images of a split that have a true mask."""
    return [
        LabelledImage(record.image_id, record.image_uri, record.mask_uri)
        for record in manifest.records
        if split in record.splits and record.mask_uri
    ]


def require_truth(manifest: Manifest, split: str) -> None:
    """Refuse to train on true masks where no image of the split has one.

    Raises:
        DataError: saying what asks for them.
    """
    if not truth_images(manifest, split):
        raise DataError(
            f"the fully supervised bound is asked for, but no image of split {split} has a true mask: give masks, or "
            "set supervised_bound to false and leave fully_supervised out of systems"
        )


def truth_share(manifest: Manifest, split: str) -> str:
    """Say on how many images a network learns from true masks, where some of the split have none; else nothing."""
    num_images = sum(split in record.splits for record in manifest.records)
    num_masks = len(truth_images(manifest, split))
    return f"{num_masks} of {num_images} training images, the others have no mask" if num_masks < num_images else ""


def masked_images(manifest: Manifest, split: str, masks_uri: str) -> list[LabelledImage]:
    """Return the images of a split that have a mask in an artefact with an index, after holding the masks to its list.

    Raises:
        DamagedError: when a mask is not the one that was written.
    """
    masks = {row.image_id: row.mask for row in mask_rows(masks_uri)}
    records = [one for one in manifest.records if split in one.splits and one.image_id in masks]
    whole_files.check_files(masks_uri, [masks[record.image_id] for record in records])
    return [
        LabelledImage(record.image_id, record.image_uri, storage.join(masks_uri, masks[record.image_id]))
        for record in records
    ]


def images_with_stored_cams(shard: ReadShard, cams_uri: str) -> tuple[list[ReadImage], list[ImageCam], list[MaskRow]]:
    """Bring a shard's images and their CAMs together; an image without one of the two becomes a failed row."""
    cams = shard.cams
    images = [image for image in shard.images if image.record.image_id in cams]
    errors = {
        image.record.image_id: f"{image.record.image_uri} could not be read when CAMs were computed and has none; "
        f"remove {cams_uri} to compute them again"
        for image in shard.images
        if image.record.image_id not in cams
    }
    failed = [failed_row(name, error) for name, error in {**shard.errors, **errors}.items()]
    return images, [cams[image.record.image_id] for image in images], failed


def mask_row_of(values: dict[str, Any]) -> MaskRow:
    """Return a row of the mask index from what a part file holds of it."""
    own: dict[str, Any] = {name: tuple(values[name]) for name in ("class_ids", "areas")}
    return MaskRow(**{**values, **own})


def coverage_text(summary: dict[str, Any]) -> str:
    """Say how much label maps cover."""
    if not summary["num_images"]:
        return "no image could be read"
    return f"{summary['mean_coverage']:.1%} foreground, {summary['mean_ignored']:.1%} ignored"

"""Images with the label maps that a training takes for true: pseudo masks, confident seeds, or the true masks."""

from qaclims_ray.data import storage
from qaclims_ray.data.label_map_dataset import LabelledImage
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.refine.mask_index import MaskRow, read_mask_index


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


def truth_share(manifest: Manifest, split: str) -> str:
    """Say on how many images a network learns from true masks, where some of the split have none; else nothing."""
    num_images = sum(split in record.splits for record in manifest.records)
    num_masks = len(truth_images(manifest, split))
    return f"{num_masks} of {num_images} training images, the others have no mask" if num_masks < num_images else ""


def masked_images(manifest: Manifest, split: str, masks_uri: str) -> list[LabelledImage]:
    """Return the images of a split that have a mask in an artefact with an index."""
    masks = {row.image_id: storage.join(masks_uri, row.mask) for row in mask_rows(masks_uri)}
    return [
        LabelledImage(record.image_id, record.image_uri, masks[record.image_id])
        for record in manifest.records
        if split in record.splits and record.image_id in masks
    ]

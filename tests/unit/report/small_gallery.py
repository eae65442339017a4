"""A gallery of a few drawn images for tests."""

import torch

from qaclims_ray.data.classes import Classes
from qaclims_ray.report.gallery import Gallery, GalleryImage, GallerySource, Pictures, cam_key, map_key, write_gallery
from qaclims_ray.report.gallery_tiles import cam_tile, labels_tile, photo_tile

CLASSES = Classes(("cat", "dog"))


def small_gallery(names: list[str], **changes) -> tuple[Gallery, list[bytes]]:
    """Images of two systems; the first is the worst at the last stage of the first system."""
    images, lines = [], []
    for at, name in enumerate(names):
        label, share = at % 2, (at + 1) / (len(names) + 1)
        labels = torch.zeros(12, 16, dtype=torch.uint8)
        labels[2:9, 3:11] = label + 1
        tiles = {
            "photo": photo_tile(torch.full((3, 12, 16), 40 + at % 200, dtype=torch.uint8)),
            "truth": labels_tile(labels),
        }
        scores, confused = {}, {}
        for source in (0, 1):
            tiles[cam_key(source, label)] = cam_tile(torch.full((12, 16), share))
            for stage in ("seed", "mask", "final"):
                key = map_key(source, stage)
                tiles[key] = labels_tile(labels)
                scores[key] = share if source == 0 else 1 - share
            confused[map_key(source, "final")] = [
                (0, 0, 100),
                (label + 1, label + 1, 50),
                (label + 1, 2 - label, 20 + at),
            ]
        images.append(GalleryImage(name, (label,), "train" if at % 3 else "val", scores, disagreement=share / 2))
        lines.append(Pictures(name, tiles, confused).line().encode())
    sources = tuple(GallerySource(label, "#0072b2", ("seed", "mask", "final"), True) for label in ("one", "two <b>"))
    values = {
        "title": "Gallery <1>", "about": "All.", "classes": CLASSES, "sources": sources, "shown": (0,),
        "images": tuple(images), "has_truth": True, **changes,
    }  # fmt: skip
    return Gallery(**values), lines


def written_gallery(folder: str, names: list[str], **changes) -> dict:
    """Write it; return what `write_gallery` does."""
    gallery, lines = small_gallery(names, **changes)
    return write_gallery(folder, gallery, lines)

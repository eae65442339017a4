"""Tiny data sets on disk, and a local S3 server."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from qaclims_ray.data.classes import VOC_FILE_NAMES
from tests.s3_server import s3_server
from tests.unit.data.tiny_data_sets import IMAGES, annotation, image_bytes, mask_bytes


@pytest.fixture
def make_voc(tmp_path: Path) -> Callable[..., Path]:
    """Write a VOC folder of four images: train holds the first three, val the last two."""

    def make(*, annotations: bool = True, masks: bool = True, images: Mapping[str, tuple[int, ...]] = IMAGES) -> Path:
        root = tmp_path / "VOC2012"
        for folder in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        for seed, (image_id, class_ids) in enumerate(images.items()):
            (root / f"JPEGImages/{image_id}.jpg").write_bytes(image_bytes(seed))
            if annotations:
                names = [VOC_FILE_NAMES[class_id] for class_id in class_ids]
                (root / f"Annotations/{image_id}.xml").write_text(annotation(names))
            if masks:
                (root / f"SegmentationClass/{image_id}.png").write_bytes(mask_bytes(class_ids))
        ids = list(images)
        (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(ids[:3]) + "\n")
        (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids[2:]) + "\n")
        return root

    return make


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write a folder of three images with the given label file."""

    def make(
        name: str | None = "labels.csv",
        text: str = "image,labels\na.jpg,cat;dining table\nb.jpg,dog\nc.png,\n",
        *,
        masks: Mapping[str, tuple[int, ...]] | None = None,
    ) -> Path:
        root = tmp_path / "photos"
        root.mkdir()
        for seed, image in enumerate(("a.jpg", "b.jpg", "c.png")):
            (root / image).write_bytes(image_bytes(seed, suffix=image[-4:]))
        for image_id, class_ids in (masks or {}).items():
            (root / "masks").mkdir(exist_ok=True)
            (root / f"masks/{image_id}.png").write_bytes(mask_bytes(class_ids))
        if name is not None:
            (root / name).write_text(text)
        return root

    return make


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """URI of an empty bucket on an S3 server of this test run, on the loopback interface."""
    with s3_server() as uri:
        yield uri

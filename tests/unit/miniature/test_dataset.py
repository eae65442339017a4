import json
from pathlib import Path

import numpy as np
from PIL import Image

from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.miniature.vocabulary import CLASSES, STUFF


def _tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_and_contents(tmp_path: Path) -> None:
    write_dataset(tmp_path, num_images=6, seed=4, num_val=2)
    split = tmp_path / "ImageSets/Segmentation"
    train, val = ((split / f"{name}.txt").read_text().split() for name in ("train", "val"))
    assert train == [f"mini_{index:06d}" for index in range(6)]
    assert len(val) == 2 and not set(train) & set(val)
    labels = json.loads((tmp_path / "image_labels.json").read_text())
    assert sorted(labels) == sorted(train + val)
    for image_id, names in labels.items():
        image = Image.open(tmp_path / "JPEGImages" / f"{image_id}.png")
        assert (image.mode, image.size) == ("RGB", (64, 64))
        mask = Image.open(tmp_path / "SegmentationClass" / f"{image_id}.png")
        assert mask.mode == "P" and mask.getpalette()[3:6] == [128, 0, 0]
        values = np.unique(np.array(mask))
        assert [CLASSES[value - 1] for value in values if value] == names
        context = np.array(Image.open(tmp_path / "SegmentationContext" / f"{image_id}.png"))
        assert context.max() < len(STUFF)
    assert json.loads((tmp_path / "classes.json").read_text()) == {"classes": list(CLASSES), "stuff": list(STUFF)}


def test_same_seed_same_bytes_and_growing_keeps_pictures(tmp_path: Path) -> None:
    for name, count in (("one", 3), ("two", 3), ("more", 5)):
        write_dataset(tmp_path / name, num_images=count, seed=9, num_val=1)
    one, more = _tree(tmp_path / "one"), _tree(tmp_path / "more")
    assert one == _tree(tmp_path / "two")
    pictures = [name for name in one if name.endswith(".png")]
    assert all(one[name] == more[name] for name in pictures)

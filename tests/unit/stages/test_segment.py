"""What the predictions of a final network depend on, and what is written of them."""

import numpy as np
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.evaluation.foremost import foremost_of
from qaclims_ray.evaluation.sweep import ThresholdSweep
from qaclims_ray.segmentation.config import SegmentationTestConfig
from qaclims_ray.segmentation.inference import settings_of_predictions
from qaclims_ray.stages.image_stage import read_part
from qaclims_ray.stages.segment import SegmentedImage, SegmentedShard, write_segmented

CLASSES, THRESHOLDS = Classes(("dog", "cat")), (0.2, 0.5, 0.8)


def test_how_many_images_run_together_says_nothing_about_predictions() -> None:
    assert settings_of_predictions(SegmentationTestConfig(batch_size=3), 0.0) == settings_of_predictions(
        SegmentationTestConfig(), 0.0
    )
    assert settings_of_predictions(SegmentationTestConfig(flip=False), 0.0) != settings_of_predictions(
        SegmentationTestConfig(), 0.0
    )
    assert settings_of_predictions(SegmentationTestConfig(), 1.0) != settings_of_predictions(
        SegmentationTestConfig(), 0.0
    )


def maps(name: str, seed: int) -> ImageCam:
    made = torch.rand(2, 6, 5, generator=torch.Generator().manual_seed(seed))
    return ImageCam(name, (0, 1), made, None, 6, 5)


def test_label_maps_and_counts_are_those_of_the_maps(tmp_path) -> None:
    truth = torch.randint(0, 3, (6, 5), generator=torch.Generator().manual_seed(9)).to(torch.uint8)
    record = ImageRecord("a", "a.jpg", 5, 6, (1,), splits=("val",))
    plain, crf = foremost_of(maps("a", 1), THRESHOLDS), foremost_of(maps("a", 2), THRESHOLDS)
    unscored = foremost_of(maps("b", 3), THRESHOLDS)
    images = [
        SegmentedImage(record, plain, crf, truth),
        SegmentedImage(ImageRecord("b", "b.jpg", 5, 6, (0,)), unscored, None, None),
    ]
    shard = SegmentedShard(0, images, {"c": "c.jpg is broken"}, "half the batch")
    splits = {"": "val", "seed_": "train"}
    uri = str(tmp_path)
    summary = write_segmented(shard, uri=uri, thresholds=THRESHOLDS, classes=CLASSES, splits=splits)
    assert summary == {"remark": "half the batch"}
    for name, seed in (("a", 1), ("b", 3)):
        assert torch.equal(load_mask(f"{uri}/{name}.png"), label_map(maps(name, seed), 0.5))
    part = read_part(uri, 0)
    assert [(row["image_id"], sorted(row.get("counts", {})), row.get("error")) for row in part.rows] == [
        ("c", [], "c.jpg is broken"), ("a", ["crf", "plain"], None),
    ]  # fmt: skip
    for figure, seed in (("plain", 1), ("crf", 2)):
        expected = ThresholdSweep(THRESHOLDS, 2)
        expected.update(maps("a", seed), truth, (1,))
        assert np.array_equal(part.counts[figure], expected.to_array())
    assert not part.counts["seed_plain"].any()

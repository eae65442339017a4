"""The one-pass sweep equals the plain restatement: threshold by threshold, image by image, pixel by pixel sums."""

import numpy as np
import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.evaluation.confusion import ConfusionMatrix, iou_per_label, mean_iou
from qaclims_ray.evaluation.sweep import ThresholdSweep

NUM_CLASSES = 5
THRESHOLDS = (0.05, 0.1, 0.15, 0.3, 0.5, 0.7, 0.95)


def make_images(seed: int = 0) -> list[tuple[ImageCam, torch.Tensor]]:
    """Images of several sizes; scores that often equal a threshold or each other; ignored pixels; no labels."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for class_ids, height, width in [((0,), 9, 13), ((1, 4), 8, 8), ((), 6, 7), ((0, 2, 3), 10, 5), ((4,), 3, 3)]:
        maps = torch.rand((len(class_ids), height, width), generator=generator)
        exact = torch.tensor(THRESHOLDS)[torch.randint(len(THRESHOLDS), maps.shape, generator=generator)]
        maps = torch.where(torch.rand(maps.shape, generator=generator) < 0.5, exact, maps)
        truth = torch.randint(0, NUM_CLASSES + 1, (height, width), generator=generator, dtype=torch.uint8)
        truth[torch.rand((height, width), generator=generator) < 0.2] = 255
        images.append((ImageCam(f"image_{height}", class_ids, maps, None, height, width), truth))
    return images


def slow_counts(images: list[tuple[ImageCam, torch.Tensor]], threshold: float) -> np.ndarray:
    counts = np.zeros((NUM_CLASSES + 1, NUM_CLASSES + 1), dtype=np.int64)
    for cam, truth in images:
        for row in range(cam.height):
            for column in range(cam.width):
                if truth[row, column] == 255:
                    continue
                label, best = 0, np.float32(threshold)
                for class_id, one_map in zip(cam.class_ids, cam.full.numpy(), strict=True):
                    if one_map[row, column] > best:
                        label, best = class_id + 1, one_map[row, column]
                counts[int(truth[row, column]), label] += 1
    return counts


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_equals_the_pixel_loop_at_every_threshold(seed: int):
    images = make_images(seed)
    sweep = ThresholdSweep(THRESHOLDS, NUM_CLASSES)
    for cam, truth in images:
        sweep.update(cam, truth)
    confusion = sweep.confusion()
    for index, threshold in enumerate(THRESHOLDS):
        assert np.array_equal(confusion[index].numpy(), slow_counts(images, threshold)), threshold


def test_equals_the_label_maps_that_predict_writes():
    images = make_images(7)
    sweep = ThresholdSweep(THRESHOLDS, NUM_CLASSES)
    for cam, truth in images:
        sweep.update(cam, truth)
    for index, threshold in enumerate(THRESHOLDS):
        matrix = ConfusionMatrix(NUM_CLASSES)
        for cam, truth in images:
            matrix.update(label_map(cam, threshold), truth)
        assert torch.equal(sweep.confusion()[index], matrix.counts)
        swept, counted = iou_per_label(sweep.confusion()), iou_per_label(matrix.counts)
        averaged = torch.ones(NUM_CLASSES + 1, dtype=torch.bool)
        torch.testing.assert_close(mean_iou(swept, averaged)[index], mean_iou(counted, averaged))


@pytest.mark.parametrize("seed", range(5))
def test_a_mean_over_labels_that_all_occur_is_bit_for_bit_the_mean_without_nan(seed: int):
    """Earlier versions left NaN out; where no label is absent, no figure of any run has changed."""
    generator = torch.Generator().manual_seed(seed)
    for num_labels in (2, 9, 21, 81):
        iou = torch.rand((99, num_labels), generator=generator, dtype=torch.float64)
        assert torch.equal(mean_iou(iou, torch.ones(num_labels, dtype=torch.bool)), iou.nanmean(-1))

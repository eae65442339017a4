"""Scoring CAMs at every threshold: one pass (`evaluation/sweep.py`) beside the loop over thresholds.

Run: `python -m benchmarks.cam_evaluation [--images 40] [--threads 1]`. Synthetic maps of VOC's size and label
statistics; both ways must give the same confusion matrices, or the benchmark fails.
"""

import argparse
import functools
import os
import platform
import statistics

import numpy as np
import torch

from benchmarks.clock import in_turn, shown
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import VOC_CLASSES, Classes
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.confusion import ConfusionMatrix
from qaclims_ray.evaluation.sweep import ThresholdSweep, sweep_thresholds

NUM_CLASSES = len(VOC_CLASSES)


def make_image(index: int, height: int, width: int) -> tuple[ImageCam, torch.Tensor]:
    """Return smooth maps of one to three classes, and a mask with an ignored border."""
    generator = torch.Generator().manual_seed(index)
    class_ids = tuple(torch.randperm(NUM_CLASSES, generator=generator)[: 1 + index % 3].sort().values.tolist())
    coarse = torch.rand((1, len(class_ids), 12, 16), generator=generator) ** 2
    maps = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)[0]
    values = torch.tensor([0, *(class_id + 1 for class_id in class_ids)], dtype=torch.uint8)
    blocks = values[torch.randint(len(values), (height // 25 + 1, width // 25 + 1), generator=generator)]
    truth = blocks.repeat_interleave(25, 0).repeat_interleave(25, 1)[:height, :width].contiguous()
    truth[:, :5] = 255
    return ImageCam(f"image_{index}", class_ids, maps / maps.amax((1, 2), keepdim=True), None, height, width), truth


def one_pass(images: list[tuple[ImageCam, torch.Tensor]], thresholds: tuple[float, ...]) -> torch.Tensor:
    """Score as the service does."""
    sweep = ThresholdSweep(thresholds, NUM_CLASSES)
    for cam, truth in images:
        sweep.update(cam, truth)
    return sweep.confusion()


def threshold_loop(images: list[tuple[ImageCam, torch.Tensor]], thresholds: tuple[float, ...]) -> torch.Tensor:
    """Score each threshold on its own, with the service's own label maps and confusion matrix."""
    counts = []
    for threshold in thresholds:
        matrix = ConfusionMatrix(NUM_CLASSES)
        for cam, truth in images:
            matrix.update(label_map(cam, threshold), truth)
        counts.append(matrix.counts)
    return torch.stack(counts)


def released_loop(images: list[tuple[ImageCam, torch.Tensor]], thresholds: tuple[float, ...]) -> torch.Tensor:
    """Score each threshold as the released code does: pad the maps with the background score, take the argmax."""
    side = NUM_CLASSES + 1
    counts = np.zeros((len(thresholds), side, side), dtype=np.int64)
    for index, threshold in enumerate(thresholds):
        for cam, truth in images:
            padded = np.pad(cam.full.numpy(), ((1, 0), (0, 0), (0, 0)), constant_values=threshold)
            values = np.array([0, *(class_id + 1 for class_id in cam.class_ids)])
            labels, predicted = truth.numpy().flatten(), values[np.argmax(padded, axis=0)].flatten()
            scored = labels != 255
            cells = side * labels[scored].astype(int) + predicted[scored]
            counts[index] += np.bincount(cells, minlength=side**2).reshape(side, side)
    return torch.from_numpy(counts)


def main() -> None:
    """Time the three ways and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    thresholds = sweep_thresholds(EvaluationConfig(), Classes(VOC_CLASSES))
    images = [make_image(index, arguments.height, arguments.width) for index in range(arguments.images)]
    one_pass(images[:2], thresholds), threshold_loop(images[:2], thresholds[:2])  # warm up
    print(f"machine: {platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s), {platform.system()}")
    print(f"versions: python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}")
    print(f"{len(images)} images of {arguments.width}x{arguments.height}, {len(thresholds)} thresholds")
    ways = {
        way.__name__: functools.partial(way, images, thresholds) for way in (one_pass, threshold_loop, released_loop)
    }
    results, repeats = in_turn(ways, arguments.repeats)
    seconds = {way: statistics.median(times) for way, times in repeats.items()}
    for way, times in repeats.items():
        print(f"{way:15} {shown(times)} CPU ms  {len(images) / seconds[way]:7.1f} images a CPU second")
    for name in ("threshold_loop", "released_loop"):
        if not torch.equal(results[name], results["one_pass"]):
            raise SystemExit(f"{name} counts other pixels than one_pass")
        print(f"{name} / one_pass: {seconds[name] / seconds['one_pass']:.1f} times the time, same counts")


if __name__ == "__main__":
    main()

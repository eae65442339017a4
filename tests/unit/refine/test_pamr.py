import subprocess
import sys

import numpy as np
import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.refine.config import PamrConfig
from qaclims_ray.refine.pamr import pamr, refine_by_pamr


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def slow_update(image: np.ndarray, maps: np.ndarray, dilations: tuple[int, ...]) -> np.ndarray:
    """One update, pixel by pixel in float64."""
    height, width = image.shape[1:]
    updated = np.zeros_like(maps)
    for row in range(height):
        for column in range(width):
            places = [
                (min(max(row + down, 0), height - 1), min(max(column + right, 0), width - 1))
                for d in dilations
                for down in (-d, 0, d)
                for right in (-d, 0, d)
                if down or right
            ]
            own = image[:, row, column]
            colours = np.array([image[:, y, x] for y, x in places])
            spread = np.vstack([colours, own]).std(0, ddof=1)
            distance = (np.abs(colours - own) / (0.1 * spread + 1e-8)).mean(1)
            weights = np.exp(distance.min() - distance)
            values = np.array([maps[:, y, x] for y, x in places])
            updated[:, row, column] = (weights[:, None] * values).sum(0) / weights.sum()
    return updated


@pytest.mark.parametrize("dilations", [(1,), (1, 2, 9)])
def test_equals_the_definition_pixel_by_pixel(dilations):
    image = noise(3, 7, 9)
    image[:, :, :4] = image[:, :1, :1]  # a flat part, where the standard deviation is zero
    maps = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(1))
    expected = maps.double().numpy()
    for _ in range(3):
        expected = slow_update(image.double().numpy(), expected, dilations)
    refined = pamr(image, maps, PamrConfig(iterations=3, dilations=dilations))
    torch.testing.assert_close(refined.double(), torch.from_numpy(expected), atol=1e-5, rtol=1e-4)


def test_values_stay_in_range_and_a_constant_stays():
    image = noise(3, 30, 31)
    maps = torch.rand(2, 30, 31, generator=torch.Generator().manual_seed(1))
    maps[1] = 0.37
    refined = pamr(image, maps, PamrConfig())
    assert refined.dtype == torch.float32
    assert float(refined[0].min()) >= float(maps[0].min()) and float(refined[0].max()) <= float(maps[0].max())
    torch.testing.assert_close(refined[1], maps[1])


def test_half_precision_maps_are_refined_in_float32():
    image, maps = noise(3, 12, 12), torch.rand(1, 12, 12, generator=torch.Generator().manual_seed(1)).half()
    refined = pamr(image, maps, PamrConfig())
    assert refined.dtype == torch.float32
    torch.testing.assert_close(refined, pamr(image, maps.float(), PamrConfig()))


def disc_and_seed() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A red disc on green, both noisy, and a response that spills over its edge on one side only."""
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(60), indexing="ij")
    is_disc = (rows - 30) ** 2 + (columns - 30) ** 2 < 15**2
    image = torch.where(is_disc, torch.tensor([200, 60, 60])[:, None, None], torch.tensor([60, 160, 70])[:, None, None])
    image = (image + noise(3, 60, 60) % 21 - 10).to(torch.uint8)
    response = (-((rows - 30) ** 2 + (columns - 37) ** 2) / (2 * 11.0**2)).exp()
    return image, is_disc, response


def iou(labels: torch.Tensor, truth: torch.Tensor) -> float:
    found = labels != 0
    return float((found & truth).sum() / (found | truth).sum())


def test_maps_move_to_the_edges_of_objects():
    image, is_disc, response = disc_and_seed()
    cam = ImageCam("one", (4,), response[None], None, 60, 60)
    refined = refine_by_pamr(image, cam, 0.4, PamrConfig())
    seed, mask = label_map(cam, 0.4), label_map(refined, 0.5)
    assert set(mask.unique().tolist()) == {0, 5}
    assert iou(mask, is_disc) > iou(seed, is_disc) + 0.15
    assert iou(mask, is_disc) > 0.9


def test_one_half_is_the_border_to_the_background():
    flat = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    maps = torch.stack([torch.full((4, 4), 0.3), torch.full((4, 4), 0.1), torch.zeros(4, 4)])
    grid = torch.zeros(3, 1, 1)
    refined = refine_by_pamr(flat, ImageCam("one", (0, 3, 5), maps, grid, 4, 4), 0.3, PamrConfig(iterations=2))
    assert refined.class_ids == (0, 3, 5) and refined.grid is None and (refined.height, refined.width) == (4, 4)
    assert refined.full is not None
    torch.testing.assert_close(refined.full[:, 0, 0], torch.tensor([0.5, 0.25, 0.0]))


def test_no_background_and_no_response_is_background():
    flat = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    refined = refine_by_pamr(flat, ImageCam("one", (0,), torch.zeros(1, 4, 4), None, 4, 4), 0.0, PamrConfig())
    assert refined.full is not None and refined.full.tolist() == torch.zeros(1, 4, 4).tolist()


def test_an_image_without_classes_is_returned():
    cam = ImageCam("one", (), torch.zeros(0, 4, 4), torch.zeros(0, 1, 1), 4, 4)
    assert refine_by_pamr(noise(3, 4, 4), cam, 0.2, PamrConfig()) is cam


def test_what_does_not_fit_is_refused():
    grid_only = ImageCam("one", (1,), None, torch.zeros(1, 1, 1), 4, 4)
    with pytest.raises(ArtifactError, match=r"cams\.store"):
        refine_by_pamr(noise(3, 4, 4), grid_only, 0.2, PamrConfig())
    with pytest.raises(DataError, match="one has"):
        refine_by_pamr(noise(3, 4, 5), ImageCam("one", (1,), torch.zeros(1, 4, 4), None, 4, 4), 0.2, PamrConfig())


_MEASURE = """
import threading, psutil, torch
from qaclims_ray.refine.config import PamrConfig
from qaclims_ray.refine.pamr import pamr
torch.set_num_threads(1)
pamr(torch.zeros(3, 30, 30, dtype=torch.uint8), torch.zeros(3, 30, 30), PamrConfig(iterations=1))
image, maps = torch.randint(0, 256, (3, 500, 500), dtype=torch.uint8), torch.rand(3, 500, 500)
process, stop, samples = psutil.Process(), threading.Event(), []
def sample():
    while not stop.wait(0.002):
        samples.append(process.memory_info().rss)
before = process.memory_info().rss
threading.Thread(target=sample, daemon=True).start()
pamr(image, maps, PamrConfig(iterations=2))
stop.set()
print((max(samples) - before) / 2**20)
"""


def test_a_voc_image_takes_less_than_300_mb():
    """In a process of its own: the peak of this one is history."""
    done = subprocess.run([sys.executable, "-c", _MEASURE], capture_output=True, text=True, check=True, timeout=240)
    used_mib = float(done.stdout.split()[-1])
    weights_mib = 48 * 500 * 500 * 4 / 2**20
    assert weights_mib * 0.9 < used_mib < 300

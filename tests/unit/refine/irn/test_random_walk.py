import dataclasses
import subprocess
import sys

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.errors import ArtifactError
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.random_walk import _walk_by_rows, random_walk, walk_cams
from tests.unit.models.cpu_recorder import record_on_cpu

IRN = IrnConfig()


def _cam(grid: torch.Tensor | None, height: int, width: int) -> ImageCam:
    return ImageCam("picture", (3, 7), None, grid, height, width)


def _walked(cam: ImageCam, boundary: torch.Tensor, irn: IrnConfig) -> ImageCam:
    return walk_cams([cam], [boundary], irn)[0]


def _one_walk(maps: torch.Tensor, boundary: torch.Tensor, **options) -> torch.Tensor:
    return random_walk(maps[None], boundary[None], **options)[0]


def test_scores_fill_an_object_and_stop_at_its_boundary() -> None:
    boundary = torch.zeros(12, 20)
    boundary[:, 10] = 1.0
    maps = torch.zeros(1, 12, 20)
    maps[0, 6, 2] = 1.0
    walked = _one_walk(maps, boundary, radius=5, beta=10.0, log2_steps=8)[0]
    inside = walked[:, :10]
    assert inside.min() > 0.5 * inside.max() > 0 and walked[:, 10:].abs().max() == 0


def test_a_flat_map_without_boundaries_stays_flat() -> None:
    walked = _one_walk(torch.full((2, 9, 8), 0.7), torch.zeros(9, 8), radius=5, beta=10.0, log2_steps=8)
    torch.testing.assert_close(walked, torch.full((2, 9, 8), 0.7), rtol=1e-4, atol=0)


@pytest.mark.parametrize("radius", [1, 2, 5])
def test_a_gpus_way_gives_what_a_cpus_gives(radius: int) -> None:
    torch.manual_seed(0)
    maps, boundary = torch.rand(3, 2, 7, 9), torch.rand(3, 7, 9)
    expected = random_walk(maps, boundary, radius=radius, beta=10.0, log2_steps=4)
    found = _walk_by_rows(maps * (1 - boundary).unsqueeze(1), boundary, radius, 10.0, 4)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_recorded_walk_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def walk() -> torch.Tensor:
        torch.manual_seed(1)
        walked = []
        for _ in range(4):
            maps, boundary = torch.rand(3, 2, 7, 9), torch.rand(3, 7, 9)
            walked.append(_walk_by_rows(maps, boundary, 5, 10.0, 4))
        return torch.stack(walked)

    expected = walk()
    recorded = record_on_cpu(monkeypatch)
    assert torch.equal(walk(), expected) and recorded == ["IRN's walk"]


def test_maps_that_fill_up_a_shape_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    cam, boundary = _cam(torch.rand(2, 6, 8), 24, 32), torch.rand(6, 8)
    expected = _walked(cam, boundary, IRN).full
    record_on_cpu(monkeypatch)
    assert torch.equal(_walked(cam, boundary, IRN).full, expected)


def test_images_of_several_sizes_and_numbers_of_classes_walk_by_themselves() -> None:
    torch.manual_seed(0)
    shapes = [(2, 6, 8), (1, 6, 8), (3, 5, 4), (2, 6, 8)]
    cams = [
        ImageCam(str(i), tuple(range(n)), None, torch.rand(n, h, w), 4 * h, 4 * w) for i, (n, h, w) in enumerate(shapes)
    ]
    boundaries = [torch.rand(h, w) for _, h, w in shapes]
    for cam, boundary, found in zip(cams, boundaries, walk_cams(cams, boundaries, IRN), strict=True):
        assert found.image_id == cam.image_id and found.class_ids == cam.class_ids
        torch.testing.assert_close(found.full, _walked(cam, boundary, IRN).full)


def test_inputs_stay_as_they_are() -> None:
    maps, boundary = torch.rand(2, 6, 5), torch.rand(6, 5)
    before = maps.clone(), boundary.clone()
    _one_walk(maps, boundary, radius=5, beta=10.0, log2_steps=2)
    assert torch.equal(maps, before[0]) and torch.equal(boundary, before[1])


def test_full_maps_share_one_maximum() -> None:
    torch.manual_seed(0)
    grid = torch.rand(2, 6, 8) * torch.tensor([1.0, 0.4]).view(2, 1, 1)
    cam = _cam(grid, 22, 31)
    boundary = torch.rand(6, 8) * 0.3
    walked = _walked(cam, boundary, IRN)
    assert walked.full is not None and walked.full.shape == (2, 22, 31) and walked.grid is None
    assert walked.class_ids == (3, 7) and walked.image_id == "picture" and (walked.height, walked.width) == (22, 31)
    assert walked.full.max() == 1 and walked.full.min() >= 0 and walked.full[1].max() < 0.7
    cells = _one_walk(grid, boundary, radius=5, beta=10.0, log2_steps=8)
    # The four pixels about the middle of a cell are nearest to it.
    middle = torch.nn.functional.avg_pool2d(walked.full[:, 1:19, 1:29], 2, stride=4)
    torch.testing.assert_close(middle / middle.max(), cells[:, :5, :7] / cells[:, :5, :7].max(), rtol=0.1, atol=0.02)


def test_the_settings_reach_the_walk() -> None:
    torch.manual_seed(0)
    cam, boundary = _cam(torch.rand(2, 8, 8), 32, 32), torch.rand(8, 8)
    plain = _walked(cam, boundary, IRN).full
    for change in ({"walk_radius": 3}, {"beta": 2.0}, {"log2_steps": 1}):
        assert not torch.allclose(_walked(cam, boundary, dataclasses.replace(IRN, **change)).full, plain, atol=1e-3)


def test_images_without_classes_or_responses_stay_empty() -> None:
    nothing = ImageCam("empty", (), None, torch.zeros(0, 3, 3), 9, 12)
    assert _walked(nothing, torch.rand(3, 3), IRN).full.shape == (0, 9, 12)
    dead = _walked(_cam(torch.zeros(2, 3, 3), 9, 12), torch.rand(3, 3), IRN).full
    assert torch.equal(dead, torch.zeros(2, 9, 12))


def test_half_precision_maps_are_walked_in_float32() -> None:
    torch.manual_seed(0)
    grid, boundary = torch.rand(2, 6, 6).half(), torch.rand(6, 6)
    found = _walked(_cam(grid, 24, 24), boundary, IRN).full
    assert found.dtype == torch.float32 and torch.equal(found, _walked(_cam(grid.float(), 24, 24), boundary, IRN).full)


def test_mistakes_are_explained() -> None:
    with pytest.raises(ArtifactError, match=r"picture.*cams\.store"):
        _walked(_cam(None, 12, 12), torch.rand(3, 3), IRN)
    with pytest.raises(ArtifactError, match=r"\(3, 4\) cells.*\(3, 3\)"):
        _walked(_cam(torch.rand(2, 3, 4), 12, 16), torch.rand(3, 3), IRN)


_PEAK = """
import resource, sys, torch
torch.set_num_threads(1)
from qaclims_ray.refine.irn.random_walk import random_walk
options = {"radius": 5, "beta": 10.0, "log2_steps": 8}
random_walk(torch.rand(1, 1, 8, 8), torch.rand(1, 8, 8), **options)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
random_walk(torch.rand(1, 5, 125, 125), torch.rand(1, 125, 125), **options)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(peak / (2**20 if sys.platform == "darwin" else 2**10))
"""


def test_an_image_of_500_pixels_needs_less_than_200_mb() -> None:
    done = subprocess.run([sys.executable, "-c", _PEAK], capture_output=True, text=True, check=True, timeout=300)
    assert float(done.stdout) < 200

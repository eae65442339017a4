"""Foremost classes and bins say of maps all that label maps and sweeps need."""

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import NO_BACKGROUND
from qaclims_ray.errors import ArtifactError
from qaclims_ray.evaluation.foremost import foremost_of
from qaclims_ray.evaluation.sweep import ThresholdSweep

THRESHOLDS = (0.1, 0.5, 0.7)


def maps_of(class_ids: tuple[int, ...], seed: int = 0) -> ImageCam:
    # Few levels, so that scores meet thresholds and each other.
    levels = torch.randint(0, 11, (len(class_ids), 9, 7), generator=torch.Generator().manual_seed(seed))
    return ImageCam("one", class_ids, levels / 10, None, 9, 7)


@pytest.mark.parametrize("class_ids", [(), (1,), (0, 2), (2, 0, 1)])
@pytest.mark.parametrize("border", THRESHOLDS)
def test_label_maps_are_those_of_the_maps(class_ids, border) -> None:
    cam = maps_of(class_ids)
    assert torch.equal(foremost_of(cam, THRESHOLDS).label_map(THRESHOLDS, border), label_map(cam, border))


@pytest.mark.parametrize("class_ids", [(), (0, 2)])
def test_without_a_background_every_pixel_shows_a_class_or_is_left_out(class_ids) -> None:
    cam = maps_of(class_ids)
    made = foremost_of(cam, (NO_BACKGROUND,)).label_map((NO_BACKGROUND,), NO_BACKGROUND)
    assert torch.equal(made, label_map(cam, NO_BACKGROUND))


def test_numbers_are_small_and_large_ones_fit() -> None:
    assert foremost_of(maps_of((0, 1)), THRESHOLDS).bins.dtype == torch.uint8
    many = tuple(step / 1000 for step in range(600))
    cam = maps_of((0, 2))
    found = foremost_of(cam, many)
    assert int(found.bins.max()) == 600
    assert torch.equal(found.label_map(many, 0.5), label_map(cam, 0.5))


def test_a_sweep_counts_foremost_maps_as_it_counts_maps() -> None:
    truth = torch.randint(0, 4, (9, 7), generator=torch.Generator().manual_seed(5)).to(torch.uint8)
    one, other = (ThresholdSweep(THRESHOLDS, 3) for _ in range(2))
    for seed, class_ids in enumerate([(0, 2), (), (1,)]):
        cam = maps_of(class_ids, seed)
        counts = one.update(cam, truth)
        assert counts is not None
        found = other.add(foremost_of(cam, THRESHOLDS).cpu(), truth)
        assert found is not None and torch.equal(found, counts)
    assert one.to_array().tolist() == other.to_array().tolist()


def test_maps_on_the_small_grid_alone_are_refused() -> None:
    with pytest.raises(ArtifactError, match=r"cams\.store = both or full"):
        foremost_of(ImageCam("one", (0,), None, torch.zeros(1, 2, 2), 9, 7), THRESHOLDS)

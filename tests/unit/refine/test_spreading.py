from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import NO_BACKGROUND, Classes
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.refine.affinities import cosine_affinity
from qaclims_ray.refine.affinity_config import ClipAttentionConfig, SpreadConfig
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.refinement import Refiners, refine_cams
from qaclims_ray.refine.spreading import (
    MOST_CELLS,
    CellAffinity,
    as_seen,
    cell_grid,
    refine_by_affinity,
    seed_boxes,
    spread_over_cells,
)

CELL = 4


def by_colour(image: torch.Tensor) -> CellAffinity:
    """Cells of one colour belong together."""
    rows, columns = image.shape[1] // CELL, image.shape[2] // CELL
    colours = torch.nn.functional.adaptive_avg_pool2d(image.float() - 128, (rows, columns)).flatten(1).T
    return CellAffinity(cosine_affinity(colours, temperature=0.05), rows, columns)


def halves() -> torch.Tensor:
    image = torch.full((3, 16, 24), 40, dtype=torch.uint8)
    image[:, :, 12:] = 220
    return image


def cam_of(full: torch.Tensor, *class_ids: int) -> ImageCam:
    return ImageCam("one", class_ids, full, torch.zeros(len(class_ids), 4, 6), int(full.shape[1]), int(full.shape[2]))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), columns=st.integers(1, 5), iterations=st.integers(1, 4))
def test_maps_stay_in_their_range_and_a_constant_stays(seed: int, rows: int, columns: int, iterations: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, 11, 13, generator=generator)
    maps[1] = 0.37
    weights = torch.rand(rows * columns, rows * columns, generator=generator).softmax(1)
    found = spread_over_cells(maps, CellAffinity(weights, rows, columns), iterations)
    assert found.shape == maps.shape
    assert float(maps[0].min()) - 1e-6 <= float(found[0].min()) and float(found[0].max()) <= float(maps[0].max()) + 1e-6
    torch.testing.assert_close(found[1], maps[1])


@settings(deadline=None, max_examples=30)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), cell_px=st.integers(1, 32), scale=st.floats(0.25, 4))
def test_an_image_never_has_too_many_cells(height: int, width: int, cell_px: int, scale: float) -> None:
    rows, columns = cell_grid(height, width, cell_px, scale)
    assert rows >= 1 and columns >= 1 and rows * columns <= MOST_CELLS


def test_cells_are_those_of_the_shown_image() -> None:
    assert cell_grid(375, 500, 16, 1.0) == (23, 31)
    assert cell_grid(64, 64, 8, 2.0) == (16, 16)
    rows, columns = cell_grid(500, 1000, 4, 1.0)
    assert rows * columns == pytest.approx(MOST_CELLS, rel=0.05) and columns == pytest.approx(2 * rows, abs=1)


def test_an_image_is_shown_normalised() -> None:
    pixels = as_seen(torch.full((3, 6, 6), 255, dtype=torch.uint8), (4, 8), (0.5, 0.0, 1.0), (0.5, 1.0, 2.0))
    torch.testing.assert_close(pixels, torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 8))


def test_scores_fill_what_is_alike_and_leave_the_rest() -> None:
    """A seed in a corner of the left half, spilled over into the right one, comes to fill the left half."""
    image, full = halves(), torch.zeros(1, 16, 24)
    full[0, :8, :14] = 1.0
    refined = refine_by_affinity(image, cam_of(full, 2), 0.3, by_colour, SpreadConfig(iterations=1))
    assert refined.class_ids == (2,) and refined.grid is None
    labels = label_map(refined, 0.5)
    assert labels[:, :11].unique().tolist() == [3] and labels[:, 13:].unique().tolist() == [0]


def test_one_half_is_the_border_to_the_background() -> None:
    flat = torch.full((3, 16, 24), 100, dtype=torch.uint8)
    maps = torch.stack([torch.full((16, 24), 0.3), torch.full((16, 24), 0.1), torch.zeros(16, 24)])
    refined = refine_by_affinity(flat, cam_of(maps, 0, 3, 5), 0.3, by_colour, SpreadConfig())
    assert refined.full is not None
    torch.testing.assert_close(refined.full[:, 0, 0], torch.tensor([0.5, 0.25, 0.0]))


def test_without_a_background_maps_stay_scores_and_there_are_no_boxes() -> None:
    image, full = halves(), torch.rand(2, 16, 24, generator=torch.Generator().manual_seed(0))
    found = refine_by_affinity(
        image, cam_of(full, 0, 1), NO_BACKGROUND, by_colour, SpreadConfig(iterations=3), within_boxes=True
    )
    assert found.full is not None
    expected = spread_over_cells(full, by_colour(image), 3)
    peaks = full.amax((1, 2), keepdim=True) / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(found.full, expected * peaks)


def test_every_map_keeps_its_peak() -> None:
    image, full = halves(), torch.zeros(2, 16, 24)
    full[0, :4, :4] = 0.8
    assert float(spread_over_cells(full, by_colour(image), 2).max()) < 0.4
    found = refine_by_affinity(image, cam_of(full, 0, 1), NO_BACKGROUND, by_colour, SpreadConfig()).full
    assert found is not None
    assert float(found[0].max()) == pytest.approx(0.8)
    assert float(found[1].abs().max()) == 0  # a map of zeros has no peak


def test_boxes_go_around_each_part_of_a_seed() -> None:
    full = torch.zeros(2, 8, 10)
    full[0, 1, 1] = full[0, 3, 2] = full[0, 2, 2] = 0.6  # they touch at a corner
    full[0, 6, 8] = 0.51
    full[1] = 0.5
    expected = torch.zeros(2, 8, 10, dtype=torch.bool)
    expected[0, 1:4, 1:3] = expected[0, 6, 8] = True
    assert torch.equal(seed_boxes(full, 0.5), expected)


def test_a_class_stays_within_the_boxes_of_its_seed() -> None:
    image, full = halves(), torch.zeros(1, 16, 24)
    full[0, :8, :12] = 1.0
    config = MaskConfig(steps=("clip_attention",), seed_threshold=0.3)
    refiners = Refiners(affinities={"clip_attention": by_colour})
    for within_boxes, filled in ((True, 8), (False, 16)):
        own = replace(config, clip_attention=ClipAttentionConfig(within_boxes=within_boxes))
        maps = refine_cams([image], [cam_of(full, 0)], own, refiners, Classes(("a", "b")))
        assert maps.border == 0.5
        assert int((label_map(maps.cams[0], 0.5)[:, 2] == 1).sum()) == filled


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"cams\.store"):
        refine_by_affinity(
            halves(), replace(cam_of(torch.zeros(1, 16, 24), 1), full=None), 0.2, by_colour, SpreadConfig()
        )
    with pytest.raises(DataError, match=r"one has \(16, 24\) pixels"):
        refine_by_affinity(halves(), cam_of(torch.zeros(1, 16, 20), 1), 0.2, by_colour, SpreadConfig())

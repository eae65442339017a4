import dataclasses

import numpy as np
import pytest
import torch

from qaclims_ray.errors import DataError
from qaclims_ray.report.contact_sheet import SheetRow, contact_sheet, heat_picture, mask_picture, present_iou

NAMES = ("bird", "boat")


def row(height: int = 32, width: int = 32, *, with_truth: bool = True, systems: tuple[str, ...] = ("A", "B")):
    generator = torch.Generator().manual_seed(height)
    truth = torch.zeros(height, width, dtype=torch.uint8)
    truth[4:20, 4:20] = 1
    return SheetRow(
        image_id="mini_000001",
        image=torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8),
        truth=truth if with_truth else None,
        class_ids=(0,),
        heat={name: torch.rand((height, width), generator=generator) for name in systems},
        masks={name: truth.clone() for name in systems},
    )


def test_shows_every_image_and_system():
    one, two = contact_sheet([row()], NAMES, tile_px=64), contact_sheet([row(), row()], NAMES, tile_px=64)
    assert one.dtype == np.uint8 and one.shape[2] == 3
    assert two.shape[1] == one.shape[1] and two.shape[0] > one.shape[0] + 60
    three_systems = contact_sheet([row(systems=("A", "B", "C"))], NAMES, tile_px=64)
    assert three_systems.shape[1] - one.shape[1] >= 2 * 64
    without_truth = contact_sheet([row(with_truth=False)], NAMES, tile_px=64)
    assert one.shape[1] - without_truth.shape[1] >= 64


def test_later_stages_have_columns_where_there_are_any():
    plain = row(systems=("A", "B"))
    labels = plain.masks["A"]
    width = contact_sheet([plain], NAMES, tile_px=64).shape[1]
    network = dataclasses.replace(plain, final={"A": labels})
    assert contact_sheet([network], NAMES, tile_px=64).shape[1] == width + 70
    both = dataclasses.replace(plain, pseudo={"A": labels, "B": labels}, final={"A": labels, "B": labels})
    assert contact_sheet([both], NAMES, tile_px=64).shape[1] == width + 4 * 70
    assert contact_sheet([plain, both], NAMES, tile_px=64).shape[1] == width + 4 * 70
    bound = dataclasses.replace(plain, final={"fully supervised": labels})
    assert contact_sheet([bound], NAMES, tile_px=64).shape[1] == width + 70 + 12


def test_a_later_stage_shows_its_own_label_map():
    plain = row(systems=("A",))
    full = torch.ones_like(plain.masks["A"])
    sheet = contact_sheet([dataclasses.replace(plain, final={"A": full})], NAMES, tile_px=32)
    expected = mask_picture(plain.image, full)
    last = sheet[50:82, -38:-6]
    assert np.array_equal(last[:8], expected[:8])  # the number in the corner covers the rest


def test_a_stage_that_an_image_lacks_stays_blank():
    plain = row(systems=("A",))
    rows = [dataclasses.replace(plain, pseudo={"A": plain.masks["A"]}), plain]
    sheet = contact_sheet(rows, NAMES, tile_px=64)
    heights = (50, 50 + 64 + 6)
    assert int(sheet[heights[0] : heights[0] + 64, -70:].min()) < 255
    assert int(sheet[heights[1] : heights[1] + 64, -70:].min()) == 255


def test_the_bound_stands_apart_in_ink_unless_colours_are_given():
    plain = row(systems=("A",))
    sheet_row = dataclasses.replace(plain, final={"full": plain.masks["A"]})
    assert tuple(contact_sheet([sheet_row], NAMES, tile_px=64)[25, -20]) == (0x1B, 0x1F, 0x24)
    given = contact_sheet([sheet_row], NAMES, tile_px=64, colours={"A": "#000000", "full": "#ff0000"})
    assert tuple(given[25, -20]) == (255, 0, 0)


def test_pictures_keep_their_aspect_and_pixels():
    wide = row(20, 40)
    sheet = contact_sheet([wide], NAMES, tile_px=80)
    doubled = wide.image.permute(1, 2, 0).repeat_interleave(2, 0).repeat_interleave(2, 1).numpy()
    windows = np.lib.stride_tricks.sliding_window_view(sheet[:, :220], (1, 1, 3))[:, :, 0, 0, 0]
    found = [
        (top, left)
        for top, left in zip(*np.where((windows == doubled[0, 0]).all(-1)), strict=True)
        if np.array_equal(sheet[top : top + 40, left : left + 80], doubled)
    ]
    assert len(found) == 1


def test_long_names_do_not_run_into_their_neighbours():
    short, long = row(systems=("A", "B")), row(systems=("A" * 90, "B"))
    ends = [contact_sheet([one], ("bird" * 20, "boat"), tile_px=64)[:, 120 + 2 * 70 + 160 :] for one in (short, long)]
    captions = contact_sheet([row()], ("bird" * 20, "boat"), tile_px=64)[50:, 117:120]
    assert np.array_equal(ends[0][:20], ends[1][:20])
    assert int(captions.min()) == 255


def test_names_in_letters_that_the_font_has_not_stay_apart():
    sheets = [contact_sheet([row()], names, tile_px=64) for names in (("\u732b", "a\nb"), ("\u72d7", "a\nb"))]
    assert not np.array_equal(*sheets)


def test_rows_must_agree_on_the_systems():
    with pytest.raises(DataError, match="at least one image"):
        contact_sheet([], NAMES)
    with pytest.raises(DataError, match="same systems"):
        contact_sheet([row(), row(systems=("A",))], NAMES)


def test_heat_gets_brighter_with_the_score():
    image = torch.full((3, 1, 3), 90, dtype=torch.uint8)
    picture = heat_picture(image, torch.tensor([[0.0, 0.5, 1.0]])).astype(int).sum(-1)[0]
    assert picture[0] < picture[1] < picture[2]


def test_masks_are_coloured_and_ignored_pixels_are_grey():
    image = torch.full((3, 1, 3), 90, dtype=torch.uint8)
    background, bird, ignored = mask_picture(image, torch.tensor([[0, 1, 255]], dtype=torch.uint8))[0].astype(int)
    assert background.min() > 200 and bird[0] > 2 * bird[1]
    assert len(set(ignored.tolist())) == 1


def test_present_iou_leaves_the_background_out():
    truth = torch.tensor([[1, 1, 0, 0]], dtype=torch.uint8)
    assert present_iou(torch.tensor([[1, 0, 0, 0]], dtype=torch.uint8), truth, (0,), 2) == 0.5
    assert present_iou(torch.zeros_like(truth), torch.zeros_like(truth), (), 2) is None


def test_present_iou_is_over_the_same_classes_whatever_is_predicted():
    truth = torch.tensor([[1, 1, 0, 0]], dtype=torch.uint8)
    for predicted, expected in (([1, 1, 0, 0], 0.5), ([1, 1, 2, 0], 0.5), ([1, 1, 3, 0], 0.5), ([0, 0, 0, 0], 0.0)):
        assert present_iou(torch.tensor([predicted], dtype=torch.uint8), truth, (0, 1), 3) == expected

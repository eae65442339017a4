from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map, overlay
from qaclims_ray.data.images import save_label_map
from qaclims_ray.errors import ArtifactError


def cam_of(maps: list, class_ids: tuple[int, ...]) -> ImageCam:
    full = torch.tensor(maps)
    return ImageCam("one", class_ids, full, None, full.shape[1], full.shape[2])


def test_highest_class_above_the_background_wins():
    cam = cam_of([[[0.9, 0.2, 0.4]], [[0.5, 0.1, 0.6]]], (2, 6))
    assert label_map(cam, 0.3).tolist() == [[3, 0, 7]]


def test_ties_go_to_the_background_then_to_the_first_class():
    cam = cam_of([[[0.15, 0.5, 0.15000001]], [[0.0, 0.5, 0.0]]], (1, 4))
    # 0.15 is stored in float32: compared in float64 it would lie above the threshold.
    assert label_map(cam, 0.15).tolist() == [[0, 2, 0]]
    assert label_map(cam, 0.14999).tolist() == [[2, 2, 2]]


def test_no_class_is_all_background():
    cam = ImageCam("none", (), torch.zeros(0, 3, 5), None, 3, 5)
    assert label_map(cam, 0.0).shape == (3, 5) and int(label_map(cam, 0.0).max()) == 0


def test_grid_only_maps_are_refused():
    with pytest.raises(ArtifactError, match=r"cams\.store"):
        label_map(ImageCam("one", (1,), None, torch.zeros(1, 2, 2), 8, 8), 0.2)


def test_png_keeps_values_and_shows_vocs_colours(tmp_path: Path):
    labels = torch.tensor([[0, 1, 15], [20, 255, 0]], dtype=torch.uint8)
    save_label_map(labels, str(tmp_path / "masks" / "one.png"))
    picture = Image.open(tmp_path / "masks" / "one.png")
    assert picture.mode == "P"
    assert np.array_equal(np.asarray(picture), labels.numpy())
    colours = np.asarray(picture.convert("RGB"))
    assert colours[0, 1].tolist() == [128, 0, 0] and colours[0, 2].tolist() == [192, 128, 128]


def test_overlay_tints_objects_and_leaves_the_background():
    image = torch.full((3, 9, 9), 100, dtype=torch.uint8)
    labels = torch.zeros(9, 9, dtype=torch.uint8)
    labels[2:7, 2:7] = 1
    picture = overlay(image, labels, opacity=0.5)
    assert picture.shape == (9, 9, 3) and picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [100, 100, 100]
    assert picture[4, 4].tolist() == [114, 50, 50]
    assert picture[2, 2].min() > 150  # bright outline

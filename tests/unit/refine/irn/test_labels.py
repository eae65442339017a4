import dataclasses

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.errors import ArtifactError
from qaclims_ray.refine.crf_config import CrfConfig
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.labels import confident_seeds

# A CRF that changes nothing: what the thresholds alone say.
PLAIN = IrnConfig(crf=CrfConfig(gaussian_weight=0.0, bilateral_weight=0.0))


def _cam(*rows: list[float], class_ids: tuple[int, ...]) -> ImageCam:
    full = torch.tensor(rows)[:, None, :].expand(-1, 2, -1).contiguous()
    return ImageCam("picture", class_ids, full, None, 2, full.shape[2])


def _grey(width: int) -> torch.Tensor:
    return torch.full((3, 2, width), 120, dtype=torch.uint8)


def test_thresholds_part_foreground_background_and_unsure() -> None:
    cam = _cam([0.05, 0.2, 0.6, 0.30, 0.1], [0.01, 0.05, 0.7, 0.1, 0.11], class_ids=(4, 19))
    seeds = confident_seeds(_grey(5), cam, PLAIN)
    assert seeds.dtype == torch.uint8
    # 0.30 is not above 0.30; 0.11 is above 0.10.
    assert seeds.tolist() == [[0, 255, 20, 255, 255]] * 2


def test_class_order_and_values_are_the_cams() -> None:
    cam = _cam([0.9, 0.0], [0.0, 0.9], class_ids=(7, 2))
    assert confident_seeds(_grey(2), cam, PLAIN)[0].tolist() == [8, 3]


def test_equal_thresholds_leave_nothing_unsure() -> None:
    cam = _cam([0.0, 0.2, 0.4, 0.9], class_ids=(0,))
    irn = dataclasses.replace(PLAIN, background_threshold=0.3)
    assert confident_seeds(_grey(4), cam, irn)[0].tolist() == [0, 0, 1, 1]


def test_the_crf_follows_the_picture() -> None:
    image = torch.zeros(3, 24, 24, dtype=torch.uint8)
    image[:, :, 12:] = 220
    full = torch.zeros(1, 24, 24)
    full[0, :, 13:] = 0.9  # one column short of the edge
    full[0, 8, 3] = 0.9  # and a speck
    cam = ImageCam("picture", (2,), full, None, 24, 24)
    seeds = confident_seeds(image, cam, IrnConfig())
    expected = torch.zeros(24, 24, dtype=torch.uint8)
    expected[:, 12:] = 3
    assert torch.equal(seeds, expected)
    assert not torch.equal(confident_seeds(image, cam, PLAIN), expected)


def test_an_image_without_classes_is_background() -> None:
    cam = ImageCam("empty", (), torch.zeros(0, 3, 4), None, 3, 4)
    image = torch.randint(256, (3, 3, 4), dtype=torch.uint8)
    assert torch.equal(confident_seeds(image, cam, IrnConfig()), torch.zeros(3, 4, dtype=torch.uint8))


def test_mistakes_are_explained() -> None:
    cam = _cam([0.5, 0.5], class_ids=(0,))
    with pytest.raises(ArtifactError, match=r"picture is 3x2 pixels.*2x2"):
        confident_seeds(_grey(3), cam, PLAIN)
    with pytest.raises(ArtifactError, match="full-resolution"):
        confident_seeds(_grey(2), dataclasses.replace(cam, full=None), PLAIN)

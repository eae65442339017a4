"""What no tag names is counted right on hand-made scores; from images to tables on a tiny SAM 3."""

import numpy as np
import torch
from PIL import Image

from benchmarks.tags_take_away import all_scores, count, tables
from qaclims_ray.cams.config import CamConfig
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.methods.sam3_names.network import LoadSam3Names
from tests.unit.refine import tiny_sams


def _image(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows)[:, None]  # (class, 1, width)


def test_pixels_pairs_and_images_are_counted_by_hand() -> None:
    # Tagged with class 0: of four painted pixels two show class 1, one of which class 0 takes over.
    one = _image([0.9, 0.6, 0.4, 0.8, 0.1], [0.1, 0.7, 0.8, 0.2, 0.3], [0.0] * 5)
    # Tagged with classes 1 and 2: all painted pixels are named.
    other = _image([0.1] * 5, [0.9, 0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7, 0.7])
    # Not tagged at all, nothing painted.
    none = torch.full((3, 1, 5), 0.2)
    found = count([(one, one, (0,)), (other, other, (1, 2)), (none, none, ())], 0.5)
    assert found.images.tolist() == [1, 2, 1] and found.untagged_images.tolist() == [0, 1, 0]
    assert found.pixels.tolist() == [2, 3, 2] and found.untagged_pixels.tolist() == [0, 2, 0]
    assert (found.taken_over, found.touched, found.seen) == (1, 1, 3)
    text = tables(found, ("cat", "dog", "red"))
    assert "| images (3) | 33.3 % |" in text and "| pairs of image and class (4) | 25.0 % |" in text
    assert "| pixels | 28.6 % |" in text and "show a class that is named | 14.3 % |" in text
    assert "| dog | 2 | 50.0 % | 66.7 % |" in text and "| red | 1 | 0.0 % | 0.0 % |" in text


def test_what_a_tag_names_needs_no_presence() -> None:
    unsure, sure = _image([0.3, 0.3], [0.7, 0.2]), _image([0.8, 0.1], [0.9, 0.4])
    found = count([(unsure, sure, (0,))], 0.5)
    assert (found.taken_over, int(found.untagged_pixels.sum())) == (1, 1)


def test_a_class_that_is_never_painted_has_no_share() -> None:
    text = tables(count([(torch.zeros(2, 1, 3), torch.zeros(2, 1, 3), (0,))], 0.5), ("cat", "dog"))
    assert "| cat | 0 | - | - |" in text and "| pixels | - |" in text


def test_the_whole_way_on_a_tiny_model(tmp_path) -> None:
    model = tiny_sams.save_sam3_detector(tmp_path / "sam3")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    record = ImageRecord("one", str(tmp_path / "one.png"), width=30, height=20, labels=(2,))
    named = LoadSam3Names(model=model, words=tiny_sams.WORDS, least_score=0.0)(torch.device("cpu"))
    ((scores, plain, own),) = all_scores(named, [record], len(tiny_sams.WORDS))
    assert scores.shape == (4, 20, 30) and own == (2,)
    (answer,) = named.answers(torch.from_numpy(pixels).permute(2, 0, 1), [2], CamConfig())
    torch.testing.assert_close(scores[2], answer.scores * answer.presence)
    torch.testing.assert_close(plain[2], answer.scores)
    found = count([(scores, plain, own)], 0.0)
    assert found.seen == 1 and int(found.pixels.sum()) == 600 == int(found.untagged_pixels.sum() + found.pixels[2])

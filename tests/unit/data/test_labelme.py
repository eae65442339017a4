"""Label maps as labelling tools keep them."""

import base64
import io
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.labelme import labelme_file, labels_of
from qaclims_ray.errors import DataError

CLASSES = Classes(("cat", "dog"))


def drawn() -> torch.Tensor:
    labels = torch.zeros((40, 60), dtype=torch.uint8)
    labels[5:35, 5:30], labels[10:30, 10:25], labels[20:40, 40:60], labels[0:4, 50:60] = 1, 0, 2, 255
    return labels


def shape(**changes: Any) -> dict[str, Any]:
    square = {"label": "cat", "shape_type": "polygon", "points": [[0, 0], [2, 0], [2, 2], [0, 2]]}
    return {"shapes": [{**square, **changes}]}


def test_a_label_map_comes_back_through_the_file() -> None:
    content = json.loads(json.dumps(labelme_file(drawn(), "a.jpg", CLASSES)))
    assert content["imagePath"] == "a.jpg" and (content["imageHeight"], content["imageWidth"]) == (40, 60)
    assert [one["label"] for one in content["shapes"]] == ["cat", "dog", "background", "__ignore__"]
    assert (labels_of(content, 40, 60, CLASSES, "a.json") == drawn()).all()


def test_without_a_background_what_nobody_drew_is_not_scored() -> None:
    tissue = Classes(("cat", "dog"), False)
    labels = torch.full((6, 6), 255, dtype=torch.uint8)
    labels[1:5, 1:5] = 2
    assert (labels_of(labelme_file(labels, "a.png", tissue), 6, 6, tissue, "a.json") == labels).all()
    # Tools list a background for every data set: what is drawn as one shows no class, so it is not scored either.
    assert (labels_of(shape(label="background"), 6, 6, tissue, "a.json") == 255).all()
    with pytest.raises(DataError, match="'cow', expected one of cat, dog, __ignore__"):
        labels_of(shape(label="cow"), 6, 6, tissue, "a.json")


def test_a_rectangle_of_two_points_is_filled() -> None:
    found = labels_of(shape(shape_type="rectangle", points=[[1, 1], [3, 4]]), 5, 5, CLASSES, "a.json")
    assert found.sum() == 6 and (found[1:4, 1:3] == 1).all()


def test_a_mask_that_a_model_drew_is_painted_in_its_box() -> None:
    pixels = np.zeros((3, 4), dtype=np.uint8)
    pixels[1:, :2] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    drawn_by_model = shape(shape_type="mask", points=[[2.0, 1.0], [5.0, 3.0]], mask=picture)
    found = labels_of(drawn_by_model, 8, 9, CLASSES, "a.json")
    assert found.sum() == 4 and (found[2:4, 2:4] == 1).all()
    with pytest.raises(DataError, match="a mask that reaches beyond the image"):
        labels_of(drawn_by_model, 3, 9, CLASSES, "a.json")
    with pytest.raises(DataError, match="a mask without a picture"):
        labels_of(shape(shape_type="mask", mask="?"), 8, 9, CLASSES, "a.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "no list of shapes"),
        ({"shapes": [1]}, "no list of shapes"),
        (shape(label="cow"), r"shape 1 is called 'cow', expected one of background, cat, dog"),
        (shape(points=[[0, 0], [1, 1]]), "polygon of 2 points"),
        (shape(shape_type="circle"), "is a circle of 4 points: expected polygons"),
        (shape(points="x"), "has no points"),
        (shape(points=[[0, 0], [1, 1], [float("nan"), 2]]), "no numbers"),
    ],
)
def test_what_is_no_area_of_a_class_is_refused(content: Any, says: str) -> None:
    with pytest.raises(DataError, match=says):
        labels_of(content, 5, 5, CLASSES, "a.json")

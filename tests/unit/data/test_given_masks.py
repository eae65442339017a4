"""Masks made elsewhere: what is found, and what is said of what does not fit."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from qaclims_ray.data.given_masks import find_given_masks
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.mask_export import export_masks
from qaclims_ray.errors import DataError
from tests.unit.data.drawn_masks import CLASSES, SIZE, label_maps, places, written

WIDTH, HEIGHT = SIZE


def test_a_folder_of_pictures_may_be_called_as_masks_are(tmp_path: Path) -> None:
    labels = label_maps()["2.jpg"]
    save_label_map(labels, str(tmp_path / "given" / "2_mask.png"))
    save_label_map(labels, str(tmp_path / "given" / "foreign_mask.png"))
    found = find_given_masks(str(tmp_path / "given"), places(tmp_path), CLASSES)
    assert list(found.by_image) == ["2"] and (found.by_image["2"](HEIGHT, WIDTH) == labels).all()
    assert any("belong to no image" in note for note in found.notes)
    with pytest.raises(DataError, match="has 60x40 pixels, expected 10x10, the size of its image"):
        found.by_image["2"](10, 10)


def test_two_masks_of_an_image_are_a_fault(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        save_label_map(label_maps()["2.jpg"], str(tmp_path / "given" / folder / "2.png"))
    found = find_given_masks(str(tmp_path / "given"), places(tmp_path), CLASSES)
    assert [(one.sort, one.subject) for one in found.faults] == [("two masks", "2")]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.zip", b"PK", "is of no form that is read; unpack it first; expected a folder of PNGs"),
        ("a.json", b"[1]", "is of no form that is read"),
        ("a.json", b"{", "is cut short"),
        ("a.xml", b"<annotations><track/></annotations>", "holds no image; export the task as"),
        ("a.xml", b"<annotation/>", "holds <annotation>"),
        ("a.xml", b"<annot", "is no whole XML"),
        ("a.xml", b'<?xml version="1.0" encoding="utv-8"?><annotations/>', "no whole XML .unknown encoding: utv-8"),
        ("a.xml", b'<annotations><image name="other.jpg"/></annotations>', "masks of none of the run's images"),
        ("data.yaml", b"names: [cow]", "has a class 'cow', expected one of background, cat"),
        ("data.yaml", b"nc: 3", "has no names"),
        ("some.txt", b"", r"there is no mask in .* \(it has files .txt 1\)"),
    ],
)
def test_what_holds_no_masks_is_refused(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / name).write_bytes(content)
    place = folder / name if name.startswith("a.") else folder
    with pytest.raises(DataError, match=says):
        find_given_masks(str(place), places(tmp_path), CLASSES)


def test_a_place_that_is_not_there_is_said() -> None:
    with pytest.raises(DataError, match="there is no file or folder /nowhere; expected a folder of PNGs"):
        find_given_masks("/nowhere", {}, CLASSES)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        (
            '<mask label="cow" rle="1" left="0" top="0" width="1" height="1"/>',
            "mask 1 is called 'cow', expected one of",
        ),
        ('<mask label="cat" rle="9" left="0" top="0" width="1" height="1"/>', "run lengths of 9 pixels, its box has 1"),
        ('<mask label="cat" left="0" top="0" width="1" height="1"/>', "mask 1 is broken"),
        ('<polygon label="cat" points="1,1;2,2"/>', "has 2 corners"),
        ('<polyline label="cat" points="1,1;2,2"/>', "has no area that is read"),
        ('<box label="cat" xtl="1" ytl="1" xbr="5" ybr="5" rotation="30"/>', "rotated box"),
    ],
)
def test_broken_shapes_of_cvat_are_faults_of_their_image(shape: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    file.write_text(f'<annotations><image name="2.jpg" width="60" height="40">{shape}</image></annotations>')
    (fault,) = find_given_masks(str(file), places(tmp_path), CLASSES).faults
    assert fault.subject == "2.jpg" and says in fault.detail


def test_shapes_of_cvat_lie_in_their_order_and_boxes_count(tmp_path: Path) -> None:
    shapes = (
        '<box label="cat" xtl="0" ytl="0" xbr="20" ybr="20" z_order="1"/>'
        '<polygon label="dining_table" points="10,10;30,10;30,30;10,30" z_order="0"/>'
        '<mask label="Background" rle="0, 4" left="2" top="2" width="2" height="2" z_order="2"/><tag label="cat"/>'
    )
    file = tmp_path / "a.xml"
    file.write_text(f'<annotations><image name="2.jpg" width="60" height="40">{shapes}</image></annotations>')
    found = find_given_masks(str(file), places(tmp_path), CLASSES)
    labels, expected = found.by_image["2"](HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH, dtype=torch.uint8)
    expected[10:30, 10:30], expected[0:20, 0:20], expected[2:4, 2:4] = 2, 1, 0
    assert (labels == expected).all()
    with pytest.raises(DataError, match="has 60x40 pixels, expected 40x60, the size of its image"):
        found.by_image["2"](60, 40)


def test_coco_entries_that_do_not_fit_are_faults(tmp_path: Path) -> None:
    export_masks(str(tmp_path / "out"), "coco", written(tmp_path), CLASSES)
    file = tmp_path / "out" / "annotations.json"
    content = json.loads(file.read_text())
    content["categories"][0]["name"] = "cow"
    content["annotations"][-1]["image_id"] = 99
    file.write_text(json.dumps(content))
    details = [fault.detail for fault in find_given_masks(str(file), places(tmp_path), CLASSES).faults]
    assert any("its category is 'cow', expected one of background" in detail for detail in details)
    assert "belongs to image 99, which the file does not list" in details


def test_labelme_files_of_another_size_and_yolo_lines_that_are_no_polygons(tmp_path: Path) -> None:
    drawn = tmp_path / "drawn" / "2.json"
    drawn.parent.mkdir()
    shape = {"label": "cat", "points": [[0, 0], [5, 0], [5, 5]], "shape_type": "polygon"}
    drawn.write_text(json.dumps({"shapes": [shape], "imageWidth": 9, "imageHeight": 9}))
    found = find_given_masks(str(drawn.parent), places(tmp_path), CLASSES)
    with pytest.raises(DataError, match="has 9x9 pixels, expected 60x40, the size of its image"):
        found.by_image["2"](HEIGHT, WIDTH)
    for line, says in (
        ("7 0 0 1 0 1 1", "does not begin with a class"), ("0 0 0 1", "has 3 numbers"), ("0 0 0 5 0 5 5", "outside"),
    ):  # fmt: skip
        yolo = tmp_path / "yolo"
        yolo.mkdir(exist_ok=True)
        (yolo / "data.yaml").write_text("names: [cat, Löwe]")
        (yolo / "2.txt").write_text(line)
        load = find_given_masks(str(yolo), places(tmp_path), CLASSES).by_image["2"]
        with pytest.raises(DataError, match=says):
            load(HEIGHT, WIDTH)


def test_colours_that_the_list_does_not_name_are_said(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "labelmap.txt").write_text("# label\nbackground:0,0,0::\ncat:1,2,3::\n")
    picture = Image.new("RGB", SIZE, (1, 2, 3))
    picture.save(folder / "2.png")
    found = find_given_masks(str(folder), places(tmp_path), CLASSES)
    assert (found.by_image["2"](HEIGHT, WIDTH) == 1).all()
    picture.putpixel((0, 0), (9, 9, 9))
    picture.save(folder / "2.png")
    with pytest.raises(DataError, match=r"holds #090909, which labelmap.txt does not list"):
        found.by_image["2"](HEIGHT, WIDTH)
    (folder / "labelmap.txt").write_text("cow:1,2,3::\n")
    with pytest.raises(DataError, match="line 1 names 'cow', expected one of"):
        find_given_masks(str(folder), places(tmp_path), CLASSES)

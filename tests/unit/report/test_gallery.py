import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.data.classes import IGNORE_VALUE, voc_palette
from qaclims_ray.report import gallery as gallery_module
from qaclims_ray.report.gallery import PAGE_NAME, by_worst
from qaclims_ray.report.gallery_highlights import read_highlights
from qaclims_ray.report.gallery_tiles import PHOTO_SIDE_PX, cam_tile, labels_tile, photo_tile
from qaclims_ray.report.worst_images import confusions, worst_images
from tests.unit.report.small_gallery import CLASSES, small_gallery, written_gallery

HOSTILE = ["<b>.jpg", "</script><script>alert(1)</script>", 'a"b', "a&amp;b", "{{ 1 }}", "\u732b", "x' onerror='y"]


def opened(code: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(code)))


def index_of(page: str) -> dict:
    return json.loads(re.findall(r'<script type="application/json" id="index">(.*?)</script>', page, re.S)[0])


def test_label_maps_keep_their_colours_and_let_the_photograph_through():
    labels = torch.zeros(300, 400, dtype=torch.uint8)
    labels[:100], labels[200:, :50] = 3, IGNORE_VALUE
    picture = opened(labels_tile(labels))
    assert picture.size == (PHOTO_SIDE_PX, round(PHOTO_SIDE_PX * 3 / 4))
    pixels = np.array(picture.convert("RGBA"))
    assert pixels[5, 5].tolist() == [*voc_palette()[9:12], 255]
    assert pixels[80, 150, 3] == 0 and pixels[160, 5, 3] > 200


def test_activation_maps_run_from_dark_to_pale():
    pixels = np.array(opened(cam_tile(torch.linspace(0, 1, 300).repeat(200, 1))).convert("RGB")).astype(int)
    brightness = pixels[30].sum(1)
    assert brightness[0] < 30 and brightness[-1] > 600 and (np.diff(brightness) >= -40).all()


def test_small_photographs_are_not_enlarged():
    assert opened(photo_tile(torch.zeros(3, 40, 60, dtype=torch.uint8))).size == (60, 40)


def test_a_small_gallery_is_one_file(tmp_path: Path):
    summary = written_gallery(str(tmp_path), [f"i{at}" for at in range(7)])
    assert summary["images"] == 7 and summary["files_beside"] == 0
    page = (tmp_path / PAGE_NAME).read_text()
    index = index_of(page)
    assert index["ids"] == [f"i{at}" for at in range(7)] and index["files"] == [] and index["parts"] == [0] * 7
    assert index["scores"]["0.final"] == sorted(index["scores"]["0.final"])
    pictures = json.loads(re.findall(r'id="pictures-0">(.*?)</script>', page, re.S)[0])
    assert pictures["0"].keys() >= {"photo", "truth", "0.cam.0", "1.final"}
    assert not re.search(r'(src|href)="(?!#|data:)', page)


def test_a_large_one_has_few_files_beside_it_with_every_image_once(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gallery_module, "INSIDE_BYTES", 1000)
    monkeypatch.setattr(gallery_module, "_PART_BYTES", 12_000)
    names = [f"i{at:02d}" for at in range(40)]
    summary = written_gallery(str(tmp_path), names)
    index = index_of((tmp_path / PAGE_NAME).read_text())
    assert summary["files_beside"] == len(index["files"]) > 2
    rows = []
    for number, file in enumerate(index["files"]):
        text = (tmp_path / file).read_text()
        head = f"takePictures({number},"
        assert text.startswith(head) and text.endswith(");\n")
        part = json.loads(text[len(head) : -3])
        rows += [int(row) for row in part]
        assert all(index["parts"][int(row)] == number for row in part)
    assert sorted(rows) == list(range(40))


def test_names_end_no_script_and_begin_no_element(tmp_path: Path):
    gallery, lines = small_gallery(HOSTILE)
    gallery_module.write_gallery(str(tmp_path), gallery, lines)
    page = (tmp_path / PAGE_NAME).read_text()
    assert sorted(index_of(page)["ids"]) == sorted(HOSTILE) and index_of(page)["sources"][1]["label"] == "two <b>"
    assert page.count("<script") == 3 and "Gallery &lt;1&gt;" in page and "<b>.jpg" not in page

    class Closed(HTMLParser):
        def handle_starttag(self, tag, attrs):
            assert not any(name.startswith("on") for name, _ in attrs)

    Closed().feed(page)


def test_images_without_a_score_come_last_and_missing_pictures_are_absent(tmp_path: Path):
    gallery, lines = small_gallery(["a", "b", "c"])
    bare = gallery.images[0].__class__("a", (0,), "train")
    gallery = gallery.__class__(**{**gallery.__dict__, "images": (bare, *gallery.images[1:])})
    assert [image.image_id for image in by_worst(gallery)] == ["b", "c", "a"]
    gallery_module.write_gallery(str(tmp_path), gallery, lines[1:])
    assert index_of((tmp_path / PAGE_NAME).read_text())["parts"] == [0, 0, -1]


def test_confusions_are_counted_once_and_specks_are_left_out(tmp_path: Path):
    gallery, _ = small_gallery(["a"])
    found = [(0, 0, 9000), (1, 1, 900), (1, 2, 90), (2, 1, 1)]
    line = gallery_module.Pictures("a", {}, {"0.final": found}).line().encode()
    gallery_module.write_gallery(str(tmp_path), gallery, [line])
    assert index_of((tmp_path / PAGE_NAME).read_text())["wrong"] == {"0.final": [[[1, 2, 9]]]}
    highlights = read_highlights(str(tmp_path))
    assert highlights.confusion == [[9000, 0, 0], [0, 900, 90], [0, 1, 0]] and highlights.num_confused == 1
    table = confusions(highlights, list(CLASSES.names), has_background=True)
    assert table is not None and [name for name, _ in table.rows] == ["background", "cat", "dog"]
    cell = dict(table.rows)["cat"][2]
    assert cell.text == "9.1" and cell.address == "gallery/index.html#wrong=0.final.1.2"
    assert dict(table.rows)["cat"][1].address == ""


def test_the_worst_images_of_each_stage_are_handed_on_the_last_stage_first(tmp_path: Path):
    written_gallery(str(tmp_path), [f"i<{at}>" for at in range(9)])
    stages = worst_images(read_highlights(str(tmp_path)), list(CLASSES.names))
    assert [words for words, _, _ in stages] == ["final network", "pseudo mask", "seed"]
    cards = stages[0][2]
    assert [card.name for card in cards] == [f"i<{at}>" for at in range(6)]
    assert cards[0].address == "gallery/index.html#order=0.final&image=i%3C0%3E"
    assert [words for words, _ in cards[0].pictures] == ["image", "final network", "truth"]
    assert cards[0].figure == "IoU 10.0 %" and cards[0].classes == "cat"


@pytest.mark.parametrize("has_truth", [True, False])
def test_without_true_masks_there_is_no_table_of_confusions(tmp_path: Path, has_truth):
    gallery, lines = small_gallery(["a"])
    if not has_truth:
        lines = [gallery_module.Pictures("a", {}, {}).line().encode()]
    gallery_module.write_gallery(str(tmp_path), gallery, lines)
    found = confusions(read_highlights(str(tmp_path)), list(CLASSES.names), has_background=True)
    assert (found is not None) == has_truth

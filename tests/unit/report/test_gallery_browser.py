"""The gallery's script, in a headless Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import WHOLE, Page, browser_page, find_browser
from qaclims_ray.report import gallery as gallery_module
from qaclims_ray.report.gallery import PAGE_NAME
from tests.unit.report.small_gallery import written_gallery

NAMES = ["<b>.jpg", *(f"i{at:03d}" for at in range(1, 240))]

pytestmark = pytest.mark.skipif(find_browser() is None, reason="this machine has no Chromium")


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    program = find_browser()
    assert program is not None
    with browser_page(program) as found:
        found.show(1300, 900)
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A gallery with files beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gallery_module, "INSIDE_BYTES", 1000)
        patch.setattr(gallery_module, "_PART_BYTES", 40_000)
        place = tmp_path_factory.mktemp("gallery")
        assert written_gallery(str(place), NAMES)["files_beside"] > 5
    return place


def names(page: Page) -> list[str]:
    order = "(a, b) => a.dataset.place - b.dataset.place"
    return page.value(
        f"[...document.querySelectorAll('.card')].sort({order}).map(c => c.querySelector('b').textContent)"
    )


def choose(page: Page, field: str, value: object) -> None:
    page.value(
        f"(() => {{ const s = document.getElementById('{field}'); s.value = {value!r};"
        f" s.dispatchEvent(new Event('{'input' if field == 'name' else 'change'}')); }})()"
    )


def order_called(page: Page, words: str) -> str:
    found = page.value(f"[...document.getElementById('sort').options].find(o => o.textContent === {words!r}).value")
    assert found
    return found


def opened(page: Page, folder: Path, at: str = "") -> Page:
    page.open((folder / PAGE_NAME).as_uri() + at)
    page.wait(WHOLE)
    return page


def test_only_what_is_in_view_is_drawn_and_pictures_come_from_the_files(page: Page, folder: Path):
    opened(page, folder)
    assert names(page)[0] == "<b>.jpg" and len(names(page)) < 40
    assert page.value("document.querySelectorAll('.card b b, .card-head script').length") == 0
    page.value("document.getElementById('list').scrollTop = 1e9")
    page.wait("[...document.querySelectorAll('.card b')].some(b => b.textContent === 'i239')")
    page.wait(WHOLE)
    assert page.value("document.querySelectorAll('.card img').length") > 10


def test_orders_filters_and_names(page: Page, folder: Path):
    opened(page, folder)
    choose(page, "sort", order_called(page, "gained most: one over two <b>"))
    assert names(page)[0] == "i239"
    choose(page, "class", "1")
    page.wait(WHOLE)
    assert all(int(name[1:]) % 2 for name in names(page))
    choose(page, "class", "-1")
    choose(page, "split", "val")
    assert "80 of 240 images" in page.value("document.getElementById('state').textContent")
    choose(page, "split", "")
    choose(page, "name", "I01")
    assert "10 of 240 images" in page.value("document.getElementById('state').textContent")


def test_keys_move_open_and_lay_stages_over_the_photograph(page: Page, folder: Path):
    opened(page, folder)
    page.press("ArrowRight")
    page.press("ArrowDown")
    page.press("Enter")
    page.wait("document.getElementById('one').open")
    first = page.value("document.getElementById('one-name').textContent")
    said = "document.getElementById('large-name').textContent"
    assert page.value(said) == "final network, one"
    for key, words in (("1", "CAM of"), ("2", "seed, one"), ("5", "truth"), ("0", "image"), ("3", "pseudo mask, one")):
        page.press(key)
        assert page.value(said).startswith(words)
    page.press("s")
    assert page.value(said) == "pseudo mask, two <b>"
    page.press("o")
    assert page.value("getComputedStyle(document.querySelector('#large img.labels')).display") == "none"
    page.press("o")
    page.press("ArrowRight")
    assert page.value("document.getElementById('one-name').textContent") != first
    page.press("Escape")
    page.wait("!document.getElementById('one').open")
    page.wait("document.activeElement.classList.contains('card')", limit_s=10)


def test_stages_are_hidden_by_keys(page: Page, folder: Path):
    opened(page, folder)
    before = page.value("document.querySelectorAll('.card .shot').length / document.querySelectorAll('.card').length")
    page.press("2")
    page.wait(WHOLE)
    after = page.value("document.querySelectorAll('.card .shot').length / document.querySelectorAll('.card').length")
    assert (before, after) == (6, 5)


def test_a_link_shows_confused_images_or_opens_one(page: Page, folder: Path):
    opened(page, folder, "#wrong=0.final.2.1")
    assert "120 of 240 images" in page.value("document.getElementById('state').textContent")
    assert names(page)[0] == "i239"
    page.value("document.querySelector('#state button').click()")
    assert "240 of 240 images" in page.value("document.getElementById('state').textContent")
    opened(page, folder, "#order=0.final&image=%3Cb%3E.jpg")
    page.wait("document.getElementById('one').open")
    assert page.value("document.getElementById('one-name').textContent") == "<b>.jpg"


def test_a_file_that_was_left_behind_is_named(page: Page, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(gallery_module, "INSIDE_BYTES", 1000)
    written_gallery(str(tmp_path), NAMES[:4])
    for file in tmp_path.glob("pictures-*.js"):
        file.unlink()
    opened(page, tmp_path)
    page.wait("document.getElementById('state').textContent.includes('copy the whole folder')")


@pytest.mark.parametrize("width", [700, 1300])
def test_nothing_is_cut_off_sideways(page: Page, folder: Path, width):
    page.show(width, 800)
    opened(page, folder)
    assert page.value("document.documentElement.scrollWidth") <= width
    assert (
        page.value("Math.max(...[...document.querySelectorAll('.card')].map(c => c.getBoundingClientRect().right))")
        <= width
    )
    page.show(1300, 900)

"""The pages as a site: built without a warning, whole in itself, with every setting and every name that it promises."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import flat

ROOT = Path(__file__).parents[2]
FETCHING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "link": "href"}


class _Page(HTMLParser):
    """What a page links to and fetches, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.places |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag in FETCHING and FETCHING[tag] in values:
            self.fetched.append(values[FETCHING[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning ends the build."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert built.returncode == 0 and "WARNING" not in built.stderr, built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, _Page]:
    return {path: _Page(path.read_text()) for path in site.rglob("*.html")}


def _broken(pages: dict[Path, _Page], site: Path) -> Iterator[str]:
    for path, page in pages.items():
        for link in (*page.links, *page.fetched):
            target, _, place = unquote(link).partition("#")
            if re.match(r"[a-z]+:", link) or path.name == "404.html":
                continue
            file = (path.parent / target.partition("?")[0]).resolve() if target else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                yield f"{path.relative_to(site)}: {link}"
            elif place and file in pages and place not in pages[file].places:
                yield f"{path.relative_to(site)}: no place {place} in {target or path.name}"


def test_links_lead_somewhere_and_nothing_is_fetched_from_elsewhere(site, pages) -> None:
    assert len(pages) > 50
    assert list(_broken(pages, site)) == []
    outside = {address for page in pages.values() for address in page.fetched if re.match(r"([a-z]+:)?//", address)}
    assert outside == set()
    texts = "".join(path.read_text() for path in pages)
    assert 'class="mermaid"' not in texts, "the theme fetches a script for mermaid: draw it otherwise"
    assert not re.search(r"url\(['\"]?(https?:)?//", "".join(path.read_text() for path in site.rglob("*.css")))


def test_every_setting_is_on_its_page_in_words(site) -> None:
    text = (site / "settings.html").read_text()
    rows = dict(re.findall(r"<td><code>([\w.]+)</code></td>\s*<td>(.*?)</td>", text, re.DOTALL))
    assert set(rows) == {name for name in flat(preset("folder"))}
    for name, words in rows.items():
        assert len(re.sub(r"<[^>]+>", "", words).split()) >= 1, name
        assert not re.search(r"\(([A-Z]\d+|rows? )", words), f"{name} names a row that a stranger cannot read: {words}"


def test_every_name_that_the_reference_promises_is_there(pages, site) -> None:
    promised = 0
    for source in (ROOT / "docs" / "reference").glob("*.md"):
        places = pages[site / "reference" / f"{source.stem}.html"].places
        for module, options in re.findall(r"^::: (\S+)\n((?:    .*\n)*)", source.read_text(), re.MULTILINE):
            for name in re.findall(r"\w+", "".join(re.findall(r"members: \[(.*)\]", options))):
                assert f"{module}.{name}" in places, f"{source.name} promises {name} of {module}"
                promised += 1
    assert promised > 100


def test_search_knows_what_the_pages_say(site) -> None:
    index = (site / "search" / "search_index.json").read_text()
    for words in ("foreground_contrast", "ritc.omega", "Your first masks in fifteen minutes", "QA-CLIMS"):
        assert words in index
    assert "source/qaclims_ray" not in index, "code that is shown as it is drowns the pages"

"""Names of users, of classes, images, systems and runs, are text on every page, whatever they hold."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.report.ablation import ablation_html
from qaclims_ray.report.comparison import comparison_page
from qaclims_ray.report.files import write_report
from qaclims_ray.report.search import write_search
from tests.comparisons import comparison_of, scored, stage_of
from tests.unit.report import test_ablation, test_search, test_trust_page

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&lt;{{ 7*7 }}</svg></style><b>"


def poisoned(value: Any, kept: frozenset[str] = frozenset()) -> Any:
    """Return a value of dataclasses and containers in which every text ends in what would run, but for some words."""
    if isinstance(value, str):
        return value if value in kept or not value else value + HOSTILE
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{name: poisoned(getattr(value, name), kept) for name in names})
    if isinstance(value, Mapping):
        return {poisoned(name, kept): poisoned(item, kept) for name, item in value.items()}
    return type(value)(poisoned(item, kept) for item in value) if isinstance(value, list | tuple) else value


class Elements(HTMLParser):
    """What a page is made of, but for the marks of a chart, of which a longer text has more."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.text = ""
        self._in_chart = 0
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not [name for name, _ in attrs if name.startswith("on") or (name == "src" and _ == "x")], attrs
        self._in_chart += tag == "svg"
        if not self._in_chart or tag in ("script", "foreignobject", "a", "img"):
            self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._in_chart -= tag == "svg"

    def handle_data(self, data: str) -> None:
        self.text += data


def _ablation(poison: Callable[[Any], Any], folder: Path) -> str:
    rows = (
        test_ablation._row("FRC", 60.0, (0.5, 0.6), seed_21="ResourceError: out of memory"),
        test_ablation._row("BRC", 61.0, (0.5, 0.4)),
    )
    return ablation_html(poison(test_ablation._result(*rows)))


def _search(poison: Callable[[Any], Any], folder: Path) -> str:
    write_search(str(folder), poison(test_search._result()))
    return (folder / "search.html").read_text()


def _comparison(poison: Callable[[Any], Any], folder: Path) -> str:
    return comparison_page(poison(comparison_of(stage_of(scored(0), scored(1)))))


def _trust(poison: Callable[[Any], Any], folder: Path) -> str:
    return Path(write_report(str(folder), poison(test_trust_page.unscored()))).read_text()


PAGES = {
    "ablation": (_ablation, frozenset()),
    "search": (_search, frozenset({"log", "linear"})),
    "comparison": (_comparison, frozenset({"background", "seed_fixed"})),
    "trust": (_trust, frozenset({"background", "final", "seed", "mask", "stages", "systems", "threshold", "val"})),
}


@pytest.mark.filterwarnings("ignore:constrained_layout not applied")  # the names are longer than the charts are wide
@pytest.mark.parametrize("name", PAGES)
def test_names_are_text(name: str, tmp_path: Path) -> None:
    page_of, kept = PAGES[name]
    plain = Elements(page_of(lambda value: value, tmp_path / "plain"))
    hostile = Elements(page_of(lambda value: poisoned(value, kept), tmp_path / "hostile"))
    assert hostile.tags == plain.tags
    assert hostile.text.replace("\N{ZERO WIDTH SPACE}", "").count(HOSTILE) > 3

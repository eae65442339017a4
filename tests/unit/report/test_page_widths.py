"""The run's page in a narrow window and on paper, in a headless Chromium: nothing has to be scrolled sideways."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks.browser import browser_page, find_browser
from qaclims_ray.report.files import write_report
from tests.unit.report.test_stage_tables import report_data, scores, systems

pytestmark = pytest.mark.skipif(find_browser() is None, reason="this machine has no Chromium")

SCROLLED = "[...document.querySelectorAll('.scroll, figure')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
BEYOND = "[...document.querySelectorAll('td, svg')].filter(e => e.getBoundingClientRect().right > innerWidth).length"
TABLE = "document.querySelector('[aria-label=\"from seeds to the final network\"]')"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page whose stages are scored on two splits, as most runs' are: its table has the most columns."""
    both = {"segmentation_on_seeds": scores(0.5), "segmentation_crf_on_seeds": scores(0.6)}
    found = {name: dataclasses.replace(system, **both) for name, system in systems().items()}
    found["other"] = dataclasses.replace(found["qa_clims"], label="a system with a rather long name")
    return Path(write_report(str(tmp_path_factory.mktemp("page")), report_data(systems=found))).as_uri()


def test_tables_fold_and_charts_shrink_in_a_narrow_window_and_nothing_is_cut_off_on_paper(url: str):
    program = find_browser()
    assert program is not None
    with browser_page(program) as page:
        page.show(700, 900)
        page.open(url)
        assert page.value(SCROLLED) == 0 and page.value("document.documentElement.scrollWidth") <= 700
        assert page.value(f"getComputedStyle({TABLE}.querySelector('thead')).display") == "none"
        said = page.value(f"getComputedStyle({TABLE}.querySelectorAll('tbody td')[1], '::before').content")
        assert "seed" in said and "on train (20 images)" in said, "a figure is called what its column is"
        page.show(1300, 900)
        assert page.value(f"getComputedStyle({TABLE}.querySelector('thead')).display") == "table-header-group"
        page.show(718, 1000, is_print=True)  # A4 within Chromium's own margins
        assert page.value(BEYOND) == 0
        assert page.value(f"getComputedStyle({TABLE}.querySelector('thead')).display") == "table-header-group"

"""The page of each method says what it must, and its figures are those of the page of figures that it links to."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "qaclims_ray" / "methods").glob("*/README.md")), *sorted((ROOT / "docs/methods").glob("*.md"))]
HEADINGS = ["Run it", "What it needs", "Figures", "Cost", "Limits"]


def _sections(page: Path) -> dict[str, str]:
    parts = re.split(r"^## (.+)$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(["", *parts[1::2]], parts[::2], strict=True))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + "/" + page.stem)
def test_a_page_has_claim_picture_command_needs_figures_cost_and_limits(page) -> None:
    sections = _sections(page)
    assert [heading for heading in sections if heading in HEADINGS] == HEADINGS
    assert "Claim:" in sections[""] and re.search(r"!\[[^\]]+\]\([^)]+\.png\)", sections[""])
    assert re.search(r"^qaclims run ", sections["Run it"], re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name + "/" + page.stem)
def test_figures_stand_in_the_pages_of_results(page) -> None:
    figures = _sections(page)["Figures"]
    linked = [(page.parent / link).resolve() for link in re.findall(r"\]\(([^)#]*results/\w+\.md)", figures)]
    known = "\n".join(path.read_text() for path in linked)
    for row in re.findall(r"^\|(.*)\|$", figures, re.MULTILINE)[2:]:
        for cell in map(str.strip, row.split("|")[1:]):
            assert cell == "-" or re.search(rf"\| {re.escape(cell)}( \||  *\+-)", known), (
                f"{cell} is in no page of results"
            )


def test_all_methods_have_a_page_that_the_table_links_to() -> None:
    table = (ROOT / "docs" / "methods.md").read_text()
    assert len(PAGES) >= 7
    assert all(
        f"{path}) |" in table for path in (str(page.relative_to(ROOT)) for page in PAGES if page.stem == "README")
    )
    assert all(f"(methods/{page.name}) |" in table for page in PAGES if page.stem != "README")

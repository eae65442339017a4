"""Every link between pages of the repository leads to a file that is there, and to a heading where it names one."""

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "qaclims_ray").rglob("*.md"),
]


def _anchors(page: Path) -> set[str]:
    """Return a page's headings as they stand in addresses."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def _links(page: Path) -> Iterator[str]:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    yield from re.findall(r"\]\(([^)\s]+)\)", text)


def _broken(page: Path) -> Iterator[str]:
    for link in _links(page):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, heading = link.partition("#")
        file = page.parent / target if target else page
        if not file.exists():
            yield f"{page.relative_to(ROOT)}: {link}"
        elif heading and file.suffix == ".md" and heading not in _anchors(file):
            yield f"{page.relative_to(ROOT)}: no heading {heading} in {target or page.name}"


def test_links_between_pages_lead_somewhere():
    assert len(PAGES) > 30
    assert [fault for page in PAGES for fault in _broken(page)] == []

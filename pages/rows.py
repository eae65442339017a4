"""Rows of docs/method.md, such as R12, that docstrings name: their places, and links to them (a hook of mkdocs)."""

import functools
import re
from pathlib import Path
from typing import Any

METHOD = "method.md"
_ROW = re.compile(r"^\| ([QRCSEDPGO]\d{1,2}) \|", re.MULTILINE)
_TAG = re.compile(r"(<[^>]+>)")
_LEFT_ALONE = re.compile(r"</?(a|code|pre|h[1-6]|summary|details)\b")


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Give every row a place that can be linked to."""
    if page.file.src_uri != METHOD:
        return markdown
    return _ROW.sub(lambda row: f'| <span id="{place_of(row[1])}">{row[1]}</span> |', markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Link the rows that docstrings name."""
    if not page.file.src_uri.startswith("reference/"):
        return html
    found, inside = [], 0
    for piece in _TAG.split(html):
        if tag := _LEFT_ALONE.match(piece):
            inside += -1 if piece.startswith("</") else 0 if piece.endswith("/>") else 1
        found.append(piece if tag or inside or piece.startswith("<") else _linked(piece))
    return "".join(found)


def place_of(row: str) -> str:
    """Return a row's place on its page."""
    return f"row-{row.lower()}"


@functools.cache
def known_rows() -> frozenset[str]:
    """Return the rows that there are."""
    return frozenset(_ROW.findall((Path(__file__).parents[1] / "docs" / METHOD).read_text()))


def _linked(text: str) -> str:
    def link(found: re.Match[str]) -> str:
        return f'<a href="../method.html#{place_of(found[0])}">{found[0]}</a>' if found[0] in known_rows() else found[0]

    return re.sub(r"\b[QRCSEDPGO]\d{1,2}\b", link, text)

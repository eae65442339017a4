"""Pieces of HTML that several sections of the report share."""

import math
from collections.abc import Callable, Iterable
from html import escape

from matplotlib.figure import Figure

from qaclims_ray.report import figures
from qaclims_ray.report.palette import INK, colours_with_bound
from qaclims_ray.report.report_data import ReportData, bound, has_background
from qaclims_ray.report.report_style import STYLE

PIXELS = '<span class="pixels">chosen with pixel labels</span>'
"""Badge beside every figure whose threshold was chosen with the masks."""
LEFT = 'style="text-align:left"'
"""Attribute of a table's cell that holds words."""


def page(title: str, parts: Iterable[str]) -> str:
    """Return a whole page with its styles inside; parts are HTML, empty ones are left out."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def data_colours(data: ReportData) -> dict[str, str]:
    """Return the colour of each system by its label, the same in all charts and tables."""
    found = bound(data)
    return colours_with_bound([system.label for system in data.systems.values()], found.label if found else None)


def swatch(colour: str) -> str:
    """Return a small square in a system's colour; ink follows the page's text."""
    return f'<span class="swatch" style="background:{"currentColor" if colour == INK else colour}"></span>'


def chart_section(heading: str, text: str, name: str, draw: Callable[[], Figure]) -> str:
    """Return a section with one chart; heading and text are HTML, the name is unique on the page."""
    return f"<section><h2>{heading}</h2><p>{text}</p>{chart(draw(), name)}</section>"


def chart(figure: Figure, name: str) -> str:
    """Return a chart as an element of the page."""
    return f"<figure>{figures.figure_svg(figure, name)}</figure>"


def labels_in_words(data: ReportData) -> str:
    """Say what means are over."""
    return "over background and classes" if has_background(data) else "over the classes (there is no background)"


def percent(value: float) -> str:
    """Return a fraction in percent with one digit, "n/a" where there is none."""
    return "n/a" if math.isnan(value) else f"{100 * value:.1f}"

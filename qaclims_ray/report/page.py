"""Pages by Jinja2 templates: one file each with styles, charts and pictures inside, which asks for nothing outside."""

import base64
import functools
import re

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from qaclims_ray.report.figures import figure_svg
from qaclims_ray.report.palette import INK
from qaclims_ray.report.wording import PIXEL_LABELS, duration, gain, listed, percent

_WIDE_PX = 1700
_LEAST_SHARE = 0.94
"""A chart may shrink to this share of the size that it is drawn at; narrower windows scroll it sideways."""


def render(template: str, **values: object) -> str:
    """Return a page.

    Args:
        template: file name in ``templates/``.
        values: what the template shows; all text is escaped.
    """
    return _environment().get_template(template).render(**values)


def chart(figure: Figure, name: str, words: str) -> Markup:
    """Return a chart as an ``<svg>`` element.

    Args:
        figure: the chart.
        name: unique on the page.
        words: what it shows, for those who hear the page.
    """
    said, least = escape(words), round(_LEAST_SHARE * 72 * figure.get_figwidth())
    head = f'<svg role="img" aria-label="{said}" style="--least:{least}px" '
    # matplotlib escapes the texts that it writes
    return Markup(figure_svg(figure, name).replace('<svg role="img" ', head, 1))


def with_contents(page: str) -> str:
    """Return a page whose sections have names and stand in its list of contents, where it has the place of one."""
    headings: list[str] = []

    def named(found: re.Match[str]) -> str:
        headings.append(found[2].strip())
        return f'<section id="part-{len(headings)}"{found[1] or ""}><h2>{found[2]}'

    page = re.sub(r'<section( class="[a-z]+")?><h2>([^<]+)', named, page)
    links = "".join(f'<a href="#part-{at}">{words}</a>' for at, words in enumerate(headings, start=1))
    return page.replace("<!--contents-->", f'<nav class="contents" aria-label="Contents">{links}</nav>', 1)


@functools.cache
def _environment() -> Environment:
    # A name that a template misspells must not leave a hole in the page: StrictUndefined raises.
    environment = Environment(
        loader=PackageLoader("qaclims_ray.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "percent": percent,
        "gain": gain,
        "duration": duration,
        "listed": listed,
        "base64": _base64,
        "coded": _coded,
        "ground": _ground,
    }
    environment.tests["wide"] = _is_wide  # pyrefly: ignore[unsupported-operation]
    environment.globals["pixel_labels"] = PIXEL_LABELS  # pyrefly: ignore[unsupported-operation]
    return environment


def _base64(png: bytes) -> str:
    return base64.b64encode(png).decode()


def _coded(text: str) -> Markup:
    """Set what stands between backticks as a command."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _ground(colour: str) -> str:
    """Ink follows the page's text, which is light on dark ground."""
    return "currentColor" if colour == INK else colour


def _is_wide(png: bytes) -> bool:
    """Sheets of many systems scroll sideways, rather than shrink until nothing is to be seen."""
    return int.from_bytes(png[16:20]) > _WIDE_PX

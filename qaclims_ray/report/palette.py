"""Colours of charts and contact sheets, safe for colour-blind readers (Okabe and Ito, 2008)."""

from collections.abc import Sequence

INK = "#1b1f24"
"""Text and axes on light ground; `figures.figure_svg` turns it into the page's own text colour."""
QUIET_INK = "#6a737d"
"""Captions and grid lines; reads on light and on dark ground."""
PAPER = "#ffffff"
"""Ground of pictures that stand alone."""

_COLOURS = ("#7d8590", "#e69f00", "#0072b2", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#b3a400")


def system_colours(systems: Sequence[str]) -> dict[str, str]:
    """Return a colour for each system; the first, the baseline, is grey. More than eight begin again."""
    return {system: _COLOURS[position % len(_COLOURS)] for position, system in enumerate(systems)}


def colours_with_bound(systems: Sequence[str], bound: str | None) -> dict[str, str]:
    """Deal colours to the compared systems; the fully supervised bound stands apart, in ink.

    Args:
        systems: labels, in order.
        bound: label of the bound, where it is one of them.
    """
    dealt = system_colours([system for system in systems if system != bound])
    return {system: dealt.get(system, INK) for system in systems}

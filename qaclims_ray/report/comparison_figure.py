"""The chart of a comparison: difference of each class's IoU with its interval, one panel per stage."""

import math
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from qaclims_ray.evaluation.comparison import ClassDifference, StageDifference
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.report.figures import WIDTH_INCHES, draw_legend, dress, plain_text
from qaclims_ray.report.palette import INK, QUIET_INK

PANELS_PER_ROW = 3
"""Panels beside each other."""
_TITLE_LETTERS = 26
"""Longest line of a panel's title."""


def comparison_figure(stages: Sequence[StageDifference], *, colours: Mapping[str, str]) -> Figure:
    """Draw bars of IoU differences in points with their intervals as whiskers, mean IoU on top.

    Args:
        stages: of one group; those of one stage share a panel.
        colours: letter of a side -> colour.
    """
    panels = {key: [s for s in stages if s.stage == key] for key in FIGURES if any(s.stage == key for s in stages)}
    names = [row.name for row in stages[0].classes]
    others = list(dict.fromkeys(stage.other_letter for stage in stages))
    columns = min(PANELS_PER_ROW, len(panels))
    rows = math.ceil(len(panels) / columns)
    height = 0.6 + (len(names) + 1) * max(0.15 * len(others), 0.2)
    figure = Figure(figsize=(WIDTH_INCHES, 0.4 + rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True, sharex="row").flatten()
    for panel, (key, found) in zip(axes, panels.items(), strict=False):
        for stage in found:
            position = others.index(stage.other_letter)
            _draw_bars(panel, stage, position, len(others), colours[stage.other_letter])
        words = FIGURES[key].words + (" (pixel labels)" if FIGURES[key].is_chosen else "")
        dress(panel, textwrap.fill(words, _TITLE_LETTERS))
        panel.axvline(0, color=QUIET_INK, linewidth=1)
        panel.grid(False, axis="y")
        panel.xaxis.set_major_locator(MaxNLocator(5))
        panel.set_xlabel("difference of IoU, points", color=INK, fontsize=9)
    axes[0].set_yticks(range(len(names) + 1), ["mean IoU", *map(plain_text, names)])
    axes[0].set_ylim(len(names) + 0.6, -0.6)
    for panel in axes[len(panels) :]:
        panel.set_axis_off()
    for letter in others:
        axes[0].plot([], [], color=colours[letter], linewidth=6, label=f"{letter} - {stages[0].first_letter}")
    draw_legend(figure, axes[0])
    return figure


def _draw_bars(axes: Axes, stage: StageDifference, position: int, num_others: int, colour: str) -> None:
    bar = 0.8 / num_others
    mean = ClassDifference("", 0, stage.first, stage.other, stage.difference, stage.interval)
    for row, found in enumerate((mean, *stage.classes)):
        if found.difference is None:
            continue
        place = row + (position - (num_others - 1) / 2) * bar
        axes.barh(place, 100 * found.difference, height=bar * 0.9, color=colour, alpha=1.0 if row == 0 else 0.65)
        if found.interval is not None:
            ends = [100 * found.interval.low, 100 * found.interval.high]
            axes.plot(ends, [place, place], color=INK, linewidth=1.2, solid_capstyle="butt")

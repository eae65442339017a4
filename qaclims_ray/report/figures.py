"""Charts of the report and of the tracker: sweeps, classes, false positives, training curves.

Matplotlib's object interface only: no pyplot, no global state, so charts can be drawn in any worker.
"""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qaclims_ray.evaluation.cooccurrence import CooccurrenceScores
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.contents import Curve
from qaclims_ray.report.palette import INK, PAPER, QUIET_INK, system_colours

WIDTH_INCHES = 9.6
"""Width of charts, so that their texts have one size on the page, which can be read in a window of 700 pixels too."""
_LEGEND_COLUMNS = 7
_LETTER_INCHES, _MARK_INCHES = 0.078, 0.55
"""About what a letter of a legend takes, and its mark with the room around it."""


def sweep_figure(systems: Mapping[str, SeedScores], *, colours: Mapping[str, str] | None = None) -> Figure:
    """Draw mIoU, over- and under-activation against the background threshold.

    Markers: a circle at the fixed threshold, a triangle at the label-free one, a star at the best (pixel labels).

    Args:
        systems: label -> scores.
        colours: label -> colour; by default as `palette.system_colours` deals them.
    """
    figure = Figure(figsize=(WIDTH_INCHES, 3.8), layout="constrained")
    miou, over, under = figure.subplots(1, 3, width_ratios=[1.5, 1, 1])
    for label, colour in colours_of(colours, systems).items():
        scores = systems[label]
        curve = scores.curve
        miou.plot(curve.thresholds, curve.miou, color=colour, label=plain_text(label), linewidth=2)
        over.plot(curve.thresholds, curve.false_positive_rate, color=colour, linewidth=2)
        under.plot(curve.thresholds, curve.false_negative_rate, color=colour, linewidth=2)
        for threshold, value, marker, size in (
            (scores.threshold_fixed, scores.miou_fixed, "o", 7),
            (scores.threshold_label_free, scores.miou_label_free, "^", 8),
            (scores.threshold_best, scores.miou_best, "*", 14),
        ):
            miou.plot(threshold, value, marker, color=colour, markersize=size, markeredgecolor=PAPER)
    for marker, meaning in (("o", "fixed"), ("^", "label-free"), ("*", "best (pixel labels)")):
        miou.plot([], [], marker, color=QUIET_INK, label=meaning, linestyle="none")
    for axes, title in ((miou, "mIoU"), (over, "over-activation (FP)"), (under, "under-activation (FN)")):
        dress(axes, title)
        axes.set_xlabel("background threshold", color=INK)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    draw_legend(figure, miou)
    return figure


def class_figure(iou: Mapping[str, Mapping[str, float]], *, colours: Mapping[str, str] | None = None) -> Figure:
    """Draw the IoU of each class as bars, classes in the order given, systems beside each other.

    Args:
        iou: label of a system -> class name -> IoU as a fraction, NaN where there is none.
        colours: as in `sweep_figure`.
    """
    names = list(next(iter(iou.values())))
    num_systems = len(iou)
    bar = 0.8 / num_systems
    figure = Figure(figsize=(WIDTH_INCHES, 0.9 + len(names) * max(0.16 * num_systems, 0.24)), layout="constrained")
    axes = figure.subplots()
    for position, (label, colour) in enumerate(colours_of(colours, iou).items()):
        values = np.array([iou[label][name] for name in names], dtype=float)
        rows = np.arange(len(names)) + (position - (num_systems - 1) / 2) * bar
        axes.barh(rows, np.nan_to_num(values), height=bar * 0.92, color=colour, label=plain_text(label))
        for row, value in zip(rows, values, strict=True):
            text = "n/a" if np.isnan(value) else f"{100 * value:.0f}"
            axes.text(np.nan_to_num(value) + 0.006, row, text, va="center", color=INK, fontsize=8)
    dress(axes, "")
    axes.set_yticks(np.arange(len(names)), [plain_text(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(False, axis="y")
    axes.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.set_xlabel("IoU", color=INK)
    axes.set_xlim(0, 1.04)
    draw_legend(figure, axes)
    return figure


def cooccurrence_figure(
    systems: Mapping[str, CooccurrenceScores], *, colours: Mapping[str, str] | None = None
) -> Figure:
    """Draw coverage and the two places of false positives, in units of the objects' area.

    Args:
        systems: label -> figures.
        colours: as in `sweep_figure`.
    """
    parts = ("objects covered", "false positives on\nco-occurring stuff", "false positives\nelsewhere")
    figure = Figure(figsize=(WIDTH_INCHES, 3.2), layout="constrained")
    axes = figure.subplots()
    bar = 0.8 / len(systems)
    for position, (label, colour) in enumerate(colours_of(colours, systems).items()):
        scores = systems[label]
        values = [scores.coverage, scores.false_positive_context, scores.false_positive_elsewhere]
        columns = np.arange(3) + (position - (len(systems) - 1) / 2) * bar
        axes.bar(columns, values, width=bar * 0.92, color=colour, label=plain_text(label))
        for column, value in zip(columns, values, strict=True):
            axes.text(column, value + 0.01, f"{100 * value:.0f} %", ha="center", va="bottom", color=INK, fontsize=9)
    dress(axes, "")
    axes.set_xticks(np.arange(3), parts)
    axes.grid(False, axis="x")
    axes.set_ylabel("share of the objects' area", color=INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.margins(y=0.15)
    draw_legend(figure, axes)
    return figure


def curves_figure(systems: Mapping[str, Mapping[str, Curve]], *, colours: Mapping[str, str] | None = None) -> Figure:
    """Draw training curves, one small panel per quantity, the systems that have it together.

    Args:
        systems: label -> name of the quantity -> points.
        colours: as in `sweep_figure`.
    """
    names = list(dict.fromkeys(name for curves in systems.values() for name in curves))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(WIDTH_INCHES, 0.5 + 2.3 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    colours = colours_of(colours, systems)
    for axes, name in zip(panels, names, strict=False):
        for label, curves in systems.items():
            if name in curves:
                steps, values = zip(*curves[name], strict=True)
                axes.plot(steps, values, color=colours[label], linewidth=1.6, marker="." if len(steps) < 3 else "")
        dress(axes, name)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.set_xlabel("step", color=INK)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for label, curves in systems.items():
        if curves:
            panels[0].plot([], [], color=colours[label], linewidth=2, label=plain_text(label))
    draw_legend(figure, panels[0])
    return figure


def figure_png(figure: Figure, *, dpi: int = 110) -> bytes:
    """Return the chart as PNG on white."""
    buffer = io.BytesIO()
    figure.set_dpi(dpi)
    figure.set_facecolor(PAPER)
    with _any_script():
        FigureCanvasAgg(figure).print_png(buffer)
    return buffer.getvalue()


def figure_pixels(figure: Figure, *, dpi: int = 110) -> UInt8[np.ndarray, "height width 3"]:
    """Return the chart as pixels on white, for a tracker."""
    figure.set_facecolor(PAPER)
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    with _any_script():
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def figure_svg(figure: Figure, name: str) -> str:
    """Return the chart as an ``<svg>`` element for a page: transparent, text as text, in the page's text colour.

    Args:
        figure: the chart.
        name: unique on the page; goes before every identifier inside the element.
    """
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    buffer = io.StringIO()
    with _any_script(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
    markup = buffer.getvalue()
    # Within tags alone: between them stand names, which may look like an identifier or a colour.
    markup = re.sub("<[^>]*>", lambda tag: _tag_for_page(tag[0], name), markup[markup.index("<svg") :])
    return markup.replace("<svg ", '<svg role="img" ', 1)


@contextlib.contextmanager
def _any_script() -> Iterator[None]:
    """Be silent of letters that matplotlib's font has not: a page's reader has fonts of his own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _tag_for_page(tag: str, name: str) -> str:
    tag = tag.replace(INK, "currentColor")
    return re.sub(r'(\sid="|url\(#|xlink:href="#)', rf"\g<1>{name}-", tag)


def colours_of(colours: Mapping[str, str] | None, systems: Mapping[str, object]) -> dict[str, str]:
    """Return the colours of just these systems, in their order."""
    known = system_colours(list(systems)) if colours is None else colours
    return {label: known[label] for label in systems}


def plain_text(text: str) -> str:
    """Return a text as matplotlib shows it word for word: names come from users, a dollar sign in one is no formula."""
    text = text.replace("$", r"\$")
    # Nor is one that begins with an underscore to be left out of the legend: an unseen letter goes before it.
    return f"\N{ZERO WIDTH SPACE}{text}" if text.startswith("_") else text


def dress(axes: Axes, title: str) -> None:
    """Give a panel its title, a quiet grid and no frame."""
    axes.set_title(plain_text(title), loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.grid(True, color=QUIET_INK, alpha=0.25, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.tick_params(colors=INK, length=0, labelsize=9)


def draw_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of a panel above the whole chart."""
    handles, labels = axes.get_legend_handles_labels()
    widest = max((_MARK_INCHES + _LETTER_INCHES * len(label) for label in labels), default=1.0)
    columns = max(1, min(len(labels), _LEGEND_COLUMNS, int(figure.get_figwidth() / widest)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, frameon=False, labelcolor=INK, fontsize=9)

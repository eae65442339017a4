"""The claim of both papers in one picture: seed -> pseudo mask -> final network, under the fully supervised bound.

Figures on different images do not compare, so no line joins them: where the final network is scored on another split
than the seeds, each system has two parts, and what the network makes of the seeds' own images stands in the first.
"""

import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from qaclims_ray.evaluation.scored_figures import FIGURES, ScoredStage, fixed_figure
from qaclims_ray.report.figures import WIDTH_INCHES, colours_of, draw_legend, dress, plain_text
from qaclims_ray.report.label_places import LEFT, place_labels
from qaclims_ray.report.palette import INK, PAPER, QUIET_INK
from qaclims_ray.report.wording import PIXEL_LABELS

_DRAWN: tuple[ScoredStage, ...] = ("seed", "mask", "segmentation", "segmentation_crf")
STAGE_WORDS: Mapping[ScoredStage, str] = {stage: fixed_figure(stage).words for stage in _DRAWN}
"""Stages in the order of the pipeline, and what charts call them."""

ON_SEEDS: Mapping[ScoredStage, ScoredStage] = {
    "segmentation": "segmentation_on_seeds",
    "segmentation_crf": "segmentation_crf_on_seeds",
}
"""What a final network is scored as on other images, and as on those of the seeds."""
_ORDER: tuple[ScoredStage, ...] = ("seed", "mask", *ON_SEEDS.values(), *ON_SEEDS)
_OTHER_IMAGES = frozenset(ON_SEEDS)
"""Stages of the second part."""
_GAP = 0.75
"""Room between the two parts, in distances between stages."""
_MARKERS = {"seed": "o", "mask": "D", "segmentation": "o", "segmentation_crf": "s", "best": "*"}
_SIZES = {"seed": 8, "mask": 7, "segmentation": 8, "segmentation_crf": 7, "best": 10}
_MARKER_POINTS = [(x, y) for x in (-3, 0, 3) for y in (-3, 0, 3)]
_CROWD = 4
"""So many systems have room in the width of other charts."""
_CROWD_INCHES = 12.0
_BESIDE_POINTS = 49.0
_PANEL_HEIGHT = 250.0  # as the layout leaves it, about: it is only known after drawing
_BEST_WORDS = f"{FIGURES['seed_best'].words} ({PIXEL_LABELS})"
_MIN_SLOTS = 3
_MIN_SPAN = 0.2
_MAX_NAME_LINES = 3


def stages_figure(
    systems: Mapping[str, Mapping[str, float]],
    *,
    bound: tuple[str, float] | None = None,
    bound_crf: float | None = None,
    best_seeds: Mapping[str, float] | None = None,
    splits: Mapping[str, str] | None = None,
    colours: Mapping[str, str] | None = None,
    has_threshold: bool = True,
) -> Figure:
    """Draw the mIoU of every system's stages as short connected lines, systems side by side.

    Args:
        systems: label -> stage (of `STAGE_WORDS` and `ON_SEEDS`) -> mIoU as a fraction; stages may be missing or NaN.
        bound: label and mIoU of the fully supervised network, drawn as a line across; its words name its split where
            the systems have two parts.
        bound_crf: mIoU of that network with CRF, another line.
        best_seeds: label -> mIoU of the seed at the threshold that was chosen with pixel labels, an open star.
        splits: seed, mask, segmentation -> split it is scored on, named in the legend, or where they differ under each
            part.
        colours: as in `figures.sweep_figure`.
        has_threshold: whether seeds have a threshold to be named in the legend; without a background they have none.
    """
    splits = splits or {}
    is_parted = splits.get("seed", splits.get("mask")) != splits.get("segmentation")
    shown = {label: _finite(stages) for label, stages in systems.items()}
    places = _places([stage for stage in _ORDER if any(stage in stages for stages in shown.values())], is_parted)
    best = (best_seeds or {}).items()
    stars = {label: value for label, value in best if "seed" in shown.get(label, ()) and math.isfinite(value)}
    lines = _bound_lines(bound, bound_crf, splits.get("segmentation", "") if is_parted else "")
    values = [value for stages in shown.values() for value in stages.values()] + list(stars.values())
    low, high = _limits(values + [value for _, value in lines])
    slots = max(len(shown), _MIN_SLOTS)
    width = WIDTH_INCHES if slots <= _CROWD else _CROWD_INCHES
    figure = Figure(figsize=(width, 4.4), layout="constrained")
    axes = figure.subplots()
    dress(axes, "")
    centre = (len(shown) - 1) / 2
    axes.set(xlim=(centre - slots / 2 - 0.2, centre + slots / 2), ylim=(low, high))
    font_points = 9.5 if slots <= 6 else 8.0
    for position, (label, colour) in enumerate(colours_of(colours, shown).items()):
        if position:
            axes.axvline(position - 0.5, color=QUIET_INK, alpha=0.25, linewidth=0.7)
        if label in stars:
            _mark(axes, "best", position + places["seed"], stars[label], colour)
        for part, stages in enumerate(_parts(shown[label], is_parted)):
            _draw_line(axes, f"system-{position}" + ("-other-images" if part else ""), position, stages, places, colour)
    _draw_values(axes, shown, stars, lines, places, is_parted, font_points, width)
    for (name, value), gid in zip(lines, ("bound", "bound-crf"), strict=False):
        _draw_bound(axes, name, value, gid)
    if is_parted:
        _part(axes, len(shown), places, splits, font_points)
    _name_axes(axes, list(shown), max(8, int(width * 13.5 / slots)), font_points)
    words: dict[ScoredStage, str] = {**STAGE_WORDS, **({} if has_threshold else {"seed": "seed"})}
    _add_meanings(axes, shown, bool(stars), {} if is_parted else splits, words)
    draw_legend(figure, axes)
    return figure


def _name_axes(axes: Axes, labels: Sequence[str], width: int, font_points: float) -> None:
    axes.set_xticks(range(len(labels)), [_wrapped(label, width) for label in labels], color=INK, fontsize=font_points)
    axes.grid(False, axis="x", which="both")
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    axes.set_ylabel("mIoU", color=INK)


def _places(stages: Sequence[ScoredStage], is_parted: bool) -> dict[str, float]:
    """Return where each stage stands in its system's slot, which is one wide and centred at 0."""
    steps, at = {}, 0.0
    for stage in stages:
        if is_parted and steps and stage in _OTHER_IMAGES and not _OTHER_IMAGES.intersection(steps):
            at += _GAP
        steps[stage] = at
        at += 1
    distance = min(0.22, 0.8 / max(at - 1, 1))
    return {stage: (step - (at - 1) / 2) * distance for stage, step in steps.items()}


def _parts(stages: Mapping[ScoredStage, float], is_parted: bool) -> list[dict[ScoredStage, float]]:
    """Return the stages on the seeds' images and those on others; all together where the images are not others."""
    if not is_parted:
        return [dict(stages)]
    first: dict[ScoredStage, float] = {stage: value for stage, value in stages.items() if stage not in _OTHER_IMAGES}
    return [first, {stage: value for stage, value in stages.items() if stage in _OTHER_IMAGES}]


def _part(axes: Axes, num_systems: int, places: Mapping[str, float], splits: Mapping[str, str], font: float) -> None:
    """Draw a dotted line between the two parts of each system, and name their splits under them."""
    on_seeds = [place for stage, place in places.items() if stage not in _OTHER_IMAGES]
    others = [place for stage, place in places.items() if stage in _OTHER_IMAGES]
    if not on_seeds or not others:
        return
    ticks, names = [], []
    for position in range(num_systems):
        axes.axvline(
            position + (max(on_seeds) + min(others)) / 2, color=QUIET_INK, alpha=0.5, linewidth=0.8, linestyle=":"
        )
        ticks += [position + (part[0] + part[-1]) / 2 for part in (sorted(on_seeds), sorted(others))]
        names += [splits.get("seed", splits.get("mask", "")), splits.get("segmentation", "")]
    axes.set_xticks(ticks, [plain_text(name) for name in names], minor=True, color=QUIET_INK, fontsize=font - 1.5)
    axes.tick_params(axis="x", which="minor", length=0, pad=3)
    axes.tick_params(axis="x", which="major", length=0, pad=17)


def _draw_line(
    axes: Axes,
    gid: str,
    position: int,
    stages: Mapping[ScoredStage, float],
    places: Mapping[str, float],
    colour: str,
) -> None:
    if not stages:
        return
    columns = [position + places[stage] for stage in stages]
    axes.plot(columns, list(stages.values()), color=colour, linewidth=2.2, gid=gid)
    for column, (stage, value) in zip(columns, stages.items(), strict=True):
        _mark(axes, stage.removesuffix("_on_seeds"), column, value, colour)


def _mark(axes: Axes, kind: str, column: float, value: float, colour: str, label: str | None = None) -> None:
    """Draw one marker: a stage's, or the open star of "best"; NaN only makes its entry in the legend."""
    is_open = kind in ("seed", "best")
    axes.plot(
        column, value, _MARKERS[kind], color=colour, markersize=_SIZES[kind], label=label, zorder=4,
        markerfacecolor=PAPER if is_open else colour, markeredgecolor=colour if is_open else PAPER,
    )  # fmt: skip


def _draw_values(
    axes: Axes, shown: Mapping[str, Mapping[ScoredStage, float]], stars: Mapping[str, float],
    lines: list[tuple[str, float]], places: Mapping[str, float], is_parted: bool, font_points: float, width: float,
) -> None:  # fmt: skip
    """Write each value where lines, markers and other values leave room: seeds left of their point if they can be."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ground = (72 * width - _BESIDE_POINTS, _PANEL_HEIGHT)
    scale = np.array([ground[0] / (right - left), ground[1] / (high - low)])
    points, labels, firsts, obstacles, taken = [], [], [], [], np.zeros((0, 4))
    for position, (label, stages) in enumerate(shown.items()):
        corners = [(position + places[stage], value) for stage, value in stages.items()]
        points += corners
        labels += [f"{100 * value:.1f}" for value in stages.values()]
        firsts += [LEFT if stage == "seed" else (0, 1) for stage in stages]
        marks = corners + ([(position + places["seed"], stars[label])] if label in stars else [])
        obstacles += [(np.array(mark) - (left, low)) * scale + offset for mark in marks for offset in _MARKER_POINTS]
        for part in _parts(stages, is_parted):
            ends = [(position + places[stage], value) for stage, value in part.items()]
            for one, other in itertools.pairwise(ends):
                obstacles += list((np.linspace(one, other, 20) - (left, low)) * scale)
    if not points:
        return
    for name, value in lines:
        height = (value - low) * scale[1]
        obstacles += [(x, height) for x in np.arange(0, ground[0], 4)]
        taken = np.concatenate([taken, [[0, height, 7.0 * len(_bound_text(name, value)), height + 16]]])
    anchors = (np.array(points) - (left, low)) * scale
    text = (2.55 * font_points, 1.15 * font_points)
    offsets = place_labels(anchors, np.array(obstacles), text=text, ground=ground, first_choices=firsts, taken=taken)
    for label, point, (x, y) in zip(labels, points, offsets.tolist(), strict=True):
        axes.annotate(
            label, point, (x, y), textcoords="offset points", ha="center", va="center", color=INK, fontsize=font_points
        )


def _bound_lines(bound: tuple[str, float] | None, bound_crf: float | None, split: str) -> list[tuple[str, float]]:
    if bound is None:
        return []
    name, value = bound
    on = f", {split}:" if split else ""
    lines = [(name + on, value), (f"{name} + CRF{on}", math.nan if bound_crf is None else bound_crf)]
    return [(words, height) for words, height in lines if math.isfinite(height)]


def _draw_bound(axes: Axes, label: str, value: float, gid: str) -> None:
    axes.axhline(value, color=INK, linewidth=1.4, linestyle=(0, (6, 3)), gid=gid, zorder=1)
    axes.annotate(
        plain_text(_bound_text(label, value)), (0, value), (4, 3), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", ha="left", va="bottom", color=INK, fontsize=9.5, fontweight="bold",
    )  # fmt: skip


def _bound_text(label: str, value: float) -> str:
    return f"{label} {100 * value:.1f}"


def _add_meanings(
    axes: Axes,
    shown: Mapping[str, Mapping[ScoredStage, float]],
    has_stars: bool,
    splits: Mapping[str, str],
    stage_words: Mapping[ScoredStage, str],
) -> None:
    there = {stage for stages in shown.values() for stage in stages}
    for stage, words in stage_words.items():
        if stage in there or ON_SEEDS.get(stage) in there:  # a final network has one marker on all images
            split = splits.get(stage.removesuffix("_crf"))
            text = f"{words} ({plain_text(split)})" if split is not None else words
            _mark(axes, stage, math.nan, math.nan, QUIET_INK, text)
    if has_stars:
        _mark(axes, "best", math.nan, math.nan, QUIET_INK, _BEST_WORDS)


def _finite(stages: Mapping[str, float]) -> dict[ScoredStage, float]:
    """The stages that have a figure, in the order in which they are drawn."""
    return {stage: stages[stage] for stage in _ORDER if stage in stages and math.isfinite(stages[stage])}


def _limits(values: list[float]) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    span = max(values) - min(values)
    # At least 20 points: a step of half a point must not look like a leap.
    pad = max(0.11 * span, (_MIN_SPAN - span) / 2)
    return max(0.0, min(values) - pad), max(values) + pad


def _wrapped(label: str, width: int) -> str:
    lines = textwrap.wrap(label, width, max_lines=_MAX_NAME_LINES, placeholder="..")
    return "\n".join(plain_text(line) for line in lines)

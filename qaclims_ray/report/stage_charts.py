"""Charts of the stages: seed, mask and final network of every system, and figures of each class as a heat map."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from qaclims_ray.evaluation.scored_figures import ScoredStage
from qaclims_ray.report.contents import ReportData, bound, data_colours, scores_background
from qaclims_ray.report.scored_on import same_images, split_of
from qaclims_ray.report.stages_figure import ON_SEEDS, STAGE_WORDS, stages_figure

_CLASS_STAGES: dict[ScoredStage, str] = {
    "seed": "seed",
    "mask": "mask",
    "segmentation": "net",
    "segmentation_crf": "net + CRF",
}


def stages_chart(data: ReportData) -> Figure:
    """Draw seed, pseudo mask and final network of every system, the fully supervised bound as a line across."""
    limit, has_threshold = bound(data), scores_background(data)
    values, best = {}, {}
    for system in data.systems.values():
        on_seeds = () if same_images(data, "seed", "segmentation") else ON_SEEDS.values()
        scored = {stage: system.scores(stage) for stage in (*STAGE_WORDS, *on_seeds)}
        figures = {stage: scores.miou_fixed for stage, scores in scored.items() if scores is not None}
        if figures and system is not limit:
            values[system.label] = figures
            best |= {system.label: system.seed.miou_best} if system.seed and has_threshold else {}
    line = (limit.label, limit.segmentation.miou_fixed) if limit and limit.segmentation else None
    crf = limit.segmentation_crf.miou_fixed if limit and limit.segmentation_crf else None
    return stages_figure(
        values,
        bound=line,
        bound_crf=crf,
        best_seeds=best,
        splits=data.splits,
        colours=data_colours(data),
        has_threshold=has_threshold,
    )


@dataclass(frozen=True)
class HeatCell:
    """A figure of a class, on a ground of its height."""

    text: str
    """The figure, in percent."""
    ground: str
    """Colour; empty where there is no figure."""
    ink: str
    """Colour of the text on it."""


@dataclass(frozen=True)
class HeatGroup:
    """The columns of a system."""

    label: str
    """Its short name."""
    colour: str
    """Its colour."""
    heads: tuple[str, ...]
    """What its columns are."""


@dataclass(frozen=True)
class Heat:
    """Figures of classes as a heat map."""

    groups: tuple[HeatGroup, ...]
    """Systems."""
    rows: tuple[tuple[str, tuple[HeatCell, ...]], ...]
    """Class and its cells, of all systems."""

    def tables(self) -> Iterator[tuple[HeatGroup, list[tuple[str, tuple[HeatCell, ...]]]]]:
        """Yield each system with its own cells: a page sets as many beside each other as it has room for."""
        start = 0
        for group in self.groups:
            end = start + len(group.heads)
            yield group, [(name, cells[start:end]) for name, cells in self.rows]
            start = end


def class_heat(data: ReportData, figure: str) -> Heat:
    """Return the figures of each class at every stage.

    Args:
        data: the report.
        figure: `iou` or `dice`.
    """
    colours, groups, columns = data_colours(data), [], []
    for system in data.systems.values():
        scored = {
            f"{words}, {split}" if (split := split_of(data, stage)) else words: scores
            for stage, words in _CLASS_STAGES.items()
            if (scores := system.scores(stage))
        }
        if scored:
            groups.append(HeatGroup(system.label, colours[system.label], tuple(scored)))
        columns += [getattr(scores, figure) for scores in scored.values()]
    names = dict.fromkeys(name for values in columns for name in values)
    rows = ((name, tuple(_heat_cell(values.get(name, math.nan)) for values in columns)) for name in names)
    return Heat(tuple(groups), tuple(rows))


def _heat_cell(value: float) -> HeatCell:
    if math.isnan(value):
        return HeatCell("n/a", "", "")
    ground = to_hex(matplotlib.colormaps["cividis"](value))
    return HeatCell(f"{100 * value:.0f}", ground, "#ffffff" if value < 0.5 else "#000000")

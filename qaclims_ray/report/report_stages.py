"""The report's sections on what follows the seeds: pseudo masks, final networks and the fully supervised bound."""

import math
from collections.abc import Mapping
from html import escape
from typing import Any

import matplotlib
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.report_data import ReportData, SystemReport, bound, has_background, has_later_stages
from qaclims_ray.report.report_parts import LEFT, PIXELS, chart, data_colours, labels_in_words, percent, swatch
from qaclims_ray.report.stages_figure import STAGE_WORDS, stages_figure

_ON_SEEDS = {
    "segmentation_on_seeds": "segmentation,<br>same images",
    "segmentation_crf_on_seeds": "segmentation<br>+ CRF,<br>same images",
}
"""What the final network makes of the images whose pseudo masks are scored."""
_CLASS_STAGES = {"seed": "seed", "mask": "mask", "segmentation": "net", "segmentation_crf": "net + CRF"}


def stages_section(data: ReportData) -> str:
    """Return the section that follows every system from its seeds to its final network; empty without later stages."""
    if not has_later_stages(data):
        return ""
    return (
        f"<section><h2>From seeds to the final network</h2><p>{_caption(data)}</p>"
        f"{chart(stages_chart(data), 'stages')}{_stages_table(data)}{_mask_table(data)}</section>"
    )


def stages_chart(data: ReportData) -> Figure:
    """Draw seed, pseudo mask and final network of every system, the fully supervised bound as a line across."""
    limit, has_threshold = bound(data), has_background(data)
    values, best = {}, {}
    for system in data.systems.values():
        scored = {stage: getattr(system, stage) for stage in STAGE_WORDS}
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


def final_tile(data: ReportData, system: SystemReport) -> list[tuple[str, str, str]]:
    """Return the headline of a system's final network as (figure, text, ranking figure), where it has one."""
    if system.segmentation is None:
        return []
    text = f"segmentation mIoU of {escape(system.label)}{_on(data, 'segmentation')}"
    if not has_background(data):
        text += f", Dice {percent(system.segmentation.mdice_fixed)} %"
    limit = bound(data)
    if limit is not None and limit.segmentation is not None:
        text += f"; {escape(limit.label)} {percent(limit.segmentation.miou_fixed)} %"
    return [(f"{percent(system.segmentation.miou_fixed)} %", text, "miou_fixed")]


def class_stages_section(data: ReportData) -> str:
    """Return the IoU of each class at every stage as a heat map, and its Dice coefficient where there is no background.

    Empty without later stages.
    """
    if not has_later_stages(data):
        return ""
    seeds = "seeds at the fixed threshold, " if has_background(data) else "seeds, "
    text = f"{seeds}pseudo masks and the final network's label maps as they are; dark blue is 0, yellow is 100."
    heats = f"<p>IoU of each class in percent: {text}</p>{_class_table(data, 'iou')}"
    if not has_background(data):
        heats += f"<p>The same as Dice coefficient.</p>{_class_table(data, 'dice')}"
    return f"<section><h2>Classes at every stage</h2>{heats}</section>"


def _class_table(data: ReportData, figure: str) -> str:
    columns = {
        (system.label, words): getattr(scores, figure)
        for system in data.systems.values()
        for stage, words in _CLASS_STAGES.items()
        if (scores := getattr(system, stage)) is not None
    }
    colours, counts = data_colours(data), {}
    for label, _ in columns:
        counts[label] = counts.get(label, 0) + 1
    groups = "".join(f'<th colspan="{n}">{swatch(colours[label])}{escape(label)}</th>' for label, n in counts.items())
    firsts = _first_columns(list(columns))
    heads = "".join(f"<th{first}>{words}</th>" for (_, words), first in zip(columns, firsts, strict=True))
    names = list(dict.fromkeys(name for values in columns.values() for name in values))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(
            _heat_cell(values.get(name, math.nan), first)
            for values, first in zip(columns.values(), firsts, strict=True)
        )
        + "</tr>"
        for name in names
    )
    return (
        f'<div class="scroll"><table class="heat"><thead><tr><th rowspan="2">class</th>{groups}</tr>'
        f"<tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _caption(data: ReportData) -> str:
    where = ", ".join(
        f"{words} on {escape(data.splits[stage])}"
        for stage, words in (("seed", "seeds"), ("mask", "pseudo masks"), ("segmentation", "final networks"))
        if stage in data.splits
    )
    dice = "" if has_background(data) else " and mean Dice coefficient"
    text = f"Mean IoU{dice} {labels_in_words(data)}, in percent"
    text += f": {where}. " if where else ". "
    seed, left_out = ("the seed at its fixed threshold", "background")
    if not has_background(data):
        seed, left_out = "the seed", "a miss of its class"
    text += (
        f"Under a figure stands the change from the stage before ({seed}; on the same images, the pseudo mask), where "
        "both are scored on the same split. Pseudo masks and the networks' label maps are scored as they are; a pixel "
        f"that a pseudo mask leaves out (255) counts as {left_out} here. "
    )
    text += _weights(data)
    limit = bound(data)
    if limit is None or limit.segmentation is None:
        return text + "This run holds no fully supervised network, so the gap to it is unknown."
    return text + f"The network called {escape(limit.label)} learns from the true masks: the bound of all others."


def _weights(data: ReportData) -> str:
    """The commonest first, then who differs: the choice moves figures by points (D5)."""
    by_weights: dict[str, list[str]] = {}
    for system in data.systems.values():
        if system.segmentation or system.segmentation_crf:
            by_weights.setdefault(system.initial_weights or "not recorded", []).append(system.label)
    if not by_weights:
        return ""
    usual, *others = sorted(by_weights, key=lambda weights: -len(by_weights[weights]))
    exceptions = [
        f"{escape(weights)} for <b>{escape(label)}</b>" for weights in others for label in by_weights[weights]
    ]
    but = f", but {', '.join(exceptions)}" if exceptions else ""
    return f"The final networks start from these weights: {escape(usual)}{but}. "


def _stages_table(data: ReportData) -> str:
    colours, limit, has_threshold = data_colours(data), bound(data), has_background(data)
    others = [system for system in data.systems.values() if system is not limit]
    tops = {
        stage: max((s.miou_fixed for system in others if (s := getattr(system, stage))), default=None)
        for stage in ("seed", "mask", *_ON_SEEDS, "segmentation", "segmentation_crf")
    }
    shows_seeds = not _same_split(data, "seed", "segmentation") and any(s.segmentation_on_seeds for s in others)
    rows = []
    for system in data.systems.values():
        cells = [
            _cell(system.seed, None, tops["seed"]),
            *([_best_cell(system.seed)] if has_threshold else []),
            _cell(system.mask, system.seed if _same_split(data, "seed", "mask") else None, tops["mask"]),
            *(_cell(getattr(system, stage), system.mask, tops[stage]) for stage in _ON_SEEDS if shows_seeds),
            _cell(
                system.segmentation,
                system.mask if _same_split(data, "mask", "segmentation") else None,
                tops["segmentation"],
            ),
            _cell(system.segmentation_crf, system.segmentation, tops["segmentation_crf"]),
            _gap_cell(system, limit),
        ]
        title = f"<td>{swatch(colours[system.label])}<b>{escape(system.label)}</b></td>"
        rows.append(f"<tr{_CLASS_BOUND if system is limit else ''}>{title}{''.join(cells)}</tr>")
    head = "".join(
        f"<th>{words}{_split_line(data, stage)}</th>"
        for words, stage in (
            ("seed<br>fixed threshold" if has_threshold else "seed", "seed"),
            *([(f"seed<br>best threshold<br>{PIXELS}", "seed")] if has_threshold else []),
            ("pseudo mask", "mask"),
            *((words, "seed") for words in _ON_SEEDS.values() if shows_seeds),
            ("segmentation", "segmentation"),
            ("segmentation<br>+ CRF", "segmentation"),
        )
    )
    return (
        f'<div class="scroll"><table><thead><tr><th>system</th>{head}<th>gap to full<br>supervision</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


_CLASS_BOUND = ' class="bound"'


def _cell(scores: SeedScores | None, before: SeedScores | None, top: float | None) -> str:
    if scores is None:
        return "<td>-</td>"
    change = ""
    if before is not None and math.isfinite(scores.miou_fixed - before.miou_fixed):
        gain = 100 * (scores.miou_fixed - before.miou_fixed)
        change = f'<small class="{"up" if gain >= 0 else "down"}">{gain:+.1f}</small>'
    dice = "" if scores.has_background else f"<small>Dice {percent(scores.mdice_fixed)}</small>"
    is_top = ' class="top"' if scores.miou_fixed == top else ""
    return f"<td{is_top}>{percent(scores.miou_fixed)}{dice}{change}</td>"


def _best_cell(seed: SeedScores | None) -> str:
    return (
        "<td>-</td>" if seed is None else f"<td>{percent(seed.miou_best)}<small>at {seed.threshold_best:g}</small></td>"
    )


def _gap_cell(system: SystemReport, limit: SystemReport | None) -> str:
    if system is limit:
        return "<td>the bound</td>"
    if limit is None or limit.segmentation is None or system.segmentation is None:
        return "<td>-</td>"
    reached, most = system.segmentation.miou_fixed, limit.segmentation.miou_fixed
    share = f"<small>{100 * reached / most:.0f} % of it</small>" if most > 0 else ""
    return f"<td>{100 * (reached - most):+.1f}{share}</td>"


def _mask_table(data: ReportData) -> str:
    """Numbers of the pseudo masks' index; nested ones (areas by class) stay in the JSON."""
    found = {s.label: _flat(s.mask_summary) for s in data.systems.values() if s.mask_summary}
    columns = list(dict.fromkeys(name for summary in found.values() for name in summary))
    if not columns:
        return ""
    colours = data_colours(data)
    head = "".join(f"<th>{escape(name.removeprefix('num_').replace('_', ' '))}</th>" for name in columns)
    rows = "".join(
        f"<tr><td>{swatch(colours[label])}<b>{escape(label)}</b></td>"
        + "".join(f"<td>{_number(summary.get(name))}</td>" for name in columns)
        + "</tr>"
        for label, summary in found.items()
    )
    return (
        f'<div class="scroll"><table><thead><tr><th {LEFT}>pseudo masks</th>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if isinstance(value, (int, float, str))}


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{percent(value)} %" if 0 <= value <= 1 else f"{value:g}"
    return "-" if value is None else escape(str(value))


def _same_split(data: ReportData, one: str, other: str) -> bool:
    """Figures on different images have no difference; where no split is named, they are not known to be the same."""
    return one in data.splits and data.splits.get(other) == data.splits[one]


def _on(data: ReportData, stage: str) -> str:
    return f" on {escape(data.splits[stage])}" if stage in data.splits else ""


def _split_line(data: ReportData, stage: str) -> str:
    return f"<br><small>{escape(data.splits[stage])}</small>" if stage in data.splits else ""


def _first_columns(columns: list[tuple[str, str]]) -> list[str]:
    """Mark the first column of each system, so that a gap parts it from its neighbour."""
    labels = [label for label, _ in columns]
    return [' class="first"' if i == 0 or labels[i - 1] != label else "" for i, label in enumerate(labels)]


def _heat_cell(value: float, first: str) -> str:
    if math.isnan(value):
        return f"<td{first}>n/a</td>"
    ground = to_hex(matplotlib.colormaps["cividis"](value))
    ink = "#ffffff" if value < 0.5 else "#000000"
    return f'<td{first} style="background:{ground};color:{ink}">{100 * value:.0f}</td>'

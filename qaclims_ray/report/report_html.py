"""The HTML page of a report, put together from text, tables, inline SVG charts and embedded PNG pictures."""

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report import figures
from qaclims_ray.report.report_data import ReportData, SystemReport, bound, has_background, winner
from qaclims_ray.report.report_no_background import seed_tiles, seeds_section
from qaclims_ray.report.report_parts import LEFT, PIXELS, chart_section, data_colours, page, percent, swatch
from qaclims_ray.report.report_stages import class_stages_section, final_tile, stages_section

_WIDE_PX = 1700
_RANK_WORDS = {
    "miou_best": "best threshold",
    "miou_fixed": "fixed threshold",
    "miou_label_free": "label-free threshold",
}


def render_page(data: ReportData) -> str:
    """Return the whole page; it asks for nothing from outside."""
    parts = [
        _header(data),
        _tiles(data),
        _systems_section(data),
        _pictures_section(data),
        stages_section(data),
        _sweep_section(data),
        _classes_section(data),
        class_stages_section(data),
        _cooccurrence_section(data),
        _prompts_section(data),
        _curves_section(data),
        _timings_section(data),
        _pairs_section("Data", data.dataset),
        _pairs_section("Environment", data.environment),
        _config_section(data),
    ]
    return page(data.title, parts)


def _header(data: ReportData) -> str:
    facts = [str(data.dataset.get("name", "")), data.created]
    line = " &middot; ".join(escape(fact) for fact in facts if fact)
    return f"<header><h1>{escape(data.title)}</h1><p>{line}</p></header>"


def _tiles(data: ReportData) -> str:
    best = winner(data)
    tiles = []
    if best is not None and not has_background(data):
        tiles += seed_tiles(data, best) + final_tile(data, data.systems[best])
    elif best is not None:
        system, first = data.systems[best], next(iter(data.systems.values()))
        value = getattr(system.seed, data.rank_by)
        tiles.append(
            (f"{100 * value:.1f} %", f"seed mIoU of {escape(system.label)}, {_RANK_WORDS[data.rank_by]}", data.rank_by)
        )
        if system is not first and first.seed and system.seed:
            gain = 100 * (value - getattr(first.seed, data.rank_by))
            tiles.append((f"{gain:+.1f}", f"points over {escape(first.label)}", data.rank_by))
            over = 100 * (system.seed.false_positive_rate_best - first.seed.false_positive_rate_best)
            tiles.append((f"{over:+.1f}", f"points of over-activation against {escape(first.label)}", "miou_best"))
        tiles += final_tile(data, system)
    if data.timings:
        tiles.append((_duration(sum(data.timings.values())), "in all stages together", ""))
    cells = (
        f'<div class="tile"><b>{value}</b><span>{text}</span>{" " + PIXELS if rank == "miou_best" else ""}</div>'
        for value, text, rank in tiles
    )
    return f'<div class="tiles">{"".join(cells)}</div>' if tiles else ""


def _systems_section(data: ReportData) -> str:
    if not has_background(data):
        return seeds_section(data)
    colours = data_colours(data)
    best, first = winner(data), next(iter(data.systems.values())).seed
    tops = {rank: _top(data, rank) for rank in _RANK_WORDS}
    rows = []
    for name, system in data.systems.items():
        crown = '<span class="crown">best</span>' if name == best and len(data.systems) > 1 else ""
        label = f"{swatch(colours[system.label])}<b>{escape(system.label)}</b>"
        title = f"<td>{label}{crown}<small>{escape(system.description)}</small></td>"
        if system.seed is None:
            rows.append(f'<tr>{title}<td colspan="7">{_why_unscored(data, system)}</td></tr>')
            continue
        cells = [
            _score_cell(system.seed, rank, colours[system.label], system.seed == tops[rank], first)
            for rank in ("miou_fixed", "miou_label_free", "miou_best")
        ]
        errors = "".join(
            f"<td>{percent(value)}</td>"
            for value in (
                system.seed.false_positive_rate,
                system.seed.false_negative_rate,
                system.seed.false_positive_rate_best,
                system.seed.false_negative_rate_best,
            )
        )
        rows.append(f'<tr class="{"winner" if name == best else ""}">{title}{"".join(cells)}{errors}</tr>')
    return (
        "<section><h2>Systems</h2><p>Mean IoU of the seeds over background and classes, in percent; under it the "
        "difference to the first system. Every mIoU compares with the masks; the fixed threshold was given beforehand, "
        "the label-free one is chosen from the scores alone (Otsu), the best one of the sweep with the masks. "
        "FP and FN are over- and under-activation: the means over classes of FP and FN over the union.</p>"
        '<div class="scroll"><table><thead><tr><th rowspan="2">system</th><th rowspan="2">mIoU<br>fixed threshold</th>'
        '<th rowspan="2">mIoU<br>label-free threshold</th>'
        f'<th rowspan="2">mIoU<br>best threshold<br>{PIXELS}</th><th colspan="2">at the fixed threshold</th>'
        '<th colspan="2">at the best threshold</th></tr>'
        "<tr><th>FP</th><th>FN</th><th>FP</th><th>FN</th></tr></thead><tbody>"
        f"{''.join(rows)}</tbody></table></div></section>"
    )


def _why_unscored(data: ReportData, system: SystemReport) -> str:
    if system is bound(data):
        return "no seeds: its final network learns from the true masks"
    return "not scored: no image has a mask"


def _score_cell(seed: SeedScores, rank: str, colour: str, is_top: bool, first: SeedScores | None) -> str:
    value, threshold = getattr(seed, rank), getattr(seed, rank.replace("miou", "threshold"))
    delta = ""
    if first is not None and seed is not first:
        gain = 100 * (value - getattr(first, rank))
        delta = f' <span class="{"up" if gain >= 0 else "down"}">{gain:+.1f}</span>'
    bar = f'<span class="bar" style="width:{110 * value:.0f}px;background:{colour}"></span>'
    top = ' class="top"' if is_top else ""
    return f"<td{top}>{100 * value:.1f}{bar}<small>at {threshold:g}{delta}</small></td>"


def _pictures_section(data: ReportData) -> str:
    sheets = [(title, picture) for title, picture in data.contact_sheets.items()]
    sheets += [(system.label, picture) for system in data.systems.values() for picture in system.contact_images]
    if not sheets:
        return ""
    pictures = "".join(_picture(title, picture) for title, picture in sheets)
    return (
        "<section><h2>Pictures</h2><p>Heat maps run from dark (0) to pale yellow (1), each class by its own maximum. "
        "The number in a mask's corner is the mean IoU of that image's classes, in percent.</p>"
        f"{pictures}</section>"
    )


def _picture(title: str, png: bytes) -> str:
    return (
        f'<figure><figcaption>{escape(title)}</figcaption><div class="picture{_wide(png)}">'
        f'<img alt="{escape(title, quote=True)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        "</div></figure>"
    )


def _wide(png: bytes) -> str:
    """Sheets of many systems scroll sideways, rather than shrink until nothing is to be seen."""
    return " wide" if int.from_bytes(png[16:20]) > _WIDE_PX else ""


def _sweep_section(data: ReportData) -> str:
    scored = {system.label: system.seed for system in data.systems.values() if system.seed}
    if not scored or not has_background(data):
        return ""
    return chart_section(
        f"Background threshold {PIXELS}",
        "The whole sweep, without early stop. Left of the best threshold the masks spill over, right of it they "
        "shrink to the most discriminative parts.",
        "sweep",
        lambda: figures.sweep_figure(scored, colours=data_colours(data)),
    )


def _classes_section(data: ReportData) -> str:
    is_best = data.rank_by == "miou_best" and has_background(data)
    iou = {
        system.label: system.seed.iou_best if is_best else system.seed.iou
        for system in data.systems.values()
        if system.seed
    }
    if not iou:
        return ""
    where = "at each system's best threshold" if is_best else "at the fixed threshold"
    where = f"IoU of each class, {where}." if has_background(data) else "IoU of each class, of the seeds."
    return chart_section(
        f"Classes {PIXELS if is_best else ''}",
        where,
        "classes",
        lambda: figures.class_figure(iou, colours=data_colours(data)),
    )


def _cooccurrence_section(data: ReportData) -> str:
    found = {s.label: s.cooccurrence for s in data.systems.values() if s.cooccurrence}
    if not found:
        return ""
    at = ", ".join(f"{escape(label)} at {scores.threshold:g}" for label, scores in found.items())
    return chart_section(
        "Where false positives lie",
        f"Means over classes, in units of the class's object area ({at}). Co-occurring stuff is what the class is "
        "usually seen with, such as track for train; only the miniature world knows where it is.",
        "cooccurrence",
        lambda: figures.cooccurrence_figure(found, colours=data_colours(data)),
    )


def _prompts_section(data: ReportData) -> str:
    found = {system.label: system.prompts for system in data.systems.values() if system.prompts}
    if not found:
        return ""
    colours, rows, pictures = data_colours(data), [], []
    for label, reading in found.items():
        title = f'<td rowspan="{len(reading.nearest)}">{swatch(colours[label])}<b>{escape(label)}</b></td>'
        for name, nearest in reading.nearest.items():
            words = ", ".join(f"{escape(word)}&nbsp;{cosine:.2f}" for word, cosine in nearest)
            cells = f"{title}<td {LEFT}>{escape(name)}</td><td {LEFT}>{words}</td><td>{reading.own_text[name]:.2f}</td>"
            rows.append(f"<tr>{cells}</tr>")
            title = ""
        caption = f"{label}: maps of the learned prompt beside manual prompts"
        note = f"<p>{escape(label)}: no similarity maps, because {escape(reading.note)}</p>" if reading.note else ""
        pictures.append(_picture(caption, reading.picture) if reading.picture else note)
    words = "; ".join(dict.fromkeys(escape(reading.vocabulary) for reading in found.values()))
    return (
        "<section><h2>Learned prompts</h2><p>The words whose texts are most similar to each class's prompt, with their "
        f"cosines. Words: {words}. Last column: the prompt's cosine to the class's own text. Maps show how similar "
        "image patches are, from dark (least) to pale yellow (most in this image); images are chosen by class.</p>"
        f'<div class="scroll"><table><thead><tr><th>system</th><th {LEFT}>class</th><th {LEFT}>nearest words</th>'
        f"<th>own text</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>{''.join(pictures)}</section>"
    )


def _curves_section(data: ReportData) -> str:
    curves = {system.label: system.curves for system in data.systems.values() if system.curves}
    if not any(curves.values()):
        return ""
    return chart_section(
        "Training",
        "Every quantity over the training steps.",
        "curves",
        lambda: figures.curves_figure(curves, colours=data_colours(data)),
    )


def _timings_section(data: ReportData) -> str:
    if not data.timings:
        return ""
    longest = max(*data.timings.values(), 1e-9)
    rows = "".join(
        f'<span>{escape(stage)}</span><i style="width:{100 * seconds / longest:.1f}%"></i>'
        f"<span>{_duration(seconds)}</span>"
        for stage, seconds in data.timings.items()
    )
    return f'<section><h2>Time</h2><div class="time">{rows}</div></section>'


def _pairs_section(heading: str, values: Mapping[str, Any]) -> str:
    if not values:
        return ""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    rows = "".join(
        f"<div><dt>{escape(str(name))}</dt><dd>{escape(_short(value))}</dd></div>" for name, value in flat.items()
    )
    return f'<section><h2>{heading}</h2><dl class="pairs">{rows}</dl></section>'


def _config_section(data: ReportData) -> str:
    text = escape(json.dumps(data.config, indent=2, default=str))
    return f"<section><details><summary>Full configuration</summary><pre>{text}</pre></details></section>"


def _top(data: ReportData, rank: str) -> SeedScores | None:
    scored: list[SystemReport] = [system for system in data.systems.values() if system.seed]
    return max((s.seed for s in scored if s.seed), key=lambda seed: getattr(seed, rank), default=None)


def _short(value: Any) -> str:
    return (", ".join(str(item) for item in value) or "none") if isinstance(value, (list, tuple)) else str(value)


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

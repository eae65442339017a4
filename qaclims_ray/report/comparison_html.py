"""The page of a comparison: one file, like the report, with settings, results and a chart for each group."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from qaclims_ray.evaluation.comparison import (
    MEANING,
    STAGES,
    ClassDifference,
    Comparison,
    StageDifference,
    excludes_zero,
    interval_text,
    points,
)
from qaclims_ray.report.comparison_figure import comparison_figure
from qaclims_ray.report.palette import system_colours
from qaclims_ray.report.report_parts import LEFT, PIXELS, chart, page, swatch

TITLE = "Comparison of runs"


def comparison_page(comparison: Comparison) -> str:
    """Return the whole page; it asks for nothing from outside."""
    groups = list(dict.fromkeys(stage.group for stage in comparison.stages))
    parts = [
        f"<header><h1>{TITLE}</h1><p>{escape(comparison.created)}</p></header>",
        _runs_section(comparison),
        _meaning_section(comparison),
        _differences_section(comparison),
        *(_group_section(comparison, group, number) for number, group in enumerate(groups)),
    ]
    return page(TITLE, parts)


def _colours(comparison: Comparison) -> dict[str, str]:
    return system_colours([side.letter for side in comparison.sides])


def _runs_section(comparison: Comparison) -> str:
    colours = _colours(comparison)
    rows = "".join(
        f"<tr><td>{swatch(colours[side.letter])}<b>{side.letter}</b></td><td {LEFT}>{escape(side.run)}</td>"
        f"<td {LEFT}>{escape(side.system) or 'each of its systems'}</td></tr>"
        for side in comparison.sides
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in comparison.notes)
    return (
        f"<section><h2>Runs</h2><p>All differences are to {comparison.sides[0].letter}.</p>"
        f'<div class="scroll"><table><thead><tr><th></th><th {LEFT}>run</th><th {LEFT}>system</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{f'<ul>{notes}</ul>' if notes else ''}</section>"
    )


def _meaning_section(comparison: Comparison) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in MEANING)
    how = f"{comparison.num_resamples} resamples, seed {comparison.seed}."
    return f"<section><h2>What the intervals mean</h2><ul>{items}<li>{how}</li></ul></section>"


def _differences_section(comparison: Comparison) -> str:
    if not comparison.differences:
        return "<section><h2>What differs</h2><p>Nothing: settings, data, code and versions are the same.</p></section>"
    groups = {system for difference in comparison.differences for system in difference.systems}
    heads = "".join(f"<th {LEFT}>{side.letter}</th>" for side in comparison.sides)
    rows = "".join(
        f"<tr><td>{escape(difference.name)}</td><td {LEFT}>{escape(difference.kind)}</td>"
        + "".join(f"<td {LEFT}>{escape(value_text(value))}</td>" for value in difference.values)
        + (f"<td {LEFT}>{escape(systems_text(difference.systems, len(groups)))}</td>" if len(groups) > 1 else "")
        + "</tr>"
        for difference in comparison.differences
    )
    which = f"<th {LEFT}>for</th>" if len(groups) > 1 else ""
    return (
        "<section><h2>What differs</h2><p>Settings as they count for the compared systems, fingerprints of the data, "
        "the code that wrote each artefact, and versions as of each run's report. What is the same is left out.</p>"
        f'<div class="scroll"><table><thead><tr><th>name</th><th {LEFT}>kind</th>{heads}{which}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div></section>"
    )


def _group_section(comparison: Comparison, group: str, number: int) -> str:
    stages = [stage for stage in comparison.stages if stage.group == group]
    rows = "".join(_stage_row(stage) for stage in stages)
    figure = chart(comparison_figure(stages, colours=_colours(comparison)), f"classes-{number}")
    notes = "".join(
        f"<li>{STAGES[stage.stage].words}, {stage.other_letter}: {escape(stage.unpaired)}</li>"
        for stage in stages
        if stage.unpaired
    )
    tables = "".join(_class_table(stage) for stage in stages)
    has_background = stages[0].classes[0].name == "background"
    over = "background and classes" if has_background else "the classes (there is no background)"
    return (
        f"<section><h2>{escape(group)}</h2><p>Mean IoU over {over}, in percent, and its difference in points "
        "with the 95 % interval; bold where the interval excludes 0.</p>"
        f'<div class="scroll"><table><thead><tr><th>stage</th><th {LEFT}>split</th><th>images</th><th>first</th>'
        f"<th>other</th><th>difference</th><th>95 % interval</th></tr></thead><tbody>{rows}</tbody></table></div>"
        f"{f'<ul>{notes}</ul>' if notes else ''}{figure}"
        f"<details><summary>All figures by class</summary>{tables}</details></section>"
    )


def _stage_row(stage: StageDifference) -> str:
    words = STAGES[stage.stage].words + (f" {PIXELS}" if STAGES[stage.stage].is_chosen else "")
    pair = f"<small>{stage.other_letter} against {stage.first_letter}</small>"
    first, other = (
        f"<td>{100 * miou:.1f}<small>{letter}, at {threshold:g}</small></td>"
        for miou, letter, threshold in zip(
            (stage.first, stage.other), (stage.first_letter, stage.other_letter), stage.thresholds, strict=True
        )
    )
    same = stage.num_images[0] == stage.num_images[1]
    images = f"{stage.num_images[0]}" if same else f"{stage.num_images[0]} / {stage.num_images[1]}"
    return (
        f"<tr><td>{words}{pair}</td><td {LEFT}>{escape(stage.split)}</td><td>{images}</td>{first}{other}"
        f"{_difference_cells(stage, 'not paired' if stage.unpaired else '')}</tr>"
    )


def _difference_cells(found: StageDifference | ClassDifference, instead: str = "") -> str:
    top = ' class="top"' if excludes_zero(found.interval) else ""
    way = "" if found.difference is None else f' class="{"up" if found.difference >= 0 else "down"}"'
    return (
        f"<td{top}><span{way}>{points(found.difference)}</span></td>"
        f"<td{top}>{interval_text(found.interval) or instead or '-'}</td>"
    )


def _class_table(stage: StageDifference) -> str:
    rows = "".join(
        f"<tr><td>{escape(row.name)}</td><td>{row.num_images}</td><td>{_percent(row.first)}</td>"
        f"<td>{_percent(row.other)}</td>{_difference_cells(row)}</tr>"
        for row in stage.classes
    )
    title = f"{STAGES[stage.stage].words}: {stage.other_letter} against {stage.first_letter}"
    return (
        f'<div class="scroll"><table><thead><tr><th>{title}</th><th>images</th><th>{stage.first_letter}</th>'
        f"<th>{stage.other_letter}</th><th>difference</th><th>95 % interval</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def value_text(value: Any) -> str:
    """Return a setting as tables show it."""
    if value is None:
        return "-"
    return value if isinstance(value, str) and value else json.dumps(value)


def systems_text(systems: Sequence[str], num_groups: int) -> str:
    """Return the systems that a difference holds for."""
    return "all" if len(systems) == num_groups else ", ".join(systems)


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"

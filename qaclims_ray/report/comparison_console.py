"""A comparison on the console."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from qaclims_ray.evaluation.comparison import (
    MEANING,
    STAGES,
    Comparison,
    StageDifference,
    excludes_zero,
    interval_text,
    points,
)
from qaclims_ray.report.comparison_html import systems_text, value_text


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what differs, the results of each group, and classes at the last stage that the runs share."""
    for side in comparison.sides:
        name = f"{side.run}:{side.system}" if side.system else side.run
        console.print(f"{side.letter}  {name}", highlight=False, soft_wrap=True, markup=False)
    console.print(_differences_table(comparison) if comparison.differences else "Nothing differs but the results.")
    for group in dict.fromkeys(stage.group for stage in comparison.stages):
        stages = [stage for stage in comparison.stages if stage.group == group]
        console.print(_results_table(group, stages))
        for stage in (stage for stage in stages if stage.unpaired):
            line = f"{STAGES[stage.stage].words}, {stage.other_letter}: {stage.unpaired}"
            console.print(line, highlight=False, soft_wrap=True, markup=False)
        last = [stage for stage in stages if stage.stage == stages[-1].stage]
        if any(row.difference for stage in last for row in stage.classes):
            console.print(_classes_table(group, last))
    console.print("* threshold chosen with pixel labels. ! interval excludes 0", highlight=False)
    for line in (*MEANING[:2], *comparison.notes):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _differences_table(comparison: Comparison) -> Table:
    table = Table(title="What differs", title_justify="left")
    groups = {system for difference in comparison.differences for system in difference.systems}
    for column in ("name", *(side.letter for side in comparison.sides), *(["for"] if len(groups) > 1 else [])):
        table.add_column(column, overflow="fold")
    for difference in comparison.differences:
        cells = [difference.name, *map(value_text, difference.values)]
        cells += [systems_text(difference.systems, len(groups))] if len(groups) > 1 else []
        table.add_row(*map(escape, cells))
    return table


def _results_table(group: str, stages: list[StageDifference]) -> Table:
    table = Table(title=f"{escape(group)}: mIoU, %", title_justify="left")
    table.add_column("stage")
    for column in ("images", "first", "other", "difference", "95 % interval"):
        table.add_column(column, justify="right")
    for stage in stages:
        found = STAGES[stage.stage]
        table.add_row(
            f"{found.words}{' *' if found.is_chosen else ''} ({escape(stage.split)})",
            " / ".join(str(count) for count in dict.fromkeys(stage.num_images)),
            f"{stage.first_letter} {100 * stage.first:.1f}",
            f"{stage.other_letter} {100 * stage.other:.1f}",
            points(stage.difference),
            _interval(stage),
        )
    return table


def _classes_table(group: str, stages: list[StageDifference]) -> Table:
    """The page has the classes at every stage; here are those at the last."""
    table = Table(title=f"{escape(group)}: IoU by class, {STAGES[stages[0].stage].words}, %", title_justify="left")
    table.add_column("class")
    table.add_column("images", justify="right")
    for stage in stages:
        for column in (stage.first_letter, stage.other_letter, "difference", "95 % interval"):
            table.add_column(column, justify="right")
    for position, row in enumerate(stages[0].classes):
        cells = [escape(row.name), str(row.num_images)]
        for found in (stage.classes[position] for stage in stages):
            cells += [_percent(found.first), _percent(found.other), points(found.difference)]
            cells += [interval_text(found.interval) + (" !" if excludes_zero(found.interval) else "")]
        table.add_row(*cells)
    return table


def _interval(stage: StageDifference) -> str:
    if stage.unpaired:
        return "not paired"
    return interval_text(stage.interval) + (" !" if excludes_zero(stage.interval) else "")


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f}"

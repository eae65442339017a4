"""A comparison of runs, on one page and on the console."""

from collections.abc import Sequence

from rich.console import Console

from qaclims_ray.evaluation.comparison import MEANING, Comparison, StageDifference
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.evaluation.scored_labels import left_out_text
from qaclims_ray.report.comparison_figure import comparison_figure
from qaclims_ray.report.comparison_tables import classes_table, differences_table, results_table, runs_table
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.page import chart, render
from qaclims_ray.report.palette import system_colours

TITLE = "Comparison of runs"


def comparison_page(comparison: Comparison) -> str:
    """Return the whole page, with the classes at every stage; it asks for nothing from outside."""
    colours = system_colours([side.letter for side in comparison.sides])
    groups = [
        {
            "name": name,
            "has_background": stages[0].classes[0].name == "background",
            "results": results_table(stages),
            "notes": [*_unpaired(stages), *_left_out(stages)],
            "chart": chart(comparison_figure(stages, colours=colours), f"classes-{number}"),
            "classes": [classes_table([stage], _title(stage)) for stage in stages],
        }
        for number, (name, stages) in enumerate(_groups(comparison).items())
    ]
    return render(
        "comparison.html",
        title=TITLE,
        comparison=comparison,
        runs=runs_table(comparison, colours),
        meaning=[*MEANING, f"{comparison.num_resamples} resamples, seed {comparison.seed}."],
        differences=differences_table(comparison),
        groups=groups,
    )


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what differs, the results of each group, and classes at the last stage that the runs share."""
    for side in comparison.sides:
        print_line(console, f"{side.letter}  {side.run}:{side.system}" if side.system else f"{side.letter}  {side.run}")
    if comparison.differences:
        print_table(console, differences_table(comparison), "What differs")
    else:
        print_line(console, "Nothing differs but the results.")
    for group, stages in _groups(comparison).items():
        print_table(console, results_table(stages), f"{group}: mIoU, %")
        for line in (*_unpaired(stages), *_left_out(stages)):
            print_line(console, line)
        last = [stage for stage in stages if stage.stage == stages[-1].stage]
        if any(row.difference for stage in last for row in stage.classes):
            title = f"{group}: IoU by class, {FIGURES[last[0].stage].words} ({last[0].split}), %"
            print_table(console, classes_table(last, "class"), title)
    print_line(console, "* threshold chosen with pixel labels. ! interval excludes 0")
    for line in (*MEANING[:2], *comparison.notes):
        print_line(console, line)


def _groups(comparison: Comparison) -> dict[str, list[StageDifference]]:
    names = dict.fromkeys(stage.group for stage in comparison.stages)
    return {name: [stage for stage in comparison.stages if stage.group == name] for name in names}


def _unpaired(stages: Sequence[StageDifference]) -> list[str]:
    """Say why figures have no intervals."""
    return [f"{FIGURES[s.stage].words}, {s.other_letter}: {s.unpaired}" for s in stages if s.unpaired]


def _left_out(stages: Sequence[StageDifference]) -> list[str]:
    """Name the classes that means leave out, once where that is the same for several figures."""
    figures: dict[str, list[str]] = {}
    for stage in stages:
        if text := left_out_text(stage.left_out, stage.in_no_mask, whose="one side's images"):
            words = figures.setdefault(text, [])
            words += [f"{FIGURES[stage.stage].words} ({stage.split})"]
    return [f"{', '.join(dict.fromkeys(words))}: {text}" for text, words in figures.items()]


def _title(stage: StageDifference) -> str:
    return f"{FIGURES[stage.stage].words}: {stage.other_letter} against {stage.first_letter}"

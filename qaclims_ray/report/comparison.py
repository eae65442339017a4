"""A comparison of runs, on one page and on the console."""

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from qaclims_ray.evaluation.comparison import MEANING, Comparison, StageDifference
from qaclims_ray.evaluation.map_differences import LabelFreeFigure, MapsDifference
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.evaluation.scored_labels import left_out_text
from qaclims_ray.report.comparison_figure import comparison_figure
from qaclims_ray.report.comparison_maps import (
    MAPS_MEANING,
    differing_images,
    label_free_table,
    map_classes_table,
    maps_table_of,
)
from qaclims_ray.report.comparison_tables import classes_table, differences_table, results_table, runs_table
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.gallery_highlights import ChangedImages
from qaclims_ray.report.page import chart, render, with_contents
from qaclims_ray.report.palette import system_colours
from qaclims_ray.report.worst_images import GALLERY_PAGE, ImageCard, changed_images

TITLE = "Comparison of runs"


def comparison_page(comparison: Comparison, changed: Sequence[ChangedImages] | None = None) -> str:
    """Return the whole page, with the classes at every stage; it asks for nothing from outside, but on a click.

    Args:
        comparison: what it shows.
        changed: images that gained and lost most; None where no gallery lies beside the page.
    """
    colours = system_colours([side.letter for side in comparison.sides])
    groups = [_page_group(comparison, name, number, colours) for number, name in enumerate(_names(comparison))]
    page = render(
        "comparison.html",
        title=TITLE,
        comparison=comparison,
        runs=runs_table(comparison, colours),
        meaning=_meaning(comparison),
        maps_meaning=MAPS_MEANING,
        differences=differences_table(comparison),
        groups=groups,
        gallery="" if changed is None else GALLERY_PAGE,
        changed={name: _changed(changed or (), name) for name in _names(comparison)},
    )
    return with_contents(page)


def _changed(changed: Sequence[ChangedImages], name: str) -> list[tuple[str, list[ImageCard]]]:
    return [shown for one in changed if one.group == name for shown in changed_images(one)]


def _meaning(comparison: Comparison) -> list[str]:
    resampled = f"{comparison.num_resamples} resamples, seed {comparison.seed}."
    return [*MEANING, resampled] if comparison.stages else []


def _page_group(comparison: Comparison, name: str, number: int, colours: dict[str, str]) -> dict[str, Any]:
    """Return what the template shows of one group."""
    stages, maps, label_free = _members(comparison, name)
    values: dict[str, Any] = {
        "name": name,
        "results": None,
        "maps": [maps_table_of(maps), map_classes_table(maps)] if maps else [],
        "differing": differing_images(maps),
        "label_free": label_free_table(label_free) if label_free else None,
    }
    if stages:
        values |= {
            "has_background": stages[0].classes[0].name == "background",
            "results": results_table(stages),
            "notes": [*_unpaired(stages), *_left_out(stages)],
            "chart": chart(
                comparison_figure(stages, colours=colours), f"classes-{number}", f"difference of IoU by class, {name}"
            ),
            "classes": [classes_table([stage], _title(stage)) for stage in stages],
        }
    return values


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print what differs, the results of each group, and classes at the last stage that the runs share."""
    for side in comparison.sides:
        print_line(console, f"{side.letter}  {side.run}:{side.system}" if side.system else f"{side.letter}  {side.run}")
    if comparison.differences:
        print_table(console, differences_table(comparison), "What differs")
    else:
        print_line(console, "Nothing differs but the results.")
    for group in _names(comparison):
        stages, maps, label_free = _members(comparison, group)
        if stages:
            _print_stages(group, stages, console)
        if maps:
            print_table(console, maps_table_of(maps), f"{group}: label maps of both runs")
            for line in differing_images(maps):
                print_line(console, f"most different, {line}")
        if label_free:
            print_table(console, label_free_table(label_free), f"{group}: figures without masks")
    if comparison.stages:
        print_line(console, "* threshold chosen with pixel labels. ! interval excludes 0")
    if comparison.maps:
        print_line(console, MAPS_MEANING)
    for line in (*(MEANING[:2] if comparison.stages else ()), *comparison.notes):
        print_line(console, line)


def _print_stages(group: str, stages: Sequence[StageDifference], console: Console) -> None:
    """Print the results of a group, and its classes at the last stage that the runs share."""
    print_table(console, results_table(stages), f"{group}: mIoU, %")
    for line in (*_unpaired(stages), *_left_out(stages)):
        print_line(console, line)
    last = [stage for stage in stages if stage.stage == stages[-1].stage]
    if any(row.difference for stage in last for row in stage.classes):
        title = f"{group}: IoU by class, {FIGURES[last[0].stage].words} ({last[0].split}), %"
        print_table(console, classes_table(last, "class"), title)


def _names(comparison: Comparison) -> list[str]:
    """Return the groups that have anything to show."""
    return list(dict.fromkeys(one.group for one in (*comparison.stages, *comparison.maps, *comparison.label_free)))


def _members(
    comparison: Comparison, group: str
) -> tuple[list[StageDifference], list[MapsDifference], list[LabelFreeFigure]]:
    return (
        [one for one in comparison.stages if one.group == group],
        [one for one in comparison.maps if one.group == group],
        [one for one in comparison.label_free if one.group == group],
    )


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

"""What a run's page says first."""

import dataclasses

import pytest

from qaclims_ray.evaluation.bootstrap import Interval
from qaclims_ray.report.contents import FULLY_SUPERVISED, Lead, ReportData, SystemReport, ranking_figure, winner
from qaclims_ray.report.headlines import can_be_trusted, headline_tiles, next_steps, which_is_better
from qaclims_ray.report.page import with_contents
from qaclims_ray.report.run_page import run_page
from tests.unit.report.test_stage_tables import report_data, scores


def lead(low: float | None, high: float | None) -> Lead:
    interval = None if low is None or high is None else Interval(low, high)
    return Lead(best="qa_clims", other="baseline", figure="segmentation", difference=0.23, interval=interval)


def test_best_is_what_is_taken_away_not_the_best_seed():
    seeds_first = {
        "one": SystemReport(label="one", seed=scores(0.5, 0.9), mask=scores(0.4), segmentation=scores(0.3)),
        "two": SystemReport(label="two", seed=scores(0.2, 0.3), mask=scores(0.3), segmentation=scores(0.4)),
        FULLY_SUPERVISED: SystemReport(label="full", segmentation=scores(0.9)),
    }
    data = report_data(systems=seeds_first)
    assert (winner(data), ranking_figure(data)) == ("two", "segmentation")
    masks = {name: dataclasses.replace(one, segmentation=None) for name, one in seeds_first.items()}
    assert winner(report_data(systems=masks)) == "one" and ranking_figure(report_data(systems=masks)) == "mask"
    assert winner(report_data(systems={FULLY_SUPERVISED: seeds_first[FULLY_SUPERVISED]})) is None


def test_headlines_stand_in_the_order_of_what_ships_with_interval_and_images():
    systems = dict(report_data().systems)
    intervals = {"segmentation": Interval(0.64, 0.7), "mask": Interval(0.6, 0.68), "seed_best": Interval(0.6, 0.65)}
    systems["qa_clims"] = dataclasses.replace(systems["qa_clims"], intervals=intervals)
    tiles = headline_tiles(report_data(systems=systems, leads=[lead(0.2, 0.26)]))
    assert [tile.value for tile in tiles] == ["67.0 %", "+23.0", "64.0 %", "62.0 %"]
    assert tiles[0].interval == "95 % interval 64.0 to 70.0" and "on val (20 images)" in tiles[0].text
    assert tiles[1].interval == "95 % interval +20.0 to +26.0"
    assert [tile.is_chosen for tile in tiles] == [False, False, False, True]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(0.2, 0.26, "more than the choice"), (-0.1, 0.4, "cannot be told apart"), (None, None, "the images are no pairs")],
)
def test_a_lead_is_believed_only_where_its_interval_excludes_zero(low, high, said):
    lines = which_is_better(report_data(leads=[lead(low, high)]))
    assert lines[0].startswith("Best is QA-CLIMS: its final network reaches 67.0 % mIoU on val (20 images)")
    assert said in lines[1]


def test_few_images_single_trainings_and_the_distance_to_true_masks_are_said():
    lines = can_be_trusted(report_data(leads=[lead(0.2, 0.26)]))
    assert any("20 images alone" in line for line in lines) and any("`qaclims ablate`" in line for line in lines)
    assert any("86 % of full masks" in line for line in lines)


def test_without_masks_nothing_is_best():
    data = ReportData(title="", systems={"a": SystemReport(label="a"), "b": SystemReport(label="b")})
    assert "cannot be said" in which_is_better(data)[0] and can_be_trusted(data) == []


def test_commands_name_the_run_and_a_system_that_is_not_the_last():
    steps = [step.command for step in next_steps(report_data(run="my runs/a"))]
    assert steps[0] == "qaclims predict 'my runs/a' --images FOLDER --out OUT"
    assert steps[-2:] == ["qaclims label-these 'my runs/a'", "qaclims compare 'my runs/a' OTHER_RUN"]
    systems = {name: report_data().systems[name] for name in ("qa_clims", "baseline")}
    assert " --system qa_clims " in next_steps(report_data(systems=systems, run="r"))[0].command
    assert next_steps(report_data()) == []


def test_masks_and_networks_are_offered_where_there_are_any():
    made = {"a": SystemReport(label="a", mask_summary={"foreground": 0.3}, initial_weights="random")}
    commands = [step.command for step in next_steps(ReportData(title="", run="r", systems=made))]
    assert "qaclims export-network r --out OUT" in commands and "qaclims export-masks r --to cvat --out OUT" in commands
    bare = next_steps(ReportData(title="", run="r", systems={"a": SystemReport(label="a")}))
    assert not any("export" in step.command for step in bare)


def test_the_page_answers_before_it_explains_and_lists_its_parts():
    page = run_page(report_data(run="runs/a"))
    places = [page.index(text) for text in ("Which is better", "qaclims predict runs/a", "<h2>From seeds", "<h2>Seeds")]
    assert places == sorted(places)
    assert (
        '<nav class="contents" aria-label="Contents"><a href="#part-1">Which is better, and can I trust it?</a>' in page
    )
    assert page.count("<svg") == page.count('<svg role="img" aria-label="') > 0
    assert page.count("<table") == page.count("<table class") + page.count('<table aria-label="')
    assert "<code>qaclims ablate</code>" in run_page(report_data(leads=[lead(0.1, 0.2)]))


def test_contents_hold_escaped_titles_of_sections_alone():
    page = with_contents("<!--contents--><section><h2>a &lt;b&gt; <span>x</span></h2></section><h2>no</h2>")
    assert page.startswith('<nav class="contents" aria-label="Contents"><a href="#part-1">a &lt;b&gt;</a></nav>')

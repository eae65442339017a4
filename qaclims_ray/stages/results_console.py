"""What a run scored, on the console."""

from collections.abc import Iterable

from rich.console import Console

from qaclims_ray.evaluation.scored_figures import STAGES
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.contents import ReportData, SystemReport, scores_background
from qaclims_ray.report.scored_on import left_out_notes, scored_on
from qaclims_ray.report.seed_table import seeds_table
from qaclims_ray.report.stage_tables import stages_table
from qaclims_ray.report.trust_page import console_trust
from qaclims_ray.stages.pipeline import RunOutcome
from qaclims_ray.systems.table import SUPERVISED


def print_results(outcome: RunOutcome, console: Console) -> None:
    """Print the tables of systems and where report and tracking store are."""
    results = outcome.results
    if results.scores:
        shown = _shown(outcome, results.scores)
        has_threshold = scores_background(shown)
        title = "Seed mIoU, %, by choice of threshold" if has_threshold else "Seeds, %, over the classes"
        title = " on ".join(filter(None, (title, scored_on(shown, "seed"))))
        print_table(console, seeds_table(shown), title)
        if has_threshold:
            print_line(console, "FP and FN rates at the fixed threshold. * best of the sweep: chosen with pixel labels")
    later = dict.fromkeys([*results.masks, *results.segmentations])
    if any(results.of(name).keys() - {"seed"} for name in later):
        shown = _shown(outcome, later)
        figure = "mIoU" if scores_background(shown) else "mIoU / Dice"
        print_table(console, stages_table(shown), f"{figure}, %, from seeds to the final network")
        if shown.splits.get("seed") != shown.splits.get("segmentation") and results.segmentations:
            print_line(console, "Columns of different images do not compare: each names its split and number of images")
    everything = _shown(outcome, dict.fromkeys([*results.scores, *results.masks, *results.segmentations]))
    for note in left_out_notes(everything, STAGES):
        print_line(console, note)
    if not any(results.of(name) for name in everything.systems):
        _print_unscored(outcome, console)
    if outcome.report_uri:
        print_line(console, f"report   {outcome.report_uri}")
        print_line(console, f"figures  {outcome.report_uri.replace('.html', '.json')}")
    if outcome.tracking:
        print_line(console, f"MLflow   {outcome.tracking}")


def _print_unscored(outcome: RunOutcome, console: Console) -> None:
    """Print what is known where no image has a mask."""
    trust = outcome.results.trust
    if trust is None:
        print_line(console, "no image has a mask, so nothing is scored; `qaclims report` says what is known without")
        return
    systems = {name: SystemReport(label=label) for name, label in outcome.labels.items() if name != SUPERVISED}
    tables, lines = console_trust(ReportData(title="", systems=systems, trust=trust.figures))
    print_line(console, "No image has a mask, so nothing is scored. What is known without:")
    for title, table in tables:
        print_table(console, table, title)
    for line in lines:
        print_line(console, line)


def _shown(outcome: RunOutcome, names: Iterable[str]) -> ReportData:
    systems = {name: SystemReport(label=outcome.labels[name], **outcome.results.of(name)) for name in names}
    return ReportData(title="", systems=systems, splits=outcome.splits)

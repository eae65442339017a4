"""What a run scored, on the console."""

from collections.abc import Iterable

from rich.console import Console

from qaclims_ray.evaluation.scored_figures import STAGES
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.contents import ReportData, SystemReport, scores_background
from qaclims_ray.report.scored_on import left_out_notes, scored_on
from qaclims_ray.report.seed_table import seeds_table
from qaclims_ray.report.stage_tables import stages_table
from qaclims_ray.stages.pipeline import RunOutcome


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
    if results.masks or results.segmentations:
        shown = _shown(outcome, dict.fromkeys([*results.masks, *results.segmentations]))
        figure = "mIoU" if scores_background(shown) else "mIoU / Dice"
        print_table(console, stages_table(shown), f"{figure}, %, from seeds to the final network")
        if shown.splits.get("seed") != shown.splits.get("segmentation") and results.segmentations:
            print_line(console, "Columns of different images do not compare: each names its split and number of images")
    everything = _shown(outcome, dict.fromkeys([*results.scores, *results.masks, *results.segmentations]))
    for note in left_out_notes(everything, STAGES):
        print_line(console, note)
    if outcome.report_uri:
        print_line(console, f"report   {outcome.report_uri}")
        print_line(console, f"figures  {outcome.report_uri.replace('.html', '.json')}")
    if outcome.tracking:
        print_line(console, f"MLflow   {outcome.tracking}")


def _shown(outcome: RunOutcome, names: Iterable[str]) -> ReportData:
    systems = {name: SystemReport(label=outcome.labels[name], **outcome.results.of(name)) for name in names}
    return ReportData(title="", systems=systems, splits=outcome.splits)

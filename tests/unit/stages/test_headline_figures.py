"""How far the headlines would move, read off counts per image that lie in a run's folder."""

from pathlib import Path

import numpy as np
import pytest

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.evaluation.bootstrap import paired_bootstrap
from qaclims_ray.evaluation.image_counts import CountedFigure, ScoredImages, read_image_counts, write_image_counts
from qaclims_ray.evaluation.image_scores import own_interval
from qaclims_ray.report.contents import ReportData, SystemReport
from qaclims_ray.stages.headline_figures import headline_intervals
from qaclims_ray.stages.layout import RunLayout
from tests.comparisons import scored
from tests.unit.report.test_stage_tables import scores

FIGURES = {"fixed": 0, "best": 1}
"""Figure of scores.json -> what is added to the seed of its made-up images."""


def _counted(found: ScoredImages) -> list[tuple[str, list[tuple[int, int, int, int, int]]]]:
    return [
        (name, [(label, *found.counts[at, label].tolist(), int(found.labelled[at, label])) for label in range(3)])
        for at, name in enumerate(found.image_ids)
    ]


@pytest.fixture
def out(tmp_path: Path) -> str:
    """A run whose systems a and b were scored; c was not."""
    for position, system in enumerate("ab"):
        artifact = Artifact(uri=f"{tmp_path}/evaluations/{system}", kind="evaluation", settings={}, verb="evaluate")
        figures = [
            CountedFigure(name, 0.3, _counted(scored(1 - position + more * (1 - position))))
            for name, more in FIGURES.items()
        ]
        write_image_counts(artifact.workshop, figures, ("bird", "boat <b>"))
        artifact.complete()
    return str(tmp_path)


def _data() -> ReportData:
    systems = {"a": scores(0.6, 0.7), "b": scores(0.4, 0.5), "c": scores(0.3, 0.4)}
    return ReportData(
        title="run", systems={name: SystemReport(label=name, seed=seed) for name, seed in systems.items()}
    )


def test_intervals_and_leads_are_those_of_the_counts(out: str) -> None:
    intervals, leads = headline_intervals(RunLayout(out), _data(), has_background=True)
    tables = {name: read_image_counts(f"{out}/evaluations/{name}", remedy="") for name in "ab"}
    for name, found in tables.items():
        assert intervals[name] == {
            f"seed_{figure}": own_interval(table, num_resamples=1000, seed=0) for figure, table in found.items()
        }
    best, other = tables["a"]["best"], tables["b"]["best"]
    averaged = best.scored_labels().averaged & other.scored_labels().averaged
    drawn = paired_bootstrap(other.counts, best.counts, averaged, num_resamples=1000, seed=0)
    assert [(lead.best, lead.other, lead.figure, lead.interval) for lead in leads] == [
        ("a", "b", "seed_best", drawn.miou),
        ("a", "c", "seed_best", None),
    ]
    assert intervals["c"] == {} and drawn.miou is not None and drawn.miou.low > 0


def test_without_background_it_is_no_label(out: str) -> None:
    intervals, _ = headline_intervals(RunLayout(out), _data(), has_background=False)
    table = read_image_counts(f"{out}/evaluations/a", remedy="")["fixed"].without_background()
    assert intervals["a"]["seed_fixed"] == own_interval(table, num_resamples=1000, seed=0)
    assert np.array_equal(table.counts.shape, (30, 2, 3))


def test_where_nothing_was_counted_nothing_is_said(tmp_path: Path) -> None:
    intervals, leads = headline_intervals(RunLayout(str(tmp_path)), _data(), has_background=True)
    assert intervals == {"a": {}, "b": {}, "c": {}} and leads == []

"""How far the headlines of a report would move on other images: intervals, and the best system's lead over others."""

from collections.abc import Mapping

from qaclims_ray.data import artifacts, storage
from qaclims_ray.evaluation.bootstrap import Interval, paired_bootstrap
from qaclims_ray.evaluation.comparison import why_unpaired
from qaclims_ray.evaluation.image_counts import IMAGE_COUNTS_FILE, ScoredImages, read_image_counts
from qaclims_ray.evaluation.image_scores import own_interval
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.report.contents import FULLY_SUPERVISED, Lead, ReportData, ranking_figure, winner
from qaclims_ray.stages.layout import RunLayout

_RESAMPLES = 1000
_SHOWN = ("segmentation", "mask", "seed_fixed", "seed_label_free", "seed_best")
"""Figures that a page may begin with."""


def headline_intervals(
    layout: RunLayout, data: ReportData, *, has_background: bool
) -> tuple[dict[str, dict[str, Interval]], list[Lead]]:
    """Return each system's intervals by figure, and how far the best one is ahead of the others.

    Args:
        layout: where the run is.
        data: the report, as far as it is known.
        has_background: whether the data set has one.

    Raises:
        ArtifactError: when counts of images are damaged.
    """
    counts = {name: _counts(layout, name, has_background) for name in data.systems}
    intervals = {name: _intervals(own) for name, own in counts.items()}
    key, best = ranking_figure(data), winner(data)
    if key is None or best is None or key not in counts[best]:
        return intervals, []
    figure, leads = FIGURES[key], []
    for name, system in data.systems.items():
        scores, own = system.scores(figure.stage), data.systems[best].scores(figure.stage)
        if name in (best, FULLY_SUPERVISED) or system.is_reference or scores is None or own is None:
            continue
        interval = _lead(counts[name].get(key), counts[best][key])
        difference = figure.of(own) - figure.of(scores)
        leads.append(Lead(best=best, other=name, figure=key, difference=difference, interval=interval))
    return intervals, leads


def _counts(layout: RunLayout, system: str, has_background: bool) -> dict[str, ScoredImages]:
    found: dict[str, ScoredImages] = {}
    for artefact in dict.fromkeys(FIGURES[key].artefact for key in _SHOWN):
        uri = storage.join(layout.out, artefact, system)
        if artifacts.readable_meta(uri) is None or not storage.exists(storage.join(uri, IMAGE_COUNTS_FILE)):
            continue
        tables = read_image_counts(uri, remedy=f"`qaclims report --out {layout.out}`")
        for key in _SHOWN:
            if FIGURES[key].artefact == artefact and FIGURES[key].counts in tables:
                table = tables[FIGURES[key].counts]
                found[key] = table if has_background else table.without_background()
    return found


def _intervals(counts: Mapping[str, ScoredImages]) -> dict[str, Interval]:
    drawn = {key: own_interval(own, num_resamples=_RESAMPLES, seed=0) for key, own in counts.items()}
    return {key: interval for key, interval in drawn.items() if interval is not None}


def _lead(first: ScoredImages | None, other: ScoredImages) -> Interval | None:
    """Return the interval of the other's lead over the first; None where their images are no pairs."""
    if first is None or why_unpaired(first, other):
        return None
    averaged = first.scored_labels().averaged & other.scored_labels().averaged
    return paired_bootstrap(first.counts, other.counts, averaged, num_resamples=_RESAMPLES, seed=0).miou

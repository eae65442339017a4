"""How far the headlines of a report would move on other images: intervals, and the best system's lead over others."""

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
    # One figure of one system at a time: of a million images each takes a gigabyte.
    intervals = {
        name: {
            key: interval
            for key in _SHOWN
            if (own := _counts(layout, name, key, has_background)) and (interval := _interval(own))
        }
        for name in data.systems
    }
    key, best = ranking_figure(data), winner(data)
    counts = None if key is None or best is None else _counts(layout, best, key, has_background)
    if key is None or best is None or counts is None:
        return intervals, []
    figure, leads = FIGURES[key], []
    for name, system in data.systems.items():
        scores, own = system.scores(figure.stage), data.systems[best].scores(figure.stage)
        if name in (best, FULLY_SUPERVISED) or system.is_reference or scores is None or own is None:
            continue
        interval = _lead(_counts(layout, name, key, has_background), counts)
        difference = figure.of(own) - figure.of(scores)
        leads.append(Lead(best=best, other=name, figure=key, difference=difference, interval=interval))
    return intervals, leads


def _counts(layout: RunLayout, system: str, key: str, has_background: bool) -> ScoredImages | None:
    figure = FIGURES[key]
    uri = storage.join(layout.out, figure.artefact, system)
    if artifacts.readable_meta(uri) is None or not storage.exists(storage.join(uri, IMAGE_COUNTS_FILE)):
        return None
    remedy = f"`qaclims report --out {layout.out}`"
    table = read_image_counts(uri, remedy=remedy, only=(figure.counts,)).get(figure.counts)
    return table if table is None or has_background else table.without_background()


def _interval(counts: ScoredImages) -> Interval | None:
    return own_interval(counts, num_resamples=_RESAMPLES, seed=0)


def _lead(first: ScoredImages | None, other: ScoredImages) -> Interval | None:
    """Return the interval of the other's lead over the first; None where their images are no pairs."""
    if first is None or why_unpaired(first, other):
        return None
    averaged = first.scored_labels().averaged & other.scored_labels().averaged
    return paired_bootstrap(first.counts, other.counts, averaged, num_resamples=_RESAMPLES, seed=0).miou

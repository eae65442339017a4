"""What a run's page says first: which system is best, whether to believe it, and what to do next."""

import shlex
from dataclasses import dataclass

from qaclims_ray.evaluation.agreement import MAP_NOUNS
from qaclims_ray.evaluation.bootstrap import Interval
from qaclims_ray.evaluation.comparison import excludes_zero
from qaclims_ray.evaluation.scored_figures import FIGURES, ScoredFigure
from qaclims_ray.report.contents import Lead, ReportData, SystemReport, bound, ranking_figure, scores_background, winner
from qaclims_ray.report.scored_on import scored_on
from qaclims_ray.report.trust_page import classifier_on
from qaclims_ray.report.trust_remarks import spoken_of
from qaclims_ray.report.trust_tables import missing, pair_words, tags
from qaclims_ray.report.wording import duration, gain, percent

FEW_IMAGES = 100
"""Fewer scored images than this are said to be few."""
_THRESHOLDS = {
    "seed_best": "best threshold",
    "seed_fixed": "fixed threshold",
    "seed_label_free": "label-free threshold",
}
_NOUNS = {"segmentation": "final network", "mask": "pseudo masks", "seed": "seeds"}


@dataclass(frozen=True)
class Tile:
    """A headline of the page."""

    value: str
    """The figure."""
    text: str
    """What it is."""
    interval: str = ""
    """How far it would move on other images; empty where that is not known."""
    is_chosen: bool = False
    """Whether a threshold was chosen with pixel labels."""


@dataclass(frozen=True)
class Step:
    """Something to do next."""

    text: str
    """What for."""
    command: str
    """What to type."""


def headline_tiles(data: ReportData) -> list[Tile]:
    """Return the headlines: the final network first, then masks, then seeds."""
    best, tiles = winner(data), []
    if best is not None:
        system = data.systems[best]
        seed = data.rank_by.replace("miou", "seed") if scores_background(data) else "seed_fixed"
        leads = [lead for lead in data.leads if lead.other == next(iter(data.systems))]
        for key in ("segmentation", "mask", seed):
            if system.scores(FIGURES[key].stage):
                tiles.append(_score_tile(data, system, key))
                tiles += [_lead_tile(data, lead) for lead in leads if lead.figure == key]
    else:
        tiles += _unscored_tiles(data)
    if data.timings:
        tiles.append(Tile(duration(sum(data.timings.values())), "in all stages together"))
    return tiles


def _score_tile(data: ReportData, system: SystemReport, key: str) -> Tile:
    figure = FIGURES[key]
    scores = system.scores(figure.stage)
    assert scores is not None
    text = f"mIoU of the {_NOUNS[figure.stage]}, {system.label}"
    if not scores.has_background:
        text += f" (Dice {percent(scores.mdice_fixed)} %)"
    elif key in _THRESHOLDS:
        text += f", {_THRESHOLDS[key]}"
    text += _on(data, figure)
    limit = bound(data)
    if key == "segmentation" and limit is not None and limit.segmentation is not None:
        text += f"; {limit.label} {percent(limit.segmentation.miou_fixed)} %"
    return Tile(f"{percent(figure.of(scores))} %", text, _between(system.intervals.get(key)), figure.is_chosen)


def _lead_tile(data: ReportData, lead: Lead) -> Tile:
    figure = FIGURES[lead.figure]
    text = f"points over {data.systems[lead.other].label}, {_NOUNS[figure.stage]}{_on(data, figure)}"
    return Tile(gain(lead.difference), text, _points(lead.interval), figure.is_chosen)


def _on(data: ReportData, figure: ScoredFigure) -> str:
    return f" on {place}" if (place := scored_on(data, figure.stage)) else ""


def _between(interval: Interval | None) -> str:
    return "" if interval is None else f"95 % interval {percent(interval.low)} to {percent(interval.high)}"


def _points(interval: Interval | None) -> str:
    return "" if interval is None else f"95 % interval {gain(interval.low)} to {gain(interval.high)}"


def _unscored_tiles(data: ReportData) -> list[Tile]:
    """Say what is known where no image has a mask: of the classifier, and of the system that `predict` takes."""
    trust, labels = data.trust, {name: system.label for name, system in data.systems.items()}
    if trust is None or not (name := spoken_of(trust, labels)):
        return []
    tiles, last = [], trust.last_map(name)
    if trust.classifier is not None:
        text = f"mean average precision of the classifier on {classifier_on(trust)}"
        tiles.append(Tile(f"{percent(trust.classifier.mean_average_precision)} %", text))
    if (few := trust.few.get(name)) is not None:
        found = next(found for found in trust.agreements if found.pair == few.stand_in)
        text = f"agreement of {pair_words(few.stand_in)}, {labels[name]}, {found.num_images} images"
        tiles.append(Tile(f"{percent(found.miou)} %", text))
    if last is not None:
        words = MAP_NOUNS[last.source.stage]
        tiles.append(Tile(f"{missing(last)} of {tags(last)}", f"tags that the {words} does not show, {labels[name]}"))
        tiles.append(Tile(f"{last.num_empty} of {last.num_tagged}", f"tagged images whose {words} shows no class"))
    return tiles


def which_is_better(data: ReportData) -> list[str]:
    """Return sentences that name the best system and its lead."""
    best, key = winner(data), ranking_figure(data)
    if best is None or key is None:
        if len(data.systems) > 1:
            return ["Which system is better cannot be said: no image has a mask. Below is what can be said without"]
        return ["How good the masks are cannot be said: no image has a mask. Below is what can be said without"]
    figure, system = FIGURES[key], data.systems[best]
    scores = system.scores(figure.stage)
    assert scores is not None
    verb = "reaches" if figure.stage == "segmentation" else "reach"
    between = _between(system.intervals.get(key))
    others = len([name for name in data.systems if data.systems[name] is not bound(data)]) - 1
    lines = [
        ("Best is " if others else "")
        + f"{system.label}: its {_NOUNS[figure.stage]} {verb} {percent(figure.of(scores))} "
        f"% mIoU{_on(data, figure)}" + (f", {between}" if between else "")
    ]
    for lead in data.leads:
        said = f"{gain(lead.difference)} points over {data.systems[lead.other].label}"
        if lead.interval is None:
            lines.append(f"{said}; whether that is more than chance is not known: the images are no pairs")
        elif excludes_zero(lead.interval):
            lines.append(f"{said}, {_points(lead.interval)}: more than the choice of images explains")
        else:
            lines.append(f"{said}, {_points(lead.interval)}: on these images the two cannot be told apart")
    return lines


def can_be_trusted(data: ReportData) -> list[str]:
    """Return sentences that say what stands behind the headline, and what does not."""
    key, best = ranking_figure(data), winner(data)
    if key is None or best is None:
        return []
    figure, limit, lines = FIGURES[key], bound(data), []
    scores = data.systems[best].scores(figure.stage)
    assert scores is not None
    if scores.num_images < FEW_IMAGES:
        count = f"{scores.num_images} image{'s' if scores.num_images > 1 else ''}"
        lines.append(f"It is scored on {count} alone: a few others would move it by points")
    if figure.is_chosen:
        lines.append("Its threshold was chosen with the masks that it is scored by, so it looks better than it is")
    if data.leads or data.systems[best].intervals:
        lines.append(
            "Intervals say how far figures move on other images of the same kind, not on another training: each "
            "network was trained once. `qaclims ablate` repeats over seeds"
        )
    if key == "segmentation" and limit is not None and limit.segmentation is not None:
        share = scores.miou_fixed / limit.segmentation.miou_fixed if limit.segmentation.miou_fixed > 0 else 0.0
        lines.append(f"It reaches {100 * share:.0f} % of {limit.label}, the same network trained on true masks")
    last = data.trust.last_map(best) if data.trust is not None else None
    if last is not None and tags(last):
        lines.append(
            f"The {MAP_NOUNS[last.source.stage]} does not show {missing(last)} of {tags(last)} tags, over all images"
        )
    return lines


def next_steps(data: ReportData) -> list[Step]:
    """Return commands that go on from this run."""
    if not data.run:
        return []
    run, best = shlex.quote(data.run), winner(data)
    is_last = best is None or best == [name for name in data.systems if data.systems[name] is not bound(data)][-1]
    system = "" if is_last else f" --system {best}"
    systems = data.systems.values()
    away = Step("Take the network away, as ONNX", f"qaclims export-network {run}{system} --out OUT")
    right = Step("Put masks right in a labelling tool", f"qaclims export-masks {run}{system} --to cvat --out OUT")
    return [
        Step("Masks of other images", f"qaclims predict {run}{system} --images FOLDER --out OUT"),
        *([away] if any(one.initial_weights for one in systems) else []),
        *([right] if any(one.mask_summary for one in systems) else []),
        Step("Draw masks of the images that are most worth it", f"qaclims label-these {run}{system}"),
        Step("Hold this run against another one", f"qaclims compare {run} OTHER_RUN"),
    ]

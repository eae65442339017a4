"""``report.html``: the page of a run, by `templates/run.html`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from qaclims_ray.evaluation.agreement import MAP_NOUNS
from qaclims_ray.evaluation.scored_figures import STAGES, ScoredStage
from qaclims_ray.report import figures
from qaclims_ray.report.contents import (
    ReportData,
    SystemReport,
    bound,
    data_colours,
    has_later_stages,
    scores_background,
    winner,
)
from qaclims_ray.report.page import chart, render
from qaclims_ray.report.prompt_table import prompts_table
from qaclims_ray.report.scored_on import left_out_notes, same_images, scored_on, split_of
from qaclims_ray.report.seed_table import seeds_table
from qaclims_ray.report.stage_charts import class_heat, stages_chart
from qaclims_ray.report.stage_tables import mask_table, stages_table
from qaclims_ray.report.trust_page import classifier_on, trust_page
from qaclims_ray.report.trust_remarks import spoken_of
from qaclims_ray.report.trust_tables import missing, pair_words, tags
from qaclims_ray.report.wording import duration, gain, percent

_CHOICES = {
    "miou_best": "best threshold",
    "miou_fixed": "fixed threshold",
    "miou_label_free": "label-free threshold",
}


@dataclass(frozen=True)
class Tile:
    """A headline of the page."""

    value: str
    """The figure."""
    text: str
    """What it is."""
    is_chosen: bool = False
    """Whether a threshold was chosen with pixel labels."""


def run_page(data: ReportData) -> str:
    """Return the whole page; it asks for nothing from outside."""
    has_threshold = scores_background(data)
    prompts = {system.label: system.prompts for system in data.systems.values() if system.prompts}
    pictures = list(data.contact_sheets.items())
    pictures += [(system.label, picture) for system in data.systems.values() for picture in system.contact_images]
    return render(
        "run.html",
        title=data.title,
        facts=[fact for fact in (str(data.dataset.get("name", "")), data.created) if fact],
        tiles=_tiles(data),
        has_background=has_threshold,
        goes_on=has_later_stages(data),
        places=_places(data),
        is_parted=not same_images(data, "seed", "segmentation") and bool(split_of(data, "segmentation")),
        on_seeds=f" on {place}" if (place := scored_on(data, "seed")) else "",
        left_out_of_seeds=left_out_notes(data, ["seed"]),
        left_out=left_out_notes(data, STAGES),
        seeds=seeds_table(data),
        pictures=pictures,
        stages=stages_table(data),
        masks=mask_table(data),
        weights=_weights(data),
        trust=trust_page(data),
        is_scored=any(s.scores(stage) for s in data.systems.values() for stage in STAGES),
        limit=bound(data),
        heats=[class_heat(data, figure) for figure in (("iou",) if has_threshold else ("iou", "dice"))],
        ranks_by_best=data.rank_by == "miou_best" and has_threshold,
        cooccurrence={s.label: s.cooccurrence for s in data.systems.values() if s.cooccurrence},
        prompts=prompts,
        prompts_table=prompts_table(prompts, data_colours(data)),
        charts=_charts(data),
        timings=data.timings,
        longest=max(*data.timings.values(), 1e-9) if data.timings else 0.0,
        dataset=_flat({name: value for name, value in data.dataset.items() if name != "notes"}),
        notes=data.dataset.get("notes", ()),
        environment=_flat(data.environment),
        licences={weight["title"]: f"{weight['licence']}; {weight['users']}" for weight in data.licences},
        config=json.dumps(data.config, indent=2, default=str),
    )


def _places(data: ReportData) -> list[str]:
    """Say on which images each part of a run is scored."""
    words: dict[ScoredStage, str] = {"seed": "seeds", "mask": "pseudo masks", "segmentation": "final networks"}
    return [f"{name} on {scored_on(data, stage)}" for stage, name in words.items() if split_of(data, stage)]


def _tiles(data: ReportData) -> list[Tile]:
    best, tiles = winner(data), []
    if best is not None:
        system = data.systems[best]
        tiles += _seed_tiles(data, system) if scores_background(data) else _plain_tiles(data, system)
        tiles += _final_tiles(data, system)
    else:
        tiles += _unscored_tiles(data)
    if data.timings:
        tiles.append(Tile(duration(sum(data.timings.values())), "in all stages together"))
    return tiles


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
        tiles.append(Tile(f"{percent(found.miou)} %", f"agreement of {pair_words(few.stand_in)}, {labels[name]}"))
    if last is not None:
        words = MAP_NOUNS[last.source.stage]
        tiles.append(Tile(f"{missing(last)} of {tags(last)}", f"tags that the {words} does not show, {labels[name]}"))
        tiles.append(Tile(f"{last.num_empty} of {last.num_tagged}", f"tagged images whose {words} shows no class"))
    return tiles


def _seed_tiles(data: ReportData, system: SystemReport) -> list[Tile]:
    """Say what the best system's seeds score, and how they compare with the first's."""
    assert system.seed is not None
    first, is_chosen = next(iter(data.systems.values())), data.rank_by == "miou_best"
    value, on = getattr(system.seed, data.rank_by), _on(data, "seed")
    tiles = [Tile(f"{percent(value)} %", f"seed mIoU of {system.label}{on}, {_CHOICES[data.rank_by]}", is_chosen)]
    if system is not first and first.seed:
        over = system.seed.false_positive_rate_best - first.seed.false_positive_rate_best
        tiles.append(Tile(gain(value - getattr(first.seed, data.rank_by)), f"points over {first.label}", is_chosen))
        tiles.append(Tile(gain(over), f"points of over-activation against {first.label}", True))
    return tiles


def _plain_tiles(data: ReportData, system: SystemReport) -> list[Tile]:
    """Say the same where there is no background: one mIoU, one Dice coefficient, and no threshold."""
    assert system.seed is not None
    first = next(iter(data.systems.values()))
    tiles = [
        Tile(f"{percent(system.seed.miou_fixed)} %", f"seed mIoU of {system.label}{_on(data, 'seed')}"),
        Tile(f"{percent(system.seed.mdice_fixed)} %", f"seed Dice of {system.label}{_on(data, 'seed')}"),
    ]
    if system is not first and first.seed:
        tiles.append(Tile(gain(system.seed.miou_fixed - first.seed.miou_fixed), f"points of mIoU over {first.label}"))
    return tiles


def _final_tiles(data: ReportData, system: SystemReport) -> list[Tile]:
    if system.segmentation is None:
        return []
    text = f"segmentation mIoU of {system.label}{_on(data, 'segmentation')}"
    if not scores_background(data):
        text += f", Dice {percent(system.segmentation.mdice_fixed)} %"
    limit = bound(data)
    if limit is not None and limit.segmentation is not None:
        text += f"; {limit.label} {percent(limit.segmentation.miou_fixed)} %"
    return [Tile(f"{percent(system.segmentation.miou_fixed)} %", text)]


def _on(data: ReportData, stage: ScoredStage) -> str:
    return f" on {split}" if (split := split_of(data, stage)) else ""


def _charts(data: ReportData) -> dict[str, Markup]:
    """Draw what there is something to draw of."""
    colours, systems = data_colours(data), data.systems.values()
    seeds = {system.label: system.seed for system in systems if system.seed}
    cooccurrence = {system.label: system.cooccurrence for system in systems if system.cooccurrence}
    curves = {system.label: system.curves for system in systems if system.curves}
    is_best = data.rank_by == "miou_best" and scores_background(data)
    drawn = {}
    if has_later_stages(data):
        drawn["stages"] = stages_chart(data)
    if seeds and scores_background(data):
        drawn["sweep"] = figures.sweep_figure(seeds, colours=colours)
    if seeds:
        iou = {label: seed.iou_best if is_best else seed.iou for label, seed in seeds.items()}
        drawn["classes"] = figures.class_figure(iou, colours=colours)
    if cooccurrence:
        drawn["cooccurrence"] = figures.cooccurrence_figure(cooccurrence, colours=colours)
    if curves:
        drawn["curves"] = figures.curves_figure(curves, colours=colours)
    return {name: chart(figure, name) for name, figure in drawn.items()}


def _weights(data: ReportData) -> list[tuple[str, list[str]]]:
    """Return initial weights and the systems that start from them, the commonest first: they move figures (D5)."""
    by_weights: dict[str, list[str]] = {}
    for system in data.systems.values():
        if system.segmentation or system.segmentation_crf or system.initial_weights:
            by_weights.setdefault(system.initial_weights or "not recorded", []).append(system.label)
    return sorted(by_weights.items(), key=lambda found: -len(found[1]))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= value if isinstance(value, Mapping) else {name: value}
    return flat

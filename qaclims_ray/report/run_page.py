"""``report.html``: the page of a run, by `templates/run.html`."""

import json
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from qaclims_ray.evaluation.scored_figures import STAGES, ScoredStage
from qaclims_ray.report import figures
from qaclims_ray.report.contents import (
    ReportData,
    bound,
    data_colours,
    has_later_stages,
    scores_background,
)
from qaclims_ray.report.headlines import can_be_trusted, headline_tiles, next_steps, which_is_better
from qaclims_ray.report.page import chart, render, with_contents
from qaclims_ray.report.prompt_table import prompts_table
from qaclims_ray.report.scored_on import left_out_notes, same_images, scored_on, split_of
from qaclims_ray.report.seed_table import seeds_table
from qaclims_ray.report.stage_charts import class_heat, stages_chart
from qaclims_ray.report.stage_tables import mask_table, stages_table
from qaclims_ray.report.trust_page import trust_page
from qaclims_ray.report.worst_images import GALLERY_PAGE, confusions, worst_images

_CHART_WORDS = {
    "stages": "mean IoU of every system from seeds to the final network",
    "sweep": "mean IoU, over-activation and under-activation at every background threshold",
    "classes": "IoU of each class",
    "cooccurrence": "where false positives lie",
    "curves": "training curves",
}
"""What charts are called where they are heard."""
_COUNTED = {"images_by_split": "split ", "images_by_class": "class "}
"""Counts of a data set, and what stands before each name."""


def run_page(data: ReportData) -> str:
    """Return the whole page; all that it asks for from outside is the gallery beside it, on a click."""
    has_threshold = scores_background(data)
    prompts = {system.label: system.prompts for system in data.systems.values() if system.prompts}
    pictures = list(data.contact_sheets.items())
    pictures += [(system.label, picture) for system in data.systems.values() for picture in system.contact_images]
    page = render(
        "run.html",
        title=data.title,
        facts=_facts(data),
        tiles=headline_tiles(data),
        better=which_is_better(data),
        trusted=can_be_trusted(data),
        steps=next_steps(data),
        **_gallery_parts(data),
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
        dataset=_flat({name: value for name, value in data.dataset.items() if name not in ("notes", "class_names")}),
        notes=data.dataset.get("notes", ()),
        environment=_flat(data.environment),
        licences={weight["title"]: f"{weight['licence']}; {weight['users']}" for weight in data.licences},
        config=json.dumps(data.config, indent=2, default=str),
    )
    return with_contents(page)


def _facts(data: ReportData) -> list[str]:
    facts = {"data set": data.dataset.get("name"), "run folder": data.run, "written": data.created}
    return [f"{words} {value}" for words, value in facts.items() if value]


def _gallery_parts(data: ReportData) -> dict[str, Any]:
    found = data.highlights
    if found is None:
        return {"gallery": "", "worst": [], "worst_of": "", "confusions": None}
    names = [*data.dataset.get("class_names", ())]
    return {
        "gallery": GALLERY_PAGE,
        "worst": worst_images(found, names),
        "worst_of": found.label,
        "confusions": confusions(found, names, has_background=scores_background(data)),
    }


def _places(data: ReportData) -> list[str]:
    """Say on which images each part of a run is scored."""
    words: dict[ScoredStage, str] = {"seed": "seeds", "mask": "pseudo masks", "segmentation": "final networks"}
    return [f"{name} on {scored_on(data, stage)}" for stage, name in words.items() if split_of(data, stage)]


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
    return {name: chart(figure, name, _CHART_WORDS[name]) for name, figure in drawn.items()}


def _weights(data: ReportData) -> list[tuple[str, list[str]]]:
    """Return initial weights and the systems that start from them, the commonest first: they move figures (D5)."""
    by_weights: dict[str, list[str]] = {}
    for system in data.systems.values():
        if system.segmentation or system.segmentation_crf or system.initial_weights:
            by_weights.setdefault(system.initial_weights or "not recorded", []).append(system.label)
    return sorted(by_weights.items(), key=lambda found: -len(found[1]))


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values without groups; a split and a class may have one name, such as train."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        kind = _COUNTED.get(name, "")
        flat |= {f"{kind}{own}": one for own, one in value.items()} if isinstance(value, Mapping) else {name: value}
    return flat

"""Tables of what follows the seeds: pseudo masks, final networks and the fully supervised bound.

Columns are grouped by the images that they are scored on, and each says which: figures of two groups do not compare.
"""

import math
from collections.abc import Mapping
from typing import Any

from qaclims_ray.evaluation.scored_figures import ScoredStage
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.report.contents import ReportData, SystemReport, bound, data_colours, scores_background
from qaclims_ray.report.scored_on import num_images, same_images, short_scored_on, split_of
from qaclims_ray.report.table import Cell, Column, Note, Row, Table
from qaclims_ray.report.wording import gain, percent

_ON_SEEDS: dict[ScoredStage, str] = {
    "segmentation_on_seeds": "segmentation",
    "segmentation_crf_on_seeds": "segmentation\n+ CRF",
}
"""What the final network makes of the images whose pseudo masks are scored."""
_SHOWN: tuple[ScoredStage, ...] = ("seed", "mask", *_ON_SEEDS, "segmentation", "segmentation_crf")
_NOTHING = Cell(text="-")


def stages_table(data: ReportData) -> Table:
    """Return a row for each system, from its seeds to its final network and the gap to full supervision."""
    colours, limit, has_threshold = data_colours(data), bound(data), scores_background(data)
    others = [system for system in data.systems.values() if system is not limit]
    tops = {
        stage: max((s.miou_fixed for system in others if (s := system.scores(stage))), default=None) for stage in _SHOWN
    }
    shows_seeds = not same_images(data, "seed", "segmentation") and any(s.segmentation_on_seeds for s in others)
    on_seeds = tuple(_ON_SEEDS) if shows_seeds else ()
    rows = []
    for system in data.systems.values():
        before: dict[ScoredStage, SeedScores | None] = {
            "mask": system.seed if same_images(data, "seed", "mask") else None,
            **dict.fromkeys(on_seeds, system.mask),
            "segmentation": system.mask if same_images(data, "mask", "segmentation") else None,
            "segmentation_crf": system.segmentation,
        }
        cells = [
            Cell(text=system.label, colour=colours[system.label], is_name=True),
            _cell(system.seed, None, tops["seed"]),
            *([_best_cell(system.seed)] if has_threshold else []),
            *(_cell(system.scores(stage), compared, tops[stage]) for stage, compared in before.items()),
            _gap_cell(system, limit),
        ]
        rows.append(Row(tuple(cells), "bound" if system is limit else ""))
    return Table(_columns(data, on_seeds), tuple(rows))


def _columns(data: ReportData, on_seeds: tuple[ScoredStage, ...]) -> tuple[Column, ...]:
    has_threshold = scores_background(data)

    def column(stage: ScoredStage, head: str, plain: str = "", **more: Any) -> Column:
        # Where there is only text, columns have no head in common: each names its images itself.
        texts = [plain or head.replace("\n", " "), short_scored_on(data, stage)]
        return Column(head=head, plain="\n".join(filter(None, texts)), group=_group(data, stage), **more)

    return (
        Column(head="system"),
        column("seed", "seed\nfixed threshold" if has_threshold else "seed", "seed"),
        *([column("seed", "seed\nbest threshold", is_chosen=True, page_only=True)] if has_threshold else []),
        column("mask", "pseudo mask", "mask"),
        *(
            column(stage, _ON_SEEDS[stage], "with CRF" if "CRF" in _ON_SEEDS[stage] else "network")
            for stage in on_seeds
        ),
        column("segmentation", "segmentation", "network"),
        column("segmentation_crf", "segmentation\n+ CRF", "with CRF"),
        column("segmentation", "gap to full\nsupervision", page_only=True),
    )


def _group(data: ReportData, stage: ScoredStage) -> str:
    """Return the head over all columns of the same images; empty where no split is named."""
    split = split_of(data, stage)
    counts = dict.fromkeys(num_images(data, one) for one in _SHOWN if split_of(data, one) == split)
    images = " / ".join(filter(None, counts))
    return f"on {split}" + (f" ({images} images)" if images else "") if split else ""


def _cell(scores: SeedScores | None, before: SeedScores | None, top: float | None) -> Cell:
    if scores is None:
        return _NOTHING
    miou, notes, plain = percent(scores.miou_fixed), [], None
    if not scores.has_background:  # as papers on tissue do
        dice = percent(scores.mdice_fixed)
        plain = f"{miou} / {dice}"
        notes.append(Note(text=f"Dice {dice}"))
    if before is not None and math.isfinite(scores.miou_fixed - before.miou_fixed):
        notes.append(Note(change=scores.miou_fixed - before.miou_fixed))
    return Cell(text=miou, plain=plain, notes=tuple(notes), is_top=scores.miou_fixed == top)


def _best_cell(seed: SeedScores | None) -> Cell:
    if seed is None:
        return _NOTHING
    return Cell(text=percent(seed.miou_best), notes=(Note(text=f"at {seed.threshold_best:g}"),))


def _gap_cell(system: SystemReport, limit: SystemReport | None) -> Cell:
    if system is limit:
        return Cell(text="the bound")
    if limit is None or limit.segmentation is None or system.segmentation is None:
        return _NOTHING
    reached, most = system.segmentation.miou_fixed, limit.segmentation.miou_fixed
    share = (Note(text=f"{100 * reached / most:.0f} % of it"),) if most > 0 else ()
    return Cell(text=gain(reached - most), notes=share)


def mask_table(data: ReportData) -> Table | None:
    """Return numbers of the pseudo masks' index; nested ones (areas by class) stay in the JSON. None without any."""
    found = {s.label: _flat(s.mask_summary) for s in data.systems.values() if s.mask_summary}
    # Not as they come: a summary that was read back has its names in another order than one that was just made.
    known = {name for summary in found.values() for name in summary}
    names = sorted(known, key=lambda name: (name != "num_images", not name.startswith("num_"), name))
    if not names:
        return None
    heads = ("pseudo masks", *(name.removeprefix("num_").replace("_", " ") for name in names))
    colours = data_colours(data)
    rows = (
        Row(
            (
                Cell(text=label, colour=colours[label], is_name=True),
                *(Cell(text=_number(summary.get(name))) for name in names),
            )
        )
        for label, summary in found.items()
    )
    return Table(tuple(Column(head=head) for head in heads), tuple(rows))


def _flat(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in summary.items() if isinstance(value, (int, float, str))}


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{percent(value)} %" if 0 <= value <= 1 else f"{value:g}"
    return "-" if value is None else str(value)

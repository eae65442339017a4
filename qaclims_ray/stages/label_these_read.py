"""``qaclims label-these --read``: score a run's label maps against masks that a person corrected; needs no Ray."""

import dataclasses
import json
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, Classes
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.mask_drafts import corrected_draft, mask_uri, read_drafts
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.agreement import MAP_STAGES, MapSource, counts_table, joint_counts
from qaclims_ray.evaluation.bootstrap import Interval, iou_of
from qaclims_ray.evaluation.confusion import check_label_values
from qaclims_ray.evaluation.few_masks import mean_with_interval
from qaclims_ray.report.table import Cell, Column, Row, Table
from qaclims_ray.report.wording import percent
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import LabelTheseArguments
from qaclims_ray.stages.run_folder import absolute_out, load_config
from qaclims_ray.stages.run_maps import RunMaps, run_maps

HAND_SCORES_NAME = "scores.json"
"""What was scored, in the folder of the drafts."""


@dataclass(frozen=True)
class HandScore:
    """What one source of label maps scores against the corrected masks."""

    source: MapSource
    """What drew the maps."""
    num_images: int
    """Corrected images that have such a map."""
    miou: float
    """Mean IoU over the labels that the corrected masks hold."""
    interval: Interval | None
    """Of it, over images."""
    iou: dict[str, float | None]
    """Of the background and each class; None for one that no corrected mask holds."""


@dataclass(frozen=True)
class HandScores:
    """What a run scores against corrected masks."""

    by: str
    """How the images were chosen: disagreement or random."""
    corrected: tuple[str, ...]
    """Images whose mask was corrected, or counts as right."""
    unchanged: tuple[str, ...]
    """Images that were left as they are, and do not count."""
    scores: tuple[HandScore, ...]
    """By source."""


def score_hand_masks(arguments: LabelTheseArguments) -> HandScores:
    """Read corrected masks back and score every stage of every system against them.

    Raises:
        ConfigError: when the folder holds no drafts.
        DataError: when nothing was corrected, or masks do not fit: all of them in one message.
    """
    run, out = storage.absolute(arguments.run), absolute_out(arguments.read)
    config, layout = load_config(run), RunLayout(run)
    listed, manifest = read_drafts(out), read_manifest(layout.manifest)
    known = {record.image_id for record in manifest.records}
    if foreign := [name for name in listed.drafts if name not in known]:
        raise DataError(f"{out} has drafts of {foreign[0]}, no image of {run}; they were made from {listed.run}")
    truth, unchanged, faults = {}, [], []
    for name, draft in listed.drafts.items():
        try:
            labels = corrected_draft(out, name, draft, manifest.classes, accepts=arguments.accept_unchanged)
            if labels is not None:
                check_label_values(labels, len(manifest.classes), mask_uri(out, name))
        except DataError as fault:
            faults.append(str(fault))
            continue
        if labels is None:
            unchanged.append(name)
        else:
            truth[name] = labels
    if faults:
        raise DataError(f"{len(faults)} masks of {out} cannot be used: " + "; ".join(faults[:5]))
    if not truth:
        raise DataError(
            f"no mask of {out} was corrected: all {len(unchanged)} are as they were exported. Correct some and save, "
            "or say --accept-unchanged if all of them are right"
        )
    maps = run_maps(config, layout, manifest, list(truth))
    scores = tuple(_scores(maps, truth, manifest.classes, arguments))
    found = HandScores(listed.by, tuple(truth), tuple(unchanged), scores)
    storage.write_bytes(storage.join(out, HAND_SCORES_NAME), json.dumps(dataclasses.asdict(found), indent=1).encode())
    return found


def _scores(
    maps: RunMaps, truth: dict[str, Tensor], classes: Classes, arguments: LabelTheseArguments
) -> list[HandScore]:
    order = list(MAP_STAGES)
    sources = {source: None for own in maps.values() for source in own}
    scores = []
    for source in sorted(sources, key=lambda one: (one.system, order.index(one.stage))):
        own = [name for name in truth if source in maps[name]]
        counts = counts_table([_counts(maps[name][source], truth[name]) for name in own], classes)
        mean, interval = mean_with_interval(counts, num_resamples=arguments.resamples, seed=arguments.seed)
        sums = counts.sum(0)
        iou = {
            name: float(np.nan_to_num(value)) if held else None
            for name, value, held in zip(classes.label_names, iou_of(sums), sums[:, 2] > 0, strict=True)
        }
        scores.append(HandScore(source, len(own), mean, interval, iou))
    return scores


def _counts(prediction: Tensor, truth: Tensor) -> dict[int, tuple[int, int, int]]:
    """Count a map against a mask; what the map leaves out counts as background (E11), what the mask does not at all."""
    return joint_counts(torch.where(prediction == IGNORE_VALUE, BACKGROUND_VALUE, prediction).to(torch.uint8), truth)


def hand_scores_table(found: HandScores) -> Table:
    """Return a row for each system and stage."""
    heads = ("system", "label maps", "images", "mIoU, %", "95 % interval")
    columns = tuple(Column(head=head, is_words=head == "label maps") for head in heads)
    rows = []
    for one in found.scores:
        ends = "-" if one.interval is None else f"[{100 * one.interval.low:.1f}, {100 * one.interval.high:.1f}]"
        texts = (one.source.system, MAP_STAGES[one.source.stage], str(one.num_images), percent(one.miou), ends)
        rows.append(Row(tuple(Cell(text=text) for text in texts)))
    return Table(columns, tuple(rows))


def hand_remarks(found: HandScores) -> list[str]:
    """Return what a reader must know of the scores."""
    lines = []
    if found.unchanged:
        lines.append(
            f"{len(found.unchanged)} of {len(found.unchanged) + len(found.corrected)} images were left as they are and "
            "do not count; if their drafts are right, say --accept-unchanged"
        )
    if found.by == "disagreement":
        lines.append(
            "The images were chosen because label maps disagree on them, so they are harder than the others: on all "
            "images the figures are probably higher. An unbiased figure needs a sample drawn by --random"
        )
    lines.append(
        "These masks were used for scoring alone: nothing was trained or chosen with them. They were corrected from "
        "drafts of this run, which favours what drew the drafts"
    )
    lines.append(
        "Means are over the labels that the corrected masks hold; intervals are those of a bootstrap over the images"
    )
    return lines

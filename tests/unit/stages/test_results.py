"""What systems scored: by stage, in a run's note, on the console."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.classes import NO_BACKGROUND
from qaclims_ray.evaluation.agreement import MapPair, MapSource
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.evaluation.trust import AgreementFigures, MapClass, MapFigures, TrustFigures
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.evaluate import Evaluation
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import RunOutcome
from qaclims_ray.stages.refine import PseudoMasks
from qaclims_ray.stages.results import (
    Results,
    log_figures,
    log_scores,
    log_segmentation,
    log_trust,
    note_figures,
    note_remarks,
)
from qaclims_ray.stages.results_console import print_results
from qaclims_ray.stages.run_description import run_note
from qaclims_ray.stages.segment import Segmentation
from qaclims_ray.stages.trust import Trust
from qaclims_ray.tracking.tracker import NullTracker

META = ArtifactMeta(
    kind="masks", fingerprint="81ab", settings={}, inputs={}, summary={}, package_version="", source_hash="", created=""
)


SPLITS = {"seed": "train", "mask": "train", "segmentation": "val"}


def scores(miou: float, *, threshold: float = 0.15, num_images: int = 20, is_absent: bool = False) -> SeedScores:
    iou = {"bird": miou, **({"boat": math.nan} if is_absent else {})}
    return SeedScores(
        threshold_fixed=threshold, miou_fixed=miou, false_positive_rate=0.31, false_negative_rate=0.22,
        iou=iou, threshold_label_free=threshold, miou_label_free=miou + 0.01, threshold_best=threshold,
        miou_best=miou + 0.02, false_positive_rate_best=0.13, false_negative_rate_best=0.14,
        iou_best={**iou, "bird": miou + 0.02}, num_images=num_images, in_no_mask=("bird",) if is_absent else (),
        curve=SweepCurve(
            thresholds=(threshold,), miou=(miou,), false_positive_rate=(0.31,), false_negative_rate=(0.22,)
        ),
    )  # fmt: skip


def results(threshold: float = 0.15) -> Results:
    seed, mask, net, crf = (scores(miou, threshold=threshold) for miou in (0.4, 0.5, 0.6, 0.65))
    return Results(
        scores={"baseline": Evaluation(seed, None), "other": Evaluation(seed, None)},
        masks={"baseline": PseudoMasks(meta=META, scores=mask, summary={})},
        segmentations={"baseline": Segmentation(net, crf), "fully_supervised": Segmentation(crf, None)},
    )


def printed(found: Results, splits: dict[str, str] | None = None) -> str:
    labels = {"baseline": "CAM [bold]x", "other": "other", "fully_supervised": "full masks"}
    console = Console(file=io.StringIO(), width=120)
    print_results(
        RunOutcome(
            layout=RunLayout("run"), results=found, labels=labels, splits=splits or {}, report_uri="[a]/report.html"
        ),
        console,
    )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, label: str, last: bool = False) -> list[str]:
    lines = [line for line in text.splitlines() if label in line]
    return [cell.strip() for cell in lines[-1 if last else 0].strip("\u2502").split("\u2502")]


def test_scores_stand_under_their_stages_in_order() -> None:
    found = results().of("baseline")
    assert {stage: one.miou_fixed for stage, one in found.items()} == {
        "seed": 0.4, "mask": 0.5, "segmentation": 0.6, "segmentation_crf": 0.65,
    }  # fmt: skip
    assert results().of("nobody") == {}


def test_the_note_has_thresholds_with_a_background_and_dice_without_one() -> None:
    assert note_figures(results(), "baseline", SPLITS) == {
        "seed mIoU, train, fixed threshold": 0.4,
        "seed mIoU, train, best threshold (chosen with pixel labels)": pytest.approx(0.42),
        "pseudo mask mIoU, train": 0.5,
        "segmentation mIoU, val": 0.6,
    }
    found = note_figures(results(NO_BACKGROUND), "baseline", SPLITS)
    assert list(found) == [
        f"{stage} {figure}, {split}"
        for stage, split in (("seed", "train"), ("pseudo mask", "train"), ("segmentation", "val"))
        for figure in ("mIoU", "Dice")
    ]
    assert found["seed Dice, train"] == pytest.approx(0.8 / 1.4)
    assert note_figures(results(), "nobody", SPLITS) == {}


def with_absent() -> Results:
    """Seeds on 20 images whose masks do not hold bird, though labels do, and which nothing labels or shows a boat."""
    on_seeds, net = scores(0.45, is_absent=True), scores(0.3, num_images=50)
    return Results(
        scores={"baseline": Evaluation(scores(0.4, is_absent=True), None)},
        masks={"baseline": PseudoMasks(meta=META, scores=scores(0.5, is_absent=True), summary={})},
        segmentations={"baseline": Segmentation(net, net, on_seeds, on_seeds)},
    )


def test_every_column_names_its_split_and_images_and_what_means_leave_out_is_named() -> None:
    text = printed(with_absent(), SPLITS)
    assert "Seed mIoU, %, by choice of threshold on train (20 images)" in text
    heads = [line for line in text.splitlines() if "train (20)" in line]
    assert [cell.strip() for cell in heads[0].strip("\u2503").split("\u2503")] == [
        "system", "train (20)", "train (20)", "train (20)", "train (20)", "val (50)", "val (50)",
    ]  # fmt: skip
    assert row(text, "CAM [bold]x", last=True) == ["CAM [bold]x", "40.0", "50.0", "45.0", "45.0", "30.0", "30.0"]
    assert "do not compare" in text
    assert text.count("train (20 images): left out of every mean") == 1 and "holds it: boat" in text
    assert "labelled, but in no mask, so IoU 0 in every mean: bird" in text and "val (50 images): left" not in text
    same = printed(with_absent(), dict.fromkeys(SPLITS, "val"))
    assert "do not compare" not in same


def test_the_note_names_images_and_what_means_leave_out() -> None:
    config = with_overrides(preset("miniature"), {"systems": ["baseline"]})
    remarks = note_remarks(with_absent(), config)
    assert remarks[0] == "Scored on train (20 images) and val (50 images)"
    assert remarks[1].startswith("train (20 images): left out of every mean") and len(remarks) == 2
    note = run_note({"CAM": note_figures(with_absent(), "baseline", SPLITS)}, {}, remarks)
    assert "| segmentation mIoU, val |" in note and "holds it: boat" in note
    assert note_remarks(Results(), config) == []


def test_the_table_of_classes_says_which_are_in_no_mean() -> None:
    kept: dict[str, Any] = {}

    class Kept(NullTracker):
        def log_table(self, columns: Any, name: str) -> None:
            kept[name] = columns

    log_scores(Kept(), {}, "baseline", with_absent().scores["baseline"])
    assert kept["iou_per_class"]["class"] == ["bird", "boat"]
    assert kept["iou_per_class"]["in_means"] == [
        "as 0: labelled, but in no mask", "left out: in no mask and no image label",
    ]  # fmt: skip


def test_the_pipelines_run_gets_its_headlines_first() -> None:
    kept: dict[str, float] = {}

    class Kept(NullTracker):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            kept.update(metrics)

    config = with_overrides(preset("miniature"), {"systems": ["baseline"]})
    found, figures = with_absent(), {}
    log_scores(NullTracker(), figures, "baseline", found.scores["baseline"])
    log_segmentation(NullTracker(), figures, "baseline", found.segmentations["baseline"])
    expected = ["headline/final_miou", "headline/mask_miou", "headline/seed_miou", *figures]
    log_figures(Kept(), config, found, figures)
    assert list(kept) == expected and figures == {}
    assert (kept["headline/final_miou"], kept["baseline/segmentation/miou"]) == (0.3, 0.3)
    assert kept["headline/seed_miou"] == kept["baseline/cam/miou_fixed"] == 0.4
    kept.clear()
    log_figures(Kept(), config, Results(), {})
    assert kept == {}


def test_the_console_has_seeds_and_final_networks_and_reads_no_markup() -> None:
    text = printed(results())
    assert "Seed mIoU, %, by choice of threshold" in text and "mIoU, %, from seeds to the final network" in text
    assert row(text, "label-free") and "best *" in text
    assert row(text, "CAM [bold]x") == ["CAM [bold]x", "40.0", "41.0", "42.0", "31.0", "22.0"]
    assert row(text, "CAM [bold]x", last=True) == ["CAM [bold]x", "40.0", "50.0", "60.0", "65.0"]
    assert row(text, "full masks") == ["full masks", "-", "-", "65.0", "-"]
    assert sum("other" in line for line in text.splitlines()) == 1, "it has no mask"
    assert "figures  [a]/report.json" in text


def test_without_a_background_the_console_has_dice_and_no_threshold() -> None:
    text = printed(results(NO_BACKGROUND))
    assert "Seeds, %, over the classes" in text and "threshold" not in text
    assert row(text, "CAM [bold]x") == ["CAM [bold]x", "40.0", "57.1", "31.0", "22.0"]
    assert row(text, "CAM [bold]x", last=True)[:3] == ["CAM [bold]x", "40.0 / 57.1", "50.0 / 66.7"]


def unscored(trust: Trust | None) -> Results:
    """Pseudo masks and a final network of a run in which no image has a mask."""
    return Results(
        masks={"baseline": PseudoMasks(meta=META, scores=None, summary={})},
        segmentations={"baseline": Segmentation(None, None)},
        trust=trust,
    )


def test_without_masks_the_console_says_what_is_known_and_shows_no_dashes() -> None:
    source = MapSource("baseline", "mask")
    maps = MapFigures(source, 4, 0.25, 4, 1, {"bird": MapClass(4, 3, 0.2, 0)})
    text = printed(unscored(Trust(TrustFigures(num_images=4, maps=(maps,)), ())), SPLITS)
    assert "No image has a mask, so nothing is scored" in text and "from seeds to the final network" not in text
    assert "the pseudo mask lacks the class on more than 20% of the images of bird (1 of 4)" in text
    assert row(text, "pseudo mask") == ["CAM [bold]x", "pseudo mask", "4", "25.0 %", "1 / 4", "1 / 4", "-"]
    assert "Label maps" not in printed(results()), "where there are scores the console shows these"


def test_a_run_that_stops_before_the_report_says_where_more_is() -> None:
    assert "no image has a mask, so nothing is scored; `qaclims report`" in printed(Results())


def test_what_is_known_without_masks_is_logged() -> None:
    kept: dict[str, float] = {}

    class Kept(NullTracker):
        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            kept.update(metrics)

    seed, mask = MapSource("baseline", "seed"), MapSource("baseline", "mask")
    maps = MapFigures(seed, 4, 0.25, 4, 1, {})
    agreed = AgreementFigures(MapPair("stages", seed, mask), 4, 0.75, {})
    log_trust(Kept(), Trust(TrustFigures(num_images=4, maps=(maps,), agreements=(agreed,)), ()))
    assert kept == {
        "trust/coverage/baseline/seed": 0.25, "trust/empty/baseline/seed": 1.0,
        "trust/agreement/baseline/seed-mask": 0.75,
    }  # fmt: skip
    log_trust(Kept(), None)

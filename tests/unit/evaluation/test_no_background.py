"""Scores where every pixel belongs to a class: one threshold, figures over the classes, Dice beside IoU."""

import json
import math
import re
from pathlib import Path

import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.classes import NO_BACKGROUND, Classes
from qaclims_ray.errors import ConfigError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.confusion import ConfusionMatrix, dice_of, iou_per_label, mean_iou
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.report.contents import ReportData, SystemReport
from qaclims_ray.report.files import report_json, write_report

NAMES = ("tumor", "stroma", "necrosis")
CLASSES = Classes(NAMES, has_background=False)
THRESHOLDS = sweep_thresholds(EvaluationConfig(), CLASSES)


def image(seed: int, class_ids: tuple[int, ...], *, hole: bool = False) -> tuple[ImageCam, torch.Tensor]:
    """Maps of some classes, and true labels of all; some pixels are not scored."""
    generator = torch.Generator().manual_seed(seed)
    full = torch.rand(len(class_ids), 6, 8, generator=generator)
    if hole:
        full[:, 0, 0] = NO_BACKGROUND
    truth = torch.randint(1, 4, (6, 8), generator=generator).to(torch.uint8)
    truth[5] = 255
    return ImageCam(f"{seed}", class_ids, full, None, 6, 8), truth


IMAGES = [image(0, (0, 1)), image(1, (2,)), image(2, (0, 1, 2), hole=True), image(3, ())]


def swept(images) -> ThresholdSweep:
    sweep = ThresholdSweep(THRESHOLDS, 3)
    for cam, truth in images:
        sweep.update(cam, truth)
    return sweep


def test_there_is_one_threshold_and_it_is_below_every_score() -> None:
    assert THRESHOLDS == (NO_BACKGROUND,)


def test_figures_equal_those_counted_pixel_by_pixel() -> None:
    scores = seed_scores(swept(IMAGES), 0.15, CLASSES)
    iou, dice = {}, {}
    for class_id, name in enumerate(NAMES):
        hits = wrong = missed = 0
        for cam, truth in IMAGES:
            found = label_map(cam, NO_BACKGROUND)
            for label, true in zip(found.flatten().tolist(), truth.flatten().tolist(), strict=True):
                if true != 255:
                    hits += label == true == class_id + 1
                    wrong += label == class_id + 1 != true
                    missed += true == class_id + 1 != label
        iou[name], dice[name] = hits / (hits + wrong + missed), 2 * hits / (2 * hits + wrong + missed)
    assert scores.iou == pytest.approx(iou) and scores.iou_best == pytest.approx(iou)
    assert scores.dice == pytest.approx(dice) and scores.dice_best == pytest.approx(dice)
    assert scores.miou_fixed == scores.miou_best == scores.miou_label_free == pytest.approx(sum(iou.values()) / 3)
    assert scores.mdice_fixed == scores.mdice_best == pytest.approx(sum(dice.values()) / 3)
    assert not scores.has_background and scores.threshold_best == NO_BACKGROUND


def test_a_pixel_without_class_is_a_miss_and_no_background_to_average_over() -> None:
    full = torch.tensor([[[1.0, 1.0, NO_BACKGROUND, NO_BACKGROUND]]])
    truth = torch.tensor([[1, 1, 1, 255]], dtype=torch.uint8)
    scores = seed_scores(swept([(ImageCam("a", (0,), full, None, 1, 4), truth)]), 0.15, CLASSES)
    assert list(scores.iou) == list(NAMES) and math.isnan(scores.iou["stroma"])
    assert scores.miou_fixed == pytest.approx(2 / 3) and scores.mdice_fixed == pytest.approx(4 / 5)
    assert scores.false_negative_rate == pytest.approx(1 / 3) and scores.false_positive_rate == 0


def test_merged_parts_score_as_the_whole_and_not_as_the_mean_of_their_scores() -> None:
    whole, parts = swept(IMAGES), swept(IMAGES[:1]).merge(swept(IMAGES[1:3])).merge(swept(IMAGES[3:]))
    restored = ThresholdSweep.from_array(parts.to_array(), THRESHOLDS, 3)
    merged, expected = seed_scores(restored, 0.15, CLASSES), seed_scores(whole, 0.15, CLASSES)
    assert merged == expected and merged.mdice_fixed == expected.mdice_fixed
    means = [seed_scores(swept([one]), 0.15, CLASSES).mdice_fixed for one in IMAGES]
    assert abs(sum(means) / 4 - expected.mdice_fixed) > 0.01


def test_dice_by_hand() -> None:
    """Truth 1 1 1 2 2 2 2 2, prediction 1 1 2 2 2 2 1 1."""
    matrix = ConfusionMatrix(2)
    truth = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 2]], dtype=torch.uint8)
    matrix.update(torch.tensor([[1, 1, 2, 2, 2, 2, 1, 1]], dtype=torch.uint8), truth)
    iou = iou_per_label(matrix.counts)[1:].tolist()
    assert iou == pytest.approx([2 / 5, 3 / 6])
    assert [dice_of(value) for value in iou] == pytest.approx([4 / 7, 6 / 9])
    assert float(mean_iou(iou_per_label(matrix.counts)[1:], torch.ones(2, dtype=torch.bool))) == pytest.approx(0.45)
    assert math.isnan(dice_of(math.nan)) and dice_of(0.0) == 0 and dice_of(1.0) == 1


def test_a_sweep_over_thresholds_is_no_sweep_without_a_background() -> None:
    for classes, thresholds in ((CLASSES, (0.1, 0.15)), (Classes(NAMES), THRESHOLDS)):
        sweep = ThresholdSweep(thresholds, 3)
        for cam, truth in IMAGES:
            sweep.update(cam, truth)
        with pytest.raises(ConfigError, match="is not among the thresholds of the sweep"):
            seed_scores(sweep, 0.15, classes)


def test_dice_is_there_with_a_background_too() -> None:
    sweep = ThresholdSweep((0.3, 0.6), 1)
    full = torch.tensor([[[0.9, 0.5, 0.1, 0.1]]])
    sweep.update(ImageCam("a", (0,), full, None, 1, 4), torch.tensor([[1, 0, 0, 0]], dtype=torch.uint8))
    scores = seed_scores(sweep, 0.3, Classes(("tumor",)))
    assert scores.has_background and list(scores.dice) == ["background", "tumor"]
    assert scores.dice == pytest.approx({"background": 4 / 5, "tumor": 2 / 3}) and scores.mdice_best == 1


def report(scores: SeedScores) -> ReportData:
    systems = {
        "baseline": SystemReport(label="CAM", seed=scores, mask=scores, segmentation=scores, segmentation_crf=scores),
        "qa_clims": SystemReport(label="QA-CLIMS", seed=scores, mask=scores, segmentation=scores),
    }
    splits = {"seed": "val", "mask": "val", "segmentation": "test"}
    return ReportData(title="t", config={}, environment={}, timings={}, dataset={}, systems=systems, splits=splits)


def test_the_report_speaks_of_dice_and_of_no_threshold(tmp_path: Path) -> None:
    scores = seed_scores(swept(IMAGES), 0.15, CLASSES)
    page = Path(write_report(str(tmp_path), report(scores))).read_text()
    # Charts keep their words (as comments and text), so nothing of the page is cut out.
    for absent in (
        "threshold</",
        "best threshold",
        "fixed threshold",
        "Background threshold",
        "background and classes",
    ):
        assert absent not in page, absent
    assert page.count(f"Dice {100 * scores.mdice_fixed:.1f}") >= 5 and "mIoU of the seeds, CAM (Dice" in page
    assert re.search(r"<th>mIoU</th><th>Dice</th>", page) and "The same as Dice coefficient" in page
    seed = json.loads((tmp_path / "report.json").read_text())["systems"]["qa_clims"]["seed"]
    assert seed["mdice_fixed"] == scores.mdice_fixed and seed["dice"] == scores.dice
    assert {"mdice_best", "dice_best"} <= set(report_json(report(scores))["chosen_by_pixel_labels"])

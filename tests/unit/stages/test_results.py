"""What systems scored: by stage, in a run's note, on the console."""

import io

import pytest
from rich.console import Console

from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.classes import NO_BACKGROUND
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.stages.evaluate import Evaluation
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import RunOutcome
from qaclims_ray.stages.refine import PseudoMasks
from qaclims_ray.stages.results import Results, note_figures
from qaclims_ray.stages.results_console import print_results
from qaclims_ray.stages.segment import Segmentation

META = ArtifactMeta(
    kind="masks", fingerprint="81ab", settings={}, inputs={}, summary={}, package_version="", source_hash="", created=""
)


def scores(miou: float, *, threshold: float = 0.15) -> SeedScores:
    return SeedScores(
        threshold_fixed=threshold, miou_fixed=miou, false_positive_rate=0.31, false_negative_rate=0.22,
        iou={"bird": miou}, threshold_label_free=threshold, miou_label_free=miou + 0.01, threshold_best=threshold,
        miou_best=miou + 0.02, false_positive_rate_best=0.13, false_negative_rate_best=0.14,
        iou_best={"bird": miou + 0.02},
        num_images=20, curve=SweepCurve(
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


def printed(found: Results) -> str:
    labels = {"baseline": "CAM [bold]x", "other": "other", "fully_supervised": "full masks"}
    console = Console(file=io.StringIO(), width=120)
    print_results(
        RunOutcome(layout=RunLayout("run"), results=found, labels=labels, report_uri="[a]/report.html"), console
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
    assert note_figures(results(), "baseline") == {
        "mIoU, fixed threshold": 0.4,
        "mIoU, best threshold (chosen with pixel labels)": pytest.approx(0.42),
        "pseudo mask mIoU": 0.5,
        "segmentation mIoU": 0.6,
    }
    found = note_figures(results(NO_BACKGROUND), "baseline")
    assert list(found) == [
        f"{stage} {figure}" for stage in ("seed", "pseudo mask", "segmentation") for figure in ("mIoU", "Dice")
    ]
    assert found["seed Dice"] == pytest.approx(0.8 / 1.4)
    assert note_figures(results(), "nobody") == {}


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

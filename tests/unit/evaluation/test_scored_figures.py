"""The one list of figures: its keys and names are kept in files and runs of any age, so they never change."""

from qaclims_ray.evaluation.scored_figures import FIGURES, STAGES, fixed_figure
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve

SCORES = SeedScores(
    threshold_fixed=0.15, miou_fixed=0.4, false_positive_rate=0.1, false_negative_rate=0.2, iou={"bird": 0.4},
    threshold_label_free=0.3, miou_label_free=0.45, threshold_best=0.21, miou_best=0.5,
    false_positive_rate_best=0.05, false_negative_rate_best=0.25, iou_best={"bird": 0.5},
    num_images=20, curve=SweepCurve(thresholds=(), miou=(), false_positive_rate=(), false_negative_rate=()),
)  # fmt: skip


def test_keys_metrics_words_and_places_stay() -> None:
    assert {
        key: (found.metric, found.words, f"{found.artefact}/{found.counts}", found.split)
        for key, found in FIGURES.items()
    } == {
        "seed_fixed": ("cam/miou_fixed", "seed, fixed threshold", "evaluations/fixed", "eval"),
        "seed_label_free": ("cam/miou_label_free", "seed, label-free threshold", "evaluations/label_free", "eval"),
        "seed_best": ("cam/miou_best", "seed, best threshold", "evaluations/best", "eval"),
        "mask": ("mask/miou", "pseudo mask", "masks/fixed", "eval"),
        "segmentation_on_seeds": ("", "final network, images of the seeds", "predictions/seed_plain", "eval"),
        "segmentation_crf_on_seeds": ("", "final network + CRF, images of the seeds", "predictions/seed_crf", "eval"),
        "segmentation": ("segmentation/miou", "final network", "predictions/plain", "test"),
        "segmentation_crf": ("segmentation_crf/miou", "final network + CRF", "predictions/crf", "test"),
    }


def test_each_figure_is_read_at_its_threshold_and_one_alone_was_chosen_with_pixel_labels() -> None:
    values = {key: found.of(SCORES) for key, found in FIGURES.items()}
    assert (values.pop("seed_label_free"), values.pop("seed_best")) == (0.45, 0.5)
    assert set(values.values()) == {0.4}
    assert [key for key, found in FIGURES.items() if found.is_chosen] == ["seed_best"]


def test_every_stage_has_one_figure_that_needs_no_pixel_labels() -> None:
    assert STAGES == tuple(fixed_figure(stage).stage for stage in STAGES)
    assert not any(fixed_figure(stage).is_chosen for stage in STAGES)

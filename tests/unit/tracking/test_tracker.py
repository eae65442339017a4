import pickle

import numpy as np

from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.tracking import metric_names
from qaclims_ray.tracking.tracker import MAX_PARAM_CHARS, NullTracker, TrackerHandle, flatten_params

IOU = {"background": 0.8, "dining table": 0.3, "cat/dog": 0.2}
SCORES = SeedScores(
    threshold_fixed=0.15, miou_fixed=0.4, false_positive_rate=0.1, false_negative_rate=0.2, iou=IOU,
    threshold_label_free=0.3, miou_label_free=0.45, threshold_best=0.21, miou_best=0.5,
    false_positive_rate_best=0.05, false_negative_rate_best=0.25, iou_best={**IOU, "cat/dog": 0.5},
    num_images=20, curve=SweepCurve(thresholds=(), miou=(), false_positive_rate=(), false_negative_rate=()),
)  # fmt: skip
DICE, DICE_BEST = SCORES.mdice_fixed, SCORES.mdice_best


def test_nested_settings_become_dotted_names():
    params = {"ritc": {"optim": {"lr": 1e-3}, "groups": ("a", "b")}, "name": "demo", "clip": {}, "none": None}
    assert flatten_params(params) == {
        "ritc.optim.lr": "0.001",
        "ritc.groups": '["a", "b"]',
        "name": "demo",
        "clip": "{}",
        "none": "null",
    }


def test_long_values_are_cut_but_still_differ():
    first, second = (flatten_params({"p": ["x"] * 1000 + [end]})["p"] for end in "ab")
    assert len(first) <= MAX_PARAM_CHARS
    assert first != second
    assert first[:100] == second[:100]


def test_metric_names_are_fixed():
    assert metric_names.stage_metrics("seed", SCORES) == {
        "cam/miou_fixed": 0.4,
        "cam/miou_best": 0.5,
        "cam/threshold_best": 0.21,
        "cam/false_positive_rate": 0.1,
        "cam/false_negative_rate": 0.2,
        "cam/miou_label_free": 0.45,
        "cam/mdice_fixed": DICE,
        "cam/mdice_best": DICE_BEST,
        "cam/iou/background": 0.8,
        "cam/iou/dining table": 0.3,
        "cam/iou/cat_dog--c9102ea63879": 0.2,
    }


def test_names_of_pseudo_masks_and_final_networks_are_fixed():
    assert metric_names.stage_metrics("mask", SCORES) == {
        "mask/miou": 0.4,
        "mask/mdice": DICE,
        "mask/false_positive_rate": 0.1,
        "mask/false_negative_rate": 0.2,
        "mask/iou/background": 0.8,
        "mask/iou/dining table": 0.3,
        "mask/iou/cat_dog--c9102ea63879": 0.2,
    }
    stages = [metric_names.stage_metrics(stage, SCORES) for stage in ("segmentation", "segmentation_crf")]
    assert stages[0]["segmentation/miou"] == 0.4 and stages[1]["segmentation_crf/iou/cat_dog--c9102ea63879"] == 0.2
    assert not set(stages[0]) & set(stages[1])


def test_parent_repeats_the_headline_of_every_stage():
    metrics: dict[str, float] = {}
    for stage in ("mask", "segmentation", "segmentation_crf"):
        metrics |= metric_names.stage_metrics(stage, SCORES)
    assert metric_names.headline_metrics("qa_clims", metrics) == {
        "qa_clims/mask/miou": 0.4,
        "qa_clims/segmentation/miou": 0.4,
        "qa_clims/segmentation_crf/miou": 0.4,
        "qa_clims/mask/mdice": DICE,
        "qa_clims/segmentation/mdice": DICE,
        "qa_clims/segmentation_crf/mdice": DICE,
    }


def test_parent_repeats_the_headline_per_system():
    headline = metric_names.headline_metrics("qa_clims", metric_names.stage_metrics("seed", SCORES))
    assert headline == {
        "qa_clims/cam/miou_fixed": 0.4,
        "qa_clims/cam/miou_best": 0.5,
        "qa_clims/cam/miou_label_free": 0.45,
        "qa_clims/cam/false_positive_rate": 0.1,
        "qa_clims/cam/mdice_fixed": DICE,
    }


def test_null_tracker_takes_every_call():
    tracker = NullTracker()
    child = tracker.child("train")
    child.log_params({"a": 1})
    child.log_metrics({"a": 1.0}, step=1)
    child.set_tags({"a": 1})
    child.log_image(np.zeros((2, 2, 3), np.uint8), "x")
    child.log_artifact("/nowhere")
    child.log_table({"a": [1]}, "x")
    child.finish("FINISHED")
    tracker.close()
    assert tracker.handle() is None


def test_handle_travels_to_workers():
    handle = TrackerHandle(uri="http://h:1", experiment="e", run_id="r", spool_dir="/s", started_ms=5)
    assert pickle.loads(pickle.dumps(handle)) == handle

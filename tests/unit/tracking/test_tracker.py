import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from qaclims_ray.tracking import metric_names
from qaclims_ray.tracking.tracker import MAX_PARAM_CHARS, NullTracker, TrackerHandle, flatten_params


@dataclass(frozen=True)
class Scores:
    miou_fixed: float
    miou_best: float
    threshold_best: float
    false_positive_rate: float
    false_negative_rate: float
    mdice_fixed: float
    mdice_best: float
    iou: dict[str, float]


SCORES = Scores(0.4, 0.5, 0.21, 0.1, 0.2, 0.6, 0.7, {"background": 0.8, "dining table": 0.3, "cat/dog": 0.2})


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
    assert metric_names.seed_metrics(SCORES, miou_label_free=0.45) == {
        "cam/miou_fixed": 0.4,
        "cam/miou_best": 0.5,
        "cam/threshold_best": 0.21,
        "cam/false_positive_rate": 0.1,
        "cam/false_negative_rate": 0.2,
        "cam/miou_label_free": 0.45,
        "cam/mdice_fixed": 0.6,
        "cam/mdice_best": 0.7,
        "cam/iou/background": 0.8,
        "cam/iou/dining table": 0.3,
        "cam/iou/cat_dog": 0.2,
    }
    assert (metric_names.TRAIN_LOSS, metric_names.LEARNING_RATE, metric_names.IMAGES_PER_SECOND) == (
        "train/loss",
        "train/lr",
        "train/images_per_s",
    )


def test_names_of_pseudo_masks_and_final_networks_are_fixed():
    assert metric_names.mask_metrics(SCORES) == {
        "mask/miou": 0.4,
        "mask/mdice": 0.6,
        "mask/false_positive_rate": 0.1,
        "mask/false_negative_rate": 0.2,
        "mask/iou/background": 0.8,
        "mask/iou/dining table": 0.3,
        "mask/iou/cat_dog": 0.2,
    }
    assert metric_names.segmentation_metrics(SCORES)[metric_names.SEGMENTATION_MIOU] == 0.4
    assert metric_names.segmentation_metrics(SCORES, crf=True)["segmentation_crf/iou/cat_dog"] == 0.2
    stages = [metric_names.segmentation_metrics(SCORES, crf=crf) for crf in (False, True)]
    assert not set(stages[0]) & set(stages[1])


def test_parent_repeats_the_headline_of_every_stage():
    metrics = metric_names.mask_metrics(SCORES) | metric_names.segmentation_metrics(SCORES)
    metrics |= metric_names.segmentation_metrics(SCORES, crf=True)
    assert metric_names.headline_metrics("qa_clims", metrics) == {
        "qa_clims/mask/miou": 0.4,
        "qa_clims/segmentation/miou": 0.4,
        "qa_clims/segmentation_crf/miou": 0.4,
        "qa_clims/mask/mdice": 0.6,
        "qa_clims/segmentation/mdice": 0.6,
        "qa_clims/segmentation_crf/mdice": 0.6,
    }


def test_no_label_free_figure_when_none_was_chosen():
    assert "cam/miou_label_free" not in metric_names.seed_metrics(SCORES)


def test_parent_repeats_the_headline_per_system():
    headline = metric_names.headline_metrics("qa_clims", metric_names.seed_metrics(SCORES))
    assert headline == {
        "qa_clims/cam/miou_fixed": 0.4,
        "qa_clims/cam/miou_best": 0.5,
        "qa_clims/cam/false_positive_rate": 0.1,
        "qa_clims/cam/mdice_fixed": 0.6,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cam/iou/a b", "cam/iou/a b"), ("loss (BRC)", "loss _BRC_"), ("caf\u00e9", "caf_"), ("m" * 300, "m" * 250)],
)
def test_illegal_characters_are_replaced(name, expected):
    assert metric_names.sanitise(name) == expected


def test_a_class_name_cannot_leave_its_group():
    assert metric_names.class_metric(" ../x") == "cam/iou/__x"


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

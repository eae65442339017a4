import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.data.classes import BCSS_CLASSES, COCO_CLASSES, LUAD_CLASSES, VOC_CLASSES
from qaclims_ray.tracking.metric_names import class_metric, class_metrics, legal_file, legal_name
from qaclims_ray.tracking.store import prepare_environment

HOSTILE = (
    "\u732b", "\u72d7", "B\u00e4r", "B\u00f6r", "Bar", "Ba\u0308r", "tumor (a)", "tumor [a]", "tumor _a_",
    "a/b", "a_b", "a//b", "C++", "C##", "C__", "[b]", "[/b]", ":smile:", "a", " a", "a ", ".", "..", "../x", "..x",
    "a..b", "/", "//", "-", "\n", "a\n", "m" * 250,
    "m" * 251, "m" * 300, "\U00020000", "\U0001f600", "\ud800", "a\x00b",
    "50%", "a?b", "a#b", "a&b", "<i>", "a|b", "$x$",
)  # fmt: skip
LETTERS = "ab_/.- :(["
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(LETTERS, min_size=1, max_size=6), st.text(min_size=1, max_size=8))


def mlflow_takes(name):
    prepare_environment()
    from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, _validate_metric_name

    _validate_metric_name(name)
    return len(name) <= MAX_ENTITY_KEY_LENGTH


@pytest.mark.parametrize(
    "names", [VOC_CLASSES, COCO_CLASSES, BCSS_CLASSES, LUAD_CLASSES, ("Tumor", "x: y", "a.b-c_d", "9")]
)
def test_plain_names_are_what_they_always_were(names):
    assert class_metrics(names, prefix="cam/iou/") == {name: f"cam/iou/{name}" for name in names}


def test_names_of_any_script_can_still_be_read():
    assert class_metric("\u732b", prefix="cam/iou/") == "cam/iou/\u732b--a810bf845a30"
    assert class_metric("tumor (a)", prefix="cam/iou/").startswith("cam/iou/tumor _a_--")


def test_hostile_names_stay_apart_and_mlflow_takes_them():
    metrics = list(class_metrics(HOSTILE, prefix="segmentation_crf/iou/").values())
    assert len({metric.casefold() for metric in metrics}) == len(HOSTILE)
    assert all(mlflow_takes(metric) and metric.count("/") == 2 for metric in metrics)


@given(st.lists(NAMES, unique=True, max_size=8))
@settings(max_examples=300, deadline=None)
def test_any_names_stay_apart(names):
    metrics = class_metrics(names, prefix="cam/iou/")
    assert len({metric.casefold() for metric in metrics.values()}) == len(names)
    assert all(mlflow_takes(metric) for metric in metrics.values())
    assert metrics == class_metrics(names[::-1], prefix="cam/iou/")


@given(NAMES)
@settings(max_examples=200, deadline=None)
def test_a_class_called_like_the_metric_of_another_gets_one_of_its_own(name):
    first = class_metric(name, prefix="")
    for hyphens in (first, first.replace("--", "---"), f"{first}--000000000000"):
        assert hyphens == name or class_metric(hyphens, prefix="") != first


@given(st.lists(NAMES, unique=True, max_size=8))
@settings(max_examples=200, deadline=None)
def test_parameters_and_files_stay_apart_too(names):
    for legal in (legal_name, legal_file):
        assert len({legal(name) for name in names}) == len(names)
    assert all(mlflow_takes(legal_name(name)) for name in names)
    assert all(re.fullmatch(r"[a-zA-Z0-9_\-./ ]+", legal_file(name)) for name in names)


@given(NAMES)
@settings(max_examples=200, deadline=None)
def test_a_metric_on_its_way_to_the_server_keeps_its_name(name):
    metric = class_metric(name, prefix="cam/iou/")
    assert legal_name(metric) == metric or metric[-15:-12] == "---"


def test_classes_that_differ_in_case_only_both_carry_their_hash():
    alone, together = class_metrics(["Cat"], prefix=""), class_metrics(["cat", "Cat", "dog"], prefix="")
    assert alone == {"Cat": "Cat"}
    assert together["dog"] == "dog" and together["cat"].casefold() != together["Cat"].casefold()


@pytest.mark.parametrize("name", ["cam/iou/a b", "loss/x: y", "caf\u00e9", "m" * 250])
def test_legal_names_of_metrics_stay(name):
    assert legal_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "/a", "a//b", "a/./b", "../a", "..a", "a/../b", "a/", "m" * 251, "\U00020000", "a%"]
)
def test_other_names_of_metrics_are_made_legal(name):
    assert mlflow_takes(legal_name(name)) and legal_name(name) != name

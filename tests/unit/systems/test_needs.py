"""What the systems of a run need of the pipeline."""

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import System
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.needs import (
    needs_classifier,
    needs_clip,
    needs_corpus,
    refines_by_clip,
    systems_with_cams,
    systems_with_networks,
    trains_nothing,
    uses_given,
)
from qaclims_ray.systems.table import SUPERVISED, system_config, system_of, training_order
from tests.unit.systems.runs import FINAL, run_of


def test_a_base_counts_for_what_a_run_needs() -> None:
    assert not needs_clip(run_of("baseline")) and needs_clip(run_of("baseline", "semples"))
    for name, expected in (
        ("baseline", False),
        ("semples", False),
        ("semples_joint", False),
        ("clims", False),
        ("semples_on_clims", False),
        ("ritc_class_names", False),
        ("qa_clims", True),
        ("semples_on_qa_clims", True),
        ("qa_clims_prompts", True),
    ):
        assert needs_corpus(run_of(name)) == expected, name


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (FINAL, False),
        ({**FINAL, "segmentation.net.weights": "classifier"}, True),
        ({"segmentation.net.weights": "classifier", "goal": "mask", "masks.steps": ["crf"]}, False),
        ({"goal": "mask", "masks.irn.weights": "classifier"}, True),
        ({"goal": "mask", "masks.irn.weights": "classifier", "masks.steps": ["crf"]}, False),
        ({"goal": "seed", "masks.irn.weights": "classifier"}, False),
    ],
)
def test_networks_that_start_from_the_classifier_need_it_trained(overrides, expected) -> None:
    assert needs_classifier(run_of("given_cams", **{"given.cams": "/cams", **overrides})) == expected


def test_masks_that_clip_refines_need_it_and_seeds_do_not() -> None:
    for step in ("clip_attention", "class_distribution"):
        config = run_of("baseline", **{"goal": "mask", "masks.steps": [step]})
        assert needs_clip(config) and refines_by_clip(config), step
    for overrides in ({"goal": "seed", "masks.steps": ["clip_attention"]}, {"goal": "mask", "masks.steps": ["crf"]}):
        assert not needs_clip(run_of("baseline", **overrides))
    own = System(name="own", like="baseline", overrides={"masks.steps": ["class_distribution"]})
    assert needs_clip(run_of("baseline", "own", variants=(own,), **{"goal": "mask", "masks.steps": ["crf"]}))


# --- the fully supervised bound


def test_the_bound_needs_the_final_network_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="fully_supervised is a final network; set goal to segmentation"):
        check_systems(run_of(SUPERVISED))
    config = run_of(SUPERVISED, **FINAL)
    check_systems(config)
    assert not needs_clip(config) and not needs_classifier(config) and not needs_corpus(config)
    assert systems_with_cams(config) == []


@pytest.mark.parametrize(
    ("names", "overrides", "expected"),
    [
        (["baseline"], FINAL, ["baseline"]),
        (["baseline"], {**FINAL, "supervised_bound": True}, ["baseline", SUPERVISED]),
        ([SUPERVISED, "baseline"], FINAL, [SUPERVISED, "baseline"]),
        ([SUPERVISED, "baseline"], {**FINAL, "supervised_bound": True}, [SUPERVISED, "baseline"]),
        (["baseline"], {"goal": "mask", "supervised_bound": True}, []),
    ],
)
def test_the_bound_is_trained_where_somebody_asks_for_it_and_once(names, overrides, expected) -> None:
    assert systems_with_networks(run_of(*names, **overrides)) == expected


def test_published_presets_leave_the_bound_out_and_the_miniature_shows_it() -> None:
    asked = {name for name in PRESETS if preset(name).supervised_bound}
    assert asked == {name for name in PRESETS if name.startswith("miniature")}


def test_all_other_systems_have_cams() -> None:
    names = [name for name in SYSTEMS if not name.startswith("fixed_")]
    config = run_of(*names, **FINAL, **{"given.cams": "/cams", "masks.given": "/masks"})
    check_systems(config)
    without = (SUPERVISED, "given_masks", "online", "online_answers", "online_classifier")
    assert systems_with_cams(config) == [name for name in names if name not in without]


def test_a_variant_of_the_bound_has_no_cams_either() -> None:
    variant = System(name="wider", like=SUPERVISED, overrides={"segmentation.net.width": 256})
    config = run_of("baseline", "wider", variants=(variant,), **FINAL)
    check_systems(config)
    assert systems_with_cams(config) == ["baseline"]
    assert system_config(config, "wider").segmentation.net.width == 256


# --- given CAMs


def test_given_cams_need_a_folder_and_neither_classifier_nor_clip() -> None:
    for name in ("given_cams", "semples_on_given"):
        with pytest.raises(
            ConfigError, match=f"system {name} needs CAMs made elsewhere; set given.cams to their folder"
        ):
            check_systems(run_of(name))
    variant = System(name="elsewhere", like="semples_on_given", overrides={"given.cams": ""})
    with pytest.raises(ConfigError, match="system elsewhere needs CAMs"):
        check_systems(run_of("elsewhere", variants=(variant,), **{"given.cams": "/cams"}))
    variant = System(name="elsewhere", like="semples_on_given", overrides={"given.cams": "/cams"})
    check_systems(run_of("elsewhere", variants=(variant,)))
    given, semples = run_of("given_cams"), run_of("semples_on_given")
    assert not needs_classifier(given) and not needs_clip(given) and not needs_corpus(given)
    assert needs_classifier(semples) and needs_clip(semples) and not needs_corpus(semples)
    assert [uses_given(run_of("semples"), name) for name in ("given_cams", "semples_on_given", "semples")] == [
        True,
        True,
        False,
    ]
    assert training_order(semples) == ["given_cams", "semples_on_given"]
    oracle = run_of("given_cams", **{"selection.criterion": "oracle"})
    assert system_of(oracle, "given_cams").label == "given CAMs"


def test_what_needs_no_training_is_known() -> None:
    config = run_of("baseline", "qa_clims", "patch_text", "given_cams", **{"given.cams": "/cams"})
    found = [trains_nothing(config, name) for name in ("baseline", "qa_clims", "patch_text", "given_cams")]
    assert found == [False, False, True, True]

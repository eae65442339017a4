"""What a system on masks made elsewhere needs, refuses and is called."""

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.run_config import System
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.needs import (
    needs_classifier,
    needs_clip,
    systems_with_cams,
    systems_with_given_masks,
    systems_with_masks,
)
from qaclims_ray.systems.table import learns_from_masks_alone, system_config, system_of
from tests.unit.systems.runs import FINAL, run_of

GIVEN = {**FINAL, "masks.given": "/masks"}
FROM_CLASSIFIER = {**GIVEN, "segmentation.net.weights": "classifier"}


def test_a_place_and_a_goal_are_needed_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match=r"given_masks needs masks made elsewhere; set masks\.given to their folder"):
        check_systems(run_of("given_masks", **FINAL))
    with pytest.raises(ConfigError, match="given_masks is a final network; set goal to segmentation"):
        check_systems(run_of("given_masks", **{"masks.given": "/masks"}))
    config = run_of("given_masks", **GIVEN)
    check_systems(config)
    assert not needs_classifier(config) and not needs_clip(config) and systems_with_cams(config) == []


@pytest.mark.parametrize(("weights", "start"), [("", "random"), ("timm", "timm"), ("/w.pth", "/w.pth")])
def test_without_a_classifier_the_final_network_starts_from_what_that_would_have(weights: str, start: str) -> None:
    alone = run_of("given_masks", **FROM_CLASSIFIER, **{"cam_net.weights": weights})
    assert learns_from_masks_alone(alone) and not needs_classifier(alone)
    assert system_config(alone, "given_masks").segmentation.net.weights == start
    assert system_config(alone, "fully_supervised").segmentation.net.weights == start, "the bound starts alike"
    beside = run_of("baseline", "given_masks", **FROM_CLASSIFIER)
    assert not learns_from_masks_alone(beside) and needs_classifier(beside)
    assert system_config(beside, "given_masks").segmentation.net.weights == "classifier", "as the others do"
    assert not learns_from_masks_alone(run_of("fully_supervised", **FINAL))


def test_the_name_says_what_labels_stand_behind_it() -> None:
    config = run_of("baseline", "given_masks", **GIVEN, **{"masks.given_rest": "baseline"})
    check_systems(config)
    assert system_of(config, "given_masks").label == "given masks, else baseline's (not tags alone)"
    left = run_of("given_masks", **GIVEN, **{"masks.given_rest": "leave_out"})
    assert system_of(left, "given_masks").label == "given masks (not tags)"
    own = System(name="sam", label="SAM 3", method="given_masks", overrides={"masks.given": "/sam"})
    variant = run_of("sam", "given_masks", variants=(own,), **GIVEN)
    check_systems(variant)
    assert system_of(variant, "sam").label == "SAM 3 (not tags)"


@pytest.mark.parametrize("rest", ["nobody", "given_masks", "qa_clims"])
def test_the_rest_comes_from_a_system_of_the_run_that_makes_masks(rest: str) -> None:
    config = run_of("baseline", "given_masks", **GIVEN, **{"masks.given_rest": rest})
    with pytest.raises(ConfigError, match=f"masks.given_rest is '{rest}', expected a system of the run .*: baseline, "):
        check_systems(config)


def test_systems_that_bring_their_masks_come_last() -> None:
    config = run_of("given_masks", "baseline", "fully_supervised", **GIVEN)
    assert systems_with_masks(config) == ["baseline", "given_masks"]
    assert systems_with_given_masks(config) == ["given_masks"]
    assert systems_with_masks(run_of("baseline")) == []

"""The contract of methods: the order of their trainings, what the choice of an epoch depends on."""

import dataclasses
import pickle
from typing import Any

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.method import (
    Outcome,
    Phase,
    Phases,
    Recipe,
    Sources,
    Trained,
    refuse_sigmoid,
    run_phases,
)
from qaclims_ray.methods.qa_clims.method import QA_CLIMS
from qaclims_ray.methods.table import METHODS
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.systems.recipe import recipe_of
from qaclims_ray.training.config import OptimConfig


def _train(bench: Workbench) -> dict[str, float]:
    raise AssertionError("nothing is trained here")


def _phase(name: str, **changes: Any) -> Phase:
    common: dict[str, Any] = {"kind": "x", "settings": {}, "inputs": {}, "train": _train}
    return Phase(**{**common, "name": name, "optim": OptimConfig(epochs=3, batch_size=4), **changes})


def _recipe(**overrides: Any) -> Recipe:
    return recipe_of(with_overrides(miniature(), overrides), QA_CLIMS)


# --- running phases


def test_each_result_is_handed_on_before_the_next_training_is_planned() -> None:
    events: list[str] = []

    def phases() -> Phases:
        for name in ("first", "second"):
            events.append(f"plan {name}")
            trained = yield _phase(name)
            events.append(f"got {trained.uri}")
        return Outcome(trained, "prompts")

    def train(phase: Phase) -> Trained:
        events.append(f"train {phase.name}")
        return Trained(f"uri of {phase.name}", phase.name)

    outcome = run_phases(phases(), train)
    assert outcome == Outcome(Trained("uri of second", "second"), "prompts")
    assert events == [
        "plan first", "train first", "got uri of first", "plan second", "train second", "got uri of second",
    ]  # fmt: skip


def test_a_training_that_fails_ends_the_method() -> None:
    planned: list[str] = []

    def phases() -> Phases:
        for name in ("first", "second"):
            planned.append(name)
            trained = yield _phase(name)
        return Outcome(trained)

    def fail(phase: Phase) -> Trained:
        raise ConfigError(f"{phase.name} cannot be trained")

    with pytest.raises(ConfigError, match="first cannot be trained"):
        run_phases(phases(), fail)
    assert planned == ["first"]


def test_the_length_of_a_phase_is_passes_over_the_images_or_steps() -> None:
    assert _phase("x").num_steps(10) == 6, "3 epochs of 10 images in batches of 4"
    assert _phase("x").num_steps(2) == 3, "at least one step an epoch"
    assert _phase("x", steps_per_epoch=7).num_steps(10) == 21
    assert _phase("x", steps_per_epoch=7, is_learned=False).num_steps(10) == 0


def test_what_a_worker_gets_can_be_sent_to_it() -> None:
    recipe = _recipe()
    assert pickle.loads(pickle.dumps(recipe)) == recipe
    sources = Sources(
        manifest="m", clip="c", classifier=Trained("/c", "1"), texts=Trained("/t", "2"), base=Trained("/b", "3")
    )
    for method in METHODS.values():
        if method.phases is None:
            continue
        found: list[Phase] = []

        def keep(phase: Phase, found: list[Phase] = found) -> Trained:
            found.append(pickle.loads(pickle.dumps(phase)))
            return Trained("", "")

        run_phases(method.phases(recipe_of(miniature(), method), sources), keep)
        assert found


# --- what the choice of the epoch depends on


def test_the_last_epoch_depends_on_no_split_so_that_earlier_networks_keep_their_fingerprints() -> None:
    assert _recipe().choice_of_epoch() == {"criterion": "last", "num_images": 200}


def test_a_split_that_is_named_counts() -> None:
    found = _recipe(**{"selection.criterion": "oracle", "selection.split": "val"}).choice_of_epoch()
    assert found == {"criterion": "oracle", "num_images": 200, "split": "val"}


@pytest.mark.parametrize(
    ("criterion", "depends"), [("last", False), ("clip_score", False), ("oracle", False), ("separation", True)]
)
def test_separation_alone_rates_masks_as_they_are_scored(criterion, depends) -> None:
    plain = {"selection.criterion": criterion}
    reference = _recipe(**plain).choice_of_epoch()
    for changes in ({"cams.flip": not miniature().cams.flip}, {"evaluation.fixed_threshold": 0.77}):
        assert (_recipe(**plain, **changes).choice_of_epoch() != reference) == depends
    assert ("cams" in reference, "threshold" in reference) == (depends, depends)
    if depends:
        assert _recipe(**plain, **{"evaluation.fixed_threshold": 0.77}).choice_of_epoch()["threshold"] == 0.77


def test_epochs_are_rated_in_the_precision_of_the_training() -> None:
    plain = {"selection.criterion": "separation"}
    assert _recipe(**plain, **{"cams.precision": "bf16"}).choice_of_epoch() == _recipe(**plain).choice_of_epoch()


def test_seed_and_precision_are_what_every_training_depends_on() -> None:
    assert _recipe(seed=5, **{"cluster.use_gpu": True, "cluster.precision": "bf16"}).numerics() == {
        "seed": 5,
        "precision": "bf16",
    }


def test_a_recipe_borrows_what_its_method_says() -> None:
    recipe = _recipe()
    assert recipe.own == miniature().ritc and recipe.borrowed == {"semples": miniature().semples}


# --- refusals


def test_sigmoid_masks_of_weaktr_are_refused_with_advice() -> None:
    recipe = _recipe()
    refuse_sigmoid("mine", recipe, "do otherwise")
    other = dataclasses.replace(recipe, cam_net=dataclasses.replace(recipe.cam_net, generator="weaktr"))
    with pytest.raises(ConfigError, match=r"system mine takes the sigmoid of logits.*; do otherwise"):
        refuse_sigmoid("mine", other, "do otherwise")

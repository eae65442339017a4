"""In what order the trainings of SemPLeS follow one another, and what each is given."""

import dataclasses
from typing import Any

import pytest

from qaclims_ray.methods.method import Outcome, Phase, Recipe, Sources, Trained, run_phases
from qaclims_ray.methods.semples.config import SemplesConfig
from qaclims_ray.methods.semples.method import SEMPLES
from qaclims_ray.methods.semples.phases import phases
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.systems.recipe import recipe_of
from tests.semples_fakes import OPTIM, prompt_config, semples_config


def _recipe(semples: SemplesConfig) -> Recipe:
    return dataclasses.replace(recipe_of(miniature(), SEMPLES), own=semples)


def _trained(name: str, **changes: Any) -> Trained:
    return Trained(f"/{name}", name, **changes)


def _run(*, given: str | None = None, base: str | None = None, **changes: Any) -> tuple[list[Phase], Outcome]:
    """Run phases whose results are called after them."""
    done: list[Phase] = []
    sources = Sources(
        manifest="images",
        clip="clip",
        classifier=_trained("start"),
        base=_trained(base) if base else None,
        given=_trained(given, is_cams=True) if given else None,
    )

    def train(phase: Phase) -> Trained:
        done.append(phase)
        return _trained(f"<{phase.name}>")

    return done, run_phases(phases(_recipe(semples_config(**changes)), sources), train)


def _trace(*, given: str | None = None, **changes: Any) -> tuple[list[tuple[str, str, str | None]], str]:
    """Return (phase, from, prompts) of each training, and the last name."""
    done, outcome = _run(given=given, **changes)
    for phase in done:
        assert phase.start is not None and not phase.is_last
        expected = {"manifest": "images", "network": phase.start.fingerprint, "clip": "clip"}
        assert phase.inputs == expected | ({"prompts": phase.prompts.fingerprint} if phase.prompts else {})
    calls = [
        (
            phase.name,
            phase.start.fingerprint if phase.start else "",
            phase.prompts.fingerprint if phase.prompts else None,
        )
        for phase in done
    ]
    return calls, outcome.network.fingerprint


def test_no_round_stops_after_matching() -> None:
    assert _trace(rounds=0) == ([("match", "start", None)], "<match>")


@pytest.mark.parametrize(("refine_init", "source"), [("start", "start"), ("matched", "<match>")])
def test_one_round_learns_prompts_of_the_matched_network(refine_init, source) -> None:
    calls, last = _trace(rounds=1, refine_init=refine_init)
    assert calls == [
        ("match", "start", None),
        ("prompts", "<match>", None),
        ("refine", source, "<prompts>"),
    ]
    assert last == "<refine>"


@pytest.mark.parametrize(("refine_init", "sources"), [
    ("start", ["start", "start", "start"]), ("matched", ["<match>", "<refine>", "<refine_2>"]),
])  # fmt: skip
def test_rounds_alternate(refine_init, sources) -> None:
    calls, last = _trace(rounds=3, refine_init=refine_init)
    assert calls == [
        ("match", "start", None),
        ("prompts", "<match>", None),
        ("refine", sources[0], "<prompts>"),
        ("prompts_2", "<refine>", None),
        ("refine_2", sources[1], "<prompts_2>"),
        ("prompts_3", "<refine_2>", None),
        ("refine_3", sources[2], "<prompts_3>"),
    ]
    assert last == "<refine_3>"
    assert _trace(rounds=2, refine_init=refine_init)[0] == calls[:5]


def test_without_weight_matching_goes_on_and_no_prompts_are_learned() -> None:
    calls, last = _trace(rounds=2, refine_init="matched", refine_weight=0.0)
    assert calls == [
        ("match", "start", None),
        ("refine", "<match>", None),
        ("refine_2", "<refine>", None),
    ]
    assert last == "<refine_2>"


def test_joint_training_is_one_phase() -> None:
    assert _trace(schedule="joint") == ([("joint", "start", None)], "<joint>")


@pytest.mark.parametrize("refine_init", ["start", "matched"])
def test_given_maps_stand_in_for_matching_and_refinement_trains_the_start(refine_init) -> None:
    calls, last = _trace(rounds=2, refine_init=refine_init, given="maps")
    assert calls == [
        ("prompts", "maps", None),
        ("refine", "start", "<prompts>"),
        ("prompts_2", "<refine>", None),
        ("refine_2", "start" if refine_init == "start" else "<refine>", "<prompts_2>"),
    ]
    assert last == "<refine_2>"


def test_another_system_s_network_stands_in_for_the_classifier() -> None:
    calls, _ = _trace(base="base", rounds=1)
    assert calls == [("match", "base", None), ("prompts", "<match>", None), ("refine", "base", "<prompts>")]


@pytest.mark.parametrize(
    ("changes", "prompts_uri"),
    [
        ({"rounds": 1}, "/<prompts>"),
        ({"rounds": 2}, "/<prompts_2>"),
        ({"rounds": 0}, ""),
        ({"rounds": 1, "refine_weight": 0.0}, ""),
        ({"schedule": "joint"}, "/<joint>/prompts"),
    ],
)
def test_the_last_prompts_are_the_outcome_s(changes, prompts_uri) -> None:
    assert _run(**changes)[1].prompts_uri == prompts_uri


def test_each_phase_has_its_own_optimiser() -> None:
    changes: dict[str, Any] = {
        "match": dataclasses.replace(OPTIM, epochs=3),
        "refine": dataclasses.replace(OPTIM, epochs=4, lr=0.5),
        "prompt": prompt_config(lr=0.2, epochs=6, batch_size=9, weight_decay=0.1, schedule="constant"),
        "rounds": 2,
    }
    semples = semples_config(**changes)
    match, prompts, refine, _, refine_2 = _run(**changes)[0]
    assert match.optim == semples.match and refine.optim == refine_2.optim == semples.refine
    # As long as matching and refinement together, otherwise as matching.
    (joint,), _ = _run(schedule="joint", **changes | {"rounds": 1})
    assert joint.optim == dataclasses.replace(semples.match, epochs=7)
    optim = prompts.optim
    assert (optim.name, optim.lr, optim.epochs, optim.batch_size) == ("adamw", 0.2, 6, 9)
    assert (optim.weight_decay, optim.schedule, optim.head_lr_factor) == (0.1, "constant", 1.0)


def test_phases_of_the_generator_pass_over_the_images_and_prompts_count_steps() -> None:
    match, prompts, refine = _run(prompt=prompt_config(epochs=6, steps_per_epoch=3))[0]
    assert (match.num_steps(10), refine.num_steps(10)) == (4, 4), "2 epochs of 10 images in batches of 4"
    assert match.num_steps(3) == 2, "at least one step an epoch"
    assert prompts.num_steps(10) == prompts.num_steps(1000) == 18
    (_, random, _), _ = _run(prompt=prompt_config(learn=False))
    assert random.num_steps(10) == 0 and not random.is_learned


def test_prompts_are_not_rated_and_masks_are() -> None:
    assert [(phase.kind, phase.is_rated) for phase in _run(rounds=2)[0]] == [
        ("match", True),
        ("prompts", False),
        ("refine", True),
        ("prompts", False),
        ("refine", True),
    ]
    assert _run(schedule="joint")[0][0].is_rated

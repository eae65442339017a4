import dataclasses

import pytest

from qaclims_ray.methods.semples.phases import Phase, run_phases
from tests.semples_fakes import OPTIM, prompt_config, semples_config


def _trace(*, given: str | None = None, **changes) -> tuple[list[tuple[str, str, str | None]], str]:
    """Run phases whose networks are called after them; return (phase, from, prompts) of each, and the last name."""
    calls = []

    def train(phase: Phase, init: str, prompts: str | None) -> str:
        calls.append((phase.name, init, prompts))
        return f"<{phase.name}>"

    last = run_phases(semples_config(**changes), "start", train, given=given)
    return calls, last


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


def test_each_phase_has_its_own_optimiser() -> None:
    semples = semples_config(
        match=dataclasses.replace(OPTIM, epochs=3),
        refine=dataclasses.replace(OPTIM, epochs=4, lr=0.5),
        prompt=prompt_config(lr=0.2, epochs=6, batch_size=9, weight_decay=0.1, schedule="constant"),
    )
    assert Phase("match").optim(semples) == semples.match and Phase("refine", 2).optim(semples) == semples.refine
    # As long as matching and refinement together, otherwise as matching.
    assert Phase("joint").optim(semples) == dataclasses.replace(semples.match, epochs=7)
    prompts = Phase("prompts").optim(semples)
    assert (prompts.name, prompts.lr, prompts.epochs, prompts.batch_size) == ("adamw", 0.2, 6, 9)
    assert (prompts.weight_decay, prompts.schedule, prompts.head_lr_factor) == (0.1, "constant", 1.0)

"""What systems train, and which phases they share."""

from typing import Any

import pytest

from qaclims_ray.data.artifacts import fingerprint_of
from qaclims_ray.run_config import RunConfig, System, with_overrides
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.planning import artefacts_of, is_one_phase, planned_phases, rated_epochs
from tests.unit.systems.runs import run_of


def _settings(name: str, system: str = "semples", **overrides: Any) -> dict[str, Any]:
    """Return what a phase depends on besides its inputs."""
    phases = {phase.name: phase for phase in planned_phases(run_of(system, **overrides), system)}
    return dict(phases[name].settings)


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        # Refinement alone.
        ({"semples.refine_weight": 0.2}, {"match", "prompts"}),
        ({"semples.refine.epochs": 7}, {"match", "prompts"}),
        # Where phases start from and how many there are shows in their inputs.
        ({"semples.refine_init": "matched"}, {"match", "prompts", "refine"}),
        ({"semples.rounds": 3}, {"match", "prompts", "refine"}),
        # Prompts alone; refinement then has other prompts as its input.
        ({"semples.prompt.length": 5}, {"match", "refine"}),
        ({"semples.prompt.learn": False}, {"match", "refine"}),
        ({"semples.prompt.image_weight": 0.0}, {"match", "refine"}),
        ({"semples.prompt.num_views": 1}, {"match", "refine"}),
        ({"semples.prompt.mask_epsilon": 0.01}, {"match", "refine"}),
        # The generator's trainings, not what prompts see of it.
        ({"semples.mask_epsilon": 0.2}, {"prompts"}),
        ({"semples.background_weight": 1.0}, {"prompts"}),
        ({"semples.area_weight": 1.0}, {"prompts"}),
        ({"semples.train_scope": "full"}, {"prompts"}),
        ({"semples.freeze_batch_norm": False}, {"prompts"}),
        ({"semples.match.epochs": 7}, {"prompts", "refine"}),
        # Everything.
        ({"semples.mask": "sigmoid"}, set()),
        ({"semples.omega": 0.2}, set()),
        ({"semples.clip_normalisation": "clip"}, set()),
        ({"semples.antialias": True}, set()),
        ({"clip.model": "RN50"}, set()),
        ({"text.template": "{}"}, set()),
        ({"text.class_words": [["person", "player"]]}, set()),
        ({"augment.crop_px": 64}, set()),
        ({"seed": 3}, set()),
        ({"cam_net.output_stride": 8}, set()),
        # Nothing.
        ({"ritc.omega": 0.3}, {"match", "prompts", "refine"}),
        ({"text.source": "class_names"}, {"match", "prompts", "refine"}),
        ({"cluster.num_workers": 3}, {"match", "prompts", "refine"}),
    ],
)
def test_a_phase_depends_on_its_own_settings_alone(overrides, same) -> None:
    found = {kind for kind in ("match", "prompts", "refine") if _settings(kind) == _settings(kind, **overrides)}
    assert found == same


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        ({"semples.prompt.optim.lr": 0.5}, False),
        ({"semples.refine_weight": 0.5}, False),
        ({"semples.refine.epochs": 9}, False),
        ({"semples.match.lr": 0.5}, False),
        ({"semples.refine.lr": 0.5}, True),
        ({"semples.refine_init": "matched"}, True),
    ],
)
def test_joint_training_depends_on_both_sides(overrides, same) -> None:
    assert (_settings("joint", "semples_joint") == _settings("joint", "semples_joint", **overrides)) == same


def test_the_table_s_systems_share_matching_and_differ_after_it() -> None:
    names = ["semples_match", "semples_match_longer", "semples_random_prompts", "semples_text_only"]
    names += ["semples_image_only", "semples", "semples_2_rounds", "semples_on_qa_clims"]
    assert all(_settings("match", name) == _settings("match") for name in names)
    prompts = [_settings("prompts", name) for name in ("semples", "semples_random_prompts", "semples_text_only")]
    assert all(first != second for index, first in enumerate(prompts) for second in prompts[:index])
    assert _settings("refine", "semples_match_longer") != _settings("refine")


def test_prompts_for_ritc_depend_on_ritc_s_regions() -> None:
    def prompts(**overrides: Any) -> dict[str, Any]:
        return _settings("prompts", "qa_clims_prompts", **overrides)

    reference, of_semples = prompts(), _settings("prompts")
    assert [name for name in reference if reference[name] != of_semples[name]] == ["regions"]
    assert prompts(**{"ritc.omega": 0.3}) != reference
    assert prompts(**{"semples.omega": 0.3}) == reference
    assert prompts(**{"ritc.optim.epochs": 3}) == reference
    stronger = System(name="stronger", like="qa_clims_prompts", overrides={"ritc.prompt_weight": 0.9})
    assert dict(planned_phases(run_of("stronger", variants=(stronger,)), "stronger")[0].settings) == reference


def test_without_prompts_ritc_and_clims_train_once_into_the_system_s_own_folder() -> None:
    for name, kind in (("qa_clims", "ritc"), ("clims", "clims")):
        (phase,) = planned_phases(run_of(name), name)
        assert (phase.kind, phase.name, phase.is_last, phase.is_rated) == (kind, "", True, True)


def test_nothing_is_planned_where_the_run_s_classifier_or_nothing_is_trained() -> None:
    for name in ("baseline", "given_cams", "fully_supervised"):
        assert planned_phases(run_of(name, **{"given.cams": "/cams"}), name) == []


# --- what systems have in common


def _shared(config: RunConfig, first: str, second: str) -> list[str]:
    """Name the phases that are one for two systems: their settings are the same, and all that they start from."""
    found = [(phase, artefacts_of(config, second)) for phase in planned_phases(config, first) if not phase.is_last]
    return [
        phase.name for phase, others in found if fingerprint_of([phase.kind, phase.settings, phase.inputs]) in others
    ]


ONE_ROUND = ["match", "prompts", "refine"]


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("semples", "semples_match", ["match"]),
        ("semples", "semples_match_longer", ["match"]),
        ("semples", "semples_random_prompts", ["match"]),
        ("semples_text_only", "semples_image_only", ["match"]),
        ("semples", "semples_2_rounds", ONE_ROUND),
        ("semples_2_rounds", "semples_3_rounds", [*ONE_ROUND, "prompts_2", "refine_2"]),
        ("semples", "semples_joint", []),
        # The same settings, but another network to start from.
        ("semples", "semples_on_qa_clims", []),
        ("semples_on_qa_clims", "semples_on_clims", []),
        ("semples", "semples_on_given", []),
        # The same network and images, but other regions.
        ("semples_on_qa_clims", "qa_clims_prompts", []),
    ],
)
def test_systems_share_the_phases_whose_settings_and_start_are_the_same(first, second, expected) -> None:
    config = run_of(first, second, **{"given.cams": "/cams"})
    assert _shared(config, first, second) == expected == _shared(config, second, first)


def test_of_all_known_systems_these_share_phases() -> None:
    config = run_of("baseline", **{"given.cams": "/cams"})
    names = ["semples", *(name for name in SYSTEMS if name.startswith("semples_"))]
    sharing = {name for name in SYSTEMS if name != "semples" and _shared(config, name, "semples")}
    assert sharing == {name for name in names if name not in ("semples", "semples_joint") and "_on_" not in name}


def test_a_system_has_its_network_and_its_base_s() -> None:
    config = run_of("semples_on_qa_clims", "qa_clims_prompts", "qa_clims")
    networks = [
        {name for name in artefacts_of(config, system) if name.startswith("network ")} for system in config.systems
    ]
    assert networks == [
        {"network semples_on_qa_clims", "network qa_clims"},
        {"network qa_clims_prompts", "network qa_clims"},
        {"network qa_clims"},
    ]


def test_prompts_on_one_base_with_the_same_regions_are_learned_once() -> None:
    stronger = System(name="stronger", like="qa_clims_prompts", overrides={"ritc.prompt_weight": 0.9})
    config = run_of("qa_clims_prompts", "stronger", variants=(stronger,))
    assert _shared(config, "qa_clims_prompts", "stronger") == ["prompts"]


def test_those_that_train_once_from_the_classifier_may_share_workers() -> None:
    config = run_of("baseline", **{"given.cams": "/cams"})
    found = {name for name in SYSTEMS if is_one_phase(config, name)}
    assert found == {
        name for name, system in SYSTEMS.items() if system.method in ("qa_clims", "clims") and not system.base
    }


def test_epochs_that_are_rated_are_those_of_mask_generators() -> None:
    config = run_of("semples", **{"semples.match.epochs": 3, "semples.refine.epochs": 4, "ritc.optim.epochs": 5})
    assert rated_epochs(config, "semples_3_rounds") == [3, 4, 4, 4]
    assert rated_epochs(config, "semples_match") == [3]
    assert rated_epochs(config, "semples_joint") == [7]
    assert rated_epochs(config, "qa_clims") == rated_epochs(config, "qa_clims_prompts") == [5]
    assert rated_epochs(with_overrides(config, {"given.cams": "/cams"}), "semples_on_given") == [4]

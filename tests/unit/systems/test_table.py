"""The systems of a run: known ones, variants, and this run's settings for single ones."""

from typing import Any

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import System, with_overrides
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.needs import needs_clip, needs_corpus
from qaclims_ray.systems.table import SUPERVISED, system_config, system_of, training_order, with_systems
from tests.unit.systems.runs import FINAL, adjusted_run, run_of

# --- the table


def test_labels_tell_systems_apart() -> None:
    assert len({system.label for system in SYSTEMS.values()}) == len(SYSTEMS)


@pytest.mark.parametrize(
    ("name", "path", "value"),
    [
        ("semples_match", "semples.rounds", 0),
        ("semples_match_longer", "semples.refine_weight", 0.0),
        ("semples_match_longer", "semples.refine_init", "matched"),
        ("semples_random_prompts", "semples.prompt.learn", False),
        ("semples_text_only", "semples.prompt.image_weight", 0.0),
        ("semples_image_only", "semples.prompt.text_weight", 0.0),
        ("semples_joint", "semples.schedule", "joint"),
        ("semples_2_rounds", "semples.rounds", 2),
        ("semples_3_rounds", "semples.rounds", 3),
        ("clims", "text.source", "fixed"),
    ],
)
def test_controls_and_rows_differ_from_the_full_method_as_they_say(name, path, value) -> None:
    resolved: Any = system_config(run_of(name), name)
    plain: Any = system_config(run_of("semples"), "semples")
    for part in path.split("."):
        resolved, plain = getattr(resolved, part), getattr(plain, part)
    assert resolved == value != plain


def test_an_unknown_system_is_refused_with_the_known_ones() -> None:
    for function in (system_of, system_config):
        with pytest.raises(
            ConfigError, match=r"no system 'semple'; did you mean 'semples'\? known: baseline, .*semples_joint"
        ):
            function(run_of("baseline"), "semple")
    with pytest.raises(ConfigError, match="no system 'semple'"):
        check_systems(run_of("semple"))


# --- bases and order


def test_bases_come_before_what_starts_from_them_and_once() -> None:
    order = training_order(
        run_of("semples_on_qa_clims", "baseline", "qa_clims", "qa_clims_prompts", "semples_on_clims")
    )
    assert order == [
        "qa_clims",
        "semples_on_qa_clims",
        "baseline",
        "qa_clims_prompts",
        "clims",
        "semples_on_clims",
    ]
    assert training_order(run_of("semples", "baseline")) == ["semples", "baseline"]


# --- variants


def test_a_variant_is_a_known_system_with_other_settings() -> None:
    variant = System(name="rounds_5", like="semples_2_rounds", overrides={"semples.rounds": 5, "semples.omega": 0.2})
    config = run_of("rounds_5", "semples_2_rounds", variants=(variant,))
    check_systems(config)
    system = system_of(config, "rounds_5")
    assert system.label == "SemPLeS, 2 rounds, rounds_5" and system.method == "semples"
    resolved = system_config(config, "rounds_5").semples
    assert (resolved.rounds, resolved.omega) == (5, 0.2)
    assert system_config(config, "semples_2_rounds").semples.omega == 0.0
    assert SYSTEMS["semples_2_rounds"].overrides == {"semples.rounds": 2}


def test_a_variant_keeps_base_and_needs() -> None:
    variant = System(name="soft", like="qa_clims_prompts", overrides={"ritc.prompt_weight": 0.01})
    config = run_of("soft", variants=(variant,))
    check_systems(config)
    assert training_order(config) == ["qa_clims", "soft"] and needs_corpus(config)
    assert system_config(config, "soft").ritc.prompt_weight == 0.01


def test_a_variant_must_not_hide_a_known_system() -> None:
    """With this one, the base of qa_clims would be qa_clims."""
    for variant in (System(name="qa_clims", like="qa_clims_prompts"), System(name="qa_clims", method="clims")):
        with pytest.raises(ConfigError, match=r"'qa_clims' has the name of a known system; .* set like to qa_clims"):
            check_systems(run_of("qa_clims", variants=(variant,)))


def test_a_system_of_a_run_may_stand_by_itself() -> None:
    own = System(name="own", method="semples", base="qa_clims", overrides={"semples.omega": 0.2})
    config = run_of("own", variants=(own,))
    check_systems(config)
    assert training_order(config) == ["qa_clims", "own"] and needs_clip(config) and needs_corpus(config)
    assert (system_of(config, "own").label, system_config(config, "own").semples.omega) == ("own", 0.2)


def test_what_a_system_says_of_itself_stands_before_what_it_takes_over() -> None:
    own = System(name="own", like="clims", label="Ours", description="Another one.", overrides={"seed": 3})
    system = system_of(run_of("own", variants=(own,)), "own")
    assert (system.label, system.description, system.method) == ("Ours", "Another one.", "clims")
    assert set(system.overrides) == {"seed", *SYSTEMS["clims"].overrides}


@pytest.mark.parametrize("bases", [("a",), ("b", "a"), ("b", "c", "a")])
def test_systems_that_start_from_each_other_are_refused(bases) -> None:
    variants = tuple(System(name=name, method="semples", base=base) for name, base in zip("abc", bases, strict=False))
    with pytest.raises(ConfigError, match=r"starts from itself: a < .*a"):
        check_systems(run_of("a", variants=variants))


# --- settings of this run for single systems


def test_a_system_takes_this_run_s_settings_for_it_and_others_do_not() -> None:
    entries = {"semples": {"masks.seed_threshold": 0.6}, "semples_match": {"semples.omega": 0.3}}
    config = adjusted_run("baseline", "semples", "semples_match", entries=entries)
    check_systems(config)
    thresholds = [system_config(config, name).masks.seed_threshold for name in config.systems]
    assert thresholds == [0.15, 0.6, 0.15]
    matched = system_config(config, "semples_match").semples
    assert (matched.rounds, matched.omega) == (0, 0.3), "on top of the system's own, which stay"
    assert SYSTEMS["semples_match"].overrides == {"semples.rounds": 0}


def test_a_run_s_settings_for_a_system_win_over_the_table_s_and_a_variant_s_over_both() -> None:
    variant = System(name="v", like="semples_2_rounds", overrides={"semples.rounds": 4})
    entries = {"semples_2_rounds": {"semples.rounds": 3, "semples.omega": 0.2}}
    config = adjusted_run("semples_2_rounds", "v", entries=entries, variants=(variant,))
    rounds = [(s.rounds, s.omega) for s in (system_config(config, name).semples for name in config.systems)]
    assert rounds == [(3, 0.2), (4, 0.2)]


def test_settings_for_a_base_reach_the_base() -> None:
    config = adjusted_run("semples_on_clims", entries={"clims": {"clims.optim.epochs": 3}})
    assert system_config(config, "clims").clims.optim.epochs == 3
    assert system_config(config, "semples_on_clims").clims.optim.epochs != 3


def test_one_system_is_adjusted_once() -> None:
    entry = System(name="semples", like="semples", overrides={"seed": 1})
    with pytest.raises(ConfigError, match="variants holds one name twice"):
        run_of("semples", variants=(entry, entry))


def test_a_run_of_other_systems_keeps_what_is_set_for_known_ones() -> None:
    entries = {"semples": {"masks.seed_threshold": 0.6}}
    config = adjusted_run("v", entries=entries, variants=(System(name="v", like="clims"),))
    other = with_systems(config, ["semples", "w"], [System(name="w", like="semples")])
    check_systems(other)
    assert [variant.name for variant in other.variants] == ["semples", "w"]
    assert [system_config(other, name).masks.seed_threshold for name in other.systems] == [0.6, 0.6]


# --- labels that say how the epoch was chosen


def test_the_bound_is_no_matter_of_the_epoch_s_choice() -> None:
    config = run_of(SUPERVISED, "semples", **FINAL, **{"selection.criterion": "oracle"})
    assert system_of(config, SUPERVISED).label == "fully supervised"
    assert "chosen with pixel labels" in system_of(config, "semples").label


def test_tables_say_when_masks_chose_the_epoch() -> None:
    config = with_overrides(miniature(), {"selection.criterion": "oracle"})
    assert "pixel labels" in system_of(config, "qa_clims").label
    assert "pixel labels" not in system_of(config, "baseline").label
    assert "pixel labels" not in system_of(miniature(), "qa_clims").label

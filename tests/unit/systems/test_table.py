import dataclasses
from typing import Any

import pytest

from qaclims_ray.data.config import DataConfig
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.semples.phases import Phase
from qaclims_ray.run_config import METHODS, RunConfig, System, with_overrides
from qaclims_ray.stages.train import phase_settings
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.known import SYSTEMS
from qaclims_ray.systems.table import (
    SUPERVISED,
    artifact_kind,
    needs_classifier,
    needs_clip,
    needs_corpus,
    system_config,
    system_of,
    systems_with_cams,
    training_order,
    uses_given,
    with_systems,
)


def _run(*systems: str, variants: tuple[System, ...] = (), **overrides: Any) -> RunConfig:
    config = RunConfig(name="test", systems=systems, variants=variants, data=DataConfig(dataset="voc12", root="/data"))
    return with_overrides(config, {"clip.mask_adapted": True, **overrides})


FINAL = {"goal": "segmentation", "segmentation.net.weights": "random"}


# --- the table


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_resolves_in_a_run_of_its_own(name) -> None:
    overrides = {"data.dataset": "miniature", "data.root": "", "given.cams": "/cams"}
    if name == SUPERVISED:
        overrides |= FINAL
    check_systems(_run(name, **overrides))
    assert SYSTEMS[name].label and SYSTEMS[name].description.endswith(".")


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
    resolved: Any = system_config(_run(name), name)
    plain: Any = system_config(_run("semples"), "semples")
    for part in path.split("."):
        resolved, plain = getattr(resolved, part), getattr(plain, part)
    assert resolved == value != plain


def test_an_unknown_system_is_refused_with_the_known_ones() -> None:
    for function in (system_of, system_config):
        with pytest.raises(ConfigError, match=r"no system 'semple'; known: baseline, .*semples_joint"):
            function(_run("baseline"), "semple")
    with pytest.raises(ConfigError, match="no system 'semple'"):
        check_systems(_run("semple"))


# --- bases and order


def test_bases_come_before_what_starts_from_them_and_once() -> None:
    order = training_order(_run("semples_on_qa_clims", "baseline", "qa_clims", "qa_clims_prompts", "semples_on_clims"))
    assert order == [
        "qa_clims",
        "semples_on_qa_clims",
        "baseline",
        "qa_clims_prompts",
        "clims",
        "semples_on_clims",
    ]
    assert training_order(_run("semples", "baseline")) == ["semples", "baseline"]


def test_a_base_counts_for_what_a_run_needs() -> None:
    assert not needs_clip(_run("baseline")) and needs_clip(_run("baseline", "semples"))
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
        assert needs_corpus(_run(name)) == expected, name


# --- variants


def test_a_variant_is_a_known_system_with_other_settings() -> None:
    variant = System(name="rounds_5", like="semples_2_rounds", overrides={"semples.rounds": 5, "semples.omega": 0.2})
    config = _run("rounds_5", "semples_2_rounds", variants=(variant,))
    check_systems(config)
    system = system_of(config, "rounds_5")
    assert system.label == "SemPLeS, 2 rounds, rounds_5" and system.method == "semples"
    resolved = system_config(config, "rounds_5").semples
    assert (resolved.rounds, resolved.omega) == (5, 0.2)
    assert system_config(config, "semples_2_rounds").semples.omega == 0.0
    assert SYSTEMS["semples_2_rounds"].overrides == {"semples.rounds": 2}


def test_a_variant_keeps_base_and_needs() -> None:
    variant = System(name="soft", like="qa_clims_prompts", overrides={"ritc.prompt_weight": 0.01})
    config = _run("soft", variants=(variant,))
    check_systems(config)
    assert training_order(config) == ["qa_clims", "soft"] and needs_corpus(config)
    assert system_config(config, "soft").ritc.prompt_weight == 0.01


@pytest.mark.parametrize(
    ("variant", "message"),
    [
        (System(name="x", like="semple"), "no system 'semple'"),
        (System(name="x", like="semples", overrides={"semples.round": 1}), "no setting 'semples.round'"),
        (System(name="x", like="semples", overrides={"semples.omega": 2.0}), "semples.omega is 2.0"),
        (System(name="x", like="semples_joint", overrides={"semples.rounds": 2}), "joint training has no rounds"),
        (System(name="x", like="qa_clims", overrides={"ritc.prompt_weight": 0.1}), "system x: ritc.prompt_weight"),
        (System(name="x", like="qa_clims_prompts", overrides={"ritc.prompt_weight": 0}), "x: ritc.prompt_weight"),
        (System(name="x", like="clims", overrides={"text.source": "class_names"}), "system x: CLIMS has fixed"),
    ],
)
def test_a_variant_that_cannot_work_is_refused(variant, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_systems(_run("x", variants=(variant,)))


def test_a_variant_must_not_hide_a_known_system() -> None:
    """With this one, the base of qa_clims would be qa_clims."""
    for variant in (System(name="qa_clims", like="qa_clims_prompts"), System(name="qa_clims", method="clims")):
        with pytest.raises(ConfigError, match=r"'qa_clims' has the name of a known system; .* set like to qa_clims"):
            check_systems(_run("qa_clims", variants=(variant,)))


def test_a_system_of_a_run_may_stand_by_itself() -> None:
    own = System(name="own", method="semples", base="qa_clims", overrides={"semples.omega": 0.2})
    config = _run("own", variants=(own,))
    check_systems(config)
    assert training_order(config) == ["qa_clims", "own"] and needs_clip(config) and needs_corpus(config)
    assert (system_of(config, "own").label, system_config(config, "own").semples.omega) == ("own", 0.2)


def test_what_a_system_says_of_itself_stands_before_what_it_takes_over() -> None:
    own = System(name="own", like="clims", label="Ours", description="Another one.", overrides={"seed": 3})
    system = system_of(_run("own", variants=(own,)), "own")
    assert (system.label, system.description, system.method) == ("Ours", "Another one.", "clims")
    assert set(system.overrides) == {"seed", *SYSTEMS["clims"].overrides}


@pytest.mark.parametrize("bases", [("a",), ("b", "a"), ("b", "c", "a")])
def test_systems_that_start_from_each_other_are_refused(bases) -> None:
    variants = tuple(System(name=name, method="semples", base=base) for name, base in zip("abc", bases, strict=False))
    with pytest.raises(ConfigError, match=r"starts from itself: a < .*a"):
        check_systems(_run("a", variants=variants))


# --- what does not fit


_TISSUE = {**FINAL, "data.dataset": "bcss_wsss"}


@pytest.mark.parametrize(
    ("systems", "overrides", "message"),
    [
        (("fixed_primary",), {}, "holds texts of the miniature world; data.dataset is voc12"),
        (("qa_clims",), {"clip.mask_adapted": False}, "system qa_clims: ritc.region_mode is token_mask"),
        (("semples_on_qa_clims",), {"clip.mask_adapted": False}, "system qa_clims: ritc.region_mode"),
        (("qa_clims",), {"ritc.prompt_weight": 0.2}, "ritc.prompt_weight is 0.2; learned prompts come from"),
        (("semples_joint",), {"semples.rounds": 2}, "joint training has no rounds"),
        (("semples",), {"cam_net.generator": "weaktr", "semples.mask": "sigmoid"}, "set semples.mask to minmax"),
        (("clims",), {"cam_net.generator": "weaktr"}, "system clims takes the sigmoid of logits"),
        (("semples_text_only",), {"semples.prompt.text_weight": 0.0}, "there is nothing to learn"),
        (("qa_clims",), {**_TISSUE, "goal": "mask"}, "masks.steps has irn, .* bcss_wsss has none; .* crf or pamr"),
        (("qa_clims",), {**_TISSUE, "goal": "mask", "masks.steps": ["crf", "sam"]}, "masks.steps has sam"),
        (("qa_clims",), {**_TISSUE, "masks.steps": [], "segmentation.loss": "balanced"}, "set it to cross_entropy"),
    ],
)
def test_a_combination_that_cannot_work_is_refused_before_any_work(systems, overrides, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_systems(_run(*systems, **overrides))


def test_seeds_of_tissue_need_no_masks_settings() -> None:
    check_systems(_run("qa_clims", **{**_TISSUE, "goal": "seed", "masks.steps": ["irn"]}))


def test_a_variant_that_nothing_trains_is_refused() -> None:
    with pytest.raises(ConfigError, match="would not be trained: name them in systems"):
        check_systems(_run("semples", variants=(System(name="x", like="semples"),)))


def test_plain_clips_do_for_clims_and_semples() -> None:
    check_systems(_run("clims", "semples", "semples_joint", "semples_on_clims", **{"clip.mask_adapted": False}))


# --- settings of this run for single systems


def _adjusted(*systems: str, entries: dict[str, dict[str, Any]], variants: tuple[System, ...] = ()) -> RunConfig:
    own = tuple(System(name=name, like=name, overrides=overrides) for name, overrides in entries.items())
    return _run(*systems, variants=(*variants, *own))


def test_a_system_takes_this_run_s_settings_for_it_and_others_do_not() -> None:
    entries = {"semples": {"masks.seed_threshold": 0.6}, "semples_match": {"semples.omega": 0.3}}
    config = _adjusted("baseline", "semples", "semples_match", entries=entries)
    check_systems(config)
    thresholds = [system_config(config, name).masks.seed_threshold for name in config.systems]
    assert thresholds == [0.15, 0.6, 0.15]
    matched = system_config(config, "semples_match").semples
    assert (matched.rounds, matched.omega) == (0, 0.3), "on top of the system's own, which stay"
    assert SYSTEMS["semples_match"].overrides == {"semples.rounds": 0}


def test_a_run_s_settings_for_a_system_win_over_the_table_s_and_a_variant_s_over_both() -> None:
    variant = System(name="v", like="semples_2_rounds", overrides={"semples.rounds": 4})
    entries = {"semples_2_rounds": {"semples.rounds": 3, "semples.omega": 0.2}}
    config = _adjusted("semples_2_rounds", "v", entries=entries, variants=(variant,))
    rounds = [(s.rounds, s.omega) for s in (system_config(config, name).semples for name in config.systems)]
    assert rounds == [(3, 0.2), (4, 0.2)]


def test_settings_for_a_base_reach_the_base() -> None:
    config = _adjusted("semples_on_clims", entries={"clims": {"clims.optim.epochs": 3}})
    assert system_config(config, "clims").clims.optim.epochs == 3
    assert system_config(config, "semples_on_clims").clims.optim.epochs != 3


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"semple": {}}, "no system 'semple'; known: "),
        ({"semples": {"masks.threshold": 0.5}}, "no setting 'masks.threshold'"),
        ({"semples": {"masks.seed_threshold": 2.0}}, "masks.seed_threshold is 2.0"),
        ({"semples": {"masks.steps": ["crf", "irn"]}}, "irn works on the CAMs' small maps"),
    ],
)
def test_settings_for_a_system_that_cannot_work_are_refused(entries, message) -> None:
    with pytest.raises(ConfigError, match=message):
        check_systems(_adjusted("semples", entries=entries))


def test_one_system_is_adjusted_once() -> None:
    entry = System(name="semples", like="semples", overrides={"seed": 1})
    with pytest.raises(ConfigError, match="variants holds one name twice"):
        _run("semples", variants=(entry, entry))


def test_a_run_of_other_systems_keeps_what_is_set_for_known_ones() -> None:
    entries = {"semples": {"masks.seed_threshold": 0.6}}
    config = _adjusted("v", entries=entries, variants=(System(name="v", like="clims"),))
    other = with_systems(config, ["semples", "w"], [System(name="w", like="semples")])
    check_systems(other)
    assert [variant.name for variant in other.variants] == ["semples", "w"]
    assert [system_config(other, name).masks.seed_threshold for name in other.systems] == [0.6, 0.6]


def test_artifacts_keep_the_names_they_have_on_disk() -> None:
    assert [artifact_kind(method) for method in METHODS[:4]] == ["classifier", "ritc", "clims", "semples"]


# --- what starts from the classifier


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
    assert needs_classifier(_run("given_cams", **{"given.cams": "/cams", **overrides})) == expected


# --- the fully supervised bound


def test_the_bound_needs_the_final_network_and_nothing_else() -> None:
    with pytest.raises(ConfigError, match="fully_supervised is a final network; set goal to segmentation"):
        check_systems(_run(SUPERVISED))
    config = _run(SUPERVISED, **FINAL)
    check_systems(config)
    assert not needs_clip(config) and not needs_classifier(config) and not needs_corpus(config)
    assert systems_with_cams(config) == []


def test_all_other_systems_have_cams() -> None:
    names = [name for name in SYSTEMS if not name.startswith("fixed_")]
    config = _run(*names, **FINAL, **{"given.cams": "/cams"})
    check_systems(config)
    assert systems_with_cams(config) == [name for name in names if name != SUPERVISED]


def test_a_variant_of_the_bound_has_no_cams_either() -> None:
    variant = System(name="wider", like=SUPERVISED, overrides={"segmentation.net.width": 256})
    config = _run("baseline", "wider", variants=(variant,), **FINAL)
    check_systems(config)
    assert systems_with_cams(config) == ["baseline"]
    assert system_config(config, "wider").segmentation.net.width == 256


def test_the_bound_is_no_matter_of_the_epoch_s_choice() -> None:
    config = _run(SUPERVISED, "semples", **FINAL, **{"selection.criterion": "oracle"})
    assert system_of(config, SUPERVISED).label == "fully supervised"
    assert "chosen with pixel labels" in system_of(config, "semples").label


# --- given CAMs


def test_given_cams_need_a_folder_and_neither_classifier_nor_clip() -> None:
    for name in ("given_cams", "semples_on_given"):
        with pytest.raises(ConfigError, match=f"system {name} needs CAMs made elsewhere; set cams"):
            check_systems(_run(name))
    variant = System(name="elsewhere", like="semples_on_given", overrides={"given.cams": ""})
    with pytest.raises(ConfigError, match="system elsewhere needs CAMs"):
        check_systems(_run("elsewhere", variants=(variant,), **{"given.cams": "/cams"}))
    variant = System(name="elsewhere", like="semples_on_given", overrides={"given.cams": "/cams"})
    check_systems(_run("elsewhere", variants=(variant,)))
    given, semples = _run("given_cams"), _run("semples_on_given")
    assert not needs_classifier(given) and not needs_clip(given) and not needs_corpus(given)
    assert needs_classifier(semples) and needs_clip(semples) and not needs_corpus(semples)
    assert [uses_given(_run("semples"), name) for name in ("given_cams", "semples_on_given", "semples")] == [
        True,
        True,
        False,
    ]
    assert training_order(semples) == ["given_cams", "semples_on_given"]
    oracle = _run("given_cams", **{"selection.criterion": "oracle"})
    assert system_of(oracle, "given_cams").label == "given CAMs"


@pytest.mark.parametrize(
    "overrides", [{"semples.schedule": "joint"}, {"semples.rounds": 0}, {"semples.refine_weight": 0.0}]
)
def test_given_cams_are_not_given_for_nothing(overrides) -> None:
    with pytest.raises(ConfigError, match="system semples_on_given learns prompts on given CAMs and refines with them"):
        check_systems(_run("semples_on_given", **{"given.cams": "/cams", **overrides}))


# --- which phases systems share


def _settings(kind: Any, name: str = "semples", regions_of: Any = "semples", **overrides: Any) -> dict[str, Any]:
    return phase_settings(system_config(_run(name, **overrides), name), Phase(kind), regions_of)


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
    reference = _settings("prompts", "qa_clims_prompts", "ritc")
    assert reference != _settings("prompts", "qa_clims_prompts")
    assert _settings("prompts", "qa_clims_prompts", "ritc", **{"ritc.omega": 0.3}) != reference
    assert _settings("prompts", "qa_clims_prompts", "ritc", **{"semples.omega": 0.3}) == reference
    assert _settings("prompts", "qa_clims_prompts", "ritc", **{"ritc.optim.epochs": 3}) == reference
    stronger = _run("qa_clims_prompts")
    weights = dataclasses.replace(system_config(stronger, "qa_clims_prompts").ritc, prompt_weight=0.9)
    changed = dataclasses.replace(system_config(stronger, "qa_clims_prompts"), ritc=weights)
    assert phase_settings(changed, Phase("prompts"), "ritc") == reference

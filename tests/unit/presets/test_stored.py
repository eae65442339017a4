"""Run folders and preset files of earlier versions are still read."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.semples.config import PromptConfig
from qaclims_ray.presets.stored import RENAMED, read_run, renamed, upgraded
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, System, from_dict, to_dict
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.table import system_config, system_of

EARLIER = Path(__file__).with_name("earlier_run.json")
"""A run of the miniature preset with a variant, as stored before variants and per_system became one."""


def test_a_run_of_the_earlier_shape_is_the_run_it_was():
    run = read_run(str(EARLIER))
    check_systems(run)
    assert [(system.name, system.like) for system in run.variants] == [
        ("baseline", "baseline"),
        ("ritc_class_names", "ritc_class_names"),
        ("wide", "semples_2_rounds"),
    ]
    assert system_config(run, "baseline").masks.seed_threshold == 0.6
    wide = system_config(run, "wide")
    assert (system_of(run, "wide").label, wide.semples.omega, wide.semples.rounds) == (
        "SemPLeS, 2 rounds, wide",
        0.2,
        2,
    )
    test = replace(preset("miniature").segmentation.test, precision="fp32")
    assert run.segmentation == replace(preset("miniature").segmentation, test=test)
    assert run.semples == preset("miniature").semples


def test_a_run_of_today_stays_as_it_is():
    today = to_dict(read_run(str(EARLIER)))
    assert upgraded(today) == today
    assert from_dict(today).variants[2] == System(
        name="wide", like="semples_2_rounds", overrides=today["variants"][2]["overrides"]
    )


def test_a_file_of_the_earlier_shape_is_a_preset():
    assert preset(str(EARLIER)) == read_run(str(EARLIER))


def test_settings_move_to_names_that_exist_and_stay_else():
    values = {"a": {"lr": 1.0, "size": 2}, "b": 3}
    names = {"a.lr": "a.optim.rate", "b": "c.d", "a.absent": "a.optim.size"}
    assert renamed(values, names, {"a.optim.rate", "a.optim.size"}) == {
        "a": {"size": 2, "optim": {"rate": 1.0}},
        "b": 3,
    }
    assert values == {"a": {"lr": 1.0, "size": 2}, "b": 3}


def test_every_earlier_name_is_one_of_the_earlier_file():
    values = json.loads(EARLIER.read_text())
    for name in RENAMED:
        node = values
        for part in name.split("."):
            node = node[part]


# --- lengths, and CAMs made elsewhere


def _earlier(section: str = "", **changes: Any) -> RunConfig:
    """Return the earlier run with settings of a section replaced, by their earlier names; None removes one."""
    values = json.loads(EARLIER.read_text())
    node = values
    for part in section.split(".") if section else ():
        node = node[part]
    node.update(changes)
    for name in [name for name, value in changes.items() if value is None]:
        del node[name]
    return from_dict(upgraded(values))


@pytest.mark.parametrize(
    ("iterations", "per_checkpoint", "epochs", "steps_per_epoch"),
    [
        (400, 200, 2, 200),
        (20_000, 5_000, 4, 5_000),
        (300, 300, 1, 300),
        (300, 500, 1, 300),  # one checkpoint, at the end
        (300, None, 1, 300),
    ],
)
def test_steps_of_a_final_network_become_epochs_between_checkpoints(
    iterations, per_checkpoint, epochs, steps_per_epoch
):
    final = _earlier("segmentation", iterations=iterations, iterations_per_checkpoint=per_checkpoint).segmentation
    assert (final.optim.epochs, final.steps_per_epoch) == (epochs, steps_per_epoch)
    assert final.optim.epochs * final.steps_per_epoch == iterations
    today = preset("miniature").segmentation.optim
    assert final.optim == replace(today, epochs=epochs), "the other settings of the optimiser moved with it"


def test_prompts_of_no_epochs_are_prompts_that_nobody_learns():
    prompt = _earlier("semples.prompt", epochs=0).semples.prompt
    assert not prompt.learn and prompt.optim.epochs == PromptConfig().optim.epochs
    today = preset("miniature").semples.prompt
    assert (prompt.optim.lr, prompt.optim.batch_size) == (today.optim.lr, today.optim.batch_size)


@pytest.mark.parametrize("epochs", [1, 9])
def test_prompts_of_some_epochs_are_learned_for_so_many(epochs):
    prompt = _earlier("semples.prompt", epochs=epochs).semples.prompt
    today = preset("miniature").semples.prompt
    assert prompt == replace(today, optim=replace(today.optim, epochs=epochs)) and prompt.learn


def test_given_cams_are_found_where_their_method_looks():
    run = _earlier("cams", given="/elsewhere")
    assert run.given.cams == "/elsewhere" and not hasattr(run.cams, "given")
    assert _earlier().given.cams == ""


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("semples.prompt.epochs", 0, {"semples.prompt.learn": False}),
        ("semples.prompt.epochs", 9, {"semples.prompt.learn": True, "semples.prompt.optim.epochs": 9}),
        ("semples.prompt.lr", 0.02, {"semples.prompt.optim.lr": 0.02}),
        ("segmentation.iterations", 300, {"segmentation.optim.epochs": 1, "segmentation.steps_per_epoch": 300}),
        ("segmentation.iterations_per_checkpoint", 50, {"segmentation.steps_per_epoch": 50}),
        ("segmentation.optimizer", "sgd", {"segmentation.optim.name": "sgd"}),
        ("cams.given", "/elsewhere", {"given.cams": "/elsewhere"}),
        ("semples.omega", 0.2, {"semples.omega": 0.2}),
    ],
)
def test_overrides_of_a_system_are_written_anew_too(name, value, expected):
    variant = {"name": "v", "system": "semples_2_rounds", "overrides": {name: value}}
    run = _earlier(systems=["v"], variants=[variant])
    assert run.variants[-1].overrides == expected
    system_config(run, "v")
    adjusted = _earlier(per_system=[{"system": "semples", "overrides": {name: value}}])
    assert next(one for one in adjusted.variants if one.adjusts).overrides == expected


@pytest.mark.parametrize(
    ("content", "message"), [("[1]", "it holds a list, expected an object"), ('{"name": "x"}', "Field required")]
)
def test_a_file_that_is_no_run_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_run(str(path))


@pytest.mark.parametrize(("frozen", "norm"), [(False, "batch"), (True, "group")])
def test_a_decoder_of_earlier_has_the_norm_that_it_had_where_that_normalised(frozen, norm):
    values = to_dict(preset("miniature"))
    values["segmentation"]["freeze_batch_norm"] = frozen
    del values["segmentation"]["net"]["decoder_norm"]
    assert from_dict(upgraded(values)).segmentation.net.decoder_norm == norm


def test_a_run_from_before_each_stage_had_a_precision_computed_in_fp32_and_stays_so():
    run = read_run(str(EARLIER))
    found = [run.cams.precision, run.text.precision, run.masks.precision, run.segmentation.test.precision]
    assert found == ["fp32"] * 4 and run.cluster.precision == "fp32"
    assert upgraded({"cams": {"batch_size": 4}}) == {"cams": {"batch_size": 4}}, "a preset may leave it open"


def test_a_preset_of_today_may_leave_the_norm_open():
    assert upgraded({"segmentation": {"net": {"architecture": "encoder"}}})["segmentation"]["net"] == {
        "architecture": "encoder"
    }

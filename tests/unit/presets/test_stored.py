"""Run folders and preset files of earlier versions are still read."""

import json
from pathlib import Path

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.stored import RENAMED, read_run, renamed, upgraded
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import System, from_dict, to_dict
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
    assert run.segmentation == preset("miniature").segmentation
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


@pytest.mark.parametrize(("content", "message"), [("[1]", "cannot be used"), ('{"name": "x"}', "Field required")])
def test_a_file_that_is_no_run_is_refused(tmp_path, content, message):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_run(str(path))

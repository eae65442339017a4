"""What a search may vary, where it starts, and what it leaves behind."""

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.settings import Parameter
from qaclims_ray.systems.search import (
    SearchConfig,
    best_config,
    checked_search,
    default_space,
    start_values,
    trial_config,
)
from qaclims_ray.systems.table import system_config

OMEGA = Parameter(name="ritc.omega", low=0.0, high=0.6)


@pytest.mark.parametrize("system", ["qa_clims", "clims", "semples", "qa_clims_prompts"])
def test_the_default_space_holds_the_start_of_the_miniature(system):
    search = checked_search(miniature(), SearchConfig(system=system))
    assert search.space
    assert set(start_values(miniature(), system, search.space)) == {parameter.name for parameter in search.space}


def test_a_trial_is_the_system_with_its_values_and_rates_every_epoch():
    config = trial_config(miniature(), SearchConfig(space=(OMEGA,)), "trial_1", {"ritc.omega": 0.3})
    own = system_config(config, "trial_1")
    assert own.ritc.omega == 0.3
    assert own.selection.criterion == "separation"
    assert config.selection.criterion == "last"  # a system that others start from is trained as ever
    assert config.systems == ("trial_1",)


def test_the_best_is_a_run_of_the_preset_with_the_found_values():
    config = with_overrides(miniature(), {"systems": ["baseline"]})
    found = best_config(config, SearchConfig(), {"ritc.omega": 0.3, "evaluation.fixed_threshold": 0.25})
    own = system_config(found, "qa_clims")
    assert (own.ritc.omega, own.evaluation.fixed_threshold) == (0.3, 0.25)
    assert found.systems == ("baseline", "qa_clims")
    assert own.selection.criterion == "last"
    assert system_config(found, "baseline").evaluation == system_config(config, "baseline").evaluation


def test_masks_need_a_split_and_never_the_reported_one():
    with pytest.raises(ConfigError, match="on which split"):
        SearchConfig(objective="masks")
    with pytest.raises(ConfigError, match="reads no masks"):
        SearchConfig(split="val")
    with pytest.raises(ConfigError, match="whose score is reported"):
        checked_search(miniature(), SearchConfig(objective="masks", split="train"))
    with pytest.raises(ConfigError, match="whose score is reported"):  # its final network is scored there
        checked_search(miniature(), SearchConfig(objective="masks", split="val"))
    seeds = with_overrides(miniature(), {"goal": "seed"})
    search = checked_search(seeds, SearchConfig(objective="masks", split="val"))
    own = system_config(trial_config(seeds, search, "t", {}), "t")
    assert (own.selection.criterion, own.selection.split) == ("oracle", "val")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"name": "ritc.nosuch", "high": 1.0}, "no setting 'ritc.nosuch'"),
        ({"name": "classifier.optim.lr", "high": 1.0}, "cannot be searched"),
        ({"name": "ritc.optim.epochs", "kind": "int", "low": 1, "high": 9}, "cannot be searched"),
        ({"name": "ritc.omega", "low": 0.2, "high": 0.6}, "starts at 0.1"),
        ({"name": "ritc.omega", "low": 0.0, "high": 1.5}, "ritc.omega"),
    ],
)
def test_what_cannot_be_searched_is_named(parameter, message):
    with pytest.raises(ConfigError, match=message):
        checked_search(miniature(), SearchConfig(space=(Parameter(**parameter),)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": 1.0, "high": 0.5}, "low is 1"),
        ({"kind": "log", "high": 1.0}, "more than 0"),
        ({"kind": "choice", "choices": (1,)}, "1 choices"),
        ({"high": 1.0, "choices": (1, 2)}, "set kind to choice"),
    ],
)
def test_a_bad_parameter_names_itself(values, message):
    with pytest.raises(ConfigError, match=rf"ritc\.omega.*{message}"):
        Parameter(name="ritc.omega", **values)


def test_nothing_to_search_in_a_classifier():
    with pytest.raises(ConfigError, match="learns nothing from CLIP"):
        default_space(miniature(), "baseline")


def test_a_preset_file_is_a_preset(tmp_path):
    import json

    from qaclims_ray.run_config import to_dict

    path = tmp_path / "found.json"
    path.write_text(json.dumps(to_dict(with_overrides(miniature(), {"ritc.omega": 0.3}))))
    assert preset(str(path)).ritc.omega == 0.3
    path.write_text("{")
    with pytest.raises(ConfigError, match="it is cut short"):
        preset(str(path))
    with pytest.raises(ConfigError, match="no preset file"):
        preset(str(tmp_path / "absent.json"))


def test_the_threshold_that_is_searched_is_the_one_that_scoring_and_masks_share():
    config = preset("voc12")
    search = checked_search(config, SearchConfig())
    assert search.space[-1].name == "masks.seed_threshold"
    assert start_values(config, "qa_clims", search.space)["masks.seed_threshold"] == 0.15
    own = system_config(best_config(config, search, {"masks.seed_threshold": 0.3}), "qa_clims")
    assert own.fixed_threshold == own.masks.seed_threshold == 0.3
    pinned = with_overrides(miniature(), {"evaluation.fixed_threshold": 0.1})
    assert default_space(pinned, "qa_clims")[-1].name == "evaluation.fixed_threshold"
    with pytest.raises(ConfigError, match=r"masks\.seed_threshold cannot be searched"):
        checked_search(pinned, SearchConfig(space=(Parameter(name="masks.seed_threshold", high=0.7),)))


def test_a_space_that_names_the_threshold_of_scoring_starts_where_it_counts():
    space = (Parameter(name="evaluation.fixed_threshold", low=0.02, high=0.7),)
    assert start_values(preset("voc12"), "qa_clims", space) == {"evaluation.fixed_threshold": 0.15}
    assert checked_search(preset("voc12"), SearchConfig(space=space)).space == space

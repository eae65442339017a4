"""Bases, options and published combinations: what they give, and what is refused."""

import copy
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.option import AXES
from qaclims_ray.presets.stored import upgraded
from qaclims_ray.presets.table import BASES, PRESETS, preset, started_from
from qaclims_ray.run_config import RunConfig, flat, from_dict, with_overrides
from qaclims_ray.systems.checks import check_systems
from qaclims_ray.systems.table import system_config, training_order
from qaclims_ray.training.config import OptimConfig

RESOLVED: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("resolved.json").read_text())
"""Every published preset written out, most of them as they were before presets were made of options: voc12 in full, the
others where they differ from it."""
ALLOWED = [(base.name, option.name) for base in BASES.values() for option in base.options]


def resolved(name: str) -> RunConfig:
    values = copy.deepcopy(RESOLVED["voc12"])
    for path, value in RESOLVED[name].items() if name != "voc12" else ():
        *parents, last = path.split(".")
        node = values
        for part in parents:
            node = node[part]
        node[last] = value
    return from_dict(upgraded(values))


def combinations() -> list[tuple[str, ...]]:
    """All combinations of options that contradict each other nowhere, for each base."""
    found = []
    for base in BASES.values():
        choices = [[None, *(option for option in base.options if option.axis == axis)] for axis in AXES]
        for chosen in itertools.product(*choices):
            options = [option for option in chosen if option is not None]
            if not any(one.name in other.excludes for one in options for other in options):
                found.append((base.name, *(option.name for option in options)))
    return found


def test_every_published_name_of_before_is_there() -> None:
    assert set(RESOLVED) | {"voc12_efficientnet_lite2", "folder", "folder-no-download"} == set(PRESETS)


@pytest.mark.parametrize("name", [name for name in RESOLVED if name != "voc12_mobilenet"])
def test_a_published_combination_is_what_it_was_when_it_was_written_out(name) -> None:
    assert preset(name) == preset(*PRESETS[name].words) == resolved(name)


def test_small_networks_differ_in_the_backbone_and_what_it_needs() -> None:
    one, other = flat(preset("voc12_mobilenet")), flat(preset("voc12 lite2"))
    changed = {name for name in one if one[name] != other[name]} - {"name"}
    backbones = {f"{section}.backbone" for section in ("cam_net", "masks.irn", "segmentation.net")}
    paddings = {"cam_net.pad_same", "segmentation.net.pad_same"}
    cuts = {"seed_threshold", "irn.walk_threshold", "irn.background_threshold", "irn.foreground_threshold"}
    assert changed == backbones | paddings | {f"masks.{name}" for name in cuts}
    for settings in (one, other):
        assert settings["evaluation.fixed_threshold"] is None, "seeds are scored as they are cut"
        assert settings["segmentation.steps_per_epoch"] is None, "the training grows with the photographs"


@pytest.mark.parametrize(("base", "option"), ALLOWED)
def test_no_option_does_nothing(base, option) -> None:
    before, after = flat(preset(base)), flat(preset(base, option))
    changed = {name for name in before if before[name] != after[name]}
    assert changed - {"name", "profile"}


@functools.cache
def _settings(*words: str) -> dict[str, Any]:
    """Return the settings of a combination, which each combination with one option more is compared with."""
    return flat(preset(*words))


@pytest.mark.parametrize("words", combinations(), ids=" ".join)
def test_every_combination_can_run_and_every_option_counts_in_it(words) -> None:
    config = preset(*words)
    check_systems(config)
    assert preset(config.name) == config == started_from(config)
    for option in words[1:]:
        without = _settings(*(word for word in words if word != option))
        assert {n for n, value in _settings(*words).items() if value != without[n]} - {"name", "profile"}


@pytest.mark.parametrize("name", ["mine", "voc12 of May", "mine.json"])
def test_a_run_with_a_name_of_its_own_started_from_no_preset(name) -> None:
    assert started_from(with_overrides(preset("voc12"), {"name": name})) is None


def test_options_may_be_named_in_any_order_and_after_a_published_name() -> None:
    expected = preset("voc12", "weaktr", "paper", "mask2former")
    assert preset("voc12 mask2former paper weaktr") == preset("voc12_weaktr paper", "mask2former") == expected
    assert expected.name == "voc12 weaktr paper mask2former"
    assert preset("voc12 mask2former weaktr").name == "voc12_mask2former"


def test_a_profile_is_what_the_option_sets() -> None:
    profiles = {name: preset(name).profile for name in PRESETS}
    assert {name for name, profile in profiles.items() if profile == "paper"} == {
        "voc12_paper",
        "voc12_weaktr_paper",
        "coco14_paper",
    }


def sgd_trainings(config: RunConfig) -> dict[str, OptimConfig]:
    """The trainings before the final network that step by SGD, by the system and the setting."""
    found = {}
    for name in training_order(config):
        own = system_config(config, name)
        parts = {"classifier": own.classifier, "ritc": own.ritc, "clims": own.clims, "masks.irn": own.masks.irn}
        found |= {f"{name}: {part}": value.optim for part, value in parts.items() if value.optim.name == "sgd"}
    return found


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).profile == "official"])
def test_the_released_momentum_is_the_weight_decay_in_every_official_preset(name) -> None:
    """Row R14; final networks are trained by other code, with the momentum that it names."""
    found = sgd_trainings(preset(name))
    assert {(one.momentum, one.weight_decay) for one in found.values()} <= {(1e-4, 1e-4)}, found
    assert bool(found) != name.startswith("miniature"), "everything in the miniature world learns by AdamW"


def test_the_paper_has_momentum_where_it_is_about_ritc() -> None:
    found = sgd_trainings(preset("voc12_paper"))
    assert {one.momentum for key, one in found.items() if key.endswith(": ritc")} == {0.9}
    assert {one.momentum for key, one in found.items() if not key.endswith(": ritc")} == {1e-4}


def test_the_paper_s_wording_is_that_of_what_is_trained() -> None:
    both = preset("voc12 combined paper")
    assert (both.ritc.region_mode, both.semples.refine_init) == ("pixel_mask", "matched")
    one = preset("voc12 weaktr paper")
    assert (one.ritc, one.semples.refine_init) == (preset("voc12 weaktr").ritc, "matched")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("voc13", r"no preset 'voc13'; did you mean 'voc12'\? known: miniature, .*voc12_weaktr"),
        ("", "no preset ''; known"),
        ("paper", "'paper' is an option: name what it is an option of before it, e.g. voc12 paper"),
        (
            "voc12 papers",
            r"voc12 has no option 'papers'; did you mean 'paper'\? it takes: clims, combined, weaktr, plain-clip",
        ),
        (
            "coco14 mobilenet",
            r"coco14 has no option 'mobilenet' \(folder, voc12 has it\); it takes: clims, combined, weaktr",
        ),
        ("bcss_wsss paper", r"bcss_wsss has no option 'paper' \(voc12, coco14 has it\); it takes: none"),
        ("voc12 coco14", "'coco14' is a preset, and voc12 is one already"),
        ("voc12 paper paper", "'paper' is given twice"),
        ("voc12_paper paper", "'paper' is given twice"),
        ("voc12 weaktr clims", "'weaktr' and 'clims' both choose the method"),
        ("voc12_mask2former deeplab-v1", "'mask2former' and 'deeplab-v1' both choose the final network"),
        ("voc12 plain-clip weaktr", "contradict each other: weaktr brings a plain CLIP of its own"),
        ("voc12 clims plain-clip", "contradict each other: clims brings a plain CLIP"),
        ("voc12 clims paper", "contradict each other: clims runs both published forms"),
        ("coco14 clims paper", "contradict each other: the papers have no other wording of CLIMS on COCO"),
        ("coco14 clims plain-clip", "contradict each other: clims brings a plain CLIP"),
        ("voc12 mobilenet lite2", "'mobilenet' and 'lite2' both choose the final network"),
        ("voc12 mobilenet paper", "contradict each other: small networks train the baseline alone"),
    ],
)
def test_what_cannot_be_combined_is_said_in_one_line(words, message) -> None:
    with pytest.raises(ConfigError, match=message):
        preset(words)


def test_a_file_takes_no_options(tmp_path) -> None:
    with pytest.raises(ConfigError, match="holds a whole run, which takes no options; leave out: paper"):
        preset(str(tmp_path / "run.json"), "paper")

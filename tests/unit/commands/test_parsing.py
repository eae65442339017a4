"""Mistakes in a line are said in one line of ours, with the word that was meant."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from qaclims_ray.commands.arguments import parse_run
from qaclims_ray.commands.line import Line, with_run_option
from qaclims_ray.commands.tune import parse_search
from qaclims_ray.commands.verbs import VERBS
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import at, to_dict, with_overrides
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.systems.checks import check_systems


def _line(text: str, **options: str) -> Line:
    return Line(tuple(text.split()), "prog", "About it.", **options)


def _refused(parse, text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse(_line(text))
    said = str(refused.value)
    assert "\n" not in said and not re.search("[│╭╰─]", said)
    return said


MISTAKES = pytest.mark.parametrize(
    ("text", "said"),
    [
        ("miniature --out x --ritc.omegga 0.1", "there is no option --ritc.omegga; did you mean '--ritc.omega'?"),
        ("miniature --otu x", "there is no option --otu; did you mean '--out'?"),
        ("miniature --out x --wholly-else 1", "there is no option --wholly-else; `prog miniature --help`"),
        ("miniature --out x --a.b 1 --c_d 2", "there is no option --a.b (nor --c-d)"),
        ("miniature", "--out must be given; `prog miniature --help` says what it takes"),
        ("miniature --out x stray", "stray belongs to no option"),
        ("miniature --out x --seed foo", "--seed is 'foo', expected a whole number"),
        ("miniature --out x --ritc.omega foo", "--ritc.omega is 'foo', expected a number"),
        ("miniature --out x --data.limit 1.5", "--data.limit is '1.5', expected None or a whole number"),
        ("miniature --out x --goal sed", "expected one of seed, mask, segmentation (did you mean 'seed'?); `prog"),
        ("miniature --out x --supervised-bound maybe", "--supervised-bound is 'maybe', expected one of True, False"),
        ("miniatur --out x", "there is no preset 'miniatur'; did you mean 'miniature'? known: miniature, "),
        ("VOC12 --out x", "there is no preset 'VOC12'; did you mean 'voc12'?"),
        ("voc12 papr --out x", "voc12 has no option 'papr'; did you mean 'paper'? it takes: "),
        ("voc12 plain_clip --out x", "did you mean 'plain-clip'?"),
        ("miniature --out x --cams.scales a b", "--cams.scales is 'a', 'b', which it does not take; `prog"),
        ("miniature --out x --seed", "--seed stands without a value; `prog"),
    ],
)


@MISTAKES
def test_a_mistake_is_one_line(text: str, said: str) -> None:
    assert said in _refused(parse_run, text)


@MISTAKES
def test_it_is_where_the_terminal_draws_no_boxes(text: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with io.TextIOWrapper(io.BytesIO(), encoding="ascii") as plain:
        monkeypatch.setattr(sys, "stdout", plain)
        refused = _refused(parse_run, text)
    assert said in refused and "----" not in refused


def test_a_searchs_own_options_are_known_too() -> None:
    assert "did you mean '--trials'?" in _refused(parse_search, "miniature --out x --trails 3")


@pytest.mark.parametrize(
    ("verb", "text", "said"),
    [
        ("predict", "--imagse x", "there is no option --imagse; did you mean '--images'?"),
        ("predict", "", "--run and --images and --out must be given"),
        ("compare", "a b --otu x", "did you mean '--out'?"),
        ("fetch", "--lst", "did you mean '--list'?"),
        ("sync", "--spool x", "--uri must be given"),
    ],
)
def test_verbs_without_a_preset_say_it_alike(verb: str, text: str, said: str) -> None:
    assert said in _refused(VERBS[verb].parse, text)


def test_systems_and_settings_are_near_too() -> None:
    with pytest.raises(ConfigError, match="there is no system 'qa_clms'; did you mean 'qa_clims'"):
        check_systems(with_overrides(preset("miniature"), {"systems": ["qa_clms"]}))
    with pytest.raises(ConfigError, match=r"no setting 'ritc\.omga'; did you mean 'ritc\.omega'\? .*--help-all"):
        at(preset("miniature"), "ritc.omga")
    with pytest.raises(ConfigError, match=r"did you mean 'masks\.seed_threshold'"):
        with_overrides(preset("miniature"), {"masks.seed_treshold": 0.1})


# --- the folder of a run


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("mini", "other"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        own = with_overrides(preset("miniature"), {"seed": 7, "name": "mine"})
        (tmp_path / "runs" / name / "config.json").write_text(json.dumps(to_dict(own)))
    (tmp_path / "runs/else").mkdir()
    (tmp_path / "runs/else/config.json").write_text('{"some": "model"}')
    return tmp_path / "runs"


def test_a_runs_folder_stands_for_the_run(runs: Path) -> None:
    asked = parse_run(_line("runs/mini --ritc.omega 0.2"))
    assert asked.out == str(runs / "mini") and asked.config.seed == 7 and asked.config.ritc.omega == 0.2
    assert asked == parse_run(_line("--out runs/mini --ritc.omega 0.2"))
    assert parse_run(_line("runs/mini/", default_preset="voc12")).config.seed == 7


def test_with_another_output_folder_its_settings_are_taken(runs: Path) -> None:
    asked = parse_run(_line("runs/mini --out runs/new"))
    assert asked.out == str(runs / "new") and asked.config.seed == 7
    assert parse_search(_line("runs/mini --out runs/new")).config.seed == 7


def test_a_preset_comes_before_a_folder_of_its_name(runs: Path) -> None:
    (runs / "mini").rename(runs.parent / "miniature")
    assert parse_run(_line("miniature --out x")).config.seed == 0


@pytest.mark.parametrize("text", ["runs/mni", "--out runs/mni"])
def test_a_folder_without_a_run_says_which_runs_are_there(runs: Path, text: str) -> None:
    said = _refused(parse_run, text)
    assert f"there is no run at {runs / 'mni'} (no config.json)" in said
    assert f"did you mean 'mini'? there are {runs / 'mini'}, {runs / 'other'}" in said and "else" not in said


def test_who_cannot_begin_a_run_is_not_told_to(runs: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(str(runs), can_begin=False)
    assert "preset" not in str(refused.value) and f"there are {runs / 'mini'}, " in str(refused.value)
    with pytest.raises(ConfigError, match="begin one with a preset"):
        load_config(str(runs))


def test_predict_and_prompts_take_the_folder_as_first_word(runs: Path) -> None:
    asked = VERBS["predict"].parse(_line("runs/mini --images a.png b.png --out x"))
    assert (asked.run, asked.images, asked.out) == ("runs/mini", ("a.png", "b.png"), "x")
    assert VERBS["prompts"].parse(_line("runs/mini --top 3")).run == "runs/mini"
    assert with_run_option(_line("--run a")) == _line("--run a") and with_run_option(_line("")) == _line("")

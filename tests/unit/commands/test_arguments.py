"""How a command line is read: the preset's words, output folder and settings."""

import json

import pytest

from qaclims_ray.commands.ablate import parse_ablation
from qaclims_ray.commands.arguments import parse_run, take_preset
from qaclims_ray.commands.line import Line
from qaclims_ray.commands.tune import parse_search
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict, with_overrides


def _line(*arguments: str, default_preset: str = "") -> Line:
    return Line(arguments, "prog", "About it.", default_preset)


@pytest.mark.parametrize(
    ("arguments", "words", "rest"),
    [
        (("voc12", "--out", "x"), ["voc12"], ["--out", "x"]),
        (("voc12", "plain-clip", "paper", "--out", "x"), ["voc12", "plain-clip", "paper"], ["--out", "x"]),
        (("--out", "x", "--preset", "voc12"), ["voc12"], ["--out", "x"]),
        (("--preset", "voc12 paper", "--out", "x"), ["voc12 paper"], ["--out", "x"]),
        (("--preset", "voc12", "paper", "--out", "x"), ["voc12", "paper"], ["--out", "x"]),
        (("--preset=voc12", "--out", "x"), ["voc12"], ["--out", "x"]),
        (("--out", "x"), [], ["--out", "x"]),
        ((), [], []),
    ],
)
def test_the_words_of_a_preset_are_taken_from_a_line(arguments, words, rest):
    assert take_preset(_line(*arguments)) == (words, rest)


def test_the_default_counts_when_no_preset_is_named():
    assert take_preset(_line("--out", "x", default_preset="voc12 paper")) == (["voc12", "paper"], ["--out", "x"])
    assert take_preset(_line("coco14", default_preset="voc12")) == (["coco14"], [])


def test_settings_come_on_top_of_the_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = _line("voc12", "paper", "--out", "o", "--data-root", "voc", "--ritc.omega", "0.2", "--systems", "qa_clims")
    asked = parse_run(line)
    expected = {"data.root": str(tmp_path / "voc"), "ritc.omega": 0.2, "systems": ["qa_clims"]}
    assert asked.config == with_overrides(preset("voc12_paper"), expected)
    assert asked.out == str(tmp_path / "o")


def test_without_a_preset_the_stored_run_is_taken(tmp_path):
    stored = with_overrides(preset("voc12 paper"), {"data.root": "/data"})
    (tmp_path / "config.json").write_text(json.dumps(to_dict(stored)))
    assert parse_run(_line("--out", str(tmp_path))).config == stored
    assert parse_run(_line("--out", str(tmp_path), "--profile", "paper")).config == stored
    with pytest.raises(ConfigError, match="--profile has no meaning here"):
        parse_run(_line("--out", str(tmp_path), "--profile", "official"))


@pytest.mark.parametrize("parse", [parse_ablation, parse_search])
def test_settings_that_a_command_decides_itself_are_refused(parse, tmp_path):
    table = ["qa_clims_fat"] if parse is parse_ablation else []
    path = tmp_path / "run.json"
    own = {"variants": [{"name": "x", "like": "clims"}], "systems": ["x"]}
    path.write_text(json.dumps(to_dict(with_overrides(preset("miniature"), own))))
    line = _line(*table, str(path), "--out", "/o", "--variants.0.name", "y")
    with pytest.raises(ConfigError, match="--variants has no meaning here"):
        parse(line)


@pytest.mark.parametrize("parse", [parse_ablation, parse_search])
def test_settings_for_known_systems_go_with_any_command(parse):
    table = ["qa_clims_fat"] if parse is parse_ablation else []
    asked = parse(_line(*table, "miniature", "--out", "/o", "--variants.0.overrides.masks.seed-threshold", "0.5"))
    assert asked.config.variants[0].overrides["masks.seed_threshold"] == 0.5
    assert (asked.preset, asked.out) == ("miniature", "/o")


def test_a_search_and_a_table_take_options():
    assert (
        parse_search(_line("miniature", "semples", "--out", "/o", "--system", "semples")).preset == "miniature semples"
    )
    ablation = parse_ablation(_line("semples_table6", "--preset", "voc12 weaktr", "--out", "/o", "--data-root", "/d"))
    assert (ablation.preset, ablation.config.name) == ("voc12 weaktr", "voc12_weaktr")

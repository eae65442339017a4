"""The help that a person looks through: groups, words, present values, and all settings on demand."""

import re
import subprocess
import sys

import pytest

from qaclims_ray import cli
from qaclims_ray.commands.arguments import RunArguments, parse_run
from qaclims_ray.commands.every_setting import documented_fields, in_words, named_rows, setting_sections
from qaclims_ray.commands.line import Line
from qaclims_ray.commands.settings_help import GROUPS
from qaclims_ray.commands.verb_help import GROUPS_OF_VERBS, verbs_help
from qaclims_ray.commands.verbs import VERBS
from qaclims_ray.data.config import DataConfig
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import flat

NAMES = [name for _, group in GROUPS for name, _, _ in group]


def shown(capsys: pytest.CaptureFixture, *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        parse_run(Line(arguments, "qaclims run", "What it does."))
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_it_names_about_25_settings_that_exist_in_words_of_a_user() -> None:
    known = {*flat(preset("miniature")), "out", "data_root"}
    assert set(NAMES) <= known and len(NAMES) == len(set(NAMES)) and 22 <= len(NAMES) <= 30
    for _, group in GROUPS:
        for name, _, words in group:
            assert words and not re.search(r"\b[A-Z]\d+\b|\(Eq|QAPE|RITC|DDP", words), name


def test_the_help_of_a_preset_shows_groups_and_present_values(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    said = shown(capsys, "voc12", "plain-clip", "--help")
    assert said.startswith("usage: qaclims run voc12 plain-clip --out DIR [settings]\n\nWhat it does.\n\nQA-CLIMS on")
    assert re.findall(r"^  (--[\w.-]+)", said, re.MULTILINE) == ["--" + name.replace("_", "-") for name in NAMES]
    assert "[openai]" in said and "--goal {seed,mask,segmentation}" in said and "[baseline" in said
    assert f"`qaclims run voc12 plain-clip --help-all` shows all {len(flat(preset('voc12')))} settings" in said
    assert max(map(len, said.splitlines())) <= 120


def test_a_stored_runs_help_shows_its_own_values(capsys, tmp_path) -> None:
    import json

    from qaclims_ray.run_config import to_dict, with_overrides

    stored = with_overrides(preset("miniature"), {"seed": 4711})
    (tmp_path / "config.json").write_text(json.dumps(to_dict(stored)))
    for line in ((str(tmp_path), "--help"), ("--out", str(tmp_path), "--help")):
        assert "[4711]" in shown(capsys, *line)


def test_all_settings_are_shown_on_demand_in_words(capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    said = shown(capsys, "voc12", "plain-clip", "--help-all")
    flags = re.findall(r"^  --([\w.-]+)", said, re.MULTILINE)
    names = [name.replace("_", "-") for name in ("out", "data_root", *flat(preset("voc12")))]
    assert sorted(flags) == sorted(names)
    assert "QA-CLIMS Eq. 9" in " ".join(said.split()) and "[openai]" in said and "docs/method.md, section 10" in said
    assert not re.search(r"\b[QRCSED]\d{1,2}\b", said), "rows of docs/method.md explain nothing to a stranger"
    assert max(map(len, said.splitlines())) <= 120


def test_every_setting_has_words_and_stands_in_a_section_of_its_name() -> None:
    for section in setting_sections(preset("miniature")):
        assert section.words, section.name
        for name, takes, words in section.settings:
            assert words and takes and name.rpartition(".")[0] == section.name, name
    by_name = {section.name: section.words for section in setting_sections(preset("miniature"))}
    assert by_name["masks.irn.crf"].startswith("CRF of the confident seeds"), "several sections share its class"


@pytest.mark.parametrize(
    ("text", "expected", "rows"),
    [
        ("The scores (E4). More (R2).", "The scores. More.", ["E4", "R2"]),
        ("Final (D1-D5); first (rows S2, S3).", "Final; first.", ["D1", "D5", "S2", "S3"]),
        ("Pooled (QA-CLIMS Eq. 8) (R11).", "Pooled (QA-CLIMS Eq. 8).", ["R11"]),
        ("Rounds (Table 6, S19).", "Rounds (Table 6).", ["S19"]),
        ("Kept (R8: they move).", "Kept (they move).", ["R8"]),
        ("Asking (QA-CLIMS 3.2, rows Q1-Q5, Q13).", "Asking (QA-CLIMS 3.2).", ["Q1", "Q5", "Q13"]),
        ("Of ViT-B and H200 (a GPU).", "Of ViT-B and H200 (a GPU).", []),
    ],
)
def test_rows_are_left_out_of_words(text, expected, rows) -> None:
    assert in_words(text) == expected and named_rows(text) == rows


@pytest.mark.parametrize("ask", ["--help", "-h", "--help-all"])
def test_without_a_preset_the_presets_are_listed(capsys, ask) -> None:
    said = shown(capsys, ask)
    assert "  voc12 " in said and "`qaclims run PRESET OPTIONS... --help` lists the settings" in said


@pytest.mark.parametrize(
    ("line", "expected", "absent"),
    [
        (["ablate", "qa_clims_fat", "miniature", "--help"], ["this verb:", "--seeds N ...", "[20 21 22]"], "--systems"),
        (["tune", "miniature", "--help"], ["this verb:", "--trials N", "[24]", "--vary TEXT"], "--tune"),
    ],
)
def test_verbs_show_their_own_options_first(capsys, monkeypatch, line, expected, absent) -> None:
    monkeypatch.setattr("sys.argv", ["qaclims", *line])
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().out
    assert all(words in said for words in expected) and f"  {absent} " not in said
    assert said.index("this verb:") < said.index("what it reads and writes:")


def test_words_under_fields_are_read() -> None:
    words = documented_fields(RunArguments)
    assert words["data_root"] == "Folder of the data set; short for --data.root."
    assert set(documented_fields(DataConfig)) == set(DataConfig.__dataclass_fields__)


# --- the list of verbs


def call(monkeypatch, capsys, *arguments: str) -> tuple[object, str]:
    monkeypatch.setattr("sys.argv", ["qaclims", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code, capsys.readouterr().out


def test_all_verbs_are_listed_once_and_in_groups() -> None:
    said = verbs_help(VERBS)
    for name in (*VERBS, "help"):
        assert len(re.findall(rf"^  {name} +\S", said, re.MULTILINE)) == 1, name
    assert said.index("start here:") < said.index("stages") < said.index("look and compare:") < said.index("use and")
    assert "others:" not in said or {*VERBS} - {name for _, group in GROUPS_OF_VERBS for name in group}
    assert "others:" in verbs_help({**VERBS, "frobnicate": VERBS["run"]})


@pytest.mark.parametrize(("arguments", "code"), [(["help"], 0), (["--help"], 0), (["-h"], 0), ([], 2)])
def test_the_list_is_shown(monkeypatch, capsys, arguments, code) -> None:
    assert call(monkeypatch, capsys, *arguments) == (code, verbs_help(VERBS) + "\n")


def test_help_of_a_verb_is_that_verbs_help(monkeypatch, capsys) -> None:
    assert call(monkeypatch, capsys, "help", "run", "miniature") == call(monkeypatch, capsys, "run", "miniature", "-h")
    code, said = call(monkeypatch, capsys, "help", "compare")
    assert code == 0 and "--resamples" in said


@pytest.mark.parametrize("line", ["help", "run --help", "run miniature --help"])
def test_a_reader_who_leaves_early_meets_no_traceback(line) -> None:
    command = [sys.executable, "-m", "qaclims_ray", *line.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141

"""Every job and verb explains itself, and refuses what it does not know, without starting anything.

One process proves each way in; the rest runs in this one, because importing torch and Ray takes seconds every time.
"""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from qaclims_ray import cli

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.name for path in (ROOT / "jobs").glob("*.py") if path.name != "__init__.py")


def _run(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT)


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a script of jobs/, or the command itself, in this process; return (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[object, str, str]:
        is_job = arguments[0].startswith("jobs/")
        monkeypatch.setattr(sys, "argv", list(arguments) if is_job else ["qaclims", *arguments])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as ended:
            if is_job:
                runpy.run_path(str(ROOT / arguments[0]), run_name="__main__")
            else:
                cli.main()
        return (ended.value.code, *capsys.readouterr())

    return run


@pytest.mark.parametrize("job", JOBS)
def test_job_help(job, call):
    code, out, err = call(f"jobs/{job}", "--help")
    assert code == 0, err
    assert "--out" in out


def test_job_runs_as_a_script_of_its_own():
    outcome = _run("jobs/train_voc.py", "--preset", "nosuch", "--out", "x")
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("jobs/train_voc.py: ConfigError: there is no preset 'nosuch'")


def test_settings_are_listed_with_their_documentation(call):
    code, out, _ = call("run", "miniature", "--help-all")
    assert code == 0
    assert "--ritc.omega" in out
    assert "QA-CLIMS Eq. 9" in " ".join(out.split())
    code, out, _ = call("run", "miniature", "--help")
    assert code == 0 and "--goal {seed,mask,segmentation}" in out and "--ritc.omega" not in out


@pytest.mark.parametrize("verb", ["run", "report", "ablate", "tune"])
def test_help_lists_the_presets_and_the_options_each_takes(verb, call):
    code, out, _ = call(verb, "--help")
    assert code == 0
    assert re.search(r"  voc12 .*\n    clims +method .*(\n    .*)*\n    lite2 +final network .*\n  coco14 ", out)
    assert "voc12_mask2former    = voc12 weaktr mask2former" in out


def test_ablation_lists_its_tables_and_the_settings(call):
    code, out, _ = call("ablate", "--help")
    assert code == 0
    assert "semples_table6" in out
    code, out, _ = call("ablate", "qa_clims_fat", "miniature", "--help-all")
    assert code == 0
    assert "--seeds" in out
    assert "--ritc.omega" in out


def test_command_runs_as_a_module():
    outcome = _run("-m", "qaclims_ray", "frobnicate")
    assert outcome.returncode == 2
    assert "there is no verb" in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nosuch", "--out", "x"], "there is no preset 'nosuch'"),
        (["run", "voc12", "--out", "x"], "data.root is empty"),
        (["run", "miniature", "--out", "x", "--ritc.omega", "7"], "ritc.omega"),
        (["run", "miniature", "--out", "x", "--systems", "nosuch"], "there is no system 'nosuch'"),
        (["run", "miniature", "--out", "/proc/nowhere", "--systems", "baseline"], "cannot be written"),
        (["predict", "--run", "nowhere", "--images", "x.png", "--out", "y"], "there is no run at"),
        (["prompts", "--run", "nowhere"], "there is no run at"),
        (["frobnicate"], "there is no verb"),
        (
            ["run", "voc12", "papers", "--out", "x"],
            "voc12 has no option 'papers'; did you mean 'paper'\\? it takes: clims",
        ),
        (["run", "voc12", "weaktr", "clims", "--out", "x"], "both choose the method"),
        (["run", "voc12", "--out", "x", "--profile", "paper"], "--profile has no meaning here: .* the option paper"),
        (["run", "miniature", "--out", "x", "--variants.0.overrides.masks.seed-threshold", "7"], "seed_threshold is 7"),
        (["ablate", "nosuch", "miniature", "--out", "x"], "there is no table 'nosuch'"),
        (["ablate", "qa_clims_fat", "--out", "x"], "name a preset after the table"),
        (["ablate", "qa_clims_fat", "voc12", "--out", "x"], "data.root is empty"),
        (["ablate", "qa_clims_fat", "miniature", "--out", "x", "--seed", "4"], "give --seeds"),
        (["ablate", "qa_clims_fat", "miniature", "--out", "x", "--seeds", "4", "4"], "different numbers"),
        (["ablate", "qa_clims_fat", "voc12", "deeplab-v9", "--out", "x"], "has no option 'deeplab-v9'"),
        (["ablate", "qa_clims_fat", "voc12", "paper", "--out", "x"], "data.root is empty"),
        (["tune", "miniature", "semples", "weaktr", "--out", "x"], "both choose the method"),
        (["jobs/train_voc.py", "--preset", "voc12 paper", "--out", "x"], "data.root is empty"),
        (["jobs/train_voc.py", "paper", "--out", "x"], "name what it is an option of before it, e.g. voc12 paper"),
        (["tune", "nosuch", "--out", "x"], "there is no preset 'nosuch'"),
        (["tune", "voc12", "--out", "x"], "data.root is empty"),
        (["tune", "miniature", "--out", "x", "--vary", "ritc.nosuch"], "ritc.nosuch is not in the space"),
        (["tune", "miniature", "--out", "x", "--objective", "masks"], "on which split"),
        (["sync", "--spool", "nowhere", "--uri", "http://127.0.0.1:9"], "there is nothing at"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path, call):
    code, _, err = call(*[str(tmp_path / "x") if a == "x" else a for a in arguments])
    assert code == 2
    assert re.search(message, err)
    assert "Traceback" not in err


def test_the_version_is_told(call):
    code, out, _ = call("--version")
    assert code == 0 and re.fullmatch(r"qaclims (\d+\.\d+\.\d+\S*|source)\n", out)


def test_a_verb_that_is_nearly_one_is_answered_with_it(call):
    code, out, err = call("evalaute", "--out", "x")
    assert (code, out) == (2, "")
    assert "there is no verb 'evalaute'; did you mean 'evaluate'? known: " in err and ", data, corpus, " in err
    assert "did you mean" not in call("xyzzy")[2]

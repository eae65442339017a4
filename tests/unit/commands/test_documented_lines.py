"""Every line `qaclims VERB ...` of the documentation is one that the command reads, whoever renames an option."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from qaclims_ray.commands.line import Line
from qaclims_ray.commands.verbs import VERBS
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import to_dict

ROOT = Path(__file__).parents[3]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "qaclims_ray").rglob("*.md")]
PLACEHOLDERS = {"--data.dataset NAME": "--data.dataset folder"}


def _lines() -> Iterator[tuple[str, str]]:
    """Yield the lines of all blocks of commands, and the page of each; one that shows what is optional is none."""
    seen = set()
    for page in PAGES:
        for block in re.findall(r"^```(?:sh|bash)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in re.findall(r"^(?:\S+/)?(qaclims .*)$", block.replace("\\\n", " "), re.MULTILINE):
                if "[" not in line and line not in seen and not line.startswith("qaclims help"):
                    seen.add(line)
                    yield line, page.name


LINES = [*_lines()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs that the pages go on with."""
    folder = tmp_path_factory.mktemp("pages")
    for name in ("voc12", "photos", "mine"):
        run = folder / "runs" / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(to_dict(preset("voc12", "plain-clip"))))
    best = folder / "runs" / "tune" / "tune" / "best.json"
    best.parent.mkdir(parents=True)
    best.write_text(json.dumps(to_dict(preset("miniature"))))
    return folder


@pytest.mark.parametrize(("line", "page"), LINES, ids=[line[:70] for line, _ in LINES])
def test_a_line_is_read(line, page, place, monkeypatch) -> None:
    monkeypatch.chdir(place)
    for placeholder, value in PLACEHOLDERS.items():
        line = line.replace(placeholder, value)
    _, verb, *arguments = shlex.split(line, comments=True)
    try:
        VERBS[verb].parse(Line(tuple(arguments), f"qaclims {verb}", "about"))
    except SystemExit as ended:
        assert {"--help", "--help-all"} & set(arguments) and not ended.code, f"{page}: {line}"


def test_there_are_lines_to_read() -> None:
    assert len(LINES) > 60 and {"README.md", "first_masks.md"} <= {page for _, page in LINES}

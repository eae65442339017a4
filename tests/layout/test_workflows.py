"""The workflows in ``.github`` call targets that are there, and try the versions that are promised."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def _jobs(path: Path) -> dict[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_command_of_a_workflow_is_a_target_and_every_job_has_an_end(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name, job in _jobs(path).items():
        commands = [step["run"] for step in job["steps"] if "run" in step]
        assert commands and job["timeout-minutes"] <= 90, name
        for command in commands:
            found = re.fullmatch(r"make ([a-z-]+)", command)
            assert found and re.search(rf"^{found[1]}:", makefile, re.MULTILINE), command


def test_pythons_3_11_to_3_13_and_lowest_and_newest_versions_are_tried() -> None:
    jobs = _jobs(ROOT / ".github/workflows/versions.yml")
    assert jobs["pinned"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    commands = {name: job["steps"][-1]["run"] for name, job in jobs.items()}
    assert commands == {"pinned": "make test", "lowest": "make test-lowest", "newest": "make test-newest"}

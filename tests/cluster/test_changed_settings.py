"""Settings A finished, B begun and stopped, A again: as if B had never been; and what only scores trains nothing."""

import hashlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

FINAL: dict[str, Any] = {
    "goal": "segmentation",
    "systems": ["qa_clims"],
    "data__num_images": 12,
    "data__limit": 12,
    "masks__steps": ["irn"],
    "masks__irn__optim__epochs": 1,
    "masks__irn__optim__batch_size": 8,
    "segmentation__optim__epochs": 1,
    "segmentation__steps_per_epoch": 2,
    "segmentation__optim__batch_size": 8,
    "supervised_bound": False,
}
"""A: every kind of artefact, as small as may be, trained in this process, where a test can stop it."""
CHANGES: dict[str, dict[str, Any]] = {
    "corpus": {"corpus__num_beams": 2},
    "classifier": {"classifier__optim__lr": 2e-3},
    "cams": {"cams__flip": False},
    "masks": {"masks__irn__beta": 5},
    "segmentation": {"segmentation__optim__lr": 2e-3},
}
"""Kind of an artefact -> B: a setting that makes it another."""


def _config(**overrides: Any) -> Any:
    return small_config(**{**FINAL, **overrides})


def _run(out: Path, **overrides: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    run_pipeline(_config(**overrides), str(out), console=console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def _content(out: Path) -> dict[str, str]:
    """Return the hash of every file of every artefact, but for those that hold times and the run's own records."""
    records = {"meta.json", "files.json", "config.json", "timings.json"}
    left_out = records | {"curves.json", "training.json", "progress.json"}  # with images a second
    found = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        is_of_artefact = not name.startswith(("report/", "training_runs/")) and not re.search(
            r"\.(making|damaged)-", name
        )
        if path.is_file() and path.name not in left_out and is_of_artefact:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    out = tmp_path_factory.mktemp("changed") / "run"
    _run(out)
    return out, _content(out)


class Stopped(BaseException):
    """Ctrl-C, as it reaches a stage."""


@pytest.mark.parametrize("kind", list(CHANGES))
def test_a_stopped_run_with_other_settings_leaves_what_was_finished(
    finished: tuple[Path, dict[str, str]], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, before = finished

    def complete(self: Artifact, *args: Any, **options: Any) -> Any:
        if self.kind == kind:
            raise Stopped
        return original(self, *args, **options)

    original = Artifact.complete
    with monkeypatch.context() as patch:
        patch.setattr(Artifact, "complete", complete)
        with pytest.raises(Stopped):
            _run(out, **CHANGES[kind])
    said = _run(out)
    assert said.count("(there already)") >= 12 and "is made again" not in said
    assert _content(out) == before


def test_a_finished_run_with_other_settings_gives_way_to_the_first_again(
    finished: tuple[Path, dict[str, str]],
) -> None:
    out, before = finished
    said = _run(out, **CHANGES["classifier"])
    assert re.search(r"classifier is made again: classifier\.optim\.lr [0-9.e-]+ -> 0\.002", said)
    assert _content(out) != before
    _run(out)
    assert _content(out) == before


def test_what_only_scores_trains_nothing(finished: tuple[Path, dict[str, str]]) -> None:
    out, _ = finished
    networks = {path: path.stat().st_mtime_ns for path in out.rglob("network.safetensors")}
    assert len(networks) >= 5
    said = _run(out, data__eval_split="val", data__test_split="train")
    assert {path: path.stat().st_mtime_ns for path in networks} == networks
    for stage in (
        "corpus",
        "text bank of qa_clims",
        "train classifier",
        "train qa_clims",
        "train qa_clims: irn",
        "train qa_clims: segmentation",
    ):
        (line,) = [line for line in said.splitlines() if line.startswith(f"{stage} ")]
        assert line.endswith("(there already)"), line
    assert "evaluations/qa_clims is made again: another scored" in said
    _run(out)


@pytest.mark.parametrize(
    ("file", "again"),
    [
        ("classifier/calibrated/network.safetensors", "networks/qa_clims"),
        ("corpus/answers/part-00001.parquet", "text_banks/qa_clims"),
        ("masks/qa_clims/mini_000003.png", "segmentation/qa_clims"),
    ],
)
def test_a_flipped_bit_is_found_when_the_file_is_read_and_the_result_is_the_same(
    finished: tuple[Path, dict[str, str]], file: str, again: str
) -> None:
    out, before = finished
    path = out / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    (out / again / "meta.json").unlink()  # what reads the file has to be made again, or nobody would read it
    _run(out)
    assert _content(out) == before

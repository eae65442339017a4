"""What all stages do alike: make what is missing, skip what is there, say why something is made again."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qaclims_ray.data.artifacts import Artifact, ArtifactMeta
from qaclims_ray.errors import DataError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.stages.console import ConsoleProgress
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.resources import Room
from qaclims_ray.stages.stage import Stage, StageProgress
from tests.unit.stages.told import Told


def _artifact(out: Path, settings: dict[str, Any], **inputs: str) -> Artifact:
    return Artifact(
        uri=str(out / "evaluations" / "qa_clims"), kind="x", settings=settings, inputs=inputs, verb="evaluate"
    )


def _stage(out: Path, progress: StageProgress) -> Stage:
    return Stage(miniature(), RunLayout(str(out)), progress=progress)


def _make(out: Path, artifact: Artifact, progress: StageProgress | None = None) -> tuple[ArtifactMeta, int]:
    """Return the meta, and how often the work was done."""
    done: list[int] = []

    def work() -> dict[str, int]:
        assert artifact.current() is None, "nothing is complete before the work is done"
        done.append(1)
        return {"n": 3}

    meta = _stage(out, progress or Told()).make(artifact, "score", work, lambda meta: f"{meta.summary['n']} images")
    return meta, len(done)


def test_what_is_new_is_made_and_complete_with_its_summary(tmp_path: Path) -> None:
    told, artifact = Told(), _artifact(tmp_path, {"a": 1})
    meta, times = _make(tmp_path, artifact, told)
    assert times == 1 and artifact.current() == meta and meta.summary == {"n": 3}
    assert told.lines == [("start", "score"), ("finish", f"3 images -> {artifact.uri}")]


def test_what_is_there_already_is_not_made(tmp_path: Path) -> None:
    told, artifact = Told(), _artifact(tmp_path, {"a": 1})
    first, _ = _make(tmp_path, artifact)
    second, times = _make(tmp_path, artifact, told)
    assert times == 0 and second == first
    assert told.lines == [("start", "score"), ("there", "3 images (there already)")]


def test_the_run_opens_when_something_is_made_and_before_it_is_told(tmp_path: Path) -> None:
    told, artifact = Told(), _artifact(tmp_path, {"a": 1})

    def opening() -> Room:
        told.note("opened")
        return Room(cores=3)

    stage = dataclasses.replace(_stage(tmp_path, told), opening=opening)
    assert stage.make(artifact, "score", lambda: {"cores": stage.room.cores}, lambda _: "done").summary == {"cores": 3}
    assert told.lines[:2] == [("note", "opened"), ("start", "score")]
    told.lines.clear()
    stage.make(artifact, "score", dict, lambda _: "done")
    assert told.lines == [("start", "score"), ("there", "done (there already)")]


def test_what_does_not_serve_is_made_again_and_one_line_says_why(tmp_path: Path) -> None:
    told = Told()
    _make(tmp_path, _artifact(tmp_path, {"a": 1}, cams="old"))
    artifact = _artifact(tmp_path, {"a": 2}, cams="new")
    meta, times = _make(tmp_path, artifact, told)
    assert times == 1 and artifact.current() == meta
    assert told.lines == [
        ("start", "score"),
        ("remake", "evaluations/qa_clims is made again: a 1 -> 2, another cams"),
        ("finish", f"3 images -> {artifact.uri}"),
    ]


def test_the_line_reaches_the_console_as_it_is(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=40)
    _make(tmp_path, _artifact(tmp_path, {"scales": [1.0]}))
    _make(tmp_path, _artifact(tmp_path, {"scales": [1.0, 0.5]}), ConsoleProgress(console))
    assert isinstance(console.file, io.StringIO)
    first = console.file.getvalue().splitlines()[0]
    assert first == "evaluations/qa_clims is made again: scales [1.0] -> [1.0, 0.5]"


def test_where_nothing_lies_nothing_is_said(tmp_path: Path) -> None:
    told = Told()
    _stage(tmp_path, told).say_why(_artifact(tmp_path, {"a": 1}))
    assert told.lines == []


def test_nothing_is_completed_when_the_work_raises(tmp_path: Path) -> None:
    told, artifact = Told(), _artifact(tmp_path, {"a": 1})

    def work() -> dict[str, int]:
        raise DataError("an image is broken")

    with pytest.raises(DataError, match="an image is broken"):
        _stage(tmp_path, told).make(artifact, "score", work, lambda meta: "done")
    assert artifact.current() is None and not Path(artifact.uri, "meta.json").exists()
    assert told.lines == [("start", "score")]


def test_what_has_a_broken_meta_is_told_set_aside_and_made_again(tmp_path: Path) -> None:
    told, artifact = Told(), _artifact(tmp_path, {"a": 1})
    Path(artifact.uri).mkdir(parents=True)
    Path(artifact.uri, "meta.json").write_text("{")
    meta, times = _make(tmp_path, artifact, told)
    assert times == 1 and artifact.current() == meta
    assert told.lines[1][0] == "remake" and "its meta.json is broken" in told.lines[1][1]
    assert Path(f"{artifact.uri}.damaged-1", "meta.json").read_text() == "{"

"""Trainings in this process: what is left out, what the console and a search are told; starts no Ray."""

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.errors import ArtifactError, ModelError
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.trainings import (
    TrackedWork,
    _run_name,
    local_start,
    plan_training,
    run_trainings,
    start_fingerprint,
)
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext, WorkerContext
from qaclims_ray.training.group import CURVES_NAME, Training
from qaclims_ray.training.meter import OnStep
from tests.unit.stages.told import Told


class _Machine:
    """Trains nothing in two epochs of five steps, and remembers what it was asked."""

    def __init__(self) -> None:
        self.worked: list[str] = []
        self.starts: list[str | None] = []
        self.stop_after: int | None = None

    def train(self, name: str) -> Callable[[WorkerContext, OnStep], dict[str, float]]:
        def work(context: WorkerContext, on_step: OnStep) -> dict[str, float]:
            self.worked.append(name)
            with context.latest_checkpoint() as folder:
                self.starts.append(Path(folder, "network").read_text() if folder else None)
            for epoch in (1, 2):
                on_step(5 * epoch, {"loss": 1 / epoch})
                place = Path(tempfile.mkdtemp())
                (place / "network").write_text(f"{name} {epoch}")
                context.report({"loss": 1 / epoch, "epoch": float(epoch)}, str(place))
                if self.stop_after == epoch:
                    raise KeyboardInterrupt
            return {"loss": 0.5}

        return work


def _stage(out: Path, told: Told) -> Stage:
    return Stage(with_overrides(miniature(), {"cluster.num_workers": 0}), RunLayout(str(out)), progress=told)


def _training(stage: Stage, machine: _Machine, name: str, setting: int = 0) -> Training:
    artifact = Artifact(
        uri=stage.layout.network(name), kind="x", settings={"name": name, "setting": setting}, verb="train"
    )
    optim = OptimConfig(epochs=2, batch_size=4, lr=0.25)
    return plan_training(stage, artifact, machine.train(name), optim, label=f"the {name}", num_images=20)


def test_a_training_tells_its_steps_its_epochs_and_what_it_learned(tmp_path: Path) -> None:
    told, machine = Told(), _Machine()
    stage = _stage(tmp_path, told)
    (meta,) = run_trainings(stage, [training := _training(stage, machine, "a")])
    assert meta.summary == {"loss": 0.5} and training.artifact.current() == meta
    assert told.lines == [
        ("start", "train the a"),
        ("advance", "0 of 10"),
        ("advance", "5 of 10"),
        ("advance", "10 of 10"),
        ("advance", "0 of 10"),
        ("finish", f"2 epochs of 20 images, learning rate 0.25, loss 0.5000 -> {training.artifact.uri}"),
    ]
    assert told.epochs == [{"loss": 1.0, "epoch": 1.0}, {"loss": 0.5, "epoch": 2.0}]
    assert Path(training.artifact.uri, "network").read_text() == "a 2"
    assert Path(training.artifact.uri, CURVES_NAME).exists()
    assert not list(Path(stage.layout.training_runs).glob("*")), "no checkpoint is left behind"


def test_what_is_current_is_left_out_and_tells_its_last_epoch(tmp_path: Path) -> None:
    machine = _Machine()
    stage = _stage(tmp_path, Told())
    first = run_trainings(stage, [_training(stage, machine, "a")])
    told = Told()
    again = _stage(tmp_path, told)
    assert run_trainings(again, [_training(again, machine, "a")]) == first and machine.worked == ["a"]
    assert told.lines == [("start", "train the a"), ("there", "2 epochs of 20 images (there already)")]
    assert told.epochs == [{"loss": 0.5, "epoch": 2.0}]


def test_of_several_those_that_are_missing_are_trained_in_order(tmp_path: Path) -> None:
    told, machine = Told(), _Machine()
    stage = _stage(tmp_path, told)
    run_trainings(stage, [_training(stage, machine, "b")])
    machine.worked.clear()
    told.lines.clear()
    metas = run_trainings(stage, [_training(stage, machine, name) for name in "abc"])
    assert machine.worked == ["a", "c"]
    assert [meta.settings["name"] for meta in metas] == ["a", "b", "c"]
    assert [line for line in told.lines if line[0] != "advance"] == [
        ("start", "train the b"),
        ("there", "2 epochs of 20 images (there already)"),
        ("start", "train the a"),
        ("finish", f"2 epochs of 20 images, learning rate 0.25, loss 0.5000 -> {stage.layout.network('a')}"),
        ("start", "train the c"),
        ("finish", f"2 epochs of 20 images, learning rate 0.25, loss 0.5000 -> {stage.layout.network('c')}"),
    ]


def test_what_does_not_serve_goes_first_and_one_line_says_why(tmp_path: Path) -> None:
    told, machine = Told(), _Machine()
    stage = _stage(tmp_path, told)
    run_trainings(stage, [_training(stage, machine, "a")])
    Path(stage.layout.network("a"), "left over").touch()
    told.lines.clear()
    run_trainings(stage, [_training(stage, machine, "a", setting=1)])
    assert told.lines[0] == ("remake", "networks/a is made again: setting 0 -> 1")
    assert machine.worked == ["a", "a"] and not Path(stage.layout.network("a"), "left over").exists()


def test_a_training_that_was_stopped_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    machine = _Machine()
    stage = _stage(tmp_path, Told())
    machine.stop_after = 1
    with pytest.raises(KeyboardInterrupt):
        run_trainings(stage, [_training(stage, machine, "a")])
    assert _training(stage, machine, "a").artifact.current() is None
    machine.stop_after = None
    run_trainings(stage, [_training(stage, machine, "a")])
    assert machine.starts == [None, "a 1"]


def test_a_control_that_learns_nothing_says_so(tmp_path: Path) -> None:
    told, machine = Told(), _Machine()
    stage = _stage(tmp_path, told)
    training = _training(stage, machine, "a")
    control = plan_training(
        stage, training.artifact, machine.train("a"), OptimConfig(), label="a", num_images=20, num_steps=0
    )
    run_trainings(stage, [control])
    assert told.lines[-1] == ("finish", f"random, not learned -> {training.artifact.uri}")


# --- planning


def test_the_length_is_in_passes_or_in_steps(tmp_path: Path) -> None:
    stage, machine = _stage(tmp_path, Told()), _Machine()
    passes = _training(stage, machine, "a")
    assert (passes.epochs, passes.num_steps, passes.length, passes.lr) == (2, 10, "2 epochs of 20 images", 0.25)
    optim = OptimConfig(epochs=3)
    steps = plan_training(
        stage, passes.artifact, machine.train("a"), optim, label="a", num_images=20, num_steps=60, phase="match"
    )
    assert (steps.epochs, steps.num_steps, steps.length) == (3, 60, "60 steps")


def test_figures_go_to_mlflow_below_the_phase_s_name(tmp_path: Path) -> None:
    stage, machine = _stage(tmp_path, Told()), _Machine()
    artifact = _training(stage, machine, "a").artifact
    prefixes = []
    for phase in ("", "match"):
        work = plan_training(
            stage, artifact, machine.train("a"), OptimConfig(), label="a", num_images=20, phase=phase
        ).work
        assert isinstance(work, TrackedWork) and work.handle is None
        prefixes.append(work.prefix)
    assert prefixes == ["train/", "train/match/"]


def test_without_tracking_a_step_is_told_once(tmp_path: Path) -> None:
    steps: list[int] = []
    work = TrackedWork(_Machine().train("a"), None, "train/")
    work(LocalContext(str(tmp_path)), lambda step, metrics: steps.append(step))
    assert steps == [5, 10]


# --- what trainings start from


def test_the_classifier_s_fingerprint_stands_for_itself(tmp_path: Path) -> None:
    layout = RunLayout(str(tmp_path))
    with pytest.raises(ArtifactError, match="no complete classifier"):
        start_fingerprint(layout, "classifier")
    meta = Artifact(uri=layout.classifier, kind="classifier", settings={}, verb="train").complete()
    assert start_fingerprint(layout, "classifier") == meta.fingerprint
    with pytest.raises(ModelError):
        start_fingerprint(layout, str(tmp_path / "absent.pth"))


def test_what_a_training_starts_from_is_a_local_folder_or_nothing(tmp_path: Path) -> None:
    with local_start("") as folder:
        assert folder == ""
    (tmp_path / "network").write_text("x")
    with local_start(str(tmp_path)) as folder:
        assert Path(folder, "network").read_text() == "x"


def test_a_training_is_planned_for_one_folder(tmp_path: Path) -> None:
    stage = _stage(tmp_path, Told())
    training = _training(stage, _Machine(), "a")
    moved = dataclasses.replace(training, artifact=training.artifact.at(stage.layout.phase("x")))
    run_trainings(stage, [moved])
    assert moved.artifact.current() is not None and training.artifact.current() is None


def test_what_a_killed_run_left_of_complete_trainings_is_removed(tmp_path: Path) -> None:
    stage, machine = _stage(tmp_path, Told()), _Machine()
    trainings = [_training(stage, machine, name) for name in "ab"]
    run_trainings(stage, trainings)
    left = [Path(stage.layout.training_runs, _run_name(names)) for names in (trainings, trainings[:1])]
    others = Path(stage.layout.training_runs, "x-0123456789abcdef")
    for folder in (*left, others):
        (folder / "checkpoint_1").mkdir(parents=True)
    run_trainings(stage, trainings)
    assert [path.name for path in Path(stage.layout.training_runs).iterdir()] == [others.name]
    assert machine.worked == ["a", "b"], "nothing is trained again"

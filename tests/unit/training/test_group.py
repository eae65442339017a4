"""What one training of a group sees of its worker, and leaves behind; no Ray, no network."""

import json
import tempfile
from pathlib import Path

from qaclims_ray.stages.training_job import TrainingJob

from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.group import CURVES_NAME, GroupContext, Training, raw_curves

EPOCHS = 2


def _training(root: Path, name: str) -> Training:
    config = with_overrides(miniature(), {"classifier.optim.epochs": EPOCHS})
    job = TrainingJob(kind="classifier", config=config, manifest_uri="")
    return Training(job=job, uri=str(root / name), settings={"name": name}, inputs={}, label=name)


def _context(worker: LocalContext, training: Training) -> GroupContext:
    return GroupContext(worker, training, lambda step: None)


def _report(context: GroupContext, epoch: int) -> None:
    folder = Path(tempfile.mkdtemp())
    (folder / "network.safetensors").write_text(f"epoch {epoch}")
    context.note(epoch * 10, {"loss": 1.0 / epoch})
    context.report({"loss": 1.0 / epoch, "epoch": float(epoch)}, str(folder))


def test_the_last_checkpoint_becomes_the_artefact_with_whole_curves(tmp_path: Path) -> None:
    training = _training(tmp_path, "a")
    context = _context(LocalContext(str(tmp_path / "runs")), training)
    _report(context, 1)
    assert not Path(training.uri).exists()
    _report(context, 2)
    assert training.finished() is None, "its meta comes last"
    context.conclude({"loss": 0.5})
    meta = training.finished()
    assert meta is not None and meta.summary == {"loss": 0.5}
    assert Path(training.uri, "network.safetensors").read_text() == "epoch 2"
    assert raw_curves(training.uri) == {10: {"loss": 1.0}, 20: {"loss": 0.5}}


def test_a_training_goes_on_with_its_own_checkpoint_and_never_anothers(tmp_path: Path) -> None:
    runs, mine, other = str(tmp_path / "runs"), _training(tmp_path, "a"), _training(tmp_path, "b")
    _report(_context(LocalContext(runs), mine), 1)
    with _context(LocalContext(runs), other).latest_checkpoint() as folder:
        assert folder is None
    resumed = _context(LocalContext(runs), mine)
    with resumed.latest_checkpoint() as folder:
        assert folder is not None and Path(folder, "network.safetensors").read_text() == "epoch 1"
    _report(resumed, 2)
    resumed.conclude({"loss": 0.5})
    assert sorted(raw_curves(mine.uri)) == [10, 20], "the part before the stop is there too"


def test_an_earlier_runs_checkpoint_serves_until_there_is_one_of_this_run(tmp_path: Path) -> None:
    training = _training(tmp_path, "a")
    earlier = LocalContext(str(tmp_path / "earlier"))
    _report(_context(earlier, training), 1)
    with earlier.latest_checkpoint() as folder:
        assert folder is not None
        runs, place = LocalContext(str(tmp_path / "runs")), folder
        context = GroupContext(runs, training, lambda step: None, place)
        with context.latest_checkpoint() as found:
            assert found is not None and Path(found, "network.safetensors").read_text() == "epoch 1"
        _report(context, 2)
        assert sorted(context._curves) == [10, 20], "the curves go on too"
        with context.latest_checkpoint() as found:
            assert found is not None and Path(found, "network.safetensors").read_text() == "epoch 2"
        other = GroupContext(LocalContext(str(tmp_path / "others")), _training(tmp_path, "b"), lambda step: None, place)
        with other.latest_checkpoint() as found:
            assert found is None


def test_a_training_that_was_stopped_at_its_very_end_still_completes_its_artefact(tmp_path: Path) -> None:
    runs, training = str(tmp_path / "runs"), _training(tmp_path, "a")
    first = _context(LocalContext(runs), training)
    _report(first, 1)
    _report(first, 2)
    Path(training.uri, "network.safetensors").write_text("half a copy")
    again = _context(LocalContext(runs), training)
    with again.latest_checkpoint():
        pass
    again.conclude({"loss": 0.5})
    assert Path(training.uri, "network.safetensors").read_text() == "epoch 2"
    assert json.loads(Path(training.uri, CURVES_NAME).read_text()).keys() == {"10", "20"}


def test_other_ranks_leave_the_artefact_alone(tmp_path: Path) -> None:
    worker, training = LocalContext(str(tmp_path / "runs")), _training(tmp_path, "a")
    worker.rank = 1
    context = _context(worker, training)
    context.report({"loss": 1.0, "epoch": float(EPOCHS)}, None)
    context.conclude({"loss": 1.0})
    assert not Path(training.uri).exists()

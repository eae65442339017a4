"""What one training of a group sees of its worker, and leaves behind; no Ray, no network."""

import dataclasses
import json
import tempfile
import threading
from pathlib import Path

import pytest

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.errors import ArtifactError
from qaclims_ray.training import group
from qaclims_ray.training.context import LocalContext, WorkerContext
from qaclims_ray.training.divergence import DIVERGED_NAME, DivergedError
from qaclims_ray.training.group import CURVES_NAME, GroupContext, Training, raw_curves, train_group
from qaclims_ray.training.meter import OnStep

EPOCHS = 2


def _nothing(context: WorkerContext, on_step: OnStep) -> dict[str, float]:
    raise AssertionError("nothing is trained here")


def _training(root: Path, name: str) -> Training:
    artifact = Artifact(uri=str(root / name), kind="classifier", settings={"name": name}, verb="train")
    return Training(artifact=artifact, label=name, work=_nothing, epochs=EPOCHS, num_steps=20, length="", lr=0.1)


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
    assert not Path(training.artifact.uri).exists()
    _report(context, 2)
    assert training.artifact.current() is None, "its meta comes last"
    context.conclude({"loss": 0.5})
    meta = training.artifact.current()
    assert meta is not None and meta.summary == {"loss": 0.5}
    assert Path(training.artifact.uri, "network.safetensors").read_text() == "epoch 2"
    assert raw_curves(training.artifact.uri) == {10: {"loss": 1.0}, 20: {"loss": 0.5}}


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
    assert sorted(raw_curves(mine.artifact.uri)) == [10, 20], "the part before the stop is there too"


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
    Path(training.artifact.workshop, "network.safetensors").write_text("half a copy")
    again = _context(LocalContext(runs), training)
    with again.latest_checkpoint():
        pass
    again.conclude({"loss": 0.5})
    assert Path(training.artifact.uri, "network.safetensors").read_text() == "epoch 2"
    assert json.loads(Path(training.artifact.uri, CURVES_NAME).read_text()).keys() == {"10", "20"}


def test_other_ranks_leave_the_artefact_alone(tmp_path: Path) -> None:
    worker, training = LocalContext(str(tmp_path / "runs")), _training(tmp_path, "a")
    worker.rank = 1
    context = _context(worker, training)
    context.report({"loss": 1.0, "epoch": float(EPOCHS)}, None)
    context.conclude({"loss": 1.0})
    assert not Path(training.artifact.uri).exists()


def test_a_group_trains_in_order_what_is_not_finished(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    worked: list[str] = []

    def training(name: str) -> Training:
        def work(context: WorkerContext, on_step: OnStep) -> dict[str, float]:
            worked.append(name)
            assert isinstance(context, GroupContext)
            _report(context, 1)
            _report(context, 2)
            return {"loss": 0.5}

        return dataclasses.replace(_training(tmp_path, name), work=work)

    group = [training(name) for name in "abc"]
    group[1].artifact.complete()
    worker = LocalContext(str(tmp_path / "runs"))
    train_group(group, worker, lambda index, step: told.append((index, step)))
    assert worked == ["a", "c"]
    assert told == [(0, 0), (0, 10), (0, 20), (2, 0), (2, 10), (2, 20)]
    assert all(one.artifact.current() is not None for one in group)


def test_another_rank_waits_for_what_its_training_starts_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, seen = _training(tmp_path, "a").artifact, []

    def work(context: WorkerContext, on_step: OnStep) -> dict[str, float]:
        seen.append(first.current() is not None)
        return {"loss": 0.5}

    training = dataclasses.replace(_training(tmp_path, "b"), work=work, after=(first,))
    worker = LocalContext(str(tmp_path / "runs"))
    worker.rank = 1
    publishing = threading.Timer(0.5, first.complete)
    publishing.start()
    train_group([training], worker)
    publishing.join()
    assert seen == [True]
    monkeypatch.setattr(group, "_PUBLISHED_WITHIN_S", 0.0)
    never = dataclasses.replace(training, after=(_training(tmp_path, "c").artifact,))
    with pytest.raises(ArtifactError, match="qaclims train"):
        train_group([never], worker)


def test_rescued_checkpoints_are_found_by_fingerprint(tmp_path: Path) -> None:
    found: list[str] = []

    def work(context: WorkerContext, on_step: OnStep) -> dict[str, float]:
        with context.latest_checkpoint() as folder:
            assert folder is not None
            found.append(Path(folder, "network.safetensors").read_text())
        return {"loss": 0.5}

    training = dataclasses.replace(_training(tmp_path, "a"), work=work)
    earlier = LocalContext(str(tmp_path / "earlier"))
    _report(_context(earlier, training), 1)
    with earlier.latest_checkpoint() as folder:
        assert folder is not None
        place = folder
        train_group(
            [training], LocalContext(str(tmp_path / "runs")), rescued={training.artifact.fingerprint: place, "x": ""}
        )
    assert found == ["epoch 1"]


def _diverging(context: WorkerContext, on_step: OnStep) -> dict[str, float]:
    raise DivergedError("the loss became nan", {"step": 7, "images": ["a", "b"]})


def test_the_images_of_a_training_that_diverged_are_kept_until_it_is_tried_again(tmp_path: Path) -> None:
    training = dataclasses.replace(_training(tmp_path, "a"), work=_diverging)
    place = Path(training.artifact.workshop, DIVERGED_NAME)
    other = LocalContext(str(tmp_path / "runs"))
    other.rank = 1
    with pytest.raises(DivergedError) as caught:
        train_group([training], other)
    assert str(caught.value) == "the loss became nan" and not place.exists(), "the first rank alone writes"
    with pytest.raises(DivergedError, match=r"the loss became nan\. All images .* are in") as caught:
        train_group([training], LocalContext(str(tmp_path / "runs")))
    assert str(place) in str(caught.value)
    assert json.loads(place.read_text()) == {"step": 7, "images": ["a", "b"]}
    assert training.artifact.current() is None
    training.artifact.begin()
    assert not place.exists()


def test_a_place_that_cannot_be_written_does_not_hide_what_went_wrong(tmp_path: Path) -> None:
    training = dataclasses.replace(_training(tmp_path, "a"), work=_diverging)
    Path(training.artifact.workshop).write_text("a file where a folder should be")
    with pytest.raises(DivergedError, match=r"the loss became nan\. The list of images could not be kept: "):
        train_group([training], LocalContext(str(tmp_path / "runs")))

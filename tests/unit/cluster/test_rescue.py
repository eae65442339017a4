"""Checkpoints that a stopped run left: which one serves, and which go; starts no Ray."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qaclims_ray.cluster.rescue import SNAPSHOT_NAME, remove_finished, rescue
from tests.unit.training.test_checkpoint import DAMAGES, NETWORK, saved


def checkpoint(run: Path, epochs: int, training: str = "mine") -> Path:
    folder = saved(run / f"checkpoint_{epochs}", epochs)
    (folder / "training.json").write_text(json.dumps({"training": training, "curves": {"3": {"loss": 0.5}}}))
    return folder


def listed(run: Path, *epochs: int) -> Path:
    """Ray's list of a run's checkpoints."""
    entries = [{"checkpoint_dir_name": f"checkpoint_{number}"} for number in epochs]
    path = run / SNAPSHOT_NAME
    path.write_text(json.dumps({"checkpoint_results": entries, "latest_checkpoint_result": entries[-1]}))
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [NETWORK, "progress.json"])
def test_the_checkpoint_before_serves_where_the_last_that_ray_lists_is_damaged(
    tmp_path, name: str, damage: Callable[[Path], None], caplog
):
    run = tmp_path / "run"
    for epochs in (1, 2):
        checkpoint(run, epochs)
    newest = checkpoint(run, 3)
    snapshot = listed(run, 2, 3)
    assert rescue(str(tmp_path), "run", {"mine": 9}) == {} and snapshot.exists(), "Ray knows it itself"
    damage(newest / name)
    assert rescue(str(tmp_path), "run", {"mine": 9}) == {"mine": str(run / "checkpoint_2")}
    assert not snapshot.exists(), "Ray would go on from the damaged one"
    assert f"going on from {run}/checkpoint_2" in caplog.text


def test_where_none_is_whole_the_damage_is_left_to_be_named(tmp_path):
    run = tmp_path / "run"
    folder = checkpoint(run, 1)
    (folder / NETWORK).write_bytes(b"")
    snapshot = listed(run, 1)
    assert rescue(str(tmp_path), "run", {"mine": 9}) == {}
    assert snapshot.exists()


def test_a_list_whose_checkpoints_are_gone_or_that_is_no_list_makes_a_new_run(tmp_path):
    run = tmp_path / "run"
    checkpoint(run, 1)
    snapshot = listed(run, 2)
    assert rescue(str(tmp_path), "run", {"mine": 9}) == {"mine": str(run / "checkpoint_1")}
    for content in (b"", b"null", b"[]", b'"x"', b'{"checkpoint_results": [3]}', b"\xff\xfe", b"[" * 100_000):
        snapshot.write_bytes(content)
        assert rescue(str(tmp_path), "run", {"mine": 9}) == {"mine": str(run / "checkpoint_1")}, content
        assert not snapshot.exists(), content


def test_a_damaged_note_is_no_riddle(tmp_path):
    run = tmp_path / "run"
    folder = checkpoint(run, 1)
    for note in ("", "null", '{"training": ["mine"], "curves": {}}', '{"training": "mine", "curves": [1]}'):
        (folder / "training.json").write_text(note)
        assert rescue(str(tmp_path), "run", {"mine": 9}) == {}


def test_checkpoints_of_complete_trainings_go_and_others_stay(tmp_path):
    for run, training in (("named", "done"), ("other name", "done"), ("mixed", "done"), ("at work", "theirs")):
        checkpoint(tmp_path / run, 1, training)
    checkpoint(tmp_path / "mixed", 2, "theirs")
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut short").mkdir()
    remove_finished(str(tmp_path), {"named", "cut short"}, {"done"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["at work", "empty", "mixed"]
    remove_finished(str(tmp_path / "nothing"), {"named"}, {"done"})

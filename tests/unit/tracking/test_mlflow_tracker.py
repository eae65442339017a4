import contextlib
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas
import pytest

from qaclims_ray.errors import ConfigError, DataError, ResourceError
from qaclims_ray.tracking import spooled_tracker
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.mlflow_tracker import attach, open_tracker, replay
from qaclims_ray.tracking.tracker import NullTracker, TrackerHandle


@pytest.fixture
def runs(tmp_path, empty_store):
    """A folder of outputs with a store beside them."""
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    return tmp_path


def client_of(runs):
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{runs}/mlflow.db")


def runs_by_name(runs, experiment="qaclims"):
    client = client_of(runs)
    experiment_id = client.get_experiment_by_name(experiment).experiment_id
    return {run.info.run_name: run for run in client.search_runs([experiment_id])}


def open_quiet(runs, name="a", **more):
    return open_tracker(TrackingConfig(), run_name=name, out_dir=str(runs / name), system_metrics=False, **more)


def curve(runs, run_id, key):
    return [(point.step, point.value) for point in client_of(runs).get_metric_history(run_id, key)]


def test_a_pipeline_run_with_stages(runs):
    tracker = open_quiet(runs, tags={"preset": "miniature"})
    tracker.log_params({"ritc": {"optim": {"lr": 0.001}}})
    stage = tracker.child("train qa_clims")
    stage.set_tags({"system": "qa_clims"})
    for step in range(3):
        stage.log_metrics({"train/loss": 1.0 - step}, step=step)
    stage.finish("FINISHED")
    tracker.log_metrics({"qa_clims/cam/miou_best": 0.5})
    tracker.finish("FAILED")

    found = runs_by_name(runs)
    parent, child = found["a"], found["train qa_clims"]
    assert parent.data.params == {"ritc.optim.lr": "0.001"}
    assert parent.data.tags["preset"] == "miniature"
    assert parent.data.metrics == {"qa_clims/cam/miou_best": 0.5}
    assert parent.info.status == "FAILED"
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.tags["system"] == "qa_clims"
    assert child.info.status == "FINISHED"
    assert curve(runs, child.info.run_id, "train/loss") == [(0, 1.0), (1, 0.0), (2, -1.0)]
    assert not (runs / "a" / "tracking-spool").exists()


def test_pictures_tables_and_files(runs, tmp_path):
    source = tmp_path / "config.json"
    source.write_text("{}")
    tracker = open_quiet(runs)
    tracker.log_image(np.full((4, 6, 3), 7, np.uint8), "sheets/qa clims")
    tracker.log_image(np.zeros((4, 6, 3), np.uint8), "cam/overlay", step=2)
    tracker.log_table({"class": ["dining table", "cat"], "iou": [0.25, 0.5]}, "per_class")
    tracker.log_artifact(str(source), "settings")
    source.unlink()
    tracker.finish("FINISHED")

    files = Path(runs_by_name(runs)["a"].info.artifact_uri)
    assert files.is_relative_to(runs / "mlflow-artifacts")
    table = pandas.read_csv(files / "tables/per_class.csv")
    assert table.to_dict("list") == {"class": ["dining table", "cat"], "iou": [0.25, 0.5]}
    assert (files / "settings/config.json").read_text() == "{}"
    assert (files / "sheets/qa clims.png").exists()
    series = [path.name for path in (files / "images").glob("*.png")]
    assert len(series) == 1 and "cam~overlay" in series[0] and "step+2" in series[0]


def test_a_missing_file_is_said_at_once(runs):
    tracker = open_quiet(runs)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tracker.log_artifact("/nowhere")
    tracker.close()


def test_a_restarted_worker_continues_the_curve(runs, monkeypatch):
    monkeypatch.setattr(spooled_tracker, "_HANDLE_TIMEOUT_S", 60.0)  # a busy machine may be slow to name the run
    tracker = open_quiet(runs)
    stage = tracker.child("train")
    handle = pickle.loads(pickle.dumps(stage.handle()))
    assert not handle.run_id.startswith("pending:")
    for first, last, value in ((0, 5, 1.0), (3, 8, 2.0)):  # the restart repeats steps 3 and 4
        worker = attach(handle)
        for step in range(first, last):
            worker.log_metrics({"train/loss": value + step}, step=step)
        worker.log_metrics({"final": value})
        worker.close()
    assert runs_by_name(runs)["train"].info.status == "RUNNING"
    tracker.finish("FINISHED")
    expected = [(step, 1.0 + step) for step in range(5)] + [(step, 2.0 + step) for step in range(5, 8)]
    assert curve(runs, handle.run_id, "train/loss") == expected
    assert runs_by_name(runs)["train"].data.metrics["final"] == 2.0


WORKER = """
import os, pickle, sys
from qaclims_ray.tracking.mlflow_tracker import attach
worker = attach(pickle.loads(bytes.fromhex(sys.argv[1])))
for step in range(100):
    worker.log_metrics({"train/loss": float(step)}, step=step)
os.kill(os.getpid(), 9)
"""


def test_the_driver_sends_what_a_killed_worker_left(runs):
    tracker = open_quiet(runs)
    handle = tracker.child("train").handle()
    killed = subprocess.run([sys.executable, "-c", WORKER, pickle.dumps(handle).hex()], check=False, env=os.environ)
    assert killed.returncode == -9
    tracker.finish("FINISHED")
    assert curve(runs, handle.run_id, "train/loss") == [(step, float(step)) for step in range(100)]


def test_submitting_again_continues_the_run_and_its_stages(runs):
    ids = []
    for attempt in range(2):
        tracker = open_quiet(runs, identity="config-1", tags={"attempt": str(attempt)})
        tracker.log_params({"a": 1})
        stage = tracker.child("train")
        stage.log_metrics({"train/loss": 5.0}, step=0)
        ids.append((tracker.handle().run_id, stage.handle().run_id))
        stage.finish("FAILED" if attempt == 0 else "FINISHED")
        tracker.finish("FAILED" if attempt == 0 else "FINISHED")
    assert ids[0] == ids[1]
    found = runs_by_name(runs)
    assert len(found) == 2
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert found["a"].data.tags["attempt"] == "1"
    assert curve(runs, ids[0][1], "train/loss") == [(0, 5.0)]


def test_reruns_leave_one_point_of_each_figure_and_step(runs):
    for _ in range(3):
        tracker = open_quiet(runs)
        stage = tracker.child("train")
        for step in range(3):
            stage.log_metrics({"train/loss": 1.0}, step=step)
        stage.log_metrics({"cam/miou_best": 0.5, "cam/iou/none": float("nan")})
        stage.finish("FINISHED")
        tracker.log_metrics({"baseline/cam/miou_best": 0.5})
        tracker.finish("FINISHED")
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as store:
        counts = store.execute("SELECT key, step, count(*) FROM metrics GROUP BY run_uuid, key, step").fetchall()
    assert {count for _, _, count in counts} == {1}
    assert len(counts) == 6


@pytest.mark.parametrize("is_copy", [False, True])
def test_a_moved_folder_goes_on_in_the_store_beside_it(runs, tmp_path, is_copy):
    from mlflow.tracking._tracking_service import utils

    source = tmp_path / "config.json"
    source.write_text("{}")
    before, after = runs / "before", runs / "after"
    before.mkdir()
    shutil.move(runs / "mlflow.db", before / "mlflow.db")
    for folder in (before, after):
        tracker = open_quiet(folder)
        tracker.log_metrics({"miou": 0.5})
        tracker.log_artifact(str(source), "settings")
        tracker.finish("FINISHED")
        if folder == before:
            first = sorted(path.relative_to(before) for path in before.rglob("*"))
            utils._artifact_repos_cache.clear()  # the rerun is another process
            (shutil.copytree if is_copy else shutil.move)(before, after)
    if is_copy:
        assert first == sorted(path.relative_to(before) for path in before.rglob("*"))
    else:
        assert not before.exists()
    (run,) = client_of(after).search_runs(["1"])
    assert Path(run.info.artifact_uri).is_relative_to(after / "mlflow-artifacts")
    assert (Path(run.info.artifact_uri) / "settings/config.json").read_text() == "{}"
    assert Path(client_of(after).get_experiment("1").artifact_location) == after / "mlflow-artifacts/qaclims"
    assert curve(after, run.info.run_id, "miou") == [(0, 0.5)]


def test_files_that_were_left_behind_are_still_found(runs, tmp_path):
    before, after = runs / "before", runs / "after"
    before.mkdir()
    after.mkdir()
    shutil.move(runs / "mlflow.db", before / "mlflow.db")
    (tmp_path / "x.txt").write_text("x")
    tracker = open_quiet(before)
    tracker.log_artifact(str(tmp_path / "x.txt"))
    tracker.finish("FINISHED")
    for name in ("a", "mlflow.db"):
        shutil.move(before / name, after / name)
    open_quiet(after).finish("FINISHED")
    (run,) = client_of(after).search_runs(["1"])
    assert (Path(run.info.artifact_uri) / "x.txt").exists()


def test_another_configuration_is_another_run(runs):
    ids = set()
    for identity in ("config-1", "config-2", "config-2"):
        tracker = open_quiet(runs, identity=identity)
        ids.add(tracker.handle().run_id)
        tracker.finish("FINISHED")
    assert len(ids) == 2


def test_a_deleted_run_is_not_continued(runs):
    tracker = open_quiet(runs)
    first = tracker.handle().run_id
    tracker.finish("FINISHED")
    client_of(runs).delete_run(first)
    tracker = open_quiet(runs)
    assert tracker.handle().run_id != first
    tracker.finish("FINISHED")


def test_a_changed_parameter_is_told_and_stops_nothing(runs, caplog):
    tracker = open_quiet(runs)
    tracker.log_params({"lr": 1})
    tracker.log_params({"lr": 2})
    tracker.log_metrics({"after": 1.0})
    tracker.finish("FINISHED")
    run = runs_by_name(runs)["a"]
    assert run.data.params == {"lr": "1"}
    assert run.data.metrics == {"after": 1.0}
    assert "refused a call (params)" in caplog.text


def test_many_parameters_and_metrics(runs):
    tracker = open_quiet(runs)
    tracker.log_params({f"p{index}": index for index in range(250)})
    tracker.set_tags({f"t{index}": index for index in range(150)})
    tracker.log_metrics({f"m{index}": float(index) for index in range(1200)})
    tracker.finish("FINISHED")
    run = runs_by_name(runs)["a"]
    assert len(run.data.params) == 250
    assert len(run.data.metrics) == 1200
    assert run.data.tags["t149"] == "149"


def test_not_a_number_is_kept(runs):
    tracker = open_quiet(runs)
    tracker.log_metrics({"train/loss": float("nan")}, step=1)
    tracker.finish("FINISHED")
    assert np.isnan(runs_by_name(runs)["a"].data.metrics["train/loss"])


def test_system_metrics_of_driver_and_worker_are_in_a_run_of_their_own(runs):
    for _ in range(2):  # the second goes on with it
        tracker = open_tracker(
            TrackingConfig(), run_name="a", out_dir=str(runs / "a"), tags={"seed": "3"}, system_metrics_interval_s=0.1
        )
        stage = tracker.child("train")
        worker = attach(stage.handle(), system_metrics_node="worker-0", system_metrics_interval_s=0.1)
        time.sleep(1.0)
        worker.close()
        stage.finish("FINISHED")
        tracker.log_metrics({"headline/final_miou": 0.5})
        tracker.finish("FINISHED")
    found = runs_by_name(runs)
    assert set(found) == {"a", "train", "machines"}
    names = set(found["machines"].data.metrics)
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= names
    assert "system/worker-0/cpu_utilization_percentage" in names
    # MLflow lists them before others on a run's page, and opens a comparison on them.
    assert set(found["a"].data.metrics) == {"headline/final_miou"} and not found["train"].data.metrics
    assert found["machines"].data.tags["mlflow.parentRunId"] == found["a"].info.run_id
    assert (found["machines"].info.status, found["machines"].data.tags["stage"]) == ("FINISHED", "machines")
    assert found["machines"].data.tags["seed"] == "3"


def test_tracking_off_and_nothing_to_attach_to(tmp_path):
    tracker = open_tracker(TrackingConfig(enabled=False), run_name="a", out_dir=str(tmp_path / "a"))
    assert isinstance(tracker, NullTracker)
    assert isinstance(attach(tracker.handle()), NullTracker)
    assert list(tmp_path.iterdir()) == []


def test_remote_outputs_without_a_server_are_said_to_be_untracked(caplog):
    assert isinstance(open_tracker(TrackingConfig(), run_name="a", out_dir="memory://bucket/a"), NullTracker)
    assert "memory://bucket/a is not a local folder and tracking.uri is empty" in caplog.text


def test_an_absent_server_is_said_before_work_starts(tmp_path):
    config = TrackingConfig(uri="http://user:secret@127.0.0.1:9")
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1:9 cannot be used.*tracking\.enabled=false") as caught:
        open_tracker(config, run_name="a", out_dir=str(tmp_path / "a"))
    assert str(caught.value).startswith("the tracking store http://127.0.0.1:9 ")


def test_a_deleted_experiment_is_refused(runs):
    open_quiet(runs).finish("FINISHED")
    client = client_of(runs)
    client.delete_experiment(client.get_experiment_by_name("qaclims").experiment_id)
    with pytest.raises(ConfigError, match="'qaclims' was deleted"):
        open_quiet(runs)


@pytest.mark.parametrize(
    "harm",
    [
        lambda record: record.write_text("{half"),
        lambda record: record.write_text(record.read_text().replace('"run_id": "', '"run_id": "0')),
        lambda record: record.unlink(),
    ],
)
def test_a_damaged_or_lost_record_goes_on_with_its_run(runs, harm):
    tracker = open_quiet(runs, identity="config-1")
    first = tracker.handle().run_id
    tracker.finish("FINISHED")
    harm(runs / "a" / "tracking.json")
    for _ in range(2):  # the record is whole again, too
        tracker = open_quiet(runs, identity="config-1", was_begun=True)
        assert tracker.handle().run_id == first
        tracker.finish("FINISHED")


def test_a_folder_that_was_begun_anew_has_a_new_run(runs):
    ids = []
    for _ in range(2):
        tracker = open_quiet(runs, identity="config-1", was_begun=False)
        ids.append(tracker.handle().run_id)
        tracker.finish("FINISHED")
        shutil.rmtree(runs / "a")
    assert ids[0] != ids[1]


def test_settings_that_come_back_go_on_with_their_run(runs):
    ids = []
    for identity in ("A", "B", "A"):
        tracker = open_quiet(runs, identity=identity)
        ids.append(tracker.handle().run_id)
        tracker.finish("FINISHED")
    assert ids[0] == ids[2] != ids[1]


def test_a_broken_record_begins_a_new_run(runs):
    (runs / "a").mkdir()
    (runs / "a" / "tracking.json").write_text("{half")
    tracker = open_quiet(runs)
    assert tracker.handle() is not None
    tracker.finish("FINISHED")
    assert list(runs_by_name(runs)) == ["a"]


def away_worker(runs, spool_dir):
    """Log with a server that is not there, and return the message at the end."""
    client = client_of(runs)
    run = client.create_run(client.create_experiment("later"))
    worker = attach(
        TrackerHandle(
            uri="http://127.0.0.1:9", experiment="later", run_id=run.info.run_id, spool_dir=spool_dir, started_ms=0
        )
    )
    for step in range(5):
        worker.log_metrics({"train/loss": float(step)}, step=step)
    stage = worker.child("late stage")
    stage.log_metrics({"x": 1.0})
    stage.log_table({"a": [1]}, "t")
    assert stage.handle().run_id.startswith("pending:")
    worker.close()
    return run.info.run_id


@pytest.mark.parametrize("where", ["local", "remote"])
def test_what_was_kept_is_replayed(runs, caplog, where):
    spool_dir = str(runs / "spool") if where == "local" else f"memory://{runs.name}/spool"
    run_id = away_worker(runs, spool_dir)
    assert f"kept in {spool_dir}" in caplog.text and f"qaclims sync --spool {spool_dir}" in caplog.text
    assert replay(spool_dir, f"sqlite:///{runs}/mlflow.db") == 8
    assert curve(runs, run_id, "train/loss") == [(step, float(step)) for step in range(5)]
    late = runs_by_name(runs, "later")["late stage"]
    assert late.data.tags["mlflow.parentRunId"] == run_id
    assert late.data.metrics == {"x": 1.0}
    assert (Path(late.info.artifact_uri) / "tables/t.csv").exists()
    with pytest.raises(DataError, match="there is nothing at"):
        replay(spool_dir, f"sqlite:///{runs}/mlflow.db")


def test_what_is_no_journal_is_said_after_the_rest_was_sent(runs):
    spool_dir = runs / "spool"
    run_id = away_worker(runs, str(spool_dir))
    (spool_dir / "old.jsonl").write_text('{"kind": "metrics"}\n')
    with pytest.raises(DataError, match=r"8 calls were sent, but not old\.jsonl .*as JSON lines: send it with"):
        replay(str(spool_dir), f"sqlite:///{runs}/mlflow.db")
    assert len(curve(runs, run_id, "train/loss")) == 5
    assert [path.name for path in spool_dir.iterdir()] == ["old.jsonl"]


def test_replaying_to_an_absent_server_keeps_everything(runs):
    spool_dir = str(runs / "spool")
    run_id = away_worker(runs, spool_dir)
    with pytest.raises(ResourceError, match=r"8 of 8 calls .* could not be sent"):
        replay(spool_dir, "http://127.0.0.1:9", timeout_s=5)
    assert replay(spool_dir, f"sqlite:///{runs}/mlflow.db") == 8
    assert len(curve(runs, run_id, "train/loss")) == 5

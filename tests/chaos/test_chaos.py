"""Some twenty faults on small runs, and that what judges them sees what is wrong; ``make chaos`` tries hundreds."""

import itertools
import os
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.clock import JUMPS, can_jump, clock_environment
from tests.chaos.comparison import content_of, differences, faults_of_tracking, half_files, points_of
from tests.chaos.damages import WAYS, kind_of, reader_of
from tests.chaos.outcome import FAULT, Outcome, keep, read_kept
from tests.chaos.page import page_of
from tests.chaos.works import WORKS, Command

NUM_DAMAGES, NUM_STRUCK = 16, 4


@pytest.fixture(scope="module")
def connected() -> Iterator[None]:
    # Not at the top: jaxtyping checks what is imported after it.
    from qaclims_ray.cluster.session import Needs, ray_session

    with ray_session(Needs(cpus=4)):
        yield


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_files_are_made_again_or_told(connected: None, tmp_path: Path) -> None:
    from tests.chaos.sweep import Sweep

    sweep = Sweep(tmp_path)
    plans = itertools.islice(sweep.plans(random.Random(0)), NUM_DAMAGES)
    found = [sweep.fault(*plan, seed) for seed, plan in enumerate(plans)]
    assert not [outcome for outcome in found if outcome.ending == FAULT]
    assert any(outcome.ending == "repaired" for outcome in found), "damage that nobody notices would try nothing"


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_commands_that_are_struck_leave_the_same_when_they_are_called_again(tmp_path: Path) -> None:
    from tests.chaos.struck import Struck

    struck = Struck(tmp_path)
    wanted = [pair for pair in struck.plans(random.Random(0)) if pair[0] == "training on one worker"][:NUM_STRUCK]
    assert len(wanted) == NUM_STRUCK
    found = [struck.fault(*pair, seed) for seed, pair in enumerate(wanted)]
    assert not [outcome for outcome in found if outcome.ending == FAULT]


@pytest.mark.parametrize("work", WORKS)
def test_the_line_of_every_work_is_a_line(tmp_path: Path, work: str) -> None:
    from qaclims_ray.commands.line import Line
    from qaclims_ray.commands.verbs import VERBS

    verb, *words = Command(WORKS[work], tmp_path / "run", token=f"{tmp_path}").line()
    assert VERBS[verb].parse(Line(tuple(words), f"qaclims {verb}", "")) is not None


_WAIT = """
import ctypes, os, pathlib, time
class Moment(ctypes.Structure):
    _fields_ = [("s", ctypes.c_long), ("ns", ctypes.c_long)]
library, until, begun = ctypes.CDLL(None), Moment(), time.time()
mutex, cond = ctypes.create_string_buffer(64), ctypes.create_string_buffer(64)
pathlib.Path(os.environ["QACLIMS_CHAOS_CLOCK"]).touch()
library.clock_gettime(time.CLOCK_REALTIME, ctypes.byref(until))
until.s += 1
library.pthread_mutex_lock(mutex)
counted = time.monotonic()
library.pthread_cond_timedwait(cond, mutex, ctypes.byref(until))
print(round((time.time() - begun) / 3600), time.monotonic() - counted)
"""


@pytest.mark.skipif(not can_jump(), reason="there is no C compiler")
@pytest.mark.parametrize("strike", JUMPS)
def test_a_wait_for_a_time_of_day_is_as_long_when_the_clock_has_jumped(tmp_path: Path, strike: str) -> None:
    environment = {**os.environ, **clock_environment(strike, tmp_path)}
    told = subprocess.check_output([sys.executable, "-c", _WAIT], env=environment, text=True, timeout=300)
    hours, waited_s = told.split()
    assert int(hours) == JUMPS[strike] / 3600
    # Ended at once, a thread that waits again and again would do nothing else; ended a day late, it would hang.
    assert float(waited_s) > 0.9


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run's folder with a file of each sort, and MLflow's store beside it."""
    out = tmp_path / "home" / "run"
    files = {
        "cams/baseline/part-00000.parquet": b"PAR1 something PAR1",
        "cams/baseline/meta.json": b'{"created": "today"}',
        "classifier/curves.json": b'{"1": {"loss": 0.5, "images_per_s": 80.0}}',
        "networks/trial_0a1b2_00003/meta.json": b"{}",
        "networks/trial_0a1b2_00003/network.safetensors": b"of trial_0a1b2_00003",
        "tune/search.json": b'{"rows": [{"name": "trial_0a1b2_00003", "objective": 0.5, "seconds": 3.5}]}',
        "report/report.json": b'{"created": "today", "systems": {"baseline": {"curves": {}, "miou": 0.5}}}',
    }
    for name, content in files.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    return out


@pytest.mark.parametrize("way", WAYS)
def test_every_way_changes_a_file_and_the_comparison_sees_it(run: Path, way: str) -> None:
    expected = content_of(run)
    assert differences(expected, run) == []
    WAYS[way](run / "cams/baseline/part-00000.parquet", random.Random(3))
    assert differences(expected, run) == ["cams/baseline/part-00000.parquet"]


@pytest.mark.parametrize(
    ("name", "old", "new", "is_seen"),
    [
        ("classifier/curves.json", "80.0", "70.0", False),
        ("classifier/curves.json", "0.5", "0.4", True),
        ("report/report.json", "today", "tomorrow", False),
        ("report/report.json", "0.5", "0.4", True),
        ("cams/baseline/meta.json", "today", "tomorrow", False),
        ("tune/search.json", "3.5", "4.5", False),
        ("tune/search.json", "0a1b2", "99999", False),
        ("tune/search.json", "00003", "00004", True),
        ("tune/search.json", "0.5", "0.4", True),
    ],
)
def test_times_do_not_count_and_figures_do(run: Path, name: str, old: str, new: str, is_seen: bool) -> None:
    expected = content_of(run)
    (run / name).write_text((run / name).read_text().replace(old, new))
    assert differences(expected, run) == ([name] if is_seen else [])


def test_what_ray_tune_draws_for_the_name_of_a_trial_does_not_count(run: Path) -> None:
    expected = content_of(run)
    assert "networks/trial_00003/network.safetensors" in expected
    network = run / "networks" / "trial_0a1b2_00003"
    (network / "network.safetensors").write_bytes(b"of trial_ffff0_00003")
    network.rename(network.with_name("trial_ffff0_00003"))
    assert differences(expected, run) == []


@pytest.mark.parametrize(
    "name",
    [
        "trials/a/training_runs/x",
        "cams/a.parquet.partial-12345678-1-12345678",
        "cams/b.making-0123/x",
        "cams.old-12/x",
        ".owner-1.json",
    ],
)
def test_what_is_half_done_is_seen(run: Path, name: str) -> None:
    assert half_files(run) == []
    (run / name).parent.mkdir(parents=True, exist_ok=True)
    (run / name).touch()
    assert half_files(run)


def _store(path: Path, runs: list[tuple[str, str, str]], points: list[tuple[str, str, int]]) -> Path:
    with sqlite3.connect(path) as store:
        store.execute("CREATE TABLE runs (run_uuid, name, status, lifecycle_stage)")
        store.execute("CREATE TABLE tags (key, value, run_uuid)")
        store.execute("CREATE TABLE metrics (key, step, run_uuid)")
        store.executemany("INSERT INTO runs VALUES (?, ?, ?, 'active')", runs)
        store.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', '1', '2')")
        store.executemany("INSERT INTO metrics (run_uuid, key, step) VALUES (?, ?, ?)", points)
    return path


@pytest.mark.parametrize(
    ("runs", "points", "fault"),
    [
        ([], [("1", "loss", 1), ("1", "loss", 2), ("2", "loss", 1)], ""),
        ([], [("1", "loss", 1), ("1", "loss", 1)], "doubled points"),
        ([("3", "again", "FINISHED")], [], "2 runs of the pipeline"),
        ([("3", "again", "RUNNING")], [], "again is RUNNING"),
    ],
)
def test_doubled_runs_and_points_of_a_store_are_seen(tmp_path: Path, runs, points, fault: str) -> None:
    known = [("1", "run", "FINISHED"), ("2", "train", "FINISHED")]
    found = faults_of_tracking(_store(tmp_path / "mlflow.db", known + runs, points))
    assert (found == []) if not fault else fault in "; ".join(found)


def test_points_that_an_undisturbed_run_has_and_a_store_has_not_are_lost(tmp_path: Path) -> None:
    known = [("1", "run", "FINISHED"), ("2", "train", "FINISHED")]
    store = _store(tmp_path / "mlflow.db", known, [("1", "loss", 1), ("1", "loss", 2)])
    assert points_of(store) == {("run", "loss", 1), ("run", "loss", 2)}
    assert faults_of_tracking(store, points_of(store)) == []
    assert "1 points are lost: [('train', 'loss', 3)]" in faults_of_tracking(store, [("train", "loss", 3)])


def test_a_kind_is_a_place_without_what_differs_from_run_to_run() -> None:
    assert kind_of("run/cams/qa_clims.making-6962b131df7abb40/part-00003.parquet") == (
        "run/cams/SYSTEM.making/part-N.parquet"
    )
    assert kind_of("run/masks/semples/mini_000004.png") == "run/masks/SYSTEM/IMAGE.png"
    assert reader_of("masks/semples/mini_000004.png") == "segmentation/semples"
    assert reader_of("timings.json") == ""


def test_the_page_counts_what_was_tried_and_a_fault_that_was_tried_again_once(tmp_path: Path) -> None:
    records = tmp_path / "records.jsonl"
    for ending in ("FAULT", "repaired"):
        keep(Outcome("masks/IMAGE.png", "missing", "finished", 3, ending), records)
    keep(Outcome("training", "SIGTERM", "0.3 s after it began", 4, "the same", "stopped | kept"), records)
    text = page_of(read_kept(records))
    assert "**2 faults were tried** (1 of them struck a command at work), and 0 were not got over" in text
    assert "| masks/IMAGE.png | missing | finished | 3 | repaired |  |" in text and "stopped / kept" in text

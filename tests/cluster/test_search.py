"""How many trials of a search are at work together, and what a search asks of the Ray that it joins."""

import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.cluster.search import Report, SearchPlan, search_settings
from qaclims_ray.settings import Parameter

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

TRIALS = 3


def trial(sampled: Mapping[str, Any], name: str, report: Report, *, folder: str, at_once: int) -> None:
    """Leave when the trial was at work, and fail where the folder says so."""
    path, began = Path(folder, name), time.time()
    path.touch()
    while len(list(path.parent.glob("trial_*"))) < at_once:
        time.sleep(0.05)
    time.sleep(1.5)  # so long another may begin that must not
    path.write_text(f"{began} {time.time()}")
    if Path(folder, "fails").exists():
        raise RuntimeError("as the test asks")
    report(1, sampled["omega"])


def most_at_once(folder: Path) -> int:
    """Return how many trials were at work together, and forget them."""
    spans = []
    for path in folder.glob("trial_*"):
        spans.append([float(number) for number in path.read_text().split()])
        path.unlink()
    assert len(spans) == TRIALS
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


def plan_in(folder: Path, **own: Any) -> SearchPlan:
    """Return a search over one value, of which two trials are at work together."""
    return SearchPlan(
        name="search",
        folder=str(folder / "state"),
        space=(Parameter(name="omega", low=0.0, high=1.0),),
        at_once=2,
        seed=0,
        grace_epochs=1,
        reduction_factor=2,
        tracker=None,
        **own,
    )


@pytest.mark.parametrize("algorithm", ["random", "optuna"])
def test_no_more_trials_are_at_work_than_the_search_says(shared_ray, tmp_path, algorithm):
    plan = plan_in(tmp_path, algorithm=algorithm, trials=TRIALS, start={"omega": 0.5}, epochs=1, scheduler="none")
    (tmp_path / "fails").touch()
    failed = search_settings(functools.partial(trial, folder=str(tmp_path), at_once=2), plan)
    assert all("as the test asks" in end.failure for end in failed)
    assert most_at_once(tmp_path) == 2
    # The same search on a smaller cluster: all that failed wait to be tried again.
    (tmp_path / "fails").unlink()
    work = functools.partial(trial, folder=str(tmp_path), at_once=1)
    ends = search_settings(work, dataclasses.replace(plan, at_once=1))
    assert [end.failure for end in ends] == [""] * TRIALS
    assert {end.name: end.values for end in ends} == {end.name: end.values for end in failed}
    assert {"omega": 0.5} in [end.values for end in ends]
    assert most_at_once(tmp_path) == 1


RATED = (0.5, 0.4, 0.1, 0.9, 0.95)
"""What each trial reports, in the order in which they begin: the third is behind, and the fourth and fifth are not."""


def rated(sampled: Mapping[str, Any], name: str, report: Report, *, folder: str) -> None:
    """Report three epochs, and leave a file at the end, which a trial that is stopped does not reach."""
    for epoch in range(1, 4):
        report(epoch, RATED[int(name.rpartition("_")[2])])
    Path(folder, name).touch()


def test_trials_run_on_after_the_scheduler_has_stopped_one(shared_ray, tmp_path):
    plan = plan_in(tmp_path, algorithm="random", trials=len(RATED), start=None, epochs=3, scheduler="asha")
    ends = {
        int(end.name.rpartition("_")[2]): end
        for end in search_settings(functools.partial(rated, folder=str(tmp_path)), plan)
    }
    assert sorted(ends) == list(range(len(RATED)))
    assert not [end.failure for end in ends.values() if end.failure]
    stopped = {number for number, end in ends.items() if end.epochs < 3}
    # Which of the first two reports first is left to them; the second may be behind then.
    assert stopped - {1} == {2}
    assert {end.objective for end in ends.values()} == set(RATED)
    whole = {end.name for number, end in ends.items() if number not in stopped}
    assert {path.name for path in tmp_path.glob("trial_*")} == whole, "what was stopped went no further"


_HEAD = """
import sys, ray
context = ray.init(address="local", num_cpus=8, include_dashboard=False, object_store_memory=100 << 20)
print("ADDRESS", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""


@pytest.fixture
def without_dashboard() -> Iterator[dict[str, str]]:
    """Environment in which a run joins a Ray that has no dashboard."""
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    head = subprocess.Popen(
        [sys.executable, "-c", _HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    assert head.stdout is not None
    address = next((line.split()[1] for line in head.stdout if line.startswith("ADDRESS")), "")
    assert address, "Ray did not start"
    yield {**env, "RAY_ADDRESS": address}
    head.communicate("")


def test_a_search_that_stops_trials_refuses_a_ray_without_dashboard_at_once(without_dashboard, tmp_path):
    command = [
        sys.executable,
        "-m",
        "qaclims_ray",
        "tune",
        "miniature",
        "--out",
        str(tmp_path / "run"),
        "--goal",
        "seed",
    ]
    ended = subprocess.run(
        [*command, "--tracking.enabled", "False"],
        env=without_dashboard,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert "this Ray has no dashboard that answers" in ended.stdout + ended.stderr
    assert "--scheduler none" in ended.stdout + ended.stderr
    assert not (tmp_path / "run" / "manifest").exists(), "nothing was made before"

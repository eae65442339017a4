"""What a search of many trials costs the driver: trials that cost nothing, then the same search called again.

    python -m benchmarks.search_load [--trials 20 200]

Each trial reports three epochs of a made-up figure and ends: ASHA and Optuna do all they do in `qaclims tune`, and no
network is trained. Each trial has a process of Ray's own, which takes most of the time. CPU seconds are those of the
driver's process alone; what is kept is the folder of Ray Tune's state.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qaclims_ray.cluster.search import Report, SearchPlan, search_settings
from qaclims_ray.cluster.session import Needs, ray_session
from qaclims_ray.settings import Parameter

_EPOCHS = 3


def trial(sampled: Mapping[str, Any], name: str, report: Report) -> None:
    """Report figures that depend on the value alone."""
    for epoch in range(1, _EPOCHS + 1):
        report(epoch, epoch * sampled["omega"])


def plan_of(trials: int, folder: Path, at_once: int) -> SearchPlan:
    """Return a search as `qaclims tune` plans it, over one value."""
    return SearchPlan(
        name=f"search-{trials}",
        folder=str(folder),
        space=(Parameter(name="omega", low=0.0, high=1.0),),
        start={"omega": 0.5},
        trials=trials,
        at_once=at_once,
        epochs=_EPOCHS,
        algorithm="optuna",
        seed=0,
        scheduler="asha",
        grace_epochs=1,
        reduction_factor=3,
        tracker=None,
    )


def measured(plan: SearchPlan) -> tuple[float, float, int]:
    """Return CPU seconds of this process, seconds on the clock, and how many trials there are."""
    started, cpu = time.monotonic(), time.process_time()
    ends = search_settings(trial, plan)
    assert not any(end.failure for end in ends)
    return time.process_time() - cpu, time.monotonic() - started, len(ends)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[20, 200])
    parser.add_argument("--concurrent", type=int, default=2)
    asked = parser.parse_args(arguments)
    print("trials | driver, CPU ms a trial | on the clock, s a trial | kept, KiB a trial | called again, CPU s")
    with ray_session(Needs(cpus=2)), tempfile.TemporaryDirectory() as folder:
        for number in asked.trials:
            plan = plan_of(number, Path(folder), asked.concurrent)
            cpu, seconds, ended = measured(plan)
            assert ended == number
            again, _, known = measured(plan)
            assert known == number
            kept = sum(path.stat().st_size for path in Path(folder, plan.name).rglob("*") if path.is_file())
            print(
                f"{number:6} | {1000 * cpu / number:22.0f} | {seconds / number:23.1f} | {kept / 1024 / number:18.1f} "
                f"| {again:18.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()

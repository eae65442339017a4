"""What the host does to a GPU in each component: no change brings a wait or thousands of launches back unseen.

Counted on a pretended GPU (``fake_cuda.py``), in a process of its own. Forward alone: autograd wants a real device.
"""

import json
import os
import subprocess
import sys

import pytest

LIMITS = {
    "ritc_step": (800, 0),
    "ritc_step_as_printed": (790, 0),
    "clims_step": (580, 0),
    "classifier_step": (310, 0),
    "semples_refine_step": (590, 0),
    "semples_prompt_step": (270, 0),
    "irn_step": (510, 0),
    "irn_walk": (540, 1),
    "cams": (830, 1),
    "crf": (710, 6),
    "pamr": (870, 1),
    "deeplab_v2_step": (1720, 0),
    "mask2former_step": (4240, 2),
    "final_network": (840, 1),
    "blip": (8900, 6),
}
"""Component -> most launches, most waits."""
UPLOADS = {"mask2former_step": 7}
"""Component -> uploads for which the host waits, where there are some: of transformers' own network, a few numbers."""


@pytest.fixture(scope="module")
def found() -> dict[str, list[int]]:
    """Name of each component -> launches, waits, uploads."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.launches.components", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


def test_every_component_has_a_limit(found: dict[str, list[int]]) -> None:
    assert found.keys() == LIMITS.keys()


@pytest.mark.parametrize("name", LIMITS)
def test_the_host_does_no_more_than_it_did(found: dict[str, list[int]], name: str) -> None:
    (launches, waits, uploads), (most_launches, most_waits) = found[name], LIMITS[name]
    where = f"python -m tests.launches.components {name} says where"
    assert uploads <= UPLOADS.get(name, 0), (
        f"{uploads} blocking uploads: use models.devices.upload or constant; {where}"
    )
    assert waits <= most_waits, f"{waits} waits; {where}"
    assert launches <= most_launches, f"{launches} launches"
    assert launches > 0.9 * most_launches, f"only {launches} launches: lower the limit, so that it goes on to hold"

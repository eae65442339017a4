"""What the host does to a GPU in each component: no change brings a wait or thousands of launches back unseen.

Counted on a pretended GPU (``fake_cuda.py``), in a process of its own; whole steps without a device (``backward.py``).
"""

import json
import os
import subprocess
import sys

import pytest

LIMITS = {
    "ritc_step": (72, 0),
    "ritc_step_as_printed": (70, 0),
    "clims_step": (75, 0),
    "classifier_step": (26, 0),
    "semples_refine_step": (67, 0),
    "semples_prompt_step": (17, 0),
    "irn_step": (200, 0),
    "irn_walk": (235, 1),
    "cams": (610, 1),
    "crf": (710, 6),
    "pamr": (870, 1),
    "deeplab_v2_step": (240, 0),
    "online_step": (1240, 0),
    "mask2former_step": (4240, 2),
    "final_network": (630, 1),
    "blip": (980, 6),
}
"""Component -> most launches outside of CUDA graphs, most waits."""
UPLOADS = {"mask2former_step": 7}
"""Component -> uploads for which the host waits, where there are some: of transformers' own network, a few numbers."""
STEP_LIMITS = {"ritc_step": 120, "semples_prompt_step": 22, "irn_step": 340, "deeplab_v2_step": 280}
"""Step -> most launches outside of CUDA graphs, forward and backward."""

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def counts() -> dict[str, dict[str, list[int]]]:
    """What `tests.launches.components` prints."""
    answer = subprocess.run(
        [sys.executable, "-m", "tests.launches.components", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=900,
    )
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def found(counts: dict[str, dict[str, list[int]]]) -> dict[str, list[int]]:
    """Name of each component -> launches, captured ones, waits, uploads; forward."""
    return counts["forward"]


def test_every_component_has_a_limit(found: dict[str, list[int]]) -> None:
    assert found.keys() == LIMITS.keys()


@pytest.mark.parametrize("name", LIMITS)
def test_the_host_does_no_more_than_it_did(found: dict[str, list[int]], name: str) -> None:
    (launches, _, waits, uploads), (most_launches, most_waits) = found[name], LIMITS[name]
    where = f"python -m tests.launches.components {name} says where"
    assert uploads <= UPLOADS.get(name, 0), (
        f"{uploads} blocking uploads: use models.devices.upload or constant; {where}"
    )
    assert waits <= most_waits, f"{waits} waits; {where}"
    assert launches <= most_launches, f"{launches} launches"
    assert launches > 0.9 * most_launches, f"only {launches} launches: lower the limit, so that it goes on to hold"


@pytest.mark.parametrize("name", STEP_LIMITS)
def test_a_step_with_its_backward_pass_is_a_few_launches(counts: dict[str, dict[str, list[int]]], name: str) -> None:
    plain, launches, captured = counts["steps"][name]
    assert 0.9 * STEP_LIMITS[name] < launches <= STEP_LIMITS[name]
    assert captured > 0.8 * (plain - launches), f"of {plain} launches {captured} are captured and {launches} are not"

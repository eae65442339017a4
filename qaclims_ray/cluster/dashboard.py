"""Whether the connected Ray has a dashboard, which frees what a training that is stopped from outside had reserved.

Ray Train hands a training's placement group to an actor that outlives it. This actor asks the dashboard, and nothing
else, whether the training is still alive.
"""

import time

import ray
from ray.util.state import list_nodes
from ray.util.state.exception import RayStateApiException

from qaclims_ray.errors import ResourceError

_TRIES, _TIMEOUT_S, _PAUSE_S = 5, 5, 1.0


def require_dashboard(why: str) -> None:
    """Refuse a Ray whose dashboard does not answer.

    Args:
        why: what needs it, and what to do instead.

    Raises:
        ResourceError: when no dashboard answers for this Ray.
    """
    # It may have been started a moment ago.
    for number in range(_TRIES):
        if number:
            time.sleep(_PAUSE_S)
        if _knows_this_node():
            return
    raise ResourceError(f"this Ray has no dashboard that answers: {why}")


def _knows_this_node() -> bool:
    """Ask about this very node: where a Ray has no dashboard, another one's may listen at the address that it names."""
    here = ray.get_runtime_context()
    try:
        found = list_nodes(
            # Said, because several may run on this machine.
            address=here.gcs_address,
            filters=[("node_id", "=", here.get_node_id())],
            timeout=_TIMEOUT_S,
        )
    # The second: an address that is not there.
    except (RayStateApiException, ConnectionError, ValueError):
        return False
    return bool(found)

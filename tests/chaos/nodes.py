"""A Ray of a head and one more node, which a struck command joins, and whose second node is killed.

It lives in a process of its own: one that has started Ray's nodes keeps what it knows of them, and the faults that
follow start a Ray of their own.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_HEAD = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
_NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
_ENDED = ("REMOVED", "DEAD")
_RAYS_OWN = ("_AutoscalingCoordinatorActor", "_StatsActor")
"""Actors of Ray Data that live as long as the Ray, one each for all commands."""


@contextlib.contextmanager
def ray_of_two_nodes(folder: Path) -> Iterator[tuple[dict[str, str], Callable[[str], list[str]]]]:
    """Start the two nodes for the time of the context.

    Args:
        folder: for what Ray keeps; its path is short, since sockets are in it.

    Yields:
        The environment by which a command joins them, and what asks for one of the things that `_Nodes` does.
    """
    # Without a token: it would be one more thing that the processes have to agree on, and nothing is tried about it.
    environment = {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}
    served = subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.nodes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    assert served.stdin is not None and served.stdout is not None
    wishes, answers = served.stdin, served.stdout

    def ask(wish: str) -> list[str]:
        wishes.write(f"{wish}\n")
        wishes.flush()
        # Ray's own lines may stand before it.
        found = next((line for line in answers if line.startswith("[")), None)
        assert found is not None, f"the process of the nodes has ended, asked for {wish}"
        return json.loads(found)

    try:
        (address,) = ask("address")
        yield {"RAY_ADDRESS": address, "RAY_AUTH_MODE": "disabled"}, ask
    finally:
        with contextlib.suppress(BrokenPipeError):
            wishes.close()
        try:
            served.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(served.pid, signal.SIGKILL)  # its nodes too: the session is its own


class _Nodes:
    """The nodes, and what may be done to them."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster: Any = Cluster(initialize_head=True, head_node_args=_HEAD)
        self._cluster.add_node(**_NODE)

    def address(self) -> list[str]:
        """Return where a command joins."""
        return [self._cluster.address]

    def kill(self) -> list[str]:
        """Kill all processes of the second node, as when its machine is taken away; another one comes."""
        for node in list(self._cluster.worker_nodes):
            self._cluster.remove_node(node, allow_graceful=False)
        self._cluster.add_node(**_NODE)
        return []

    def left(self) -> list[str]:
        """Return the placement groups and actors of jobs that are there still."""
        import ray

        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        try:
            groups = [
                f"placement group {one['name']}: {one['state']}" for one in ray.util.placement_group_table().values()
            ]
            actors = ray._private.state.actors().values()  # type: ignore[attr-defined]
            found = groups + [
                f"actor {one['ActorClassName']}: {one['State']}"
                for one in actors
                if one["ActorClassName"] not in _RAYS_OWN
            ]
            return [one for one in found if not one.endswith(_ENDED)]
        finally:
            ray.shutdown()

    def end(self) -> None:
        """End all nodes."""
        self._cluster.shutdown()


def _serve() -> None:
    nodes = _Nodes()
    does = {"address": nodes.address, "kill": nodes.kill, "left": nodes.left}
    try:
        for line in sys.stdin:
            print(json.dumps(does[line.strip()]()), flush=True)
    finally:
        nodes.end()


if __name__ == "__main__":
    _serve()

"""Several Ray nodes on one machine: stages spread over them, and a training outlives the loss of one."""

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray._private.authentication import authentication_token_setup
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DrainNodeReason
from safetensors.torch import load_file

from qaclims_ray.cluster.rescue import SNAPSHOT_NAME
from qaclims_ray.cluster.session import DEFAULTS
from qaclims_ray.cluster.shards import as_it_is, run_shards
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.kills import wait_for
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

NODE = {"num_cpus": 2, "object_store_memory": 80 * 2**20}
"""A training worker of these tests fills a node: two of them need two."""

COORDINATOR_TICK_S = 22
"""Seconds until Ray Train surely knows of new nodes: what gives out the nodes to trainings counts them every 20."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head alone, joined by this process."""
    with pytest.MonkeyPatch.context() as patch:
        yield from _cluster(patch)


def _cluster(patch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    for name, value in DEFAULTS.items():
        patch.setenv(name, value)
    # As ray.init does for a private Ray. A process keeps the first mode it has seen: another one here would lock the
    # tests that follow out of their own Ray.
    authentication_token_setup.enable_token_auth_by_default()
    authentication_token_setup.ensure_token_if_auth_enabled()
    folder = Path(tempfile.mkdtemp(prefix="qaclims-ray-", dir="/tmp"))  # sockets need short paths
    (folder / "ray").mkdir()
    patch.setenv("RAY_TMPDIR", str(folder))
    head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        ray.init(address=cluster.address, log_to_driver=False)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def nodes(cluster: Cluster) -> Cluster:
    """The head and two nodes, with new ones for those that the tests before have lost."""
    all_there = len(cluster.worker_nodes) == 2
    while len(cluster.worker_nodes) < 2:
        cluster.add_node(**NODE)
    # A lost node is counted until its heartbeats are missed, so numbers of CPUs alone may be right too early.
    here = {node.node_id for node in [cluster.head_node, *cluster.worker_nodes]}
    wait_for(lambda: {node["NodeID"] for node in ray.nodes() if node["Alive"]} == here, 120, "no lost node")
    if not all_there:
        # A training that may have fewer workers would begin with those that there is known to be room for.
        time.sleep(COORDINATOR_TICK_S)
    return cluster


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Notice lost nodes sooner: a group of the former size is waited for before a smaller one is tried."""
    monkeypatch.setenv("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "25")
    monkeypatch.setenv("RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S", "0.5")


def _nodes_of(actor_class: str, but: Container[str] = ()) -> dict[str, str]:
    """Return actor -> node of all that there ever were whose class has this in its name, but for some actors."""
    actors = ray._private.state.actors().items()  # the public list of them needs the dashboard
    found = {name: actor["Address"]["NodeID"] for name, actor in actors if actor_class in actor["ActorClassName"]}
    return {name: node for name, node in found.items() if name not in but}


def _nodes_of_tasks() -> set[str]:
    """Return the nodes on which shards are worked on where four of them may be at once."""

    class Telling:
        def __call__(self, shard: int) -> dict[str, str]:
            time.sleep(1)
            return {"node": ray.get_runtime_context().get_node_id()}

    summaries = run_shards(range(8), decode=as_it_is, actor=Telling, actor_kwargs={}, num_actors=4)
    return {summary["node"] for summary in summaries}


def _config(**overrides: Any) -> RunConfig:
    return small_config(cluster__num_workers=2, cluster__cpus_per_worker=2.0, **overrides)


@contextlib.contextmanager
def _training(config: RunConfig, out: Path) -> Iterator[None]:
    """Train the classifier beside what happens in the context: nodes come and go by the main thread alone."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            run_pipeline(config, str(out), until="train")
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(400)
    assert not thread.is_alive() and not failed, failed


def test_corpus_training_and_cams_run_on_several_nodes(nodes: Cluster, tmp_path: Path) -> None:
    config = _config(systems=["qa_clims"], corpus__num_actors=2, cams__num_actors=2)
    layout = run_pipeline(config, str(tmp_path), until="cams").layout
    assert read_meta(layout.cams("qa_clims")) is not None
    assert len(set(_nodes_of("RayTrainWorker").values())) == 2, "a worker fills a node"
    assert len(_nodes_of_tasks()) >= 2, "stages over images spread as well"


def test_a_notice_that_a_node_will_go_is_answered_by_a_checkpoint_within_the_epoch(
    soon: None, nodes: Cluster, tmp_path: Path
) -> None:
    steps_per_epoch, out, before = 100, tmp_path / "run", _nodes_of("RayTrainWorker")
    config = _config(
        systems=["baseline"],
        data__num_images=2 * steps_per_epoch,
        classifier__optim__epochs=30,
        classifier__optim__batch_size=2,
        cluster__min_workers=1,
    )

    def saved_within_epoch() -> bool:
        found = (out / "training_runs").glob("classifier-*/*/progress.json")
        with contextlib.suppress(ValueError, OSError):  # written just now, or removed
            return any(json.loads(path.read_text())["steps_done"] % steps_per_epoch for path in found)
        return False

    with _training(config, out):
        wait_for(lambda: any((out / "training_runs").glob(f"classifier-*/{SNAPSHOT_NAME}")), 300, "a first checkpoint")
        at_work = _nodes_of("RayTrainWorker", before).values()
        goes = next(node for node in nodes.worker_nodes if node.node_id in at_work)
        deadline_ms = int(time.time() * 1000) + 60_000
        client, reason = GcsClient(address=nodes.address), DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
        accepted, why_not = client.drain_node(goes.node_id, reason, "spot instance is reclaimed", deadline_ms)
        assert accepted, why_not
        wait_for(saved_within_epoch, 50, "a checkpoint within an epoch")
        nodes.remove_node(goes, allow_graceful=False)
    assert len(_nodes_of("RayTrainWorker", before)) == 3, "two workers, then one"


def test_a_training_goes_on_with_fewer_workers_when_a_node_is_lost(soon: None, nodes: Cluster, tmp_path: Path) -> None:
    settings = {
        "systems": ["baseline"],
        "classifier__optim__epochs": 40,
        "classifier__optim__name": "sgd",  # Adam blows rounding up where gradients vanish
        "classifier__optim__lr": 0.05,
        "classifier__freeze_batch_norm": True,  # the other figures do not depend on the number of workers
        "cluster__min_workers": 1,
    }
    out, before = tmp_path / "lost", _nodes_of("RayTrainWorker")
    with _training(_config(**settings), out):
        snapshots = (out / "training_runs").glob
        wait_for(lambda: any(snapshots(f"classifier-*/{SNAPSHOT_NAME}")), 300, "a first checkpoint")
        nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    assert len(_nodes_of("RayTrainWorker", before)) == 3, "two workers, then one"
    assert set(_nodes_of("_QueueActor").values()) == {nodes.head_node.node_id}, (
        "what the driver reads is never on a lost node"
    )
    ray.shutdown()  # what is left of it is too small for the next run
    alone = tmp_path / "alone"
    run_pipeline(
        small_config(**{**settings, "cluster__num_workers": 0, "cluster__min_workers": None}), str(alone), until="train"
    )
    found, expected = (
        load_file(Path(RunLayout(str(folder)).classifier, "network.safetensors")) for folder in (out, alone)
    )
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}"
        )

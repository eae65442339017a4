"""IRN's update and its mean displacement do not depend on the number of workers: two gloo ranks, uneven pairs."""

import dataclasses
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.network import build_affinity_net, load_affinity_net, save_affinity_net
from qaclims_ray.refine.irn.task import affinity_step, train_affinity
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext, all_reduce_sum
from qaclims_ray.training.loop import wrap_network
from tests.unit.models.cpu_recorder import record_on_cpu

pytestmark = pytest.mark.timeout(900)  # processes of a busy machine start slowly
IRN = IrnConfig(
    backbone="miniature",
    weights="random",
    width=16,
    radius=4,
    optim=OptimConfig(lr=0.05, head_lr_factor=2.0, epochs=2, batch_size=3, momentum=0.9),
)


class Crops:
    """Five crops; the odd ones, of which worker 1 of 2 has most, know fewer labels."""

    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(index)
        labels = torch.tensor([0, 2, 255, 255])[torch.randint(3, (2, 2), generator=generator)]
        labels = labels.repeat_interleave(16, 0).repeat_interleave(16, 1).to(torch.uint8)
        if index % 2:
            labels[8:] = 255
        return {"image": torch.randn(3, 32, 32, generator=generator), "labels": labels, "index": index}


class GlooContext(LocalContext):
    """One of several workers in processes of this machine."""

    def __init__(self, folder: str, rank: int, world_size: int) -> None:
        super().__init__(folder)
        self.rank, self.world_size = rank, world_size


def _work(rank: int, world_size: int, folder: str) -> None:
    context = GlooContext(f"{folder}/context-{world_size}-{rank}", rank, world_size)
    items = [Crops()[index] for index in range(rank, 5, world_size)]
    batch = {name: torch.stack([item[name] for item in items]) for name in ("image", "labels")}
    network = load_affinity_net(f"{folder}/init").train()
    wrapped = wrap_network(network, "fp32", context)
    result = affinity_step(wrapped, batch, radius=4)
    (result.loss * world_size).backward()  # what the loop does
    found = {name: all_reduce_sum(value) for name, value in {"loss": result.loss.detach(), **result.means}.items()}
    for branch in ("boundary", "displacement"):
        for name, parameter in getattr(network, branch).named_parameters():
            found[f"{branch}.{name}"] = parameter.grad.clone()
    save_file(found, f"{folder}/step-{world_size}-{rank}.safetensors")
    network = load_affinity_net(f"{folder}/init")
    options = {"seed": 0, "precision": "fp32", "loader_workers": 0, "context": context}
    metrics = train_affinity(network=network, dataset=Crops(), irn=IRN, **options)
    trained = {name: value.clone() for name, value in network.state_dict().items()}
    trained |= {name: torch.tensor(value) for name, value in metrics.items() if name != "images_per_s"}
    whole = {name: value.contiguous() for name, value in trained.items()}
    save_file(whole, f"{folder}/trained-{world_size}-{rank}.safetensors")


def _work_recorded(rank: int, folder: str) -> None:
    """Train without and with recordings, which lie below DDP."""
    irn = dataclasses.replace(IRN, optim=dataclasses.replace(IRN.optim, epochs=4))
    with pytest.MonkeyPatch.context() as patch:
        for way in ("plain", "recorded"):
            names = record_on_cpu(patch) if way == "recorded" else []
            network, context = load_affinity_net(f"{folder}/init"), GlooContext(f"{folder}/{way}-{rank}", rank, 2)
            options = {"seed": 0, "precision": "fp32", "loader_workers": 0, "context": context}
            train_affinity(network=network, dataset=Crops(), irn=irn, **options)
            found = {**network.state_dict(), "recordings": torch.tensor(len(names))}
            whole = {name: value.contiguous().clone() for name, value in found.items()}
            save_file(whole, f"{folder}/{way}-{rank}.safetensors")


def _worker(rank: int, port: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.update({"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"})
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    try:
        _work(rank, 2, folder)
        _work_recorded(rank, folder)
    finally:
        torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of one and of two workers."""
    folder = tmp_path_factory.mktemp("gloo")
    torch.manual_seed(0)
    save_affinity_net(build_affinity_net(IRN), str(folder / "init"))
    for name in ("context-1-0", "context-2-0", "context-2-1", "plain-0", "plain-1", "recorded-0", "recorded-1"):
        (folder / name).mkdir()
    _work(0, 1, str(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.set_forkserver_preload(["qaclims_ray.refine.irn.task"])
    torch.multiprocessing.start_processes(_worker, (port, str(folder)), nprocs=2, start_method="forkserver")
    return folder


def test_loss_and_gradient_equal_those_of_one_worker(folder) -> None:
    expected = load_file(folder / "step-1-0.safetensors")
    assert expected["loss"] > 0.1 and expected["boundary.logit.weight"].abs().max() > 1e-3
    assert all(expected[f"loss/{name}"] > 0 for name in ("background", "foreground", "negative"))
    for rank in range(2):
        found = load_file(folder / f"step-2-{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(
                found[name], value, rtol=2e-4, atol=2e-6, msg=lambda text, n=name: f"{n}: {text}"
            )


def test_whole_trainings_agree_and_all_workers_hold_the_same(folder) -> None:
    expected = load_file(folder / "trained-1-0.safetensors")
    first, second = (load_file(folder / f"trained-2-{rank}.safetensors") for rank in range(2))
    assert expected["mean_displacement"].abs().max() > 1e-3
    for name, value in expected.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], value, rtol=1e-3, atol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
    stored = load_affinity_net(str(folder / "context-2-0/latest"))
    assert torch.equal(stored.mean_displacement, first["mean_displacement"])


def test_workers_whose_launches_are_recorded_train_the_same(folder) -> None:
    for rank in range(2):
        expected, found = (load_file(folder / f"{way}-{rank}.safetensors") for way in ("plain", "recorded"))
        assert expected.pop("recordings") == 0 and found.pop("recordings") == 1
        for name, value in expected.items():
            assert torch.equal(found[name], value), name

"""Two gloo workers train a final network as one does, with uneven shares and parts of shares."""

import dataclasses
import multiprocessing
import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file
from torch import nn

from qaclims_ray.segmentation.task import dense_step, sets_step
from qaclims_ray.training.context import all_reduce_sum
from qaclims_ray.training.loop import wrap_network
from qaclims_ray.training.meter import StepResult
from tests.distributed.test_world_size import GlooContext, _close, _group
from tests.unit.segmentation.test_task import CONFIG, TinyNet, batch_of, optim_with, stored, train, write_squares

pytestmark = pytest.mark.timeout(900)  # processes of a busy machine start slowly
CASES = {f"{loss}-{parts}": (loss, parts) for loss in ("plain", "balanced", "sets") for parts in (1, 2)}
# Of five images the first worker has three.
TRAINING = dataclasses.replace(
    CONFIG, optim=optim_with(batch_size=5, name="sgd", lr=0.05), freeze_batch_norm=True, accumulation=2
)


class SharedSets(nn.Module):
    """A share of the mean over the images of all workers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, image, labels):
        per_image = self.conv(image).flatten(1).mean(1) * labels.flatten(1).float().mean(1)
        return per_image.sum() / all_reduce_sum(torch.tensor(float(len(image))))


def _step(network: nn.Module, batch: dict, loss: str, parts: int, world_size: int) -> StepResult:
    if loss == "sets":
        return sets_step(network, batch, parts=parts, world_size=world_size)
    return dense_step(network, batch, is_balanced=loss == "balanced", parts=parts, world_size=world_size)


def _work(rank: int, world_size: int, folder: str) -> None:
    context = GlooContext(f"{folder}/context-{world_size}-{rank}", rank, world_size)
    batch = {name: value[rank::world_size] for name, value in batch_of().items()}
    found = {}
    for case, (loss, parts) in CASES.items():
        torch.manual_seed(0)
        network = SharedSets() if loss == "sets" else TinyNet(num_outputs=2)
        wrapped = wrap_network(network, "fp32", context)
        for _ in range(2):  # the second step meets what the first has left
            network.zero_grad(set_to_none=True)
            result = _step(wrapped, batch, loss, parts, world_size)
            # What the loop does.
            (result.loss * world_size).backward()
        found[f"{case}/loss"] = all_reduce_sum(result.loss.detach())
        for name, share in result.means.items():
            found[f"{case}/{name}"] = all_reduce_sum(share)
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            found[f"{case}/{name}"] = parameter.grad.clone()
    save_file(found, f"{folder}/steps-{world_size}-{rank}.safetensors")
    metrics = train(write_squares(Path(f"{folder}/context-{world_size}-{rank}")), context, TRAINING)
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
    save_file(numbers, f"{folder}/metrics-{world_size}-{rank}.safetensors")


def _worker(rank: int, port: int, folder: str) -> None:
    with _group(rank, 2, port):
        _work(rank, 2, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of one and of two workers."""
    folder = tmp_path_factory.mktemp("gloo")
    for world_size, rank in ((1, 0), (2, 0), (2, 1)):
        (folder / f"context-{world_size}-{rank}").mkdir()
    _work(0, 1, str(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.set_forkserver_preload(["qaclims_ray.segmentation.task"])
    torch.multiprocessing.start_processes(_worker, (port, str(folder)), nprocs=2, start_method="forkserver")
    return folder


def test_loss_figures_and_gradient_equal_those_of_one_worker(folder) -> None:
    expected = load_file(folder / "steps-1-0.safetensors")
    for rank in range(2):
        _close(load_file(folder / f"steps-2-{rank}.safetensors"), expected)
    for loss in ("plain", "balanced", "sets"):
        whole, parted = (
            {name.split("/")[1]: value for name, value in expected.items() if name.startswith(f"{loss}-{parts}/")}
            for parts in (1, 2)
        )
        _close(parted, whole)
        assert whole["conv.weight"].abs().max() > 1e-3


def test_whole_trainings_agree(folder) -> None:
    expected = load_file(folder / "metrics-1-0.safetensors")
    for rank in range(2):
        metrics = load_file(folder / f"metrics-2-{rank}.safetensors")
        for name in ("loss", "accuracy", "lr"):
            torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-6)
    alone, together = (stored(GlooContext(str(folder / f"context-{n}-0"), 0, n)) for n in (1, 2))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-4)

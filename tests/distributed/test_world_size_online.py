"""Two gloo workers train networks that make their own masks as one does: uneven shares, an image without a tag."""

import dataclasses
import multiprocessing
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.training.loop import fit
from tests.distributed.test_world_size import GlooContext, _group
from tests.unit.methods.online.test_tasks import OWN, on_classifier, on_clip, squares

pytestmark = pytest.mark.timeout(900)  # processes of a busy machine start slowly
# Of five images the first worker has three; the second epoch is the first with masks.
TRAINING = dataclasses.replace(
    OWN,
    optim=dataclasses.replace(OWN.optim, name="sgd", lr=0.02, batch_size=5),
    crop=JointCropConfig(min_scale=1.0, max_scale=1.0, crop_px=32),
    tag_epochs=1,
)


def _work(rank: int, world_size: int, folder: str) -> None:
    place = Path(folder, f"{world_size}-{rank}")
    place.mkdir()
    manifest = squares(place)
    tasks = {"clip": on_clip(manifest, TRAINING), "tags": on_classifier(manifest, TRAINING, freeze_batch_norm=True)}
    for name, task in tasks.items():
        (place / name).mkdir()
        context = GlooContext(str(place / name), rank, world_size)
        metrics = fit(task, precision="fp32", loader_workers=0, seed=0, context=context)
        numbers = {key: torch.tensor(value, dtype=torch.float64) for key, value in metrics.items()}
        save_file(numbers, f"{folder}/{name}-metrics-{world_size}-{rank}.safetensors")
        state = {
            key: value.detach().clone(memory_format=torch.contiguous_format)
            for key, value in task.network.named_parameters()
        }
        save_file(state, f"{folder}/{name}-network-{world_size}-{rank}.safetensors")


def _worker(rank: int, port: int, folder: str) -> None:
    with _group(rank, 2, port):
        _work(rank, 2, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of one and of two workers."""
    folder = tmp_path_factory.mktemp("gloo")
    _work(0, 1, str(folder))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    multiprocessing.set_forkserver_preload(["qaclims_ray.methods.online.clip_task"])
    torch.multiprocessing.start_processes(_worker, (port, str(folder)), nprocs=2, start_method="forkserver")
    return folder


def _naming(name: str) -> Callable[[str], str]:
    return lambda text: f"{name}: {text}"


@pytest.mark.parametrize("form", ["clip", "tags"])
def test_whole_trainings_agree(form: str, folder: Path) -> None:
    expected = load_file(folder / f"{form}-metrics-1-0.safetensors")
    network = load_file(folder / f"{form}-network-1-0.safetensors")
    for rank in range(2):
        metrics = load_file(folder / f"{form}-metrics-2-{rank}.safetensors")
        assert metrics.keys() == expected.keys()
        for name in expected.keys() - {"images_per_s"}:
            torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-5, msg=_naming(name))
        together = load_file(folder / f"{form}-network-2-{rank}.safetensors")
        for name, value in network.items():
            torch.testing.assert_close(together[name], value, rtol=1e-3, atol=1e-4, msg=_naming(name))

"""The update does not depend on the number of workers: real gloo groups of 1, 2 and 3, with uneven pair counts."""

import contextlib
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed
import torch.multiprocessing
from safetensors.torch import load_file, save_file

from qaclims_ray.methods.classifier.calibration import calibrate
from qaclims_ray.methods.classifier.task import classifier_step
from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step, train_ritc
from qaclims_ray.models.generators.cam_net import build_cam_net, load_cam_net, save_cam_net
from qaclims_ray.training.context import LocalContext, all_reduce_sum
from qaclims_ray.training.divergence import DivergedError, RecentBatches
from qaclims_ray.training.loop import _set_training_mode, wrap_network
from tests.ritc_fakes import AUGMENT, CAM_NET, TinyClip, TinyTexts, regions_of, ritc_config, with_setup, write_pictures

# Worker r of n takes every n-th image from r. Of two workers, the second has images 1, 3, 5: no pair with texts.
LABELS = torch.tensor([[1, 1, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]).float()
IDS = ["1", "2", "3", "3", "5", "6"]
pytestmark = pytest.mark.timeout(900)  # processes of a busy machine start slowly
CASES = {
    "official": {},
    "mean_pairs": {"pair_reduction": "mean_pairs", "area_over": "present", "region_mode": "pixel_mask"},
}


class GlooContext(LocalContext):
    """One of several workers in processes of this machine."""

    def __init__(self, folder: str, rank: int, world_size: int) -> None:
        super().__init__(folder)
        self.rank, self.world_size = rank, world_size

    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        if self.world_size > 1:
            torch.distributed.barrier()


@contextlib.contextmanager
def _group(rank: int, world_size: int, port: int):
    """Join a gloo group, with the environment that Ray Train gives its workers."""
    torch.set_num_threads(1)
    os.environ.update(
        {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    )
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"})
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()


def _gradients(context: LocalContext, folder: str, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return loss and gradients of one step of each case."""
    mine = slice(context.rank, None, context.world_size)
    image = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))[mine]
    batch = {"image": image, "labels": labels[mine]}
    found = {}
    for name in (*CASES, "classifier"):
        network = load_cam_net(folder)
        wrapped = wrap_network(network, "fp32", context)
        _set_training_mode(network, freeze_batch_norm=True)
        if name == "classifier":
            result = classifier_step(wrapped, batch, images_per_step=6)
        else:
            ritc = ritc_config(**CASES[name])
            options = {"bank": TinyTexts(8), "regions": regions_of(TinyClip(), ritc_regions(ritc)), "ritc": ritc}
            result = ritc_step(wrapped, batch, IDS[mine], images_per_step=6, **options)
        # What the loop does.
        (result.loss * context.world_size).backward()
        found[f"{name}/loss"] = all_reduce_sum(result.loss.detach())
        counts = torch.tensor([result.counts.get("pairs", 0), result.counts.get("pairs_skipped", 0)])
        found[f"{name}/counts"] = all_reduce_sum(counts)
        for parameter_name, parameter in network.named_parameters():
            assert parameter.grad is not None, parameter_name
            found[f"{name}/{parameter_name}"] = parameter.grad.clone()
    return found


class _Crops:
    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict:
        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {"image": image, "labels": LABELS[index], "index": index}


def _diverge(context: LocalContext, folder: str) -> None:
    """Keep what each worker says of a step of which the last one alone sees a bad image."""
    seen = RecentBatches(context, "picture {}".format, 3)
    losses = []
    for step in range(3):
        seen.add(step + 1, torch.arange(context.rank, 6, context.world_size) + 10 * step)
        is_bad = step == 1 and context.rank == context.world_size - 1
        losses.append(float(all_reduce_sum(torch.tensor(torch.nan if is_bad else 1.0))))
    try:
        seen.require_finite(losses, {"loss": torch.nan}, epoch=4)
    except DivergedError as error:
        Path(f"{folder}/diverged-{context.world_size}-{context.rank}").write_text(str(error))


def _work(rank: int, world_size: int, folder: str) -> None:
    context = GlooContext(f"{folder}/context-{world_size}-{rank}", rank, world_size)
    for kind, labels in (("labels", LABELS), ("nothing", torch.zeros_like(LABELS))):
        found = _gradients(context, f"{folder}/init", labels)
        save_file(found, f"{folder}/{kind}-{world_size}-{rank}.safetensors")
    if world_size > 1:
        _diverge(context, folder)
    calibrated = calibrate(load_cam_net(f"{folder}/init"), _Crops(), batch_size=2, loader_workers=0, context=context)
    if rank == 0:
        save_cam_net(calibrated, f"{folder}/calibrated-{world_size}")
    metrics = train_ritc(
        **with_setup(
            manifest=write_pictures(Path(f"{folder}/context-{world_size}-{rank}")),
            bank=TinyTexts(12),
            clip=TinyClip(),
            cam_net=CAM_NET,
            augment=AUGMENT,
            ritc=ritc_config(),
            init_dir=f"{folder}/init",
            precision="fp32",
            loader_workers=0,
            seed=0,
            context=context,
        )
    )
    numbers = {name: torch.tensor(value, dtype=torch.float64) for name, value in metrics.items()}
    save_file(numbers, f"{folder}/metrics-{world_size}-{rank}.safetensors")


def _worker(rank: int, ports: dict[int, int], folder: str) -> None:
    # Importing torch is the slow part, so the same processes form one group after the other.
    for world_size, port in ports.items():
        if rank < world_size:
            with _group(rank, world_size, port):
                _work(rank, world_size, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results of one, two and three workers."""
    folder = tmp_path_factory.mktemp("gloo")
    torch.manual_seed(0)
    save_cam_net(build_cam_net(CAM_NET, 3), str(folder / "init"))
    for world_size in (1, 2, 3):
        for rank in range(world_size):
            (folder / f"context-{world_size}-{rank}").mkdir()
    _work(0, 1, str(folder))
    ports = {}
    for world_size in (2, 3):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports[world_size] = probe.getsockname()[1]
    # Imports take longer than the work: one server does them, and the workers are its forks.
    multiprocessing.set_forkserver_preload(
        ["qaclims_ray.methods.qa_clims.task", "qaclims_ray.methods.classifier.calibration"]
    )
    torch.multiprocessing.start_processes(_worker, (ports, str(folder)), nprocs=3, start_method="forkserver")
    return folder


def _close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=2e-4, atol=2e-6, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("kind", ["labels", "nothing"])
@pytest.mark.parametrize("world_size", [2, 3])
def test_loss_and_gradient_equal_those_of_one_worker(folder, world_size, kind) -> None:
    expected = load_file(folder / f"{kind}-1-0.safetensors")
    for rank in range(world_size):
        _close(load_file(folder / f"{kind}-{world_size}-{rank}.safetensors"), expected)


def test_the_reference_is_not_trivial(folder) -> None:
    expected = load_file(folder / "labels-1-0.safetensors")
    assert expected["official/counts"].tolist() == [6, 1]
    assert expected["official/loss"] > 1 and expected["official/classifier.weight"].abs().max() > 1e-3
    nothing = load_file(folder / "nothing-1-0.safetensors")
    assert nothing["official/counts"].tolist() == [0, 0] and nothing["mean_pairs/loss"] == 0
    assert nothing["mean_pairs/classifier.weight"].abs().max() == 0


@pytest.mark.parametrize("world_size", [2, 3])
def test_all_workers_name_the_images_of_all_where_one_diverges(folder, world_size) -> None:
    told = {(folder / f"diverged-{world_size}-{rank}").read_text() for rank in range(world_size)}
    ids = [10 + index for rank in range(world_size) for index in range(rank, 6, world_size)]
    named = ", ".join(f"picture {index}" for index in ids)
    assert len(told) == 1 and f"nan in epoch 5, at step 2, on the images {named}: " in told.pop()


@pytest.mark.parametrize("world_size", [2, 3])
def test_calibration_and_whole_trainings_agree(folder, world_size) -> None:
    _close(
        load_cam_net(str(folder / f"calibrated-{world_size}")).state_dict(),
        load_cam_net(str(folder / "calibrated-1")).state_dict(),
    )
    expected = load_file(folder / "metrics-1-0.safetensors")
    for rank in range(world_size):
        metrics = load_file(folder / f"metrics-{world_size}-{rank}.safetensors")
        for name in ("loss", "loss/foreground", "loss/background", "loss/area", "pairs", "pairs_skipped", "lr"):
            torch.testing.assert_close(metrics[name], expected[name], rtol=1e-3, atol=1e-6)
        assert metrics["images_per_s"] == load_file(folder / f"metrics-{world_size}-0.safetensors")["images_per_s"]
    trained = [load_cam_net(str(folder / f"context-{n}-0" / "latest")).state_dict() for n in (1, world_size)]
    for name, value in trained[0].items():
        torch.testing.assert_close(trained[1][name], value, rtol=1e-3, atol=1e-4)

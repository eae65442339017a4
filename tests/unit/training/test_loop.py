import contextlib
import dataclasses
import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from qaclims_ray.errors import ArtifactError, ConfigError, ResourceError
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.models.generators.cam_net import build_cam_net, load_cam_net
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.divergence import DivergedError
from qaclims_ray.training.loop import Task, fit, seeded, wrap_network
from qaclims_ray.training.meter import StepResult
from tests.ritc_fakes import CAM_NET
from tests.unit.models.cpu_recorder import record_on_cpu


class NoisyImages:
    """Ten random pictures that depend on the epoch."""

    def __init__(self) -> None:
        self.epoch = -1

    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> dict:
        generator = torch.Generator().manual_seed(100 * self.epoch + index)
        image = torch.randn(3, 16, 16, generator=generator)
        return {"image": image, "labels": (image.mean((1, 2)) > 0).float(), "index": index}


class StoppedError(Exception):
    pass


class StoppingContext(LocalContext):
    """A worker that dies after its first report."""

    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        raise StoppedError


def _task(optim: OptimConfig, **changes) -> Task:
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3)
    # Draws from the global generator in every step: resuming must restore it.
    network.backbone.blocks.append(nn.Dropout(0.3))

    def step(wrapped: nn.Module, batch: dict) -> StepResult:
        scores = wrapped(batch["image"]).mean((2, 3))
        loss = nn.functional.multilabel_soft_margin_loss(scores, batch["labels"])
        return StepResult(loss=loss, means={"twice": 2 * loss.detach()}, counts={"images": len(scores)})

    task = generator_task(network, step, NoisyImages(), optim, freeze_batch_norm=False)
    return dataclasses.replace(task, **changes)


def _fit(task: Task, context, **options) -> dict:
    return fit(task, precision="fp32", loader_workers=0, seed=5, context=context, **options)


OPTIMS = [
    OptimConfig(lr=0.05, epochs=3, batch_size=4, momentum=0.9),
    OptimConfig(lr=0.05, epochs=3, batch_size=4),
    OptimConfig(name="adamw", lr=0.01, epochs=3, batch_size=4, warmup_steps=4, clip_grad_norm=0.5, schedule="cosine"),
]


@pytest.mark.parametrize("optim", OPTIMS, ids=["momentum", "plain", "adamw"])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path, optim) -> None:
    whole = _task(optim)
    whole_metrics = _fit(whole, LocalContext(str(tmp_path / "whole")))
    for expected_epoch in (1, 2):
        stopping = StoppingContext(str(tmp_path / "parts"))
        with pytest.raises(StoppedError):
            _fit(_task(optim), stopping)
        assert stopping.reports[-1]["epoch"] == expected_epoch
    resumed = _task(optim)
    metrics = _fit(resumed, LocalContext(str(tmp_path / "parts")))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name
    for name in ("loss", "twice", "images", "lr"):
        assert metrics[name] == whole_metrics[name]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_whose_launches_are_recorded_is_the_same(tmp_path, monkeypatch, precision) -> None:
    def trained(folder: str) -> tuple[dict, dict]:
        task, context = _task(OPTIMS[0]), LocalContext(str(tmp_path / folder))
        metrics = fit(task, precision=precision, loader_workers=0, seed=5, context=context)
        return task.network.state_dict(), {name: metrics[name] for name in ("loss", "twice", "images", "lr")}

    expected, expected_metrics = trained("plain")
    recorded = record_on_cpu(monkeypatch)
    found, metrics = trained("recorded")
    assert recorded == ["CamNet"] and metrics == expected_metrics
    for name, value in expected.items():  # statistics of the batch norms, too, and what depends on draws of the dropout
        assert torch.equal(found[name], value), name


class WarnedContext(LocalContext):
    """A worker that is told once, at its second question, that its machine goes, and loses it after the report."""

    asked = 0

    def must_save(self) -> bool:
        self.asked += 1
        return self.asked == 2

    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        if self.asked == 2:
            raise StoppedError


@pytest.mark.parametrize("score", [None, lambda: 0.5], ids=["last", "selected"])
def test_a_notice_is_answered_by_a_checkpoint_within_the_epoch(tmp_path, score) -> None:
    def without_dropout(steps: list[int]) -> Task:
        task = _task(OPTIMS[2], score=score)
        task.network.backbone.blocks[-1].p = 0.0
        step = task.step

        def counted(wrapped: nn.Module, batch: dict) -> StepResult:
            steps.append(len(steps))
            return step(wrapped, batch)

        return dataclasses.replace(task, step=counted)

    whole, warned, steps = without_dropout([]), without_dropout([]), []
    metrics = _fit(whole, LocalContext(str(tmp_path / "whole")))
    context = WarnedContext(str(tmp_path / "parts"))
    with pytest.raises(StoppedError):  # two steps an epoch; asked after the first of each
        _fit(warned, context, log_every=1)
    assert context.reports[-1]["epoch"] == 1 and len(context.reports) == 2
    resumed = without_dropout(steps)
    assert _fit(resumed, LocalContext(str(tmp_path / "parts")))["lr"] == metrics["lr"]
    assert len(steps) == 3, "three of six steps were left"
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_a_finished_training_returns_its_metrics_at_once(tmp_path) -> None:
    context = LocalContext(str(tmp_path))
    metrics = _fit(_task(OPTIMS[0]), context)

    def fail(wrapped, batch):
        raise AssertionError("must not train")

    again = _task(OPTIMS[0], step=fail)
    assert _fit(again, context) == metrics and len(context.reports) == 3


def test_metrics_are_means_and_counts_and_steps_are_reported(tmp_path) -> None:
    calls = []
    context = LocalContext(str(tmp_path))
    metrics = _fit(_task(OPTIMS[0]), context, on_step=lambda step, figures: calls.append((step, figures)), log_every=4)
    assert metrics["images"] == 8 and metrics["twice"] == pytest.approx(2 * metrics["loss"])
    # Two steps an epoch: the end of each epoch, and step 4 once only.
    assert [step for step, _ in calls] == [2, 4, 6]
    assert set(calls[0][1]) == {"loss", "twice", "images", "lr", "images_per_s"}
    mean = sum(report["loss"] for report in context.reports) / 3
    assert mean == pytest.approx(sum(figures["loss"] for _, figures in calls) / 3)


def test_checkpoints_hold_a_loadable_network_and_no_pickle(tmp_path) -> None:
    task = _task(OPTIMS[2])
    task.network.backbone.blocks.pop(-1)
    _fit(task, LocalContext(str(tmp_path)))
    files = {path.name for path in (tmp_path / "latest").iterdir()}
    assert files == {"network.json", "network.safetensors", "optimizer.safetensors", "progress.json"}
    progress = json.loads((tmp_path / "latest/progress.json").read_text())
    assert (progress["epochs_done"], progress["steps_done"], progress["seed"]) == (3, 6, 5)
    loaded = load_cam_net(str(tmp_path / "latest")).to(memory_format=torch.channels_last)
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded(image), task.network.eval()(image))


def test_finish_may_add_files_to_the_last_checkpoint_only(tmp_path) -> None:
    folders = []

    def finish(folder: str | None) -> None:
        folders.append(folder)
        Path(folder, "extra.txt").write_text("x")

    _fit(_task(OPTIMS[0], finish=finish), LocalContext(str(tmp_path)))
    assert len(folders) == 1 and (tmp_path / "latest/extra.txt").exists()


def test_other_settings_and_broken_checkpoints_are_refused(tmp_path) -> None:
    context = LocalContext(str(tmp_path))
    _fit(_task(OPTIMS[0]), context)
    with pytest.raises(ArtifactError, match="belongs to a training with seed"):
        _fit(_task(dataclasses.replace(OPTIMS[0], epochs=9)), context)
    for name in ("latest", "previous"):
        (tmp_path / name / "optimizer.safetensors").write_bytes(b"broken")
    with pytest.raises(ArtifactError, match="is broken"):
        _fit(_task(OPTIMS[0]), context)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("log_every", [1, 2, 3, 10])
def test_a_diverging_loss_stops_the_training_with_the_images_of_its_step(tmp_path, value, log_every) -> None:
    seen: list[list[int]] = []

    def step(wrapped: nn.Module, batch: dict) -> StepResult:
        seen.append(batch["index"].tolist())
        scores, is_bad = wrapped(batch["image"]).mean(), 5 in seen[-1] and len(seen) > 2
        term = scores.detach() * 0 + (value if is_bad else 0.0)
        return StepResult(loss=scores + term, means={"loss/odd": term, "loss/even": scores.detach()})

    context = LocalContext(str(tmp_path))
    task = _task(dataclasses.replace(OPTIMS[0], batch_size=2), step=step)
    with pytest.raises(DivergedError, match=r"lower optim\.lr") as caught:
        _fit(task, context, log_every=log_every)
    place = next(place for place, indices in enumerate(seen) if 5 in indices and place > 1)
    error = pickle.loads(pickle.dumps(caught.value))
    assert error.batch["step"] == place + 1 and error.batch["epoch"] == 1 + place // 5
    assert error.batch["images"] == [f"picture {index}" for index in seen[place]]
    assert error.batch["images_one_step_before"] == [f"picture {index}" for index in seen[place - 1]]
    said = f"the loss became {value} in epoch {1 + place // 5}, at step {place + 1} (loss/odd"
    assert str(error).startswith(said) and all(name in str(error) for name in error.batch["images"])
    assert json.loads(error.content()) == error.batch and len(seen) < place + 1 + log_every
    assert len(context.reports) == place // 5, "what was kept before is all there is"


@pytest.mark.parametrize("batch_size", [4, 10])
def test_a_network_that_breaks_in_its_last_update_is_not_kept(tmp_path, monkeypatch, batch_size) -> None:
    """Its loss was finite, the gradient was not; without a look the network would be an artefact."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx, value):
            return value.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * torch.nan

    steps = []

    def step(wrapped: nn.Module, batch: dict) -> StepResult:
        steps.append(batch["index"].tolist())
        scores = wrapped(batch["image"]).mean()
        return StepResult(loss=Broken.apply(scores) if len(steps) == 10 // batch_size else scores)

    context = LocalContext(str(tmp_path))
    task = _task(dataclasses.replace(OPTIMS[0], batch_size=batch_size), step=step)
    with pytest.raises(DivergedError, match=r"the network is not finite after step .* the gradient of a finite loss"):
        _fit(task, context)
    assert context.reports == [] and len(steps) == 10 // batch_size


def test_more_images_than_a_message_holds_are_counted(tmp_path) -> None:
    task = _task(dataclasses.replace(OPTIMS[0], batch_size=10))
    task = dataclasses.replace(task, step=lambda wrapped, batch: StepResult(wrapped(batch["image"]).sum() * math.inf))
    with pytest.raises(DivergedError, match=r"on the images (picture \d, ){7}picture \d and 2 more: look") as caught:
        _fit(task, LocalContext(str(tmp_path)))
    assert len(caught.value.batch["images"]) == 10 and caught.value.batch["images_one_step_before"] == []


@pytest.mark.parametrize("freeze", [True, False])
def test_batch_norm_statistics_move_only_when_they_may(tmp_path, freeze) -> None:
    task = _task(OPTIMS[0], freeze_batch_norm=freeze)
    norm = task.network.backbone.stem[1]
    weight = norm.weight.detach().clone()
    _fit(task, LocalContext(str(tmp_path)))
    assert torch.equal(norm.running_mean, torch.zeros(24)) == freeze
    assert not torch.equal(norm.weight, weight)


def test_fewer_images_than_a_batch_are_one_batch(tmp_path) -> None:
    task = _task(OptimConfig(lr=0.05, epochs=1, batch_size=64))
    assert _fit(task, LocalContext(str(tmp_path)))["images"] == 10


def test_the_global_generator_is_given_back(tmp_path) -> None:
    task = _task(OPTIMS[0])
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    _fit(task, LocalContext(str(tmp_path)))
    assert torch.equal(torch.rand(3), expected)
    with seeded(3, torch.device("cpu")):
        first = torch.rand(2)
    with seeded(3, torch.device("cpu")):
        assert torch.equal(torch.rand(2), first)


def test_accelerate_must_see_the_same_workers() -> None:
    class TwoWorkers(LocalContext):
        def __init__(self) -> None:
            self.rank, self.world_size, self.device = 0, 2, torch.device("cpu")
            self.loader_workers = 0

        def report(self, metrics, checkpoint_dir) -> None: ...

        def latest_checkpoint(self):
            return contextlib.nullcontext(None)

    with pytest.raises(ResourceError, match=r"accelerate sees 1 workers .* the training has 2"):
        wrap_network(build_cam_net(CAM_NET, 3), "fp32", TwoWorkers())


def test_trainings_refuse_fp16() -> None:
    with pytest.raises(ConfigError, match="trainings compute in fp32 or bf16"):
        wrap_network(build_cam_net(CAM_NET, 3), "fp16", LocalContext("unused"))


def test_precision_may_change_within_one_process() -> None:
    context = LocalContext("unused")
    image = torch.randn(1, 3, 16, 16)
    networks = [wrap_network(build_cam_net(CAM_NET, 3).eval(), precision, context) for precision in ("fp32", "bf16")]
    reference = build_cam_net(CAM_NET, 3).eval()
    reference.load_state_dict(networks[1].state_dict())
    half, full = networks[1](image), reference(image)
    assert half.dtype == torch.float32 and not torch.equal(half, full)
    torch.testing.assert_close(half, full, rtol=0.1, atol=0.1)

"""The epoch a training ends with: the last, or the best by a score, also across a stop."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.classifier.task import classifier_step
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.models.generators.cam_net import build_cam_net
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.loop import Task, fit
from qaclims_ray.training.selection import LAST_DIR
from tests.ritc_fakes import AUGMENT, CAM_NET, write_pictures

STILL = dataclasses.replace(AUGMENT, flip=False)
MEAN, STD = CAM_NET.image_mean, CAM_NET.image_std


class StoppedError(Exception):
    """The machine goes away."""


class StoppingContext(LocalContext):
    def __init__(self, root: str, *, stop_after: int) -> None:
        super().__init__(root)
        self.stop_after = stop_after

    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        if len(self.reports) == self.stop_after:
            raise StoppedError


def _dataset(folder: Path) -> ImageLabelDataset:
    return ImageLabelDataset(write_pictures(folder), STILL, MEAN, STD, seed=0)


def _task(folder: Path, scores: Iterator[float] | None) -> Task:
    torch.manual_seed(0)
    rate = None if scores is None else lambda network: next(scores)
    return generator_task(
        build_cam_net(CAM_NET, 3),
        lambda wrapped, batch: classifier_step(wrapped, batch, images_per_step=4),
        _dataset(folder),
        OptimConfig(lr=0.05, epochs=4, batch_size=4, momentum=0.9),
        freeze_batch_norm=False,
        rate=rate,
    )


def _weights(folder: Path) -> torch.Tensor:
    return load_file(folder / "network.safetensors")["classifier.weight"]


def _fit(task: Task, context: LocalContext) -> dict[str, float]:
    return fit(task, precision="fp32", loader_workers=0, seed=3, context=context)


def test_the_best_epoch_is_kept_and_the_last_moves_aside(tmp_path):
    history = LocalContext(str(tmp_path / "plain"))
    stops = []
    for epochs in (2, 4):
        context = StoppingContext(str(tmp_path / f"stop{epochs}"), stop_after=epochs)
        with pytest.raises(StoppedError):
            _fit(_task(tmp_path, None), context)
        stops.append(_weights(tmp_path / f"stop{epochs}" / "latest"))
    second, fourth = stops
    metrics = _fit(_task(tmp_path, iter([0.1, 0.9, 0.5, 0.7])), history)
    latest = tmp_path / "plain" / "latest"
    torch.testing.assert_close(_weights(latest), second, rtol=0, atol=0)
    torch.testing.assert_close(_weights(latest / LAST_DIR), fourth, rtol=0, atol=0)
    assert not torch.equal(second, fourth)
    assert metrics["selection/best"] == 0.9
    assert [report["selection/score"] for report in history.reports] == [0.1, 0.9, 0.5, 0.7]


def test_the_choice_survives_a_stop(tmp_path):
    whole = LocalContext(str(tmp_path / "whole"))
    _fit(_task(tmp_path, iter([0.1, 0.9, 0.5, 0.7])), whole)
    with pytest.raises(StoppedError):
        _fit(_task(tmp_path, iter([0.1, 0.9, 0.5])), StoppingContext(str(tmp_path / "cut"), stop_after=3))
    metrics = _fit(_task(tmp_path, iter([0.7])), LocalContext(str(tmp_path / "cut")))
    torch.testing.assert_close(
        _weights(tmp_path / "cut" / "latest"), _weights(tmp_path / "whole" / "latest"), rtol=0, atol=0
    )
    assert metrics["selection/best"] == 0.9


def test_a_split_is_for_the_oracle_alone():
    assert with_overrides(miniature(), {"selection.criterion": "oracle", "selection.split": "val"})
    with pytest.raises(ConfigError, match=r"selection\.split"):
        with_overrides(miniature(), {"selection.split": "val"})

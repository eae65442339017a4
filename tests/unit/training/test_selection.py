"""The epoch a training ends with: the last, or the best by a score, also across a stop."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from qaclims_ray.data.datasets import ImageLabelDataset
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.classifier.task import classifier_step
from qaclims_ray.methods.clip_score import clip_score
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.methods.region_features import RegionOptions, region_features
from qaclims_ray.methods.separation_score import separation_score
from qaclims_ray.models.generators.cam_net import build_cam_net
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.training_job import oracle_score
from qaclims_ray.systems.table import system_of
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.loop import Task, fit
from qaclims_ray.training.selection import LAST_DIR
from tests.ritc_fakes import AUGMENT, CAM_NET, CLASSES, TinyClip, write_pictures

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


def test_clip_score_is_the_mean_gap_between_regions(tmp_path):
    torch.manual_seed(0)
    network, clip, dataset = build_cam_net(CAM_NET, 3).eval(), TinyClip(), _dataset(tmp_path)
    texts = torch.nn.functional.normalize(torch.randn(3, 6), dim=-1)
    options = RegionOptions(omega=0.2, mode="pixel_mask")
    gaps = []
    dataset.set_epoch(0)
    with torch.no_grad():
        for index in range(0, len(dataset), 2):
            item = dataset[index]
            for class_id in item["labels"].nonzero().flatten().tolist():
                image = item["image"][None]
                found = region_features(
                    network(image),
                    image,
                    torch.tensor([0]),
                    torch.tensor([class_id]),
                    clip=clip,
                    options=options,
                    cam_net=CAM_NET,
                )
                gaps.append(float((found.foreground - found.background)[0] @ texts[class_id]))
    score = clip_score(
        network.train(),
        dataset,
        clip=clip,
        class_texts=texts,
        options=options,
        cam_net=CAM_NET,
        num_images=len(dataset) // 2,
        context=LocalContext(str(tmp_path)),
    )
    assert score == pytest.approx(np.mean(gaps), abs=1e-5)
    assert network.training


def _with_masks(manifest: Manifest, folder: Path) -> Manifest:
    records = []
    for record in manifest.records:
        path = folder / f"mask-{record.image_id}.png"
        mask = np.zeros((record.height, record.width), np.uint8)
        mask[4:20, 4:20] = record.labels[0] + 1 if record.labels else 0
        Image.fromarray(mask).save(path)
        records.append(dataclasses.replace(record, mask_uri=str(path)))
    return Manifest(manifest.class_names, tuple(records))


class _Block(torch.nn.Module):
    """Fires in one place for every class."""

    def __init__(self, place: slice) -> None:
        super().__init__()
        self.place = place
        self.anchor = torch.nn.Parameter(torch.zeros(()))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        maps = torch.full((len(image), len(CLASSES), *image.shape[-2:]), -9.0) + self.anchor
        maps[..., self.place, self.place] = 9.0
        return maps


def test_oracle_prefers_maps_that_agree_with_the_masks_and_says_when_there_are_none(tmp_path):
    manifest = write_pictures(tmp_path)
    config = with_overrides(miniature(), {"selection.num_images": 5, "cams.flip": False})
    context = LocalContext(str(tmp_path))
    with_masks = _with_masks(manifest, tmp_path)
    scores = [
        oracle_score(_Block(place), manifest=with_masks, config=config, context=context)
        for place in (slice(4, 20), slice(12, 28))
    ]
    assert scores[0] > scores[1] + 0.2
    with pytest.raises(ConfigError, match="no scored image has a mask"):
        oracle_score(_Block(slice(4, 20)), manifest=manifest, config=config, context=context)


def test_tables_say_when_masks_chose_the_epoch():
    config = with_overrides(miniature(), {"selection.criterion": "oracle"})
    assert "pixel labels" in system_of(config, "qa_clims").label
    assert "pixel labels" not in system_of(config, "baseline").label
    assert "pixel labels" not in system_of(miniature(), "qa_clims").label


def test_separation_prefers_maps_on_the_objects_and_reads_no_mask(tmp_path):
    manifest = write_pictures(tmp_path, num_images=40)
    config = with_overrides(
        miniature(), {"selection.criterion": "separation", "selection.num_images": 30, "cams.flip": False}
    )
    config = dataclasses.replace(config, cam_net=CAM_NET)
    texts = torch.nn.functional.normalize(torch.ones(3, 6), dim=-1)

    class Colours(torch.nn.Module):
        """Fires where a class's channel stands out, or everywhere."""

        def __init__(self, least: float) -> None:
            super().__init__()
            self.least, self.anchor = least, torch.nn.Parameter(torch.zeros(()))

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            relative = image - image.amin(dim=1, keepdim=True)
            return torch.where(relative > self.least, 9.0, -9.0) + self.anchor

    def rate(least: float) -> float:
        return separation_score(
            Colours(least).train(),
            manifest=manifest,
            config=config,
            clip=_AgreeingClip(),
            class_texts=texts,
            context=LocalContext(str(tmp_path)),
        )

    found = {least: rate(least) for least in (-1.0, 1.2, 99.0)}
    assert found[1.2] > 0.3
    assert found[-1.0] == pytest.approx(0, abs=1e-3)  # everything
    assert found[1.2] > 2 * found[99.0]  # nothing


class _AgreeingClip(TinyClip):
    """Says of every region that it shows the class."""

    def encode_regions(self, pixels: torch.Tensor, token_mask: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.ones(len(pixels), 6), dim=-1)


def test_a_split_is_for_the_oracle_alone():
    assert with_overrides(miniature(), {"selection.criterion": "oracle", "selection.split": "val"})
    with pytest.raises(ConfigError, match=r"selection\.split"):
        with_overrides(miniature(), {"selection.split": "val"})

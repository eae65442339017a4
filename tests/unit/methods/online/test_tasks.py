"""Both forms learn a drawn world of squares from tags alone, go on after a stop bit by bit, and are read back whole."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.tagged_crops import TaggedCrops
from qaclims_ray.methods.online.classifier_task import TaggingSegmenter, classifier_task
from qaclims_ray.methods.online.clip_task import DECODER_DIR, clip_task
from qaclims_ray.methods.online.config import OnlineConfig, online_optim
from qaclims_ray.models.network_folder import WEIGHTS_NAME
from qaclims_ray.refine.config import PamrConfig
from qaclims_ray.segmentation.config import SegmentationNetConfig
from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder
from qaclims_ray.segmentation.networks.encoder import build_encoder_segmenter
from qaclims_ray.segmentation.networks.network import load_segmentation_network
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.loop import Task, fit, seeded
from tests.diverging import error_of
from tests.semples_fakes import shipped_clip

NAMES = ("red", "blue")
OWN = OnlineConfig(
    width=32,
    pamr=PamrConfig(iterations=2, dilations=(1, 2)),
    crop=JointCropConfig(min_scale=0.9, max_scale=1.1, crop_px=32),
    optim=dataclasses.replace(online_optim(), lr=3e-3, epochs=2, batch_size=4),
    steps_per_epoch=3,
    tag_epochs=1,
)
NET = SegmentationNetConfig(backbone="miniature", weights="random", width=16)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return squares(tmp_path_factory.mktemp("squares"))


def squares(folder: Path) -> Manifest:
    """Write pictures of one square, red or blue, and one without a square and tag."""
    records = []
    for number in range(5):
        generator = np.random.default_rng(number)
        pixels = generator.integers(90, 120, (30, 34, 3), dtype=np.uint8)
        if number < 4:
            top, left = generator.integers(1, 12, 2)
            pixels[top : top + 14, left : left + 14, 2 * (number % 2)] = 240
        path = str(folder / f"{number}.png")
        Image.fromarray(pixels).save(path)
        labels = (number % 2,) if number < 4 else ()
        records.append(
            ImageRecord(image_id=str(number), image_uri=path, mask_uri=None, labels=labels, width=34, height=30)
        )
    return Manifest(class_names=NAMES, records=tuple(records))


def crops_of(manifest: Manifest, own: OnlineConfig) -> TaggedCrops:
    items = own.steps_per_epoch and own.steps_per_epoch * own.optim.batch_size
    return TaggedCrops(manifest, own.crop, NET.image_mean, NET.image_std, 0, items_per_epoch=items)


def on_clip(manifest: Manifest, own: OnlineConfig = OWN) -> Task:
    clip, width = shipped_clip(), shipped_clip().dim
    with seeded(1, torch.device("cpu")):
        config = dataclasses.replace(NET, architecture="clip_decoder", weights="clip", width=own.width)
        network = ClipDecoder(clip.model.visual, config, 3, mean=clip.mean, std=clip.std)
        directions = torch.nn.functional.normalize(torch.randn(2, width), dim=1)
    crops = crops_of(manifest, own)
    return clip_task(network, directions, crops, own, num_blocks=1, precision="fp32", classes=manifest.classes)


def on_classifier(manifest: Manifest, own: OnlineConfig = OWN, *, freeze_batch_norm: bool = False) -> Task:
    with seeded(1, torch.device("cpu")):
        network = TaggingSegmenter(build_encoder_segmenter(NET, 3), 2)
    crops = crops_of(manifest, own)
    return classifier_task(network, crops, own, manifest.classes, freeze_batch_norm=freeze_batch_norm)


FORMS = {"clip": on_clip, "classifier": on_classifier}
both_forms = pytest.mark.parametrize("form", FORMS)


def weights_of(task: Task) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in task.network.state_dict().items()}


def train(task: Task, context: LocalContext) -> dict[str, float]:
    return fit(task, precision="fp32", loader_workers=0, seed=0, context=context)


@both_forms
def test_a_step_learns_and_says_what_of_its_labels(form: str, manifest: Manifest, tmp_path: Path) -> None:
    own = dataclasses.replace(OWN, optim=dataclasses.replace(OWN.optim, epochs=1), tag_epochs=0)
    task = FORMS[form](manifest, own)
    before = weights_of(task)
    found = train(task, LocalContext(str(tmp_path)))
    changed = [name for name, value in task.network.state_dict().items() if not torch.equal(value, before[name])]
    assert {name for name, _ in task.network.named_parameters()} <= set(changed)
    assert 0 < found["labelled"] <= 1 and 0 <= found["accuracy"] <= 1 and found["loss/affinity"] > 0
    assert ("loss/tags" in found) == (form == "classifier")


def test_tags_come_first(manifest: Manifest, tmp_path: Path) -> None:
    task = on_classifier(manifest, dataclasses.replace(OWN, optim=dataclasses.replace(OWN.optim, epochs=1)))
    before = weights_of(task)
    found = train(task, LocalContext(str(tmp_path)))
    learned = {name for name, value in task.network.named_parameters() if not torch.equal(value, before[name])}
    assert "tags.weight" in learned and any(name.startswith("segmenter.encoder.") for name in learned)
    assert not [name for name in learned if name.startswith(("segmenter.decoder.", "segmenter.classifier."))]
    assert found["loss/tags"] == pytest.approx(found["loss"]) and "labelled" not in found


class Stop(Exception):
    """In the place of a machine that goes away."""


class StoppedContext(LocalContext):
    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        if len(self.reports) == 1:
            raise Stop


@both_forms
def test_after_a_stop_it_goes_on_as_if_there_had_been_none(form: str, manifest: Manifest, tmp_path: Path) -> None:
    whole, stopped = FORMS[form](manifest), FORMS[form](manifest)
    expected = train(whole, LocalContext(str(tmp_path / "whole")))
    with pytest.raises(Stop):
        train(stopped, StoppedContext(str(tmp_path / "stopped")))
    again = FORMS[form](manifest)
    found = train(again, LocalContext(str(tmp_path / "stopped")))
    timing = {"images_per_s"}
    assert {k: v for k, v in found.items() if k not in timing} == {k: v for k, v in expected.items() if k not in timing}
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[name]), name


@both_forms
def test_what_is_left_is_a_final_network_that_stands_by_itself(form: str, manifest: Manifest, tmp_path: Path) -> None:
    context, task = LocalContext(str(tmp_path)), FORMS[form](manifest)
    train(task, context)
    with context.latest_checkpoint() as folder:
        assert folder is not None
        network = load_segmentation_network(folder)
        if form == "clip":
            stored = load_file(Path(folder, DECODER_DIR, WEIGHTS_NAME))
            assert stored.keys() == task.network.state_dict().keys(), "checkpoints before the last hold this alone"
    assert network.num_labels == 3 and not network.training
    image = torch.rand(1, 3, 30, 34, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = network(image)
    assert found.shape[:2] == (1, 3) and torch.isfinite(found).all()


def test_the_tower_neither_learns_nor_counts_as_what_learns(manifest: Manifest, tmp_path: Path) -> None:
    task, tower = on_clip(manifest), shipped_clip().model.visual
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    train(task, LocalContext(str(tmp_path)))
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    learned = sum(value.numel() for group, _ in task.groups for value in group)
    assert learned == sum(value.numel() for value in task.network.parameters())


def test_crops_are_the_same_again_and_say_where_they_show_the_image(manifest: Manifest) -> None:
    crops = crops_of(manifest, dataclasses.replace(OWN, steps_per_epoch=None))
    crops.set_epoch(3)
    one, again, packed = crops[4], crops[4], crops.packed_item(4)
    assert torch.equal(one["image"], again["image"]) and torch.equal(one["outside"], packed["outside"])
    assert not one["tags"].any() and crops[1]["tags"].tolist() == [0, 1]
    is_outside = one["outside"] == 255
    assert is_outside.any() and torch.equal(packed["image"][3] == 0, is_outside)
    assert not one["image"][:, is_outside].any()
    crops.set_epoch(4)
    assert not torch.equal(crops[4]["image"], one["image"])
    with pytest.raises(IndexError):
        crops[5]


@both_forms
def test_a_network_that_breaks_ends_the_training(form: str, manifest: Manifest, tmp_path: Path, monkeypatch) -> None:
    task = FORMS[form](manifest, dataclasses.replace(OWN, tag_epochs=0))
    error_of(monkeypatch, lambda: train(task, LocalContext(str(tmp_path))))

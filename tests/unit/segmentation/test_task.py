import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.config import JointCropConfig
from qaclims_ray.data.datasets import seed_of
from qaclims_ray.data.label_map_dataset import LabelledImage
from qaclims_ray.errors import ArtifactError, DataError, ModelError
from qaclims_ray.models.network_folder import WEIGHTS_NAME
from qaclims_ray.segmentation.config import SegmentationConfig, SegmentationNetConfig, deeplab_optim
from qaclims_ray.segmentation.losses import balanced, cross_entropy_sum, labels_at, pixel_mean
from qaclims_ray.segmentation.networks.network import build_segmentation_network, load_segmentation_network
from qaclims_ray.segmentation.task import (
    dense_step,
    num_parts,
    pixel_counts,
    segmentation_task,
    sets_step,
    train_segmentation,
    without_background,
)
from qaclims_ray.training.checkpoint import PROGRESS_NAME
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from qaclims_ray.training.loop import seeded
from tests.diverging import error_of
from tests.unit.models.cpu_recorder import record_on_cpu

CLASSES = Classes(("red", "blue"))
NET = SegmentationNetConfig(backbone="miniature", weights="random", width=16)
CONFIG = SegmentationConfig(
    net=NET,
    crop=JointCropConfig(min_scale=0.8, max_scale=1.2, crop_px=24),
    optim=dataclasses.replace(deeplab_optim(), name="adamw", lr=3e-3, head_lr_factor=1.0, epochs=3, batch_size=4),
    steps_per_epoch=2,
)


def optim_with(**changes) -> OptimConfig:
    return dataclasses.replace(CONFIG.optim, **changes)


def write_squares(folder: Path, count: int = 6) -> list[LabelledImage]:
    """Write pictures of one square, red (label 1) or blue (label 2), and label maps with a border of 255."""
    images = []
    for number in range(count):
        generator = np.random.default_rng(number)
        pixels = generator.integers(90, 120, (28, 26, 3), dtype=np.uint8)
        labels = np.zeros((28, 26), np.uint8)
        top, left = generator.integers(1, 10, 2)
        labels[top - 1 : top + 15, left - 1 : left + 13] = 255
        labels[top : top + 14, left : left + 12] = 1 + number % 2
        pixels[labels == 1, 0] = 240
        pixels[labels == 2, 2] = 240
        paths = [str(folder / f"{number}{suffix}") for suffix in (".png", "-mask.png")]
        for array, path in zip((pixels, labels), paths, strict=True):
            Image.fromarray(array).save(path)
        images.append(LabelledImage(str(number), *paths))
    return images


def train(images: list[LabelledImage], context: LocalContext, segmentation=CONFIG, **changes) -> dict[str, float]:
    settings = {"classes": CLASSES, "seed": 0, "precision": "fp32", "loader_workers": 0, **changes}
    return train_segmentation(images=images, segmentation=segmentation, context=context, **settings)


def stored(context: LocalContext) -> dict[str, torch.Tensor]:
    with context.latest_checkpoint() as folder:
        assert folder is not None
        return load_file(Path(folder, WEIGHTS_NAME))


class Stop(Exception):
    pass


class StoppingContext(LocalContext):
    """Stops the training after the report of some epoch."""

    def __init__(self, root: str, epoch: int) -> None:
        super().__init__(root)
        self.epoch = epoch

    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        if metrics["epoch"] == self.epoch:
            raise Stop


class TinyNet(nn.Module):
    """Logits at the image's resolution, and at half of it."""

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.conv, self.num_outputs = nn.Conv2d(3, 3, 3, padding=1), num_outputs
        self.batches: list[int] = []

    def forward(self, image, labels):
        self.batches.append(len(image))
        logits = self.conv(image)
        return (logits, 2 * logits[:, :, ::2, ::2])[: self.num_outputs]


class TinySets(nn.Module):
    """A loss that is the mean over the images given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 1)

    def forward(self, image, labels):
        return (self.conv(image).flatten(1).mean(1) * labels.flatten(1).float().mean(1)).mean()


def batch_of(count: int = 5, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(3, (count, 8, 8), generator=generator, dtype=torch.uint8)
    labels[0] = 0
    labels[1, :3] = 255
    labels[count - 1] = 255
    return {"image": torch.randn(count, 3, 8, 8, generator=generator), "labels": labels}


def gradients(network: nn.Module) -> dict[str, torch.Tensor]:
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    return found


def test_training_learns_repeats_itself_and_stores_the_network(tmp_path) -> None:
    images = write_squares(tmp_path)
    longer = dataclasses.replace(CONFIG, steps_per_epoch=12, optim=optim_with(lr=6e-3))
    contexts = [LocalContext(str(tmp_path / name)) for name in ("first", "second")]
    first, second = (train(images, context, longer) for context in contexts)
    assert {**first, "images_per_s": 0} == {**second, "images_per_s": 0}
    assert set(first) == {"loss", "accuracy", "lr", "images_per_s"}
    losses = [report["loss"] for report in contexts[0].reports]
    assert len(losses) == 3 and losses[2] < 0.6 * losses[0] and first["accuracy"] > 0.85
    with contexts[0].latest_checkpoint() as folder:
        assert folder is not None
        network = load_segmentation_network(folder)
    assert network.config == NET and network.num_labels == 3


@pytest.mark.parametrize(
    ("net", "accumulation", "name"),
    [
        (NET, 1, "EncoderSegmenter"),
        (NET, 2, "EncoderSegmenter"),
        (SegmentationNetConfig(architecture="deeplab_v2", backbone="resnet18", weights="random"), 2, "DeepLabV2"),
    ],
    ids=["encoder", "encoder in parts", "deeplab_v2 in parts"],
)
def test_a_training_whose_launches_are_recorded_is_the_same(tmp_path, monkeypatch, net, accumulation, name) -> None:
    images = write_squares(tmp_path)
    config = dataclasses.replace(CONFIG, net=net, accumulation=accumulation)
    plain, again = LocalContext(str(tmp_path / "plain")), LocalContext(str(tmp_path / "recorded"))
    train(images, plain, config)
    recorded = record_on_cpu(monkeypatch)
    train(images, again, config)
    assert recorded == [name]
    found = stored(again)
    for key, value in stored(plain).items():
        assert torch.equal(found[key], value), key


def test_seed_decides_the_network_and_on_step_gets_figures(tmp_path) -> None:
    images = write_squares(tmp_path)
    found = []
    for seed in (0, 1):
        context = LocalContext(str(tmp_path / str(seed)))
        train(images, context, seed=seed, on_step=lambda step, metrics: found.append((step, metrics["loss"])))
    assert [step for step, _ in found] == [2, 4, 6] * 2 and found[0][1] != found[3][1]


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path) -> None:
    images = write_squares(tmp_path)
    whole = LocalContext(str(tmp_path / "whole"))
    metrics = train(images, whole)
    root = str(tmp_path / "stopped")
    with pytest.raises(Stop):
        train(images, StoppingContext(root, epoch=1))
    resumed = LocalContext(root)
    again = train(images, resumed)
    assert [report["epoch"] for report in resumed.reports] == [2, 3]
    assert {**again, "images_per_s": 0} == {**metrics, "images_per_s": 0}
    for name, value in stored(whole).items():
        assert torch.equal(stored(resumed)[name], value), name


@pytest.mark.parametrize(
    "change",
    [
        {"loss": "balanced"},
        {"crop": JointCropConfig(crop_px=16)},
        {"steps_per_epoch": 3, "optim": optim_with(epochs=2)},
        {"optim": optim_with(warmup_steps=1)},
    ],
)
def test_other_settings_do_not_go_on_from_a_checkpoint(tmp_path, change) -> None:
    images = write_squares(tmp_path)
    root = str(tmp_path / "run")
    with pytest.raises(Stop):
        train(images, StoppingContext(root, epoch=1))
    with pytest.raises(ArtifactError, match="belongs to a training with seed 0"):
        train(images, LocalContext(root), dataclasses.replace(CONFIG, **change))
    with pytest.raises(ArtifactError, match="belongs to a training with seed 0"):
        train(images[1:], LocalContext(root))
    train(images, LocalContext(root), dataclasses.replace(CONFIG, accumulation=2))


@pytest.mark.parametrize(("count", "batch_size", "steps"), [(6, 2, 3), (6, 4, 1), (3, 8, 1)])
def test_without_a_number_of_steps_an_epoch_is_one_pass(tmp_path, count, batch_size, steps) -> None:
    images = write_squares(tmp_path, count)
    by_passes = dataclasses.replace(CONFIG, steps_per_epoch=None, optim=optim_with(epochs=2, batch_size=batch_size))
    context = LocalContext(str(tmp_path / "run"))
    train(images, context, by_passes)
    assert [report["epoch"] for report in context.reports] == [1, 2]
    with context.latest_checkpoint() as folder:
        assert folder is not None
        assert json.loads(Path(folder, PROGRESS_NAME).read_text())["steps_done"] == 2 * steps


@pytest.mark.parametrize("loss", ["cross_entropy", "balanced"])
def test_accumulation_changes_memory_and_not_the_network(tmp_path, loss) -> None:
    images = write_squares(tmp_path)
    # Adam would blow up rounding errors where a gradient is next to nothing.
    sgd = {"optim": optim_with(name="sgd", lr=0.05), "freeze_batch_norm": True, "loss": loss}
    contexts = [LocalContext(str(tmp_path / f"parts-{parts}")) for parts in (1, 2)]
    for parts, context in enumerate(contexts, start=1):
        train(images, context, dataclasses.replace(CONFIG, **sgd, accumulation=parts))
    whole, parted = contexts
    for key in ("loss", "accuracy"):
        assert parted.reports[-1][key] == pytest.approx(whole.reports[-1][key], rel=1e-4)
    with seeded(seed_of("network", 0), torch.device("cpu")):
        fresh = build_segmentation_network(NET, 3).state_dict()
    for name, value in stored(whole).items():
        change = (value - fresh[name]).abs().max()
        assert change > 1e-5 or "running" in name or "num_batches" in name, name
        assert (stored(parted)[name] - value).abs().max() <= 0.01 * change + 1e-6, name


def test_the_named_file_takes_the_place_of_its_name(tmp_path) -> None:
    images = write_squares(tmp_path)
    first = LocalContext(str(tmp_path / "first"))
    train(images, first, dataclasses.replace(CONFIG, optim=optim_with(epochs=2)))
    prefix = "encoder.backbone."
    backbone = {name.removeprefix(prefix): value for name, value in stored(first).items() if name.startswith(prefix)}
    save_file({name: value.clone() for name, value in backbone.items()}, tmp_path / "backbone.safetensors")
    named = dataclasses.replace(NET, weights="/nowhere/backbone.safetensors")
    once = {"steps_per_epoch": 1, "optim": optim_with(lr=1e-12, epochs=1)}
    still = dataclasses.replace(CONFIG, net=named, freeze_batch_norm=True, **once)
    second = LocalContext(str(tmp_path / "second"))
    train(images, second, still, weights=str(tmp_path / "backbone.safetensors"))
    for name, value in backbone.items():
        torch.testing.assert_close(stored(second)[prefix + name], value, rtol=0, atol=1e-6)
    with second.latest_checkpoint() as folder:
        assert folder is not None
        content = json.loads(Path(folder, "network.json").read_text())
    assert content["config"]["weights"] == "/nowhere/backbone.safetensors"
    with pytest.raises(ModelError, match="/nowhere/backbone"):
        train(images, LocalContext(str(tmp_path / "third")), still)


def test_a_label_of_another_class_list_is_named(tmp_path) -> None:
    images = write_squares(tmp_path)
    with pytest.raises(DataError, match=r"-mask\.png holds label 2; expected 0 \(background\) to 1, or 255"):
        train(images, LocalContext(str(tmp_path / "run")), classes=Classes(("red",)))


def test_no_images_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="no image with a label map"):
        train([], LocalContext(str(tmp_path)))


def test_backbone_and_head_learn_at_their_own_rates(tmp_path) -> None:
    network = build_segmentation_network(NET, 3)
    config = dataclasses.replace(CONFIG, optim=optim_with(head_lr_factor=10.0, batch_size=3, epochs=4))
    images, context = write_squares(tmp_path), LocalContext(str(tmp_path))
    task = segmentation_task(network, images, CLASSES, config, seed=0, context=context)
    (backbone, low), (head, high) = task.groups
    assert (low, high) == (1.0, 10.0)
    assert len(list(backbone)) + len(list(head)) == len(list(network.parameters()))
    assert len(task.dataset) == 2 * 3 and task.optim.epochs == 4


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 3, 5])
def test_the_loss_is_that_of_all_labelled_pixels(is_balanced, parts) -> None:
    batch, network = batch_of(), TinyNet(num_outputs=2)
    logits, half = network(batch["image"], None)
    small = labels_at(batch["labels"], (4, 4))
    reduce = balanced if is_balanced else pixel_mean
    expected = sum(
        reduce(sums.losses, sums.counts)
        for sums in (cross_entropy_sum(logits, batch["labels"]), cross_entropy_sum(half, small))
    )
    assert isinstance(expected, torch.Tensor)
    expected.backward()
    gradient, network.batches = gradients(network), []
    result = dense_step(network, batch, is_balanced=is_balanced, parts=parts, world_size=1)
    result.loss.backward()
    torch.testing.assert_close(result.loss, expected)
    for name, value in gradients(network).items():
        torch.testing.assert_close(value, gradient[name])
    labelled = batch["labels"] != 255
    right = logits.argmax(1)[labelled] == batch["labels"][labelled]
    torch.testing.assert_close(result.means["accuracy"], right.float().mean())
    assert len(network.batches) == parts and sum(network.batches) == 5


def test_a_batch_without_labels_moves_nothing() -> None:
    batch, network = batch_of(), TinyNet()
    batch["labels"][:] = 255
    for is_balanced in (False, True):
        result = dense_step(network, batch, is_balanced=is_balanced, parts=2, world_size=1)
        result.loss.backward()
        assert result.loss == 0 and result.means["accuracy"] == 0
        assert all((gradient == 0).all() for gradient in gradients(network).values())


@pytest.mark.parametrize("parts", [1, 2, 5])
def test_a_network_with_its_own_loss_is_weighed_by_its_images(parts) -> None:
    batch, network = batch_of(), TinySets()
    expected = network(batch["image"], batch["labels"])
    expected.backward()
    gradient = gradients(network)
    result = sets_step(network, batch, parts=parts, world_size=1)
    result.loss.backward()
    torch.testing.assert_close(result.loss, expected)
    for name, value in gradients(network).items():
        torch.testing.assert_close(value, gradient[name])
    assert result.means == {}


def test_mask2former_trains_and_goes_on(tmp_path, monkeypatch) -> None:
    recorded = record_on_cpu(monkeypatch)
    images = write_squares(tmp_path)
    net = dataclasses.replace(NET, architecture="mask2former")
    config = dataclasses.replace(
        CONFIG,
        net=net,
        crop=JointCropConfig(crop_px=64),
        optim=optim_with(epochs=2, batch_size=2, lr=1e-4),
        steps_per_epoch=1,
        accumulation=2,
    )
    whole = LocalContext(str(tmp_path / "whole"))
    metrics = train(images, whole, config)
    assert set(metrics) == {"loss", "lr", "images_per_s"} and metrics["loss"] > 0
    root = str(tmp_path / "stopped")
    with pytest.raises(Stop):
        train(images, StoppingContext(root, epoch=1), config)
    assert train(images, LocalContext(root), config)["loss"] == metrics["loss"]
    assert not recorded  # its matching reads values


@pytest.mark.parametrize(
    ("accumulation", "batch_size", "world_size", "parts"), [(1, 4, 1, 1), (2, 10, 1, 2), (8, 10, 3, 3), (4, 2, 2, 1)]
)
def test_a_part_has_at_least_one_image(accumulation, batch_size, world_size, parts) -> None:
    config = dataclasses.replace(CONFIG, accumulation=accumulation, optim=optim_with(batch_size=batch_size))
    assert num_parts(config, world_size) == parts


def test_pixels_are_counted_as_the_loss_counts_them() -> None:
    labels = batch_of()["labels"]
    sums = cross_entropy_sum(torch.zeros(5, 3, 8, 8), labels)
    assert torch.equal(pixel_counts(labels), sums.counts) and sums.counts.min() > 0


# --- without a background


def test_label_values_become_the_classes_and_what_is_none_is_ignored() -> None:
    values = torch.tensor([[[0, 1, 4, 254, 255]]], dtype=torch.uint8)
    assert without_background(values).tolist() == [[[255, 0, 3, 253, 255]]]


def test_a_network_without_background_has_an_output_per_class_and_learns_them(tmp_path) -> None:
    images = write_squares(tmp_path)
    for image in images:  # where there was background there is nothing to learn
        labels = np.array(Image.open(image.mask_uri))
        Image.fromarray(np.where(labels == 0, 255, labels).astype(np.uint8)).save(image.mask_uri)
    context = LocalContext(str(tmp_path / "net"))
    config = dataclasses.replace(CONFIG, steps_per_epoch=10)
    metrics = train(images, context, config, classes=Classes(CLASSES.names, has_background=False))
    assert metrics["accuracy"] > 0.95 and stored(context)["classifier.bias"].shape == (2,)


def test_a_class_too_many_is_refused_without_background_too(tmp_path) -> None:
    images = write_squares(tmp_path)
    with pytest.raises(DataError, match="holds label 2; expected 1 to 1, or 255"):
        train(images, LocalContext(str(tmp_path / "net")), classes=Classes(("red",), has_background=False))


@pytest.mark.parametrize(
    ("architecture", "loss"), [("encoder", "cross_entropy"), ("encoder", "balanced"), ("mask2former", "cross_entropy")]
)
def test_a_network_that_breaks_ends_the_training_with_the_images(tmp_path, monkeypatch, architecture, loss) -> None:
    net = dataclasses.replace(NET, architecture=architecture)
    config = dataclasses.replace(CONFIG, net=net, loss=loss, crop=JointCropConfig(crop_px=64))
    images = write_squares(tmp_path)
    error_of(monkeypatch, lambda: train(images, LocalContext(str(tmp_path / "run")), config))

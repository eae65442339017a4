import dataclasses

import pytest
import torch

from qaclims_ray.errors import ArtifactError
from qaclims_ray.refine.irn.config import IrnConfig
from qaclims_ray.refine.irn.network import (
    AffinityNet,
    boundary_maps,
    build_affinity_net,
    load_affinity_net,
    save_affinity_net,
)
from qaclims_ray.refine.irn.task import affinity_step, grid_labels, mean_displacement, train_affinity
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from tests.diverging import error_of
from tests.unit.models.cpu_recorder import record_on_cpu

SIDE = 64


class Squares:
    """Pictures of one bright, noisy square of class 2; the label of a band about its border is unknown."""

    def __init__(self, num_images: int = 8) -> None:
        self.num_images, self.epoch = num_images, 0

    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_images

    def pixels(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return picture and box (top, left, bottom, right)."""
        generator = torch.Generator().manual_seed(1000 * self.epoch + index)
        top, left = torch.randint(8, 22, (2,), generator=generator).tolist()
        side = int(torch.randint(26, 34, (1,), generator=generator))
        image = torch.randint(0, 70, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        image[:, top : top + side, left : left + side] += 150
        return image, torch.tensor([top, left, top + side, left + side])

    def __getitem__(self, index: int) -> dict:
        image, (top, left, bottom, right) = self.pixels(index)
        labels = torch.zeros(SIDE, SIDE, dtype=torch.uint8)
        labels[top - 4 : bottom + 4, left - 4 : right + 4] = 255
        labels[top + 4 : bottom - 4, left + 4 : right - 4] = 3
        return {"image": image / 127.5 - 1, "labels": labels, "index": index}


class StoppedError(Exception):
    pass


class StoppingContext(LocalContext):
    """A worker that dies after its first report."""

    def report(self, metrics, checkpoint_dir) -> None:
        super().report(metrics, checkpoint_dir)
        raise StoppedError


IRN = IrnConfig(
    backbone="miniature",
    weights="random",
    width=32,
    radius=5,
    crop_px=SIDE,
    optim=OptimConfig(lr=0.1, head_lr_factor=1.0, weight_decay=1e-4, epochs=3, batch_size=4, momentum=0.9),
)
TERMS = {
    "loss/background",
    "loss/foreground",
    "loss/negative",
    "loss/background_displacement",
    "loss/foreground_displacement",
}


def _network(irn: IrnConfig = IRN) -> AffinityNet:
    torch.manual_seed(0)
    net = build_affinity_net(irn)
    net.image_mean.fill_(0.5), net.image_std.fill_(0.5)
    return net


def _train(network: AffinityNet, context, irn: IrnConfig = IRN, **changes) -> dict[str, float]:
    options = {"dataset": Squares(), "seed": 3, "precision": "fp32", "loader_workers": 0, **changes}
    return train_affinity(network=network, irn=irn, context=context, **options)


def test_boundaries_are_found_where_labels_are_unknown(tmp_path) -> None:
    optim = OptimConfig(name="adamw", lr=0.01, head_lr_factor=1.0, weight_decay=1e-4, epochs=18, batch_size=4)
    irn = dataclasses.replace(IRN, optim=optim)
    context, network = LocalContext(str(tmp_path)), _network(irn)
    metrics = _train(network, context, irn, dataset=Squares(12))
    assert context.reports[-1]["loss"] < 0.6 * context.reports[0]["loss"]
    assert set(metrics) == {"loss", "lr", "images_per_s", *TERMS}
    loaded = load_affinity_net(str(tmp_path / "latest"))
    unseen = Squares()
    unseen.set_epoch(99)
    border, inside, outside = [], [], []
    for index in range(6):
        image, box = unseen.pixels(index)
        boundary = boundary_maps(loaded, [image], 0)[0]
        top, left, bottom, right = (box / 4).round().long().tolist()
        middle = boundary[(top + bottom) // 2]
        border += [middle[left - 1 : left + 2].max(), middle[right - 1 : right + 2].max()]
        inside.append(boundary[top + 2 : bottom - 2, left + 2 : right - 2].flatten())
        far = torch.ones_like(boundary, dtype=torch.bool)
        far[top - 2 : bottom + 2, left - 2 : right + 2] = False
        outside.append(boundary[far])
    assert torch.stack(border).mean() > 0.4 and min(border) > 0.2
    assert torch.cat(inside).mean() < 0.2 and torch.cat(outside).mean() < 0.15


def test_a_training_whose_launches_are_recorded_is_the_same(tmp_path, monkeypatch) -> None:
    plain, found = _network(), _network()
    metrics = _train(plain, LocalContext(str(tmp_path / "plain")))
    recorded = record_on_cpu(monkeypatch)
    assert _train(found, LocalContext(str(tmp_path / "recorded")))["loss"] == metrics["loss"]
    assert recorded == ["AffinityNet"]
    for name, value in plain.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path) -> None:
    whole = _network()
    whole_metrics = _train(whole, LocalContext(str(tmp_path / "whole")))
    for expected_epoch in (1, 2, 3):
        stopping = StoppingContext(str(tmp_path / "parts"))
        with pytest.raises(StoppedError):
            _train(_network(), stopping)
        assert stopping.reports[-1]["epoch"] == expected_epoch
        mean = load_affinity_net(str(tmp_path / "parts/latest")).mean_displacement
        assert (mean.abs().sum() > 0) == (expected_epoch == 3)
    resumed = _network()
    metrics = _train(resumed, LocalContext(str(tmp_path / "parts")))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert {name: metrics[name] for name in TERMS} == {name: whole_metrics[name] for name in TERMS}


def test_the_last_checkpoint_and_the_network_hold_the_mean_displacement(tmp_path) -> None:
    network = _network()
    _train(network, LocalContext(str(tmp_path)))
    loaded = load_affinity_net(str(tmp_path / "latest"))
    assert torch.equal(loaded.mean_displacement, network.mean_displacement)
    data, fields = Squares(), []
    with torch.no_grad():
        fields = [loaded(data[index]["image"][None])[1] for index in range(len(data))]
    mean = torch.cat(fields).mean(dim=(0, 2, 3))
    torch.testing.assert_close(mean, torch.zeros(2), rtol=0, atol=1e-4)
    assert network.mean_displacement.abs().max() > 1e-3


def test_the_mean_is_measured_without_an_older_one_and_whatever_the_batches(tmp_path) -> None:
    network, context = _network().eval(), LocalContext(str(tmp_path))
    means = []
    for size, older in ((1, 0.0), (3, 5.0)):
        network.mean_displacement.fill_(older)
        means.append(mean_displacement(network, Squares(5), batch_size=size, loader_workers=0, context=context))
    torch.testing.assert_close(means[0], means[1], rtol=1e-4, atol=1e-5)
    assert not network.training and network.mean_displacement[0] == 5


def test_the_backbone_and_what_it_normalises_stay(tmp_path) -> None:
    network, before = _network(), _network().state_dict()
    _train(network, LocalContext(str(tmp_path)))
    changed = {
        name.split(".")[0] for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"boundary", "displacement", "mean_displacement"}


def test_branches_learn_at_their_own_rates(tmp_path) -> None:
    moved = {}
    for factor in (1.0, 1e-4):
        optim = dataclasses.replace(IRN.optim, head_lr_factor=factor, epochs=1, momentum=0.0, batch_size=8)
        network, before = _network(), _network().state_dict()
        _train(network, LocalContext(str(tmp_path / str(factor))), dataclasses.replace(IRN, optim=optim))
        after = network.state_dict()
        moved[factor] = [
            float((after[name] - before[name]).abs().max())
            for name in ("boundary.logit.weight", "displacement.field.weight")
        ]
    assert moved[1.0][0] == pytest.approx(moved[1e-4][0], rel=1e-3) and moved[1e-4][1] < 1e-3 * moved[1.0][1]


def test_a_batch_without_known_labels_trains_on() -> None:
    network = _network().train()
    batch = {"image": torch.randn(2, 3, 32, 32), "labels": torch.full((2, 32, 32), 255, dtype=torch.uint8)}
    result = affinity_step(network, batch, radius=5)
    result.loss.backward()
    assert result.loss == 0 and set(result.means) == TERMS
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in network.boundary.parameters())


def test_bf16_trains_too(tmp_path) -> None:
    optim = dataclasses.replace(IRN.optim, epochs=1)
    irn = dataclasses.replace(IRN, optim=optim)
    precise = _train(_network(), LocalContext(str(tmp_path / "fp32")), irn)
    rough = _train(_network(), LocalContext(str(tmp_path / "bf16")), irn, precision="bf16")
    assert rough["loss"] == pytest.approx(precise["loss"], rel=0.05) and rough["loss"] != precise["loss"]


def test_cells_take_the_label_at_their_centre() -> None:
    labels = torch.arange(9 * 7, dtype=torch.uint8).view(1, 9, 7)
    # Rows 2, 6 and the last one, 8; columns 2 and 6.
    assert grid_labels(labels)[0].tolist() == [[16, 20], [44, 48], [58, 62]]


def test_other_settings_do_not_go_on_from_a_checkpoint(tmp_path) -> None:
    _train(_network(), LocalContext(str(tmp_path)))
    with pytest.raises(ArtifactError, match="belongs to"):
        _train(_network(), LocalContext(str(tmp_path)), dataclasses.replace(IRN, radius=4))
    # What the training does not use may change.
    _train(_network(), LocalContext(str(tmp_path)), dataclasses.replace(IRN, walk_threshold=0.3))


def test_a_checkpoint_is_a_usable_network(tmp_path) -> None:
    network = _network().eval()
    save_affinity_net(network, str(tmp_path))
    image, _ = Squares().pixels(0)
    found, expected = (boundary_maps(net, [image], 0)[0] for net in (load_affinity_net(str(tmp_path)), network))
    assert torch.equal(found, expected)


def test_a_network_that_breaks_ends_the_training_with_the_images(tmp_path, monkeypatch) -> None:
    error_of(monkeypatch, lambda: _train(_network(), LocalContext(str(tmp_path))))

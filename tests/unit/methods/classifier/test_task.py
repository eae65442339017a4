import dataclasses

import pytest
import torch
from torch import nn

from qaclims_ray.methods.classifier.calibration import affine_from_quantiles, calibrate
from qaclims_ray.methods.classifier.config import ClassifierConfig
from qaclims_ray.methods.classifier.task import CALIBRATED_DIR, classifier_step, train_classifier
from qaclims_ray.models.generators.cam_net import build_cam_net, load_cam_net
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import LocalContext
from tests.diverging import error_of
from tests.ritc_fakes import AUGMENT, CAM_NET, with_setup, write_pictures

OPTIM = OptimConfig(name="adamw", lr=3e-3, head_lr_factor=1.0, epochs=6, batch_size=6)
CLASSIFIER = ClassifierConfig(optim=OPTIM, freeze_batch_norm=False, calibrate=True)


def _train(folder, context, **changes) -> dict[str, float]:
    return train_classifier(
        **with_setup(
            manifest=write_pictures(folder),
            cam_net=CAM_NET,
            augment=AUGMENT,
            classifier=dataclasses.replace(CLASSIFIER, **changes),
            precision="fp32",
            loader_workers=0,
            seed=0,
            context=context,
        )
    )


def test_training_learns_and_repeats_itself(tmp_path) -> None:
    contexts = [LocalContext(str(tmp_path / name)) for name in ("first", "second")]
    first, second = (_train(tmp_path, context) for context in contexts)
    assert first["loss"] == second["loss"]
    assert contexts[0].reports[-1]["loss"] < 0.8 * contexts[0].reports[0]["loss"]
    assert set(first) == {"loss", "accuracy", "lr", "images_per_s"} and 0.5 < first["accuracy"] <= 1


def test_the_seed_decides_the_initial_weights(tmp_path) -> None:
    losses = []
    for seed in (0, 1):
        context = LocalContext(str(tmp_path / str(seed)))
        metrics = train_classifier(
            **with_setup(
                manifest=write_pictures(tmp_path),
                cam_net=CAM_NET,
                augment=AUGMENT,
                classifier=dataclasses.replace(CLASSIFIER, optim=dataclasses.replace(OPTIM, epochs=1)),
                precision="fp32",
                loader_workers=0,
                seed=seed,
                context=context,
            )
        )
        losses.append(metrics["loss"])
    assert losses[0] != losses[1]


def test_the_head_alone_learns_on_a_backbone_that_stays(tmp_path) -> None:
    networks = []
    for epochs in (1, 2):
        folder = tmp_path / str(epochs)
        own = {"freeze_batch_norm": True, "calibrate": False, "optim": dataclasses.replace(OPTIM, epochs=epochs)}
        _train(tmp_path, LocalContext(str(folder)), train_scope="head", **own)
        networks.append(load_cam_net(str(folder / "latest"), "cpu"))
    for once, twice in zip(*(network.backbone.state_dict().values() for network in networks), strict=True):
        assert torch.equal(once, twice)
    heads = [torch.cat([value.flatten() for value in network.head_parameters()]) for network in networks]
    assert not torch.equal(*heads)


def test_loading_processes_change_nothing(tmp_path) -> None:
    manifest = write_pictures(tmp_path)
    losses = []
    for loader_workers in (0, 1):
        metrics = train_classifier(
            **with_setup(
                manifest=manifest,
                cam_net=CAM_NET,
                augment=AUGMENT,
                classifier=dataclasses.replace(CLASSIFIER, optim=dataclasses.replace(OPTIM, epochs=2), calibrate=False),
                precision="fp32",
                loader_workers=loader_workers,
                seed=0,
                context=LocalContext(str(tmp_path / f"workers{loader_workers}")),
            )
        )
        losses.append(metrics["loss"])
    assert losses[0] == losses[1]


def test_the_baseline_stays_plain_beside_the_calibrated_network(tmp_path) -> None:
    _train(tmp_path, LocalContext(str(tmp_path / "run")))
    plain = load_cam_net(str(tmp_path / "run/latest"))
    calibrated = load_cam_net(str(tmp_path / "run/latest" / CALIBRATED_DIR))
    assert plain.classifier.bias is None and calibrated.classifier.bias is not None
    assert calibrated.classifier.bias.requires_grad
    for name, value in plain.backbone.state_dict().items():
        assert torch.equal(value, calibrated.backbone.state_dict()[name])
    image = torch.randn(1, 3, 32, 32)
    scale = calibrated.classifier.weight / plain.classifier.weight
    torch.testing.assert_close(scale, scale[:, :1].expand_as(scale), rtol=1e-4, atol=1e-4)
    expected = plain(image) * scale[:, 0] + calibrated.classifier.bias[:, None, None]
    torch.testing.assert_close(calibrated(image), expected, rtol=1e-4, atol=1e-4)


def test_without_calibration_there_is_one_network(tmp_path) -> None:
    _train(tmp_path, LocalContext(str(tmp_path / "run")), calibrate=False)
    assert not (tmp_path / "run/latest" / CALIBRATED_DIR).exists()


class _Pictures:
    """Six images; class 2 is never shown."""

    def image_id(self, index: int) -> str:
        return f"picture {index}"

    def set_epoch(self, epoch: int) -> None: ...

    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict:
        image = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {"image": image, "labels": torch.tensor([1.0, index % 2, 0.0]), "index": index}


def test_calibration_moves_the_quantiles_and_nothing_else(tmp_path) -> None:
    torch.manual_seed(0)
    net = build_cam_net(CAM_NET, 3).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    # Batches of different sizes give the same: statistics are those of evaluation mode.
    results = [
        calibrate(net, _Pictures(), batch_size=size, loader_workers=0, context=LocalContext(str(tmp_path)))
        for size in (1, 4)
    ]
    assert net.training and all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    torch.testing.assert_close(results[0].classifier.weight, results[1].classifier.weight, rtol=1e-4, atol=1e-5)
    calibrated = results[0].eval()
    items = [_Pictures()[index] for index in range(6)]
    with torch.no_grad():
        logits = torch.stack([calibrated(item["image"][None])[0].flatten(1) for item in items])  # (image, class, pixel)
        for class_id in (0, 1):
            shown = torch.stack([item["labels"][class_id] > 0 for item in items])
            quantiles = torch.quantile(logits[shown, class_id], torch.tensor([0.75, 0.95]))
            torch.testing.assert_close(quantiles, torch.tensor([0.0, 1.5]), atol=0.05, rtol=0)
    assert torch.equal(calibrated.classifier.weight[2], before["classifier.weight"][2])
    assert calibrated.classifier.bias[2] == 0


def test_calibrating_twice_changes_little(tmp_path) -> None:
    torch.manual_seed(0)
    options = {"batch_size": 6, "loader_workers": 0, "context": LocalContext(str(tmp_path))}
    once = calibrate(build_cam_net(CAM_NET, 3), _Pictures(), **options)
    twice = calibrate(once, _Pictures(), **options)
    torch.testing.assert_close(twice.classifier.bias, once.classifier.bias, rtol=0.05, atol=0.05)


def test_a_constant_class_stays_finite() -> None:
    scale, shift = affine_from_quantiles(torch.tensor([0, 0]), torch.full((2, 5), 3.0), 1)
    assert scale.isfinite().all() and scale * 3.0 + shift == 0


class _Given(nn.Module):
    """Several scores, as WeakTr has them: each a multiple of the given one."""

    def __init__(self, *factors: float) -> None:
        super().__init__()
        self.factors = factors

    def forward(self, image: torch.Tensor, *, want: str) -> tuple[torch.Tensor, ...]:
        assert want == "scores"
        return tuple(factor * image for factor in self.factors)


@pytest.mark.parametrize("factors", [(1.0,), (1.0, 0.5, -2.0)])
def test_step_is_the_soft_margin_loss_of_every_score(factors: tuple[float, ...]) -> None:
    scores = torch.tensor([[1.0, -1.0], [0.5, 2.0]])
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    pooled = [[1.0, -1.0], [0.5, 2.0]]
    expected = sum(
        torch.nn.functional.softplus(torch.tensor(-f * score if labels[i][k] else f * score)).item() / 2
        for f in factors
        for i, row in enumerate(pooled)
        for k, score in enumerate(row)
    )
    # Eight images over all workers, of which these are two.
    result = classifier_step(_Given(*factors), {"image": scores, "labels": labels}, images_per_step=8)
    assert result.loss.item() == pytest.approx(expected / 8)
    assert result.means["accuracy"].item() == pytest.approx(1.5 / 8)


def test_a_network_that_breaks_ends_the_training_with_the_images(tmp_path, monkeypatch) -> None:
    error_of(monkeypatch, lambda: _train(tmp_path, LocalContext(str(tmp_path / "run"))))

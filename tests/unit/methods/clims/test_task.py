import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.methods.clims.task import class_weights, clims_regions, clims_step, train_clims
from qaclims_ray.models.generators.cam_net import build_cam_net, save_cam_net
from qaclims_ray.text.bank import build_bank
from qaclims_ray.text.config import TextConfig
from qaclims_ray.training.context import LocalContext
from tests.diverging import error_of
from tests.ritc_fakes import AUGMENT, CAM_NET, CLASSES, TinyClip, regions_of, with_setup, write_pictures
from tests.semples_fakes import OPTIM, bright_images, clims_config, near_bank, shipped_clip
from tests.unit.training.test_loop import StoppedError, StoppingContext


@pytest.fixture
def init_dir(tmp_path) -> str:
    torch.manual_seed(0)
    save_cam_net(build_cam_net(CAM_NET, 3, classifier_bias=True), str(tmp_path / "init"))
    return str(tmp_path / "init")


def _train(tmp_path, init_dir, **changes) -> dict[str, float]:
    clip = TinyClip()
    options = {
        "manifest": write_pictures(tmp_path),
        "bank": near_bank(clip, 12),
        "clip": clip,
        "cam_net": CAM_NET,
        "augment": AUGMENT,
        "clims": clims_config(),
        "init_dir": init_dir,
        "precision": "fp32",
        "loader_workers": 0,
        "seed": 0,
        "context": LocalContext(str(tmp_path / "run")),
    }
    return train_clims(**with_setup(**{**options, **changes}))


def test_training_lowers_the_loss_and_reports_its_parts(tmp_path, init_dir) -> None:
    config = clims_config(optim=dataclasses.replace(OPTIM, epochs=8), pair_reduction="mean_pairs")
    context = LocalContext(str(tmp_path / "run"))
    metrics = _train(
        tmp_path, init_dir, clims=config, context=context, augment=dataclasses.replace(AUGMENT, flip=False)
    )
    assert set(metrics) == {
        "loss", "loss/matching", "loss/background", "loss/suppression", "loss/area", "pairs", "lr", "images_per_s"
    }  # fmt: skip
    assert context.reports[-1]["loss"] < 0.9 * context.reports[0]["loss"]
    # Also the pairs without background texts.
    assert metrics["pairs"] == sum(len(record.labels) for record in write_pictures(tmp_path).records)
    weights = {"matching": 10, "background": 24, "suppression": 1, "area": 0.2}
    total = sum(weight * metrics[f"loss/{name}"] for name, weight in weights.items())
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path, init_dir) -> None:
    metrics = _train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "whole")))
    with pytest.raises(StoppedError):
        _train(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "parts")))
    resumed = _train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "parts")))
    assert resumed["loss"] == metrics["loss"]
    whole, parts = (load_file(tmp_path / name / "latest/network.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_a_checkpoint_of_other_losses_is_refused(tmp_path, init_dir) -> None:
    with pytest.raises(StoppedError):
        _train(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "run")))
    with pytest.raises(ArtifactError, match="belongs to a training with seed 0 and settings"):
        _train(tmp_path, init_dir, clims=clims_config(suppression_threshold=None))


def test_a_rating_chooses_the_epoch_that_is_kept(tmp_path, init_dir) -> None:
    ratings = iter([0.7, 0.9, 0.8])
    kept = []

    def rate(network) -> float:
        kept.append(network.classifier.weight.detach().clone())
        return next(ratings)

    config = clims_config(optim=dataclasses.replace(OPTIM, epochs=3))
    metrics = _train(tmp_path, init_dir, rate=rate, clims=config)
    assert metrics["selection/best"] == 0.9 and len(kept) == 3 and not torch.equal(kept[1], kept[2])
    assert torch.equal(load_file(tmp_path / "run/latest/network.safetensors")["classifier.weight"], kept[1])


def test_the_real_clip_and_its_text_bank_fit(tmp_path, init_dir) -> None:
    clip, manifest = shipped_clip(), write_pictures(tmp_path)
    text = TextConfig(source="fixed", fixed_background=(("*", ("grass",)), ("red", ("sky",))))
    bank = build_bank(None, manifest, text, lambda texts: clip.encode_texts(texts))
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    metrics = _train(tmp_path, init_dir, clip=clip, bank=bank, manifest=manifest)
    assert metrics["loss"] > 0
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())
    with pytest.raises(ArtifactError, match="another CLIP"):
        _train(tmp_path, init_dir, bank=bank, manifest=manifest, context=LocalContext(str(tmp_path / "other")))


def _step(labels, clip=None, bank=None, **changes):
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3).eval()
    network.classifier.weight.data *= 60  # maps with structure
    labels = torch.tensor(labels, dtype=torch.float32)
    batch = {"image": bright_images(len(labels), 32, seed=1), "labels": labels}
    ids = [str(index) for index in range(len(labels))]
    clip = clip or TinyClip()
    result = clims_step(
        network,
        batch,
        ids,
        bank=bank or near_bank(clip, 8),
        regions=regions_of(clip, clims_regions(clims_config(**changes))),
        clims=clims_config(**changes),
        images_per_step=len(labels),
        class_weight=class_weights(CLASSES, clims_config(**changes)),
    )
    result.loss.backward()
    return result, network


@pytest.mark.parametrize("area_over", ["all", "present"])
@pytest.mark.parametrize("reduction", ["official", "mean_pairs"])
def test_a_batch_without_labels_still_depends_on_the_network(area_over, reduction) -> None:
    clip = TinyClip()
    result, network = _step([[0, 0, 0]], clip, area_over=area_over, pair_reduction=reduction)
    assert all(p.grad is not None for p in network.parameters())
    assert result.counts == {"pairs": 0} and clip.num_calls == 2  # those of `near_bank`
    assert (result.loss.item() > 0) == (area_over == "all")
    # Workers with pairs and workers without must report the same figures, in the same order.
    assert list(result.means) == list(_step([[1, 0, 0]])[0].means)


def test_a_pair_without_background_texts_takes_part_in_the_matching() -> None:
    clip = TinyClip()
    result, network = _step([[1, 0, 0]], clip, area_weight=0.0)  # image 0, class 0: no text
    assert result.counts == {"pairs": 1} and result.means["loss/suppression"] == 0
    assert result.means["loss/matching"] > 0
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


def test_gradients_flow_through_clip_but_not_into_it() -> None:
    clip = TinyClip()
    _, network = _step([[1, 0, 1], [1, 1, 0]], clip, area_weight=0.0)
    assert all(p.grad is None for p in clip.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_each_weight_switches_its_term_off() -> None:
    labels = [[1, 0, 1], [1, 1, 0]]
    reference = _step(labels)[0]
    for name in ("matching", "background", "suppression", "area"):
        without = _step(labels, **{f"{name}_weight": 0.0})[0]
        weight = getattr(clims_config(), f"{name}_weight")
        term = reference.means[f"loss/{name}"].item()
        assert term > 0
        assert (reference.loss - without.loss).item() == pytest.approx(weight * term, rel=1e-3)


def test_every_switch_changes_the_loss() -> None:
    """No option may do nothing."""
    labels = [[1, 0, 1], [1, 1, 0]]
    reference = _step(labels)[0].loss.item()
    for changes in (
        {"suppression_threshold": 0.9},
        {"text_reduction": "mean"},
        {"pair_reduction": "mean_pairs"},
        {"published_ranks": 2},
        {"class_weights": (("red", 3.0),)},
        {"class_weights": (("blue", 0.0),)},
        {"area_over": "present"},
        {"clip_normalisation": "clip"},
        {"antialias": True},
    ):
        assert _step(labels, **changes)[0].loss.item() != reference, changes


@pytest.mark.parametrize(("threshold", "differs"), [(None, True), (-1.0, False)])
def test_the_clamp_holds_suppression_where_there_is_no_threshold(threshold, differs) -> None:
    """Texts far from the regions: their cosines are negative, which a clamp takes for 1e-4."""
    clip = TinyClip()
    bank = near_bank(clip, 8)
    bank.background = -bank.background
    settings = {"suppression_threshold": threshold, "matching_weight": 0.0, "background_weight": 0.0}
    on, off = (_step([[0, 1, 1]], clip, bank, clamp=clamp, **settings)[0].loss.item() for clamp in (True, False))
    assert (on != off) == differs


def test_class_weights_reach_both_matching_terms_and_no_other() -> None:
    labels = [[1, 0, 0], [0, 1, 0]]
    plain, tripled = (_step(labels, class_weights=weights)[0].means for weights in ((), (("red", 3.0), ("green", 3.0))))
    for name in ("matching", "background"):
        assert tripled[f"loss/{name}"].item() == pytest.approx(3 * plain[f"loss/{name}"].item(), rel=1e-6)
    for name in ("suppression", "area"):
        assert tripled[f"loss/{name}"] == plain[f"loss/{name}"]


def test_a_training_weighs_its_classes(tmp_path, init_dir) -> None:
    one = dataclasses.replace(OPTIM, epochs=1)
    weights = tuple((name, 3.0) for name in CLASSES)
    figures = [
        _train(
            tmp_path,
            init_dir,
            clims=clims_config(optim=one, class_weights=own),
            context=LocalContext(str(tmp_path / str(len(own)))),
        )
        for own in ((), weights)
    ]
    assert figures[1]["loss/matching"] > 2 * figures[0]["loss/matching"]


def test_weights_of_what_is_no_class_are_refused(tmp_path, init_dir) -> None:
    clims = clims_config(class_weights=(("sofa", 3.0), ("red", 2.0)))
    with pytest.raises(ConfigError, match=r"clims.class_weights names \['sofa'\]; expected classes: red, green, blue"):
        _train(tmp_path, init_dir, clims=clims)


def test_a_cosine_without_a_logarithm_ends_the_training_with_what_to_do(tmp_path, init_dir) -> None:
    bank = near_bank(TinyClip(), 12)
    bank.foreground = -bank.foreground
    with pytest.raises(ConfigError, match=r"the loss became nan in epoch 1.* Or set clims.clamp to true"):
        _train(tmp_path, init_dir, bank=bank, clims=clims_config(clamp=False))
    assert _train(tmp_path, init_dir, bank=bank, context=LocalContext(str(tmp_path / "clamped")))["loss"] > 0


def test_a_network_that_breaks_ends_the_training_with_the_images(tmp_path, init_dir, monkeypatch) -> None:
    error = error_of(monkeypatch, lambda: _train(tmp_path, init_dir))
    assert "(loss/" in str(error), "the terms that are not finite are named"

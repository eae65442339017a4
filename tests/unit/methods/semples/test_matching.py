import dataclasses

import pytest
import torch
from safetensors.torch import load_file

from qaclims_ray.errors import ArtifactError
from qaclims_ray.methods.semples.config import PROMPTS_DIR
from qaclims_ray.methods.semples.matching import _Joint, joint_step, matching_step, train_jointly, train_matching
from qaclims_ray.methods.semples.prompts import start_of_prompts
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.clip.prompts import LearnedPrompts, encode_prompts, load_prompts
from qaclims_ray.models.generators.cam_net import build_cam_net, save_cam_net
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.training.context import LocalContext
from tests.diverging import error_of
from tests.ritc_fakes import AUGMENT, CAM_NET, TinyClip, with_setup, write_pictures
from tests.semples_fakes import (
    OPTIM,
    bright_images,
    prompt_config,
    semples_config,
    semples_regions,
    shipped_clip,
    texts_near,
)
from tests.unit.training.test_loop import StoppedError, StoppingContext

STILL = dataclasses.replace(AUGMENT, flip=False)
LABELS = [[1, 0, 1], [1, 1, 0]]


@pytest.fixture
def init_dir(tmp_path) -> str:
    torch.manual_seed(0)
    save_cam_net(build_cam_net(CAM_NET, 3, classifier_bias=True), str(tmp_path / "init"))
    return str(tmp_path / "init")


def _options(tmp_path, init_dir, clip, **changes) -> dict:
    options = {
        "manifest": write_pictures(tmp_path),
        "clip": clip,
        "class_texts": texts_near(clip, 3, seed=3),
        "cam_net": CAM_NET,
        "augment": STILL,
        "semples": semples_config(),
        "optim": OPTIM,
        "init_dir": init_dir,
        "precision": "fp32",
        "loader_workers": 0,
        "seed": 0,
        "context": LocalContext(str(tmp_path / "run")),
    }
    return {**options, **changes}


def _match(tmp_path, init_dir, **changes) -> dict[str, float]:
    options = _options(tmp_path, init_dir, changes.pop("clip", TinyClip()), **changes)
    return train_matching(**with_setup(**{"prompts": None, **options}))


def _join(tmp_path, init_dir, **changes) -> dict[str, float]:
    return train_jointly(**with_setup(**_options(tmp_path, init_dir, shipped_clip(), **changes)))


def _refine(tmp_path, init_dir, **changes) -> dict[str, float]:
    return _match(tmp_path, init_dir, **{"prompts": texts_near(TinyClip(), 3, seed=4), **changes})


def _weights(folder) -> dict[str, torch.Tensor]:
    return load_file(folder / "network.safetensors")


# --- whole trainings


@pytest.mark.parametrize("mask", ["minmax", "sigmoid"])
def test_matching_lowers_the_loss_and_reports_its_parts(tmp_path, init_dir, mask) -> None:
    context = LocalContext(str(tmp_path / "run"))
    config = semples_config(mask=mask, omega=0.1, area_weight=0.2)
    # At a higher rate masks shrink to nothing, where clamped cosines have no gradient.
    optim = dataclasses.replace(OPTIM, epochs=5, lr=1e-3)
    metrics = _match(tmp_path, init_dir, semples=config, context=context, optim=optim, clip=shipped_clip())
    parts = {"loss", "loss/foreground", "loss/background", "loss/area", "pairs", "lr", "images_per_s"}
    assert set(metrics) == parts
    assert context.reports[-1]["loss"] < 0.98 * context.reports[0]["loss"]
    assert metrics["pairs"] == sum(len(record.labels) for record in write_pictures(tmp_path).records)
    total = metrics["loss/foreground"] + 2.4 * metrics["loss/background"] + 0.2 * metrics["loss/area"]
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_refinement_adds_the_prompt_term(tmp_path, init_dir) -> None:
    config = semples_config(refine_weight=0.5)
    metrics = _refine(tmp_path, init_dir, semples=config)
    total = metrics["loss/foreground"] + 2.4 * metrics["loss/background"] + 0.5 * metrics["loss/prompts"]
    assert metrics["loss"] == pytest.approx(total, rel=1e-5) and metrics["loss/prompts"] > 0


@pytest.mark.parametrize("train", [_match, _refine, _join])
def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path, init_dir, train) -> None:
    metrics = train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "whole")))
    with pytest.raises(StoppedError):
        train(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "parts")))
    resumed = train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "parts")))
    assert resumed["loss"] == metrics["loss"]
    whole, parts = (tmp_path / name / "latest" for name in ("whole", "parts"))
    assert all(torch.equal(value, _weights(parts)[name]) for name, value in _weights(whole).items())
    if train is _join:
        found, expected = (load_prompts(str(folder / PROMPTS_DIR)) for folder in (parts, whole))
        assert torch.equal(found.vectors, expected.vectors) and found.template == expected.template


@pytest.mark.parametrize("train", [_match, _join])
def test_a_rating_chooses_the_epoch_that_is_kept(tmp_path, init_dir, train) -> None:
    ratings = iter([0.7, 0.9, 0.8])
    kept = []

    def rate(network) -> float:
        kept.append(network.classifier.weight.detach().clone())
        return next(ratings)

    optim = dataclasses.replace(OPTIM, epochs=3)
    metrics = train(tmp_path, init_dir, rate=rate, optim=optim)
    assert metrics["selection/best"] == 0.9 and len(kept) == 3 and not torch.equal(kept[1], kept[2])
    assert torch.equal(_weights(tmp_path / "run/latest")["classifier.weight"], kept[1])


@pytest.mark.parametrize("train", [_match, _join])
def test_a_frozen_backbone_keeps_weights_and_statistics(tmp_path, init_dir, train) -> None:
    train(tmp_path, init_dir, semples=semples_config(train_scope="head"))
    before, after = _weights(tmp_path / "init"), _weights(tmp_path / "run/latest")
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"classifier.weight", "classifier.bias"}


def test_joint_training_reports_and_keeps_prompts_that_moved(tmp_path, init_dir) -> None:
    config = semples_config(mask="sigmoid", refine_weight=0.4, area_weight=0.2)
    metrics = _join(tmp_path, init_dir, semples=config)
    names = ("foreground", "background", "area", "prompts", "image", "text")
    terms = {name: metrics[f"loss/{name}"] for name in names}
    weights = {"foreground": 1.0, "background": 2.4, "area": 0.2, "prompts": 0.4, "image": 1.0, "text": 0.3}
    assert metrics["loss"] == pytest.approx(sum(weights[name] * value for name, value in terms.items()), rel=1e-4)
    stored = load_prompts(str(tmp_path / "run/latest" / PROMPTS_DIR), clip_fingerprint=shipped_clip().fingerprint())
    start, template = start_of_prompts(shipped_clip(), config.prompt, 3, seed=0)
    assert stored.class_names == write_pictures(tmp_path).class_names and stored.template == template
    assert (stored.vectors - start).abs().max() > 1e-3


def test_prompts_of_joint_training_have_their_own_rate(tmp_path, init_dir) -> None:
    """One step of AdamW moves every number by its rate."""
    optim = dataclasses.replace(OPTIM, epochs=1, batch_size=12, weight_decay=0.0, schedule="constant")
    config = semples_config(prompt=prompt_config(lr=0.003))
    _join(tmp_path, init_dir, semples=config, optim=optim)
    start, _ = start_of_prompts(shipped_clip(), config.prompt, 3, seed=0)
    moved = load_prompts(str(tmp_path / "run/latest" / PROMPTS_DIR)).vectors - start
    assert moved.abs().max() == pytest.approx(0.003, rel=1e-2)
    backbone = "backbone.stem.0.weight"
    change = _weights(tmp_path / "run/latest")[backbone] - _weights(tmp_path / "init")[backbone]
    assert change.abs().max() == pytest.approx(OPTIM.lr, rel=1e-2)


def test_bf16_changes_little(tmp_path, init_dir) -> None:
    half = load_clip(str(clip_dir()), None, device="cpu", dtype=torch.bfloat16, mask_adapted=False)
    shared = {"class_texts": texts_near(shipped_clip(), 3, seed=3), "prompts": texts_near(shipped_clip(), 3, seed=4)}
    shared["optim"] = dataclasses.replace(OPTIM, epochs=1, batch_size=12)  # one step
    full = _match(tmp_path, init_dir, clip=shipped_clip(), context=LocalContext(str(tmp_path / "full")), **shared)
    found = _match(tmp_path, init_dir, clip=half, precision="bf16", **shared)
    assert found["loss"] == pytest.approx(full["loss"], rel=0.05) and found["loss"] != full["loss"]


# --- going on from a checkpoint


@pytest.mark.parametrize(
    "changes",
    [
        {"mask": "sigmoid"},
        {"mask_epsilon": 0.2},
        {"omega": 0.3},
        {"clip_normalisation": "clip"},
        {"antialias": True},
        {"background_weight": 1.0},
        {"area_weight": 1.0},
        {"train_scope": "head"},
        {"freeze_batch_norm": False},
    ],
)
def test_a_checkpoint_of_other_masks_or_weights_is_refused(tmp_path, init_dir, changes) -> None:
    with pytest.raises(StoppedError):
        _match(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "run")))
    with pytest.raises(ArtifactError, match="belongs to a training with seed 0 and settings"):
        _match(tmp_path, init_dir, semples=semples_config(**changes))


def test_what_matching_does_not_depend_on_may_change(tmp_path, init_dir) -> None:
    """Systems share matching: whichever comes first after a stop goes on with it."""
    with pytest.raises(StoppedError):
        _match(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "run")))
    other = semples_config(refine_weight=3.0, rounds=2, refine_init="matched", prompt=prompt_config(length=5))
    _match(tmp_path, init_dir, semples=other)
    with pytest.raises(StoppedError):
        _refine(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "refine")))
    with pytest.raises(ArtifactError, match="belongs to a training"):
        _refine(tmp_path, init_dir, semples=other, context=LocalContext(str(tmp_path / "refine")))


def test_joint_training_depends_on_the_prompt_settings(tmp_path, init_dir) -> None:
    with pytest.raises(StoppedError):
        _join(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "run")))
    with pytest.raises(ArtifactError, match="belongs to a training"):
        _join(tmp_path, init_dir, semples=semples_config(prompt=prompt_config(similarity="clamp")))


def test_a_network_of_other_classes_is_refused(tmp_path, init_dir) -> None:
    manifest = dataclasses.replace(write_pictures(tmp_path), class_names=("a", "b", "c", "d"))
    for train in (_match, _join):
        with pytest.raises(ArtifactError, match="3 classes, the data set 4"):
            train(tmp_path, init_dir, manifest=manifest)


# --- single steps: what receives a gradient


def _network(config: CamNetConfig = CAM_NET):
    torch.manual_seed(0)
    network = build_cam_net(config, 3).eval()
    network.classifier.weight.data *= 60  # maps with structure
    return network


def _step(labels=LABELS, *, clip=None, prompts=None, network=None, **changes):
    clip, network = clip or TinyClip(), network or _network()
    labels = torch.tensor(labels, dtype=torch.float32)
    result = matching_step(
        network,
        {"image": bright_images(len(labels), 32, seed=1), "labels": labels},
        regions=semples_regions(clip, semples_config(**changes)),
        class_texts=texts_near(clip, 3, seed=3),
        prompts=prompts,
        semples=semples_config(**changes),
    )
    result.loss.backward()
    return result, network


def test_gradients_reach_the_network_but_neither_clip_nor_the_prompts() -> None:
    clip = shipped_clip()
    vectors, template = start_of_prompts(clip, prompt_config(), 3, seed=0)
    with torch.no_grad():
        prompts = encode_prompts(clip, LearnedPrompts(vectors).vectors, template)
    result, network = _step(clip=clip, prompts=prompts, mask="sigmoid", background_weight=0.0)
    assert result.counts == {"pairs": 4}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())
    assert not prompts.requires_grad and prompts.grad is None


@pytest.mark.parametrize("with_prompts", [False, True])
def test_a_batch_without_labels_still_depends_on_the_network(with_prompts) -> None:
    prompts = texts_near(TinyClip(), 3, seed=4) if with_prompts else None
    clip = TinyClip()
    result, network = _step([[0, 0, 0]], clip=clip, prompts=prompts, area_weight=1.0)
    assert result.loss.item() == 0 and result.counts == {"pairs": 0}
    assert all(p.grad is not None and p.grad.abs().max() == 0 for p in network.parameters())
    # Workers with pairs and workers without must report the same figures, in the same order.
    assert list(result.means) == list(_step(prompts=prompts)[0].means)


def test_overflowing_maps_of_a_batch_without_labels_do_no_harm() -> None:
    network = _network()
    network.classifier.weight.data *= float("inf")
    result, _ = _step([[0, 0, 0]], network=network)
    assert result.loss.item() == 0


def test_each_weight_switches_its_term_off() -> None:
    prompts = texts_near(TinyClip(), 3, seed=4)
    base = {"prompts": prompts, "area_weight": 0.3, "refine_weight": 0.5, "background_weight": 2.4}
    reference = _step(**base)[0]
    for name, term in (("background", "background"), ("area", "area"), ("refine", "prompts")):
        without = _step(**{**base, f"{name}_weight": 0.0})[0]
        part = base[f"{name}_weight"] * reference.means[f"loss/{term}"].item()
        assert part > 0
        assert (reference.loss - without.loss).item() == pytest.approx(part, rel=1e-3)


def test_every_switch_changes_the_loss() -> None:
    """No option may do nothing."""
    reference = _step()[0].loss.item()
    for changes in (
        {"mask": "sigmoid"},
        {"mask_epsilon": 1e-4},
        {"omega": 0.5},
        {"clip_normalisation": "clip"},
        {"antialias": True},
    ):
        assert _step(**changes)[0].loss.item() != reference, changes


def _joint_gradients(labels=LABELS, **changes):
    """Gradients of the generator's and the prompts' weights in a joint step."""
    clip, config = shipped_clip(), semples_config(mask="sigmoid", **changes)
    # A start on the side of the regions: else the refinement is clamped, and no gradient could go astray.
    uniform = dataclasses.replace(config.prompt, init="uniform")
    vectors, template = start_of_prompts(clip, uniform, 3, seed=0)
    network = _Joint(_network(), LearnedPrompts(vectors)).eval()
    labels = torch.tensor(labels, dtype=torch.float32)
    result = joint_step(
        network,
        {"image": bright_images(len(labels), 32, seed=1), "labels": labels},
        clip=clip,
        regions=semples_regions(clip, config),
        template=template,
        class_texts=texts_near(clip, 3, seed=3),
        semples=config,
    )
    result.loss.backward()
    assert all(p.grad is None for p in clip.parameters())
    return result, [p.grad for p in network.generator.parameters()], network.prompts.vectors.grad


def test_each_loss_of_joint_training_reaches_its_own_side_alone() -> None:
    result, generator, prompts = _joint_gradients()
    assert result.means["loss/prompts"] > 0.1
    assert prompts.abs().max() > 0 and all(gradient.abs().max() > 0 for gradient in generator)
    # Other weights of the generator's losses leave the prompts' gradient as it is, to the last bit, and vice versa.
    _, other, same = _joint_gradients(refine_weight=3.0, background_weight=0.1)
    assert torch.equal(same, prompts) and not torch.allclose(other[0], generator[0])
    _, same, other = _joint_gradients(prompt=prompt_config(image_weight=0.1, text_weight=2.0))
    assert all(map(torch.equal, same, generator)) and not torch.allclose(other, prompts)


def test_a_joint_step_without_labels_depends_on_both_sides() -> None:
    result, generator, prompts = _joint_gradients([[0, 0, 0]])
    assert result.loss.item() == 0 and prompts is not None and prompts.abs().max() == 0
    assert all(gradient is not None for gradient in generator)
    assert list(result.means) == list(_joint_gradients()[0].means)


@pytest.mark.parametrize("train", [_match, _refine, _join])
def test_a_network_that_breaks_ends_the_training_with_the_images(tmp_path, init_dir, monkeypatch, train) -> None:
    error_of(monkeypatch, lambda: train(tmp_path, init_dir))

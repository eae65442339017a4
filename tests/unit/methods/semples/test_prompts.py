import dataclasses

import pytest
import torch
from torch import Tensor

from qaclims_ray.data.datasets import GlobalBatchSampler, ImageLabelDataset, seed_of
from qaclims_ray.data.images import load_image, training_crop
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.methods.regions import resize_bilinear
from qaclims_ray.methods.semples.matching import region_options
from qaclims_ray.methods.semples.prompts import (
    BackgroundFeatures,
    FeatureDraws,
    PromptContrast,
    background_features,
    load_vectors,
    prompt_step,
    start_of_prompts,
    train_prompts,
)
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.clip.prompts import LearnedPrompts, encode_prompts, load_prompts, save_prompts
from qaclims_ray.models.generators.cam_net import build_cam_net, load_cam_net, save_cam_net
from qaclims_ray.training.context import LocalContext, gather_rows
from tests.diverging import error_of
from tests.ritc_fakes import AUGMENT, CAM_NET, TinyClip, regions_of, with_setup, write_pictures
from tests.semples_fakes import prompt_config, semples_config, shipped_clip, texts_near
from tests.unit.training.test_loop import StoppedError, StoppingContext

OPTIONS = region_options(semples_config(mask="sigmoid"), epsilon=1e-4)
CUT = dataclasses.replace(AUGMENT, crop_px=24)  # smaller than the pictures, so that views differ


@pytest.fixture
def init_dir(tmp_path) -> str:
    torch.manual_seed(0)
    network = build_cam_net(CAM_NET, 3, classifier_bias=True)
    network.classifier.weight.data *= 60
    save_cam_net(network, str(tmp_path / "init"))
    return str(tmp_path / "init")


def _train(tmp_path, init_dir, **changes) -> dict[str, float]:
    settings = prompt_config(**changes.pop("prompt", {}))
    clip = changes.get("clip", shipped_clip())
    options = {
        "manifest": write_pictures(tmp_path),
        "clip": clip,
        "class_texts": texts_near(clip, 3, seed=3),
        "cam_net": CAM_NET,
        "augment": CUT,
        "semples": semples_config(prompt=settings),
        "options": OPTIONS,
        "init_dir": init_dir,
        "precision": "fp32",
        "loader_workers": 0,
        "seed": 0,
        "context": LocalContext(str(tmp_path / "run")),
    }
    return train_prompts(**with_setup(**{**options, **changes}))


def _learned(tmp_path, name: str = "run") -> Tensor:
    return load_prompts(str(tmp_path / name / "latest")).vectors


# --- whole trainings


def test_learning_brings_prompts_towards_backgrounds_and_away_from_the_class(tmp_path, init_dir) -> None:
    context = LocalContext(str(tmp_path / "run"))
    metrics = _train(tmp_path, init_dir, context=context, prompt={"epochs": 6, "lr": 0.05, "batch_size": 16})
    assert set(metrics) == {"loss", "loss/image", "loss/text", "lr", "images_per_s"}
    assert metrics["loss"] == pytest.approx(metrics["loss/image"] + 0.3 * metrics["loss/text"], rel=1e-5)
    assert context.reports[-1]["loss/image"] < context.reports[0]["loss/image"] - 0.01
    stored = load_prompts(str(tmp_path / "run/latest"), clip_fingerprint=shipped_clip().fingerprint())
    assert stored.class_names == write_pictures(tmp_path).class_names and stored.vectors.shape == (3, 3, 64)


def test_no_epochs_keep_exactly_the_random_start(tmp_path) -> None:
    """And need no mask generator."""
    context = LocalContext(str(tmp_path / "run"))
    metrics = _train(tmp_path, str(tmp_path / "nowhere"), prompt={"learn": False}, context=context)
    assert metrics == {"loss": 0.0} and context.reports == [metrics]
    start, template = start_of_prompts(shipped_clip(), prompt_config(), 3, seed=0)
    stored = load_prompts(str(tmp_path / "run/latest"))
    assert torch.equal(stored.vectors, start) and stored.template == template
    assert not torch.equal(start, start_of_prompts(shipped_clip(), prompt_config(), 3, seed=1)[0])


def test_a_resumed_training_equals_the_uninterrupted_one_bit_for_bit(tmp_path, init_dir) -> None:
    metrics = _train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "whole")), prompt={"epochs": 3})
    for _ in range(2):
        with pytest.raises(StoppedError):
            _train(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "parts")), prompt={"epochs": 3})
    resumed = _train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "parts")), prompt={"epochs": 3})
    assert resumed["loss"] == metrics["loss"]
    assert torch.equal(_learned(tmp_path, "parts"), _learned(tmp_path, "whole"))


def test_generator_and_clip_stay_as_they_are(tmp_path, init_dir, monkeypatch) -> None:
    clip = shipped_clip()
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    networks = []

    def remember(network, *arguments, **options):
        networks.append(network)
        return background_features(network, *arguments, **options)

    monkeypatch.setattr("qaclims_ray.methods.semples.prompts.background_features", remember)
    _train(tmp_path, init_dir)
    start = load_cam_net(init_dir).state_dict()
    assert all(torch.equal(value, start[name]) for name, value in networks[0].state_dict().items())
    assert all(p.grad is None for p in [*networks[0].parameters(), *clip.parameters()])
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [{"image_weight": 0.5}, {"text_weight": 0.1}, {"similarity": "clamp"}, {"num_views": 3}, {"prefix": "a"}],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, init_dir, changes) -> None:
    with pytest.raises(StoppedError):
        _train(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "run")))
    with pytest.raises(ArtifactError, match="belongs to a training with seed 0 and settings"):
        _train(tmp_path, init_dir, prompt=changes)


def test_a_checkpoint_of_other_regions_is_refused(tmp_path, init_dir) -> None:
    with pytest.raises(StoppedError):
        _train(tmp_path, init_dir, context=StoppingContext(str(tmp_path / "run")))
    with pytest.raises(ArtifactError, match="belongs to a training"):
        _train(tmp_path, init_dir, options=dataclasses.replace(OPTIONS, omega=0.2, mode="pixel_mask"))


def test_every_setting_changes_the_prompts(tmp_path, init_dir) -> None:
    """No option may do nothing."""
    reference = _train(tmp_path, init_dir, prompt={"epochs": 1}) and _learned(tmp_path)
    for number, changes in enumerate(
        (
            {"prompt": {"image_weight": 0.0}},
            {"prompt": {"text_weight": 0.0}},
            {"prompt": {"similarity": "clamp"}},
            {"prompt": {"init": "normal"}},
            {"prompt": {"prefix": "a"}},
            {"prompt": {"num_views": 1}},
            {"prompt": {"steps_per_epoch": 4}},
            {"prompt": {"weight_decay": 0.5}},
            {"prompt": {"schedule": "constant"}},
            {"prompt": {"lr": 0.01}},
            {"options": dataclasses.replace(OPTIONS, mask="minmax")},
            {"seed": 1},
        )
    ):
        options = {**changes, "prompt": {"epochs": 1, **changes.get("prompt", {})}}
        _train(tmp_path, init_dir, context=LocalContext(str(tmp_path / str(number))), **options)
        assert not torch.equal(_learned(tmp_path, str(number)), reference), changes


def test_heavy_augmentation_is_left_out(tmp_path, init_dir) -> None:
    heavy = dataclasses.replace(CUT, rand_augment_magnitude=9, erasing_probability=1.0)
    for name, augment in (("cut", CUT), ("heavy", heavy)):
        _train(tmp_path, init_dir, augment=augment, prompt={"epochs": 1}, context=LocalContext(str(tmp_path / name)))
    assert torch.equal(_learned(tmp_path, "cut"), _learned(tmp_path, "heavy"))


def test_bf16_learns_about_the_same(tmp_path, init_dir) -> None:
    half = load_clip(str(clip_dir()), None, device="cpu", dtype=torch.bfloat16, mask_adapted=False)
    one_step = {"epochs": 1, "steps_per_epoch": 1, "batch_size": 32}
    full = _train(tmp_path, init_dir, context=LocalContext(str(tmp_path / "full")), prompt=one_step)
    texts = texts_near(shipped_clip(), 3, seed=3)
    found = _train(tmp_path, init_dir, clip=half, class_texts=texts, precision="bf16", prompt=one_step)
    assert found["loss"] == pytest.approx(full["loss"], rel=0.05) and found["loss"] != full["loss"]
    assert _learned(tmp_path).dtype == torch.float32


def test_what_cannot_be_learned_from_is_refused(tmp_path, init_dir) -> None:
    bare = Manifest(("a", "b", "c"), tuple(
        dataclasses.replace(record, labels=()) for record in write_pictures(tmp_path).records
    ))  # fmt: skip
    with pytest.raises(DataError, match="no training image shows a class"):
        _train(tmp_path, init_dir, manifest=bare)
    with pytest.raises(ArtifactError, match="no trained network"):
        _train(tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="does not fit into the 24 tokens"):
        _train(tmp_path, init_dir, prompt={"length": 30})


# --- the cache


def _uncached_row(network, clip, manifest: Manifest, view: int, index: int, class_id: int) -> Tensor:
    """v_b computed by hand from the crop of one image in one epoch."""
    generator = torch.Generator().manual_seed(seed_of("crop", 0, view, index))
    picture = load_image(manifest.records[index].image_uri)
    crop = training_crop(picture, CUT.light(), CAM_NET.image_mean, CAM_NET.image_std, generator)[None]
    mask = resize_bilinear(network(crop)[:, class_id : class_id + 1].sigmoid(), clip.image_size)
    return clip.encode_regions(resize_bilinear(crop, clip.image_size) * (1 - mask))[0]


def test_cached_prompt_learning_equals_the_uncached_one_on_the_same_views(tmp_path, init_dir) -> None:
    settings = {"epochs": 2, "steps_per_epoch": 2, "batch_size": 6, "lr": 0.05, "weight_decay": 0.1}
    _train(tmp_path, init_dir, prompt=settings, seed=0)
    cached = _learned(tmp_path)

    clip, manifest, network = shipped_clip(), write_pictures(tmp_path), load_cam_net(init_dir).eval()
    texts = texts_near(clip, 3, seed=3)
    rows = [
        (view, index, class_id)
        for view in range(2)
        for index, record in enumerate(manifest.records)
        for class_id in record.labels
    ]
    vectors, template = start_of_prompts(clip, prompt_config(**settings), 3, seed=0)
    prompts = LearnedPrompts(vectors)
    optimizer = torch.optim.AdamW(prompts.parameters(), lr=0.05, weight_decay=0.1)
    for epoch in range(2):
        draw = torch.Generator().manual_seed(seed_of("features", 0, epoch))
        drawn = torch.randint(len(rows), (12,), generator=draw).tolist()
        sampler = GlobalBatchSampler(12, 6, 0, 1, seed=0)
        sampler.set_epoch(epoch)
        for step, positions in enumerate(sampler, start=2 * epoch):
            optimizer.param_groups[0]["lr"] = 0.05 * (1 + torch.cos(torch.tensor(torch.pi * step / 4)).item()) / 2
            encoded = encode_prompts(clip, prompts.vectors, template)
            loss = torch.zeros(())
            for view, index, class_id in (rows[drawn[position]] for position in positions):
                with torch.no_grad():  # the mask generator runs again at every step
                    background = _uncached_row(network, clip, manifest, view, index, class_id)
                image = -torch.log((1 + encoded[class_id] @ background) / 2)
                text = torch.log((1 + encoded[class_id] @ texts[class_id]) / 2)
                loss = loss + (image + 0.3 * text) / 6
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (cached - vectors).abs().max() > 0.05
    torch.testing.assert_close(cached, prompts.vectors.detach(), rtol=1e-3, atol=1e-4)


def _cache(tmp_path, *, num_views: int = 2, clip=None, context=None, network=None) -> BackgroundFeatures:
    manifest = write_pictures(tmp_path)
    torch.manual_seed(0)
    return background_features(
        network or build_cam_net(CAM_NET, 3),
        ImageLabelDataset(manifest, CUT, CAM_NET.image_mean, CAM_NET.image_std, 0),
        regions=regions_of(clip or TinyClip(), OPTIONS),
        num_views=num_views,
        loader_workers=0,
        context=context or LocalContext(str(tmp_path)),
    )


def test_features_come_by_view_then_image_then_class_and_views_differ(tmp_path) -> None:
    records = write_pictures(tmp_path).records
    network, clip = build_cam_net(CAM_NET, 3), TinyClip()
    found = _cache(tmp_path, network=network, clip=clip, num_views=3)
    labels = [label for record in records for label in record.labels]
    assert found.class_ids.tolist() == labels * 3 and len(labels) > len(records) / 2
    views = found.features.unflatten(0, (3, -1))
    assert (views[0] - views[1]).abs().max() > 1e-3 and (views[1] - views[2]).abs().max() > 1e-3
    again = _cache(tmp_path, network=network, clip=clip)
    torch.testing.assert_close(again.features, views[:2].flatten(0, 1))
    position = 0
    for index, record in enumerate(records):
        for class_id in record.labels:
            expected = _uncached_row(network.eval(), clip, write_pictures(tmp_path), 1, index, class_id)
            torch.testing.assert_close(views[1, position], expected)
            position += 1


def test_the_network_is_evaluated_and_given_back_as_it_was(tmp_path) -> None:
    network = build_cam_net(CAM_NET, 3).train()
    statistics = network.backbone.stem[1].running_mean.clone()
    found = _cache(tmp_path, network=network)
    assert network.training and torch.equal(network.backbone.stem[1].running_mean, statistics)
    assert not found.features.requires_grad
    torch.testing.assert_close(_cache(tmp_path, network=network.eval()).features, found.features)
    assert not network.training


def test_each_worker_computes_its_share(tmp_path, monkeypatch) -> None:
    """Put together by hand, the shares of two workers are the features of one."""
    shares = []
    for rank in range(2):
        context = LocalContext(str(tmp_path))
        context.rank, context.world_size = rank, 2
        monkeypatch.setattr(
            "qaclims_ray.methods.semples.prompts.gather_rows", lambda rows, _: shares.append(rows) or rows
        )
        _cache(tmp_path, context=context)
    parities = [{int(index) % 2 for index in share[:, 1]} for share in shares]
    assert parities == [{0}, {1}] and len(shares[0]) != len(shares[1])
    monkeypatch.setattr("qaclims_ray.methods.semples.prompts.gather_rows", lambda rows, _: torch.cat(shares[::-1]))
    found = _cache(tmp_path)
    monkeypatch.undo()
    expected = _cache(tmp_path)
    assert torch.equal(found.class_ids, expected.class_ids)
    torch.testing.assert_close(found.features, expected.features)


def test_gathering_the_rows_of_one_worker_changes_nothing(tmp_path) -> None:
    rows = torch.randn(4, 3)
    assert torch.equal(gather_rows(rows, LocalContext(str(tmp_path))), rows)
    assert gather_rows(torch.zeros(0, 7), LocalContext(str(tmp_path))).shape[0] == 0


# --- steps and draws


def test_draws_depend_on_seed_and_epoch_alone() -> None:
    rows = torch.arange(50)
    cached = BackgroundFeatures(features=rows[:, None].float(), class_ids=rows, positions=rows + 1)

    def drawn(seed: int, epoch: int) -> list[int]:
        draws = FeatureDraws(cached, Manifest(("a",), ()), num_draws=40, seed=seed)
        draws.set_epoch(7)
        draws.set_epoch(epoch)
        items = [draws[index] for index in range(len(draws))]
        assert all(item["feature"].item() == item["class_id"].item() for item in items)
        return [int(item["class_id"]) for item in items]

    assert drawn(0, 1) == drawn(0, 1) and len(drawn(0, 1)) == 40
    assert drawn(0, 1) != drawn(0, 2) and drawn(0, 1) != drawn(1, 1)


def test_prompts_receive_a_gradient_and_nothing_else_does() -> None:
    clip, settings = shipped_clip(), prompt_config(batch_size=4)
    vectors, template = start_of_prompts(clip, settings, 3, seed=0)
    prompts, texts = LearnedPrompts(vectors), texts_near(clip, 3, seed=3).requires_grad_(False)
    batch = {"feature": texts_near(clip, 4, seed=5), "class_id": torch.tensor([0, 0, 2, 0])}
    contrast = PromptContrast(clip=clip, template=template, class_texts=texts, settings=settings)
    result = prompt_step(prompts, batch, contrast=contrast)
    result.loss.backward()
    gradient = prompts.vectors.grad
    assert gradient[0].abs().max() > 0 < gradient[2].abs().max() and gradient[1].abs().max() == 0
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())
    assert result.means["loss/image"] > 0 > result.means["loss/text"]


def test_prompts_of_another_shape_are_refused(tmp_path) -> None:
    clip = shipped_clip()
    vectors, template = start_of_prompts(clip, prompt_config(length=4), 3, seed=0)
    save_prompts(str(tmp_path), vectors, template=template, class_names=list("abc"), clip_fingerprint="x")
    prompts = LearnedPrompts(torch.zeros(3, 4, 64))
    load_vectors(prompts, str(tmp_path))
    assert torch.equal(prompts.vectors, vectors) and prompts.vectors.requires_grad
    with pytest.raises(ArtifactError, match="do not fit this training"):
        load_vectors(LearnedPrompts(torch.zeros(3, 5, 64)), str(tmp_path))


def test_prompts_that_break_end_the_training_with_the_images_of_the_features(tmp_path, init_dir, monkeypatch) -> None:
    error_of(monkeypatch, lambda: _train(tmp_path, init_dir))

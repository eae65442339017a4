import dataclasses

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.methods.qa_clims.task import ritc_regions, ritc_step, train_ritc
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.generators.cam_net import build_cam_net, save_cam_net
from qaclims_ray.text.bank import build_bank
from qaclims_ray.text.config import TextConfig
from qaclims_ray.training.context import LocalContext
from tests.diverging import error_of
from tests.ritc_fakes import AUGMENT, CAM_NET, TinyClip, TinyTexts, regions_of, ritc_config, with_setup, write_pictures


@pytest.fixture
def init_dir(tmp_path) -> str:
    torch.manual_seed(0)
    save_cam_net(build_cam_net(CAM_NET, 3, classifier_bias=True), str(tmp_path / "init"))
    return str(tmp_path / "init")


def _train(tmp_path, init_dir, **changes) -> dict[str, float]:
    options = {
        "manifest": write_pictures(tmp_path),
        "bank": TinyTexts(12),
        "clip": TinyClip(),
        "cam_net": CAM_NET,
        "augment": AUGMENT,
        "ritc": ritc_config(),
        "init_dir": init_dir,
        "precision": "fp32",
        "loader_workers": 0,
        "seed": 0,
        "context": LocalContext(str(tmp_path / "run")),
    }
    return train_ritc(**with_setup(**{**options, **changes}))


def test_training_lowers_the_loss_and_reports_its_parts(tmp_path, init_dir) -> None:
    config = ritc_config(pair_reduction="mean_pairs", area_over="present", temperature=0.1, region_mode="none")
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, name="adamw", epochs=10, lr=1e-3))
    context = LocalContext(str(tmp_path / "run"))
    still = dataclasses.replace(AUGMENT, flip=False)
    metrics = _train(tmp_path, init_dir, ritc=config, context=context, augment=still)
    assert set(metrics) == {
        "loss", "loss/foreground", "loss/background", "loss/area", "pairs", "pairs_skipped", "lr", "images_per_s"
    }  # fmt: skip
    assert context.reports[-1]["loss"] < 0.7 * context.reports[0]["loss"]
    manifest = write_pictures(tmp_path)
    skipped = sum((int(r.image_id) + label) % 4 == 0 for r in manifest.records for label in r.labels)
    assert metrics["pairs_skipped"] == skipped > 0
    assert metrics["pairs"] == sum(len(r.labels) for r in manifest.records) - skipped
    total = 10 * metrics["loss/foreground"] + 8 * metrics["loss/background"] + 0.2 * metrics["loss/area"]
    assert metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_checkpoints_hold_the_network_alone(tmp_path, init_dir) -> None:
    _train(tmp_path, init_dir)
    names = set(load_file(tmp_path / "run/latest/network.safetensors"))
    assert names == set(build_cam_net(CAM_NET, 3, classifier_bias=True).state_dict())


def test_a_rating_chooses_the_epoch_that_is_kept(tmp_path, init_dir) -> None:
    ratings = iter([0.7, 0.9, 0.8])
    kept = []

    def rate(network) -> float:
        kept.append(network.classifier.weight.detach().clone())
        return next(ratings)

    config = ritc_config(optim=dataclasses.replace(ritc_config().optim, epochs=3))
    metrics = _train(tmp_path, init_dir, rate=rate, ritc=config)
    assert metrics["selection/best"] == 0.9 and len(kept) == 3 and not torch.equal(kept[1], kept[2])
    assert torch.equal(load_file(tmp_path / "run/latest/network.safetensors")["classifier.weight"], kept[1])


def test_a_real_text_bank_fits(tmp_path, init_dir) -> None:
    def encode(texts: list[str]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(len(texts))
        return torch.nn.functional.normalize(torch.randn(len(texts), 6, generator=generator), dim=-1)

    manifest = write_pictures(tmp_path)
    bank = build_bank(None, manifest, TextConfig(source="class_names"), encode)
    assert _train(tmp_path, init_dir, manifest=manifest, bank=bank)["pairs_skipped"] == 0


@pytest.mark.parametrize("mode", ["token_mask", "both"])
def test_token_masks_need_mask_tokens(tmp_path, init_dir, mode) -> None:
    plain = TinyClip(is_mask_adapted=False)
    with pytest.raises(ConfigError, match=f"ritc.region_mode is {mode}, but this CLIP has no mask tokens"):
        _train(tmp_path, init_dir, clip=plain, ritc=ritc_config(region_mode=mode))
    assert plain.num_calls == 0


def test_what_does_not_belong_together_is_refused_before_training(tmp_path, init_dir) -> None:
    with pytest.raises(ArtifactError, match="another CLIP"):
        _train(tmp_path, init_dir, clip=TinyClip(dim=9))
    with pytest.raises(ArtifactError, match="no trained network"):
        _train(tmp_path, str(tmp_path / "nowhere"))
    with pytest.raises(ArtifactError, match="train the classifier again"):
        _train(tmp_path, init_dir, cam_net=dataclasses.replace(CAM_NET, image_mean=(0.1, 0.1, 0.1)))
    manifest = dataclasses.replace(write_pictures(tmp_path), class_names=("a", "b", "c", "d"))
    with pytest.raises(ArtifactError, match="3 classes, the data set 4"):
        _train(tmp_path, init_dir, manifest=manifest)
    assert not (tmp_path / "run/latest").exists()


def test_missing_texts_are_found_before_the_first_step(tmp_path, init_dir) -> None:
    class Holes(TinyTexts):
        def lookup(self, image_ids, class_ids):
            if "7" in image_ids:
                raise ArtifactError("the text bank has no texts for 7")
            return super().lookup(image_ids, class_ids)

    clip = TinyClip()
    with pytest.raises(ArtifactError, match="no texts for 7"):
        _train(tmp_path, init_dir, bank=Holes(12), clip=clip)
    assert clip.num_calls == 0


def _step(labels, clip=None, network=None, **changes):
    torch.manual_seed(0)
    network = network or build_cam_net(CAM_NET, 3).eval()
    labels = torch.tensor(labels, dtype=torch.float32)
    batch = {"image": torch.randn(len(labels), 3, 32, 32), "labels": labels}
    ids = [str(index + 1) for index in range(len(labels))]
    ritc = ritc_config(**changes)
    options = {"bank": TinyTexts(8), "regions": regions_of(clip or TinyClip(), ritc_regions(ritc)), "ritc": ritc}
    result = ritc_step(network, batch, ids, images_per_step=len(labels), **options)
    result.loss.backward()
    return result, network


def test_gradients_flow_through_clip_but_not_into_it() -> None:
    clip = TinyClip()
    result, network = _step([[1, 0, 1], [1, 1, 0]], clip, area_weight=0.0)
    assert all(p.grad is None for p in clip.parameters())
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
    assert clip.num_calls == 1 and result.counts["pairs"] == 4


@pytest.mark.parametrize("area_over", ["all", "present"])
@pytest.mark.parametrize("reduction", ["official", "mean_pairs"])
def test_a_batch_without_labels_still_depends_on_the_network(area_over, reduction) -> None:
    result, network = _step([[0, 0, 0]], area_over=area_over, pair_reduction=reduction)
    assert all(p.grad is not None for p in network.parameters())
    assert result.counts == {"pairs": 0, "pairs_skipped": 0}
    assert (result.loss.item() > 0) == (area_over == "all")
    assert result.means["loss/foreground"] == 0


def test_one_label_in_one_image_and_pairs_without_texts() -> None:
    assert _step([[0, 1, 0]])[0].counts == {"pairs": 1, "pairs_skipped": 0}
    # Images 2 and 3, classes 2 and 1: (2 + 2) % 4 == (3 + 1) % 4 == 0 texts.
    clip = TinyClip()
    result, network = _step([[0, 0, 0], [0, 0, 1], [0, 1, 0]], clip)
    assert result.counts == {"pairs": 0, "pairs_skipped": 2} and clip.num_calls == 0
    assert result.loss.item() == pytest.approx(0.2 * result.means["loss/area"].item())
    assert all(p.grad is not None for p in network.parameters())


def test_each_weight_switches_its_term_off() -> None:
    reference = _step([[1, 0, 1], [1, 1, 0]])[0]
    for name, weight in (("foreground_weight", 10.0), ("background_weight", 8.0), ("area_weight", 0.2)):
        without = _step([[1, 0, 1], [1, 1, 0]], **{name: 0.0})[0]
        term = reference.means[f"loss/{name.removesuffix('_weight')}"].item()
        assert (reference.loss - without.loss).item() == pytest.approx(weight * term, rel=1e-4)


def _open_clip(dim: int = 6) -> FrozenClip:
    torch.manual_seed(0)
    vision = {"image_size": 24, "layers": 4, "width": 32, "patch_size": 8, "head_width": 16}
    text = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}
    model = open_clip.CLIP(dim, vision, text)
    open_clip.model.set_model_preprocess_cfg(model, {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)})
    return FrozenClip(model, open_clip.get_tokenizer("ViT-B-32"), mask_embedding=torch.randn(3, 9, 32))


def test_the_real_frozen_clip_supervises_and_stays_as_it_is(tmp_path, init_dir) -> None:
    clip = _open_clip()
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    result, network = _step([[1, 0, 1], [1, 1, 0]], clip, area_weight=0.0, temperature=0.1)
    assert result.counts["pairs"] == 4
    assert all(p.grad is None and not p.requires_grad for p in clip.parameters())
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    _train(tmp_path, init_dir, clip=clip)
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())


def test_every_switch_changes_the_loss() -> None:
    """No option may do nothing."""
    labels = [[1, 0, 1], [1, 1, 0]]

    def loss(**changes) -> float:
        torch.manual_seed(3)
        network = build_cam_net(CAM_NET, 3).eval()
        network.classifier.weight.data *= 100  # maps with structure
        return _step(labels, _open_clip(), network, **{"omega": 0.97, **changes})[0].loss.item()

    reference = loss()
    for changes in (
        {"region_mode": "pixel_mask"},
        {"region_mode": "both"},
        {"region_mode": "none"},
        {"omega": 0.8},
        {"max_at": "cam"},
        {"clip_normalisation": "clip"},
        {"antialias": True},
        {"background_pool": "exp_mean"},
        {"pair_reduction": "mean_pairs"},
        {"area_over": "present"},
        {"temperature": 0.6},
    ):
        assert loss(**changes) != reference, changes


def test_a_network_that_breaks_ends_the_training_with_the_images(tmp_path, init_dir, monkeypatch) -> None:
    error = error_of(monkeypatch, lambda: _train(tmp_path, init_dir))
    assert "(loss/" in str(error), "the terms that are not finite are named"

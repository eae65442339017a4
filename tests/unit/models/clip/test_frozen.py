import json
import logging
import shutil
import zipfile
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from qaclims_ray.errors import ModelError
from qaclims_ray.miniature.clip_folder import ClipShape, build_clip, write_skeleton, write_weights
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip

SHAPE = ClipShape(width=16, layers=2, heads=2, mask_depth=2, text_width=16, text_layers=1, embed_dim=8)
ARCHITECTURE = "qaclims-test-tiny"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "clip"
    write_skeleton(folder, SHAPE)
    write_weights(folder, *build_clip(SHAPE, seed=0))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "clip"))


@pytest.fixture(scope="module")
def clip(made: Path) -> FrozenClip:
    return load_clip(str(made), None, device="cpu", mask_adapted=True)


@pytest.fixture(scope="module", autouse=True)
def architectures(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make two tiny architectures known to open_clip, with and without QuickGELU, with OpenAI's vocabulary."""
    folder = tmp_path_factory.mktemp("configs")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
    }
    (folder / f"{ARCHITECTURE}.json").write_text(json.dumps(config))
    (folder / f"{ARCHITECTURE}-quickgelu.json").write_text(json.dumps(config | {"quick_gelu": True}))
    open_clip.add_model_config(folder)


def _state() -> dict[str, Tensor]:
    return {key: value.clone() for key, value in open_clip.create_model(ARCHITECTURE).state_dict().items()}


def _load(folder: Path, **changes: object) -> FrozenClip:
    return load_clip(str(folder), None, **({"device": "cpu", "mask_adapted": True} | changes))


def test_embeddings_are_normalised_float32(clip: FrozenClip) -> None:
    pixels = torch.randn(3, 3, 64, 64)
    for mask in (None, torch.ones(3, 1, 64, 64)):
        regions = clip.encode_regions(pixels, mask)
        assert regions.shape == (3, 8) and regions.dtype == torch.float32
        torch.testing.assert_close(regions.norm(dim=1), torch.ones(3))
    texts = clip.encode_texts(["a photo of a dog", "a photo of no dog."])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(2))
    assert clip.encode_texts([]).shape == (0, 8)
    assert (clip.image_size, clip.mean, clip.std) == (64, (0.5,) * 3, (0.25,) * 3)


def test_texts_are_batched_without_changing_them(clip: FrozenClip, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"a photo of {name}" for name in ("dog", "bird on tree", "TRAIN.", "no boat", "sheep")]
    whole = clip.encode_texts(texts)
    monkeypatch.setattr("qaclims_ray.models.clip.frozen.TEXT_BATCH", 2)
    torch.testing.assert_close(clip.encode_texts(texts), whole)
    torch.testing.assert_close(clip.encode_texts(["a photo of train ."]), whole[2:3])


def test_gradients_reach_the_pixels_and_nothing_else(clip: FrozenClip) -> None:
    pixels = torch.randn(2, 3, 64, 64, requires_grad=True)
    mask = torch.zeros(2, 1, 64, 64)
    mask[..., :32] = 1
    clip.train()
    clip.encode_regions(pixels, mask)[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad[..., :32].abs().sum() > 0
    assert pixels.grad[..., 32:].abs().sum() == 0
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in clip.parameters())
    assert not any(module.training for module in clip.modules())


def test_half_precision_weights_give_float32_embeddings(made: Path, clip: FrozenClip) -> None:
    half = _load(made, dtype=torch.bfloat16)
    pixels = torch.randn(2, 3, 64, 64)
    regions = half.encode_regions(pixels, torch.ones(2, 1, 64, 64))
    assert regions.dtype == torch.float32
    assert (regions * clip.encode_regions(pixels)).sum(1).min() > 0.98
    assert half.encode_texts(["dog"]).dtype == torch.float32


def test_the_fingerprint_tells_weights_apart(made: Path, folder: Path, clip: FrozenClip) -> None:
    assert _load(made).fingerprint() == clip.fingerprint()
    assert _load(made, mask_adapted=False).fingerprint() != clip.fingerprint()
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["visual.proj"][0, 0] += 1
    save_file(weights, folder / "open_clip_model.safetensors")
    assert _load(folder).fingerprint() != clip.fingerprint()


def test_a_plain_clip_takes_no_token_mask(made: Path) -> None:
    plain = _load(made, mask_adapted=False)
    assert not plain.is_mask_adapted
    with pytest.raises(ModelError, match="no mask tokens"):
        plain.encode_regions(torch.randn(1, 3, 64, 64), torch.ones(1, 1, 64, 64))


def test_regions_of_another_size_are_refused(clip: FrozenClip) -> None:
    with pytest.raises(ModelError, match="32x32 pixels, expected 64x64"):
        clip.encode_regions(torch.randn(1, 3, 32, 32))


def test_the_folder_builds_without_a_warning_about_random_weights(made: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _load(made)
    assert not caplog.records


def test_folder_without_tokens_is_a_plain_clip(folder: Path) -> None:
    (folder / "mask_tokens.safetensors").unlink()
    assert not _load(folder, mask_adapted=False).is_mask_adapted
    with pytest.raises(ModelError, match="holds no mask tokens"):
        _load(folder)


@pytest.mark.parametrize("name", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_missing_files_are_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"has no {name}; found .*tokenizer.json"):
        _load(folder.parent / "clip")


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        _load(tmp_path / "absent")


def test_a_missing_tokenizer_is_never_replaced(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelError, match=r"holds none of tokenizer\.json"):
        _load(folder)


def test_an_unnamed_tokenizer_is_refused(folder: Path) -> None:
    _change_config(folder, lambda config: config["text_cfg"].pop("hf_tokenizer_name"))
    with pytest.raises(ModelError, match=r"set text_cfg\.hf_tokenizer_name"):
        _load(folder)


def _change_config(folder: Path, change: object) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    change(config["model_cfg"])
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config.update(embed_dim=12), r"Other shape: .*\(16, 8\) instead of \(16, 12\)"),
        (lambda config: config["text_cfg"].update(layers=2), "Missing in the file: transformer.resblocks.1"),
        (
            lambda config: config["vision_cfg"].update(layers=1),
            "Unknown to the network: visual.transformer.resblocks.1",
        ),
        (lambda config: config["vision_cfg"].update(wheels=4), "cannot build"),
        (lambda config: config.pop("text_cfg"), "lacks 'text_cfg'"),
    ],
    ids=["dimension", "text layers", "vision layers", "unknown field", "no text tower"],
)
def test_weights_that_do_not_fit_are_listed(folder: Path, change: object, message: str) -> None:
    _change_config(folder, change)
    with pytest.raises(ModelError, match=message):
        _load(folder)


def test_a_vocabulary_too_large_for_the_text_tower_is_refused(folder: Path) -> None:
    _change_config(folder, lambda config: config["text_cfg"].update(vocab_size=50))
    weights = load_file(folder / "open_clip_model.safetensors")
    weights["token_embedding.weight"] = weights["token_embedding.weight"][:50].clone()
    save_file(weights, folder / "open_clip_model.safetensors")
    with pytest.raises(ModelError, match="the text tower knows 50"):
        _load(folder)


def test_broken_files_are_named(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"1000 bytes\) is no complete safetensors file"):
        _load(folder)
    (folder / "open_clip_config.json").write_text("{")
    with pytest.raises(ModelError, match="is no JSON"):
        _load(folder)


def test_mask_tokens_that_do_not_fit_are_refused(folder: Path) -> None:
    save_file({"mask_embedding": torch.zeros(2, 49, 16)}, folder / "mask_tokens.safetensors")
    with pytest.raises(ModelError, match=r"shape \(2, 49, 16\), expected \(depth, 64, 16\)"):
        _load(folder)
    save_file({"tokens": torch.zeros(2, 64, 16)}, folder / "mask_tokens.safetensors")
    with pytest.raises(ModelError, match="expected the key 'mask_embedding'"):
        _load(folder)


def test_a_folder_takes_no_other_weights(made: Path) -> None:
    with pytest.raises(ModelError, match="has its own weights"):
        load_clip(str(made), "openai", device="cpu", mask_adapted=False)


def _ovseg(path: Path, **changes: Tensor) -> Path:
    weights = _state() | {"visual.mask_embedding": torch.randn(2, 4, 16)} | changes
    torch.save({"state_dict": {f"module.{key}": value for key, value in weights.items()}}, path)
    return path


def test_ovseg_checkpoints_load_into_the_quickgelu_form(tmp_path: Path) -> None:
    path = _ovseg(tmp_path / "ovseg.pth")
    clip = load_clip(f"{ARCHITECTURE}-quickgelu", str(path), device="cpu", mask_adapted=True)
    assert clip.mask_embedding.shape == (2, 4, 16)
    assert clip.encode_regions(torch.randn(2, 3, 16, 16), torch.ones(2, 1, 16, 16)).shape == (2, 8)
    assert clip.encode_texts(["a photo of a dog", "no dog"]).shape == (2, 8)
    plain = load_clip(f"{ARCHITECTURE}-quickgelu", str(path), device="cpu", mask_adapted=False)
    assert not plain.is_mask_adapted


def test_the_clip_inside_a_whole_network_is_found_with_its_mask_tokens(tmp_path: Path) -> None:
    weights = _state() | {"visual.mask_embedding": torch.randn(2, 4, 16)}
    inside = {f"clip_adapter.clip_model.{key}": value for key, value in weights.items()}
    torch.save({"model": inside | {"backbone.conv.weight": torch.zeros(1)}, "iteration": 7}, tmp_path / "ovseg.pth")
    clip = load_clip(f"{ARCHITECTURE}-quickgelu", str(tmp_path / "ovseg.pth"), device="cpu", mask_adapted=True)
    assert torch.equal(clip.mask_embedding, weights["visual.mask_embedding"])
    assert torch.equal(clip.model.visual.proj, weights["visual.proj"])


def test_quickgelu_weights_are_refused_by_the_plain_form(tmp_path: Path) -> None:
    path = _ovseg(tmp_path / "ovseg.pth")
    with pytest.raises(ModelError, match=f"Use {ARCHITECTURE}-quickgelu"):
        load_clip(ARCHITECTURE, str(path), device="cpu", mask_adapted=True)
    torch.save(_state() | {"input_resolution": torch.tensor(16)}, tmp_path / "converted.pt")
    with pytest.raises(ModelError, match=f"Use {ARCHITECTURE}-quickgelu"):
        load_clip(ARCHITECTURE, str(tmp_path / "converted.pt"), device="cpu", mask_adapted=False)
    load_clip(f"{ARCHITECTURE}-quickgelu", str(tmp_path / "converted.pt"), device="cpu", mask_adapted=False)
    with pytest.raises(ModelError, match="Use ViT-B-32-quickgelu"):
        load_clip("ViT-B-32", "openai", device="cpu", mask_adapted=False)


def test_unmatched_checkpoint_keys_are_listed_both_ways(tmp_path: Path) -> None:
    weights = _state()
    weights["visual.extra"] = weights.pop("visual.proj")
    torch.save(weights, tmp_path / "odd.pt")
    with pytest.raises(ModelError, match=r"Missing in the file: visual\.proj\. Unknown to the network: visual\.extra"):
        load_clip(ARCHITECTURE, str(tmp_path / "odd.pt"), device="cpu", mask_adapted=False)


def test_torchscript_archives_are_explained(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ViT-B-32.pt", "w") as archive:
        archive.writestr("ViT-B-32/constants.pkl", b"")
        archive.writestr("ViT-B-32/code/__torch__.py", "class Module: pass")
    with pytest.raises(ModelError, match="TorchScript archive"):
        load_clip(ARCHITECTURE, str(tmp_path / "ViT-B-32.pt"), device="cpu", mask_adapted=False)


@pytest.mark.parametrize("content", [{"lr": 0.1}, [1, 2], {"weights": print}], ids=["no tensors", "list", "code"])
def test_files_without_tensors_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ModelError, match=r"expected a state dict|cannot be read as tensors"):
        load_clip(ARCHITECTURE, str(tmp_path / "other.pt"), device="cpu", mask_adapted=False)


def test_unknown_names_are_answered_with_near_ones() -> None:
    with pytest.raises(ModelError, match=r"Near names: .*ViT-L-14"):
        load_clip("ViT-L-41", "openai", device="cpu", mask_adapted=False)
    with pytest.raises(ModelError, match="neither a file nor a pretrained tag"):
        load_clip("ViT-L-14-quickgelu", "absent.pt", device="cpu", mask_adapted=False)
    with pytest.raises(ModelError, match="no weights given"):
        load_clip("ViT-L-14-quickgelu", "", device="cpu", mask_adapted=False)

import json
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torch

from qaclims_ray.miniature.clip_card import write_clip_card
from qaclims_ray.miniature.clip_folder import ClipShape, build_clip, folder_config
from qaclims_ray.miniature.clip_pretraining import (
    ClipPretrainingSettings,
    draw_batch,
    scene_tensors,
    soft_contrast,
    train_clip,
    warmup_cosine,
)
from qaclims_ray.miniature.regions import RegionSettings
from qaclims_ray.miniature.scenes import CLIP_SET, scenes
from qaclims_ray.models.clip.frozen import load_clip

TINY = ClipPretrainingSettings(
    num_images=12,
    steps=4,
    batch_size=6,
    warmup_steps=2,
    regions=RegionSettings(),
    shape=ClipShape(width=16, layers=2, heads=2, mask_depth=2, text_width=16, text_layers=1, embed_dim=8),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[float]]:
    folder = tmp_path_factory.mktemp("clip")
    return folder, train_clip(TINY, seed=1, out_dir=folder)


def test_the_same_seed_gives_the_same_losses(trained: tuple[Path, list[float]], tmp_path: Path) -> None:
    torch.manual_seed(987)
    assert train_clip(TINY, seed=1, out_dir=tmp_path) == trained[1]
    assert train_clip(TINY, seed=2, out_dir=tmp_path / "other") != trained[1]


def test_a_cut_run_resumes_to_the_same_losses(trained: tuple[Path, list[float]], tmp_path: Path) -> None:
    first = train_clip(TINY, seed=1, out_dir=tmp_path, stop_after=2, save_every=2)
    rest = train_clip(TINY, seed=1, out_dir=tmp_path)
    assert first + rest == trained[1]
    assert not list(tmp_path.glob("*.pt"))


def test_a_finished_run_is_not_repeated(trained: tuple[Path, list[float]]) -> None:
    assert train_clip(TINY, seed=1, out_dir=trained[0]) == []
    record = json.loads((trained[0] / "training.json").read_text())
    assert record["seed"] == 1 and record["settings"]["steps"] == 4


def test_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_clip(TINY.shape, seed=0)
    assert torch.equal(torch.rand(3), expected)


def test_open_clip_loads_the_folder_as_a_plain_clip(trained: tuple[Path, list[float]]) -> None:
    name = f"local-dir:{trained[0]}"
    model, _, preprocess = open_clip.create_model_and_transforms(name)
    assert preprocess.transforms[-1].mean[0] == 0.5
    tokens = open_clip.get_tokenizer(name)(["A photo of a dog.", "a Train"])
    assert tokens.shape == (2, TINY.shape.context_length)
    assert (tokens == tokens.max()).sum(1).tolist() == [1, 1]
    mine = load_clip(str(trained[0]), None, device="cpu", mask_adapted=True)
    theirs = torch.nn.functional.normalize(model.eval().encode_text(tokens), dim=-1)
    torch.testing.assert_close(mine.encode_texts(["A photo of a dog.", "a Train"]), theirs)


def test_the_card_holds_measured_numbers(trained: tuple[Path, list[float]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qaclims_ray.miniature.clip_card._NUM_IMAGES", 4)
    rows = write_clip_card(trained[0])
    card = (trained[0] / "MODEL_CARD.md").read_text()
    assert "token mask: object" in rows
    assert all(0 <= row.accuracy <= 1 and -1 <= row.own_class <= 1 for row in rows.values())
    assert all(f"| {name} |" in card for name in rows)
    assert "| shape.width | 16 |" in card


def test_a_batch_hides_what_its_masks_hide() -> None:
    data = scene_tensors(scenes(4, stream=9, seed=0, settings=CLIP_SET))
    settings = replace(TINY, regions=RegionSettings(whole_share=1.0, token_share=0.0))
    batch = draw_batch(data, settings, seed=0, step=0)
    assert (batch.token_mask == 1).all()
    assert batch.degrees.shape == (6, len(batch.captions))
    again = draw_batch(data, settings, seed=0, step=0)
    assert torch.equal(batch.pixels, again.pixels) and batch.captions == again.captions


def test_contrast_is_least_for_the_targets_own_logits() -> None:
    degrees = torch.tensor([[1.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
    best = soft_contrast((degrees + 1e-6).log(), degrees, caption_weight=0.0)
    entropy = -sum(p * torch.tensor(p).log() for p in (0.25, 0.75)) - sum(
        p * torch.tensor(p).log() for p in (2 / 3, 1 / 3)
    )
    torch.testing.assert_close(best, entropy / 2, atol=1e-4, rtol=0)
    assert soft_contrast(torch.zeros(2, 3), degrees, caption_weight=0.0) > best
    assert soft_contrast(torch.zeros(2, 3), degrees, caption_weight=0.5) > best


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    settings = ClipPretrainingSettings()
    assert warmup_cosine(0, settings) == pytest.approx(1 / 150)
    assert warmup_cosine(150, settings) > 0.98
    assert warmup_cosine(settings.steps, settings) == pytest.approx(0, abs=1e-9)


def test_the_shipped_shape_is_the_documented_one() -> None:
    model, mask_embedding = build_clip(ClipShape(), seed=0)
    assert mask_embedding.shape == (3, 64, 96)
    assert 0.5e6 < sum(value.numel() for value in model.parameters()) < 0.7e6
    assert model.visual.transformer.resblocks[0].attn.num_heads == 4
    assert type(model.visual.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert folder_config(ClipShape())["model_cfg"]["quick_gelu"] is True

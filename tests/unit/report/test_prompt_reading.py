import xml.etree.ElementTree as ET

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import set_model_preprocess_cfg
from open_clip.transformer import CustomResidualAttentionBlock, Transformer
from torch import Tensor

from qaclims_ray.errors import DataError, ModelError
from qaclims_ray.miniature.clip_pretraining import normalise, scene_tensors
from qaclims_ray.miniature.scenes import WEAK_SET, scenes
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.miniature.vocabulary import NUM_STUFF, STUFF
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.report.figures import figure_pixels, figure_svg
from qaclims_ray.report.prompt_reading import PromptPicture, nearest_words, prompt_figure, similarity_maps

VISION = {"image_size": 24, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1}


def clip_with(**vision: object) -> FrozenClip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(6, VISION | vision, TEXT)
    set_model_preprocess_cfg(model, {"mean": (0.5,) * 3, "std": (0.25,) * 3})
    return FrozenClip(model, open_clip.SimpleTokenizer(context_length=8))


def picture_and_texts(num_texts: int = 2) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    texts = F.normalize(torch.randn(num_texts, 6, generator=generator), dim=1)
    return torch.randn(3, 24, 24, generator=generator), texts


def slow_maps(clip: FrozenClip, image: Tensor, texts: Tensor, tokens: str) -> Tensor:
    """The last block by hand, patch by patch and text by text."""
    visual = clip.model.visual
    sequence = visual.ln_pre(
        torch.cat([visual.class_embedding[None], visual.conv1(image[None])[0].flatten(1).T])
        + visual.positional_embedding
    )[None]
    sequence = visual.transformer.resblocks[0](sequence)
    last = visual.transformer.resblocks[1]
    if tokens == "output":
        patches = last(sequence)[0, 1:]
    else:
        width = sequence.shape[-1]
        values = F.linear(
            last.ln_1(sequence), last.attn.in_proj_weight[2 * width :], last.attn.in_proj_bias[2 * width :]
        )
        patches = last.attn.out_proj(values)[0, 1:]
    maps = torch.zeros(len(texts), 9)
    for patch in range(9):
        feature = F.normalize(visual.ln_post(patches[patch]) @ visual.proj, dim=0)
        for text in range(len(texts)):
            maps[text, patch] = sum(feature[d] * texts[text, d] for d in range(texts.shape[1]))
    for text in range(len(texts)):
        maps[text] = (maps[text] - maps[text].min()) / (maps[text].max() - maps[text].min())
    return maps.reshape(-1, 3, 3)


@pytest.mark.parametrize("tokens", ["value", "output"])
def test_maps_equal_a_slow_restatement(tokens: str) -> None:
    clip = clip_with()
    image, texts = picture_and_texts()
    found = similarity_maps(clip, image, texts, tokens=tokens)
    with torch.no_grad():
        torch.testing.assert_close(found, slow_maps(clip, image, texts, tokens), atol=1e-5, rtol=0)
    assert found.shape == (2, 3, 3) and found.amin((1, 2)).eq(0).all() and found.amax((1, 2)).eq(1).all()


@pytest.mark.parametrize("tokens", ["value", "output"])
def test_towers_that_work_sequence_first_give_the_same_maps(tokens: str) -> None:
    clip = clip_with()
    image, texts = picture_and_texts()
    expected = similarity_maps(clip, image, texts, tokens=tokens)
    other = Transformer(16, 2, 2, batch_first=False)
    other.load_state_dict(clip.model.visual.transformer.state_dict())
    clip.model.visual.transformer = other.eval()
    torch.testing.assert_close(similarity_maps(clip, image, texts, tokens=tokens), expected, atol=1e-5, rtol=0)


def test_blocks_of_another_kind_work_too() -> None:
    clip = clip_with(qk_norm=True, scale_attn=True)
    with torch.no_grad():
        block = clip.model.visual.transformer.resblocks[-1]
        assert isinstance(block, CustomResidualAttentionBlock)
        attention = block.attn
        attention.in_proj_weight[:32] *= 5  # queries and keys: no business of the values
    image, texts = picture_and_texts()
    value = similarity_maps(clip, image, texts)
    output = similarity_maps(clip, image, texts, tokens="output")
    with torch.no_grad():
        attention.in_proj_weight[:32] *= -1
        attention.in_proj_weight[:16] *= -1
    torch.testing.assert_close(similarity_maps(clip, image, texts), value)
    assert (similarity_maps(clip, image, texts, tokens="output") - output).abs().max() > 1e-4


def area_under_curve(scores: Tensor, is_there: Tensor) -> float:
    """Chance that a pixel of the thing has a higher score than one beside it."""
    ranks = scores.flatten().argsort().argsort().double() + 1
    inside = is_there.flatten()
    positives, negatives = int(inside.sum()), int((~inside).sum())
    return (float(ranks[inside].sum()) - positives * (positives + 1) / 2) / (positives * negatives)


def test_maps_show_where_a_background_is() -> None:
    clip = load_clip(str(clip_dir()), None, device="cpu", mask_adapted=True)
    data = scene_tensors(scenes(12, stream=3, seed=91, settings=WEAK_SET))
    texts = clip.encode_texts([f"a photo of {name}" for name in STUFF])
    scores = {"value": [], "output": []}
    for image, things in zip(normalise(data.images), data.things.long(), strict=True):
        for tokens, found in scores.items():
            maps = F.interpolate(similarity_maps(clip, image, texts, tokens=tokens)[None], (64, 64), mode="bilinear")[0]
            for stuff in range(NUM_STUFF):
                if 400 < (things == stuff).sum() < 3600:
                    found.append(area_under_curve(maps[stuff], things == stuff))
    assert len(scores["value"]) > 15
    assert np.mean(scores["value"]) > 0.75 > np.mean(scores["output"])


def test_a_flat_map_is_zero() -> None:
    clip = clip_with()
    maps = similarity_maps(clip, picture_and_texts()[0], torch.zeros(1, 6))
    assert torch.equal(maps, torch.zeros(1, 3, 3))


def test_half_precision_towers_give_float32_maps() -> None:
    clip = clip_with()
    image, texts = picture_and_texts(1)
    expected = similarity_maps(clip, image, texts)
    found = similarity_maps(clip.to(torch.bfloat16), image, texts)
    assert found.dtype == torch.float32 and (found - expected).abs().max() < 0.1


@pytest.mark.parametrize(
    ("vision", "kind"),
    [
        ({"layers": [1, 1, 1, 1], "image_size": 32, "width": 8, "patch_size": None}, "ModifiedResNet"),
        ({"attentional_pool": True, "attn_pooler_heads": 2}, "attentional pooling"),
    ],
)
def test_towers_without_comparable_patches_are_refused(vision: dict, kind: str) -> None:
    clip = clip_with(**vision)
    size = clip.image_size
    with pytest.raises(ModelError, match=kind):
        similarity_maps(clip, torch.zeros(3, size, size), torch.zeros(1, 6))


def test_an_image_of_another_size_is_refused() -> None:
    with pytest.raises(ModelError, match="32x24 pixels, CLIP takes 24x24"):
        similarity_maps(clip_with(), torch.zeros(3, 32, 24), torch.zeros(1, 6))


def test_nearest_words_come_in_order() -> None:
    words = ["sky", "sea", "also sea", "grass"]
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.6, 0.8]])
    prompts = torch.tensor([[0.8, 0.6], [0.0, 1.0]], requires_grad=True)
    found = nearest_words(prompts, words, features, 2)
    assert [[word for word, _ in row] for row in found] == [["grass", "sky"], ["sea", "also sea"]]
    assert [value for _, value in found[0]] == pytest.approx([0.96, 0.8])
    assert [len(row) for row in nearest_words(prompts, words, features, 9)] == [4, 4]


@pytest.mark.parametrize(("words", "num_features", "top"), [(["a"], 2, 1), ([], 0, 1), (["a"], 1, 0)])
def test_words_that_do_not_fit_are_refused(words: list[str], num_features: int, top: int) -> None:
    with pytest.raises(DataError, match="one feature per word"):
        nearest_words(torch.zeros(1, 3), words, torch.zeros(num_features, 3), top)


def picture(name: str, *manual: str) -> PromptPicture:
    generator = torch.Generator().manual_seed(len(name))
    return PromptPicture(
        class_name=name,
        image=torch.randint(0, 256, (3, 40, 48), generator=generator, dtype=torch.uint8),
        learned=torch.rand(5, 6, generator=generator),
        manual={text: torch.rand(5, 6, generator=generator) for text in manual},
        words=["railway 0.41", "gravel 0.38"],
    )


def test_the_figure_shows_image_learned_and_manual_maps() -> None:
    figure = prompt_figure([picture("train", "a photo of railroad", "a photo of $5 tracks"), picture("boat")])
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 1, 0, 0]
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[:4]]
    assert np.array_equal(shown[0], picture("train").image.permute(1, 2, 0).numpy())
    assert all(pixels.shape == (40, 48, 3) for pixels in shown)
    assert not np.array_equal(shown[1], shown[2]) and not np.array_equal(shown[2], shown[3])
    assert len(np.unique(figure_pixels(figure, dpi=40).reshape(-1, 3), axis=0)) > 100
    root = ET.fromstring(figure_svg(figure, "prompts"))
    words = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    for text in ("train", "boat", "learned prompt", "railway 0.41", "a photo of railroad", "$5 tracks"):
        assert text in words


def test_the_learned_map_is_brightest_where_it_is_highest() -> None:
    heat = torch.zeros(5, 6)
    heat[1, 4] = 1
    row = PromptPicture(class_name="dog", image=torch.zeros(3, 50, 60, dtype=torch.uint8), learned=heat, manual={})
    pixels = np.asarray(prompt_figure([row]).axes[1].images[0].get_array()).sum(axis=2)
    top, left = np.unravel_index(pixels.argmax(), pixels.shape)
    assert (top // 10, left // 10) == (1, 4)


def test_a_figure_without_pictures_is_refused() -> None:
    with pytest.raises(DataError, match="at least one image"):
        prompt_figure([])

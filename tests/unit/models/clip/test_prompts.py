import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.model import set_model_preprocess_cfg
from open_clip.transformer import Transformer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertConfig

from qaclims_ray.errors import ArtifactError, ConfigError, ModelError
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.miniature.tokenizer import clip_vocabulary, write_clip_tokenizer
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.models.clip.prompts import (
    LearnedPrompts,
    encode_prompts,
    initial_prompts,
    load_prompts,
    prompt_template,
    save_prompts,
)

VISION = {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8}
TEXT = {"context_length": 20, "width": 24, "heads": 2, "layers": 2}
PREPROCESSING = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
END_OF_TEXT = 49407
TOWERS = ["shipped", "clip", "clip_sequence_first", "custom", "custom_eos", "custom_last", "custom_class_token", "bert"]


class NoStop:
    """OpenAI's tokenizer in front of which all punctuation is removed, as some models' cleaning does."""

    def __init__(self) -> None:
        self.inner = open_clip.SimpleTokenizer(context_length=TEXT["context_length"], clean="canonicalize")
        self.encoder = self.inner.encoder

    def __call__(self, texts: list[str]) -> Tensor:
        return self.inner(texts)


def frozen(kind: type[nn.Module], *, seed: int = 0, tokenize: Callable | None = None, **text: Any) -> FrozenClip:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(embed_dim=12, vision_cfg=VISION, text_cfg=TEXT | text)
    tower = getattr(model, "text", model)
    # Fresh position embeddings are so small that a misplaced vector would hardly show.
    nn.init.normal_(tower.positional_embedding, generator=torch.Generator().manual_seed(seed))
    nn.init.normal_(tower.token_embedding.weight, generator=torch.Generator().manual_seed(seed + 1))
    set_model_preprocess_cfg(model, PREPROCESSING)
    return FrozenClip(model, tokenize or open_clip.SimpleTokenizer(context_length=TEXT["context_length"]))


def bert(folder: Path) -> FrozenClip:
    """A CLIP with a Hugging Face text tower and a word tokenizer."""
    write_clip_tokenizer(folder, context_length=20)
    tokenize = open_clip.tokenizer.HFTokenizer(str(folder), context_length=20)
    config = BertConfig(
        vocab_size=len(clip_vocabulary()), hidden_size=24, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=20,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CustomTextCLIP(12, VISION, TEXT)
        model.text = HFTextEncoder(
            "", 12, config=config, pooler_type="mean_pooler", proj_type="linear", pretrained=False
        )
    set_model_preprocess_cfg(model, PREPROCESSING)
    return FrozenClip(model, tokenize)


def build(name: str, folder: Path) -> FrozenClip:
    match name:
        case "shipped":
            return load_clip(str(clip_dir()), None, device="cpu", mask_adapted=True)
        case "clip":
            return frozen(open_clip.CLIP)
        case "clip_sequence_first":
            clip = frozen(open_clip.CLIP)
            clip.model.transformer = Transformer(24, 2, 2, batch_first=False).requires_grad_(False)
            return clip.eval()
        case "custom":
            return frozen(open_clip.CustomTextCLIP, proj_bias=True)
        case "custom_eos":
            return frozen(open_clip.CustomTextCLIP, pool_type="eos", eos_id=END_OF_TEXT)
        case "custom_last":
            clip = frozen(open_clip.CustomTextCLIP, pool_type="last", no_causal_mask=True)
            clip.model.text.use_pad_mask = True
            return clip
        case "custom_class_token":
            return frozen(open_clip.CustomTextCLIP, embed_cls=True)
        case _:
            return bert(folder)


@pytest.fixture(scope="module")
def shipped() -> FrozenClip:
    return build("shipped", Path())


@pytest.fixture(scope="module")
def openai() -> FrozenClip:
    return frozen(open_clip.CLIP)


def embeddings_of(clip: FrozenClip, tokens: Tensor) -> Tensor:
    tower = getattr(clip.model, "text", clip.model)
    table = getattr(tower, "token_embedding", None) or tower.transformer.get_input_embeddings()
    return table(tokens).detach()


@pytest.mark.parametrize("name", TOWERS)
def test_vectors_of_real_words_give_the_embedding_of_their_sentence(name: str, tmp_path: Path) -> None:
    clip = build(name, tmp_path)
    words = [["dog", "on", "grass"], ["boat", "of", "a"], ["the", "train", "bus"]]
    sentences = [f"a photo of {' '.join(row)}." for row in words]
    template = prompt_template(clip, length=3)
    start = len(template.before)
    vectors = embeddings_of(clip, clip.tokenize(sentences)[:, start : start + 3])
    found = encode_prompts(clip, vectors, template)
    torch.testing.assert_close(found, clip.encode_texts(sentences), atol=1e-5, rtol=0)
    # The check above could not fail if sentences did not differ.
    assert (found[0] - found[1]).abs().max() > 1e-3
    assert (encode_prompts(clip, vectors.flip(1), template) - found).abs().max() > 1e-4


@pytest.mark.parametrize("name", TOWERS)
def test_gradients_reach_the_vectors_and_never_the_tower(name: str, tmp_path: Path) -> None:
    clip = build(name, tmp_path)
    template = prompt_template(clip, length=4)
    generator = torch.Generator().manual_seed(0)
    prompts = LearnedPrompts(initial_prompts(clip, 2, 4, init="normal", generator=generator))
    encode_prompts(clip, prompts(), template)[:, 0].sum().backward()
    assert prompts.vectors.grad.abs().sum(dim=2).gt(0).all()
    assert all(not p.requires_grad and p.grad is None for p in clip.parameters())


def test_the_template_is_that_of_the_paper() -> None:
    clip = frozen(open_clip.CLIP, context_length=77, tokenize=open_clip.SimpleTokenizer(context_length=77))
    template = prompt_template(clip, length=30)
    start, end = 49406, END_OF_TEXT
    assert template.before == (start, *clip.tokenize.encode("a photo of"))
    assert template.after == (269, end, *[0] * 41)
    assert (template.end_position, template.context_length, len(template.tokens)) == (35, 77, 77)
    official = prompt_template(clip, length=30, full_stop="vocabulary")
    assert official.after == (13, end, *[0] * 41) and official.before == template.before
    assert prompt_template(clip, prefix="", length=1).tokens[:4] == [start, template.filler, 269, end]


def test_the_kind_of_full_stop_changes_the_embedding(openai: FrozenClip) -> None:
    vectors = initial_prompts(openai, 2, 3, init="normal", generator=torch.Generator().manual_seed(0))
    one, other = (
        encode_prompts(openai, vectors, prompt_template(openai, length=3, full_stop=kind))
        for kind in ("end_of_word", "vocabulary")
    )
    assert (one - other).abs().max() > 1e-4


def test_a_tokenizer_with_one_full_stop_offers_no_choice(shipped: FrozenClip) -> None:
    with pytest.raises(ModelError, match=r"no full stop besides .*end_of_word"):
        prompt_template(shipped, length=3, full_stop="vocabulary")


def test_a_tokenizer_that_drops_punctuation_gives_prompts_without_full_stop() -> None:
    clip = frozen(open_clip.CLIP, tokenize=NoStop())
    template = prompt_template(clip, length=3)
    assert template.after[0] == END_OF_TEXT and template.end_position == 7
    with pytest.raises(ModelError, match="end_of_word"):
        prompt_template(clip, length=3, full_stop="vocabulary")


@pytest.mark.parametrize("name", ["shipped", "clip", "custom_last", "bert"])
def test_a_prompt_that_does_not_fit_is_told_the_longest(name: str, tmp_path: Path) -> None:
    clip = build(name, tmp_path)
    context = clip.tokenize([""]).shape[1]
    longest = context - len("start a photo of . end".split())
    template = prompt_template(clip, length=longest)
    assert template.end_position == context - 1
    vectors = initial_prompts(clip, 1, longest, init="normal", generator=torch.Generator().manual_seed(0))
    assert encode_prompts(clip, vectors, template).isfinite().all()
    with pytest.raises(ConfigError, match=f"{longest + 1} vectors .* {context} tokens .* At most {longest} fit"):
        prompt_template(clip, length=longest + 1)
    with pytest.raises(ConfigError, match="at least 1"):
        prompt_template(clip, length=0)
    with pytest.raises(ConfigError, match="shorter prefix"):
        prompt_template(clip, prefix=" ".join(["photo"] * context), length=1)


def test_a_tokenizer_without_the_filler_words_is_refused(openai: FrozenClip) -> None:
    def only_lengths(texts: list[str]) -> Tensor:
        rows = [[1, *[3] * len(text.split()), 2] for text in texts]
        return torch.tensor([row + [0] * (TEXT["context_length"] - len(row)) for row in rows])

    with pytest.raises(ModelError, match="no place for learned vectors"):
        prompt_template(FrozenClip(openai.model, only_lengths), length=2)


def test_vectors_of_another_template_or_tower_are_refused(openai: FrozenClip, shipped: FrozenClip) -> None:
    template = prompt_template(openai, length=3)
    with pytest.raises(ModelError, match="2 vectors of width 24, expected 3 of width 24"):
        encode_prompts(openai, torch.zeros(1, 2, 24), template)
    with pytest.raises(ModelError, match="template has 20 tokens, the text tower takes 24"):
        encode_prompts(shipped, torch.zeros(1, 3, 64), template)


def test_finite_differences_of_the_prompt_path() -> None:
    clip = frozen(open_clip.CustomTextCLIP).double()
    template = prompt_template(clip, length=2)
    vectors = initial_prompts(clip, 2, 2, init="normal", generator=torch.Generator().manual_seed(2)).double()
    assert torch.autograd.gradcheck(lambda x: encode_prompts(clip, x, template), (vectors.requires_grad_(),))


def test_half_precision_towers_give_float32() -> None:
    clip = frozen(open_clip.CLIP).to(torch.bfloat16)
    vectors = initial_prompts(clip, 2, 3, init="normal", generator=torch.Generator().manual_seed(0))
    found = encode_prompts(clip, vectors, prompt_template(clip, length=3))
    assert vectors.dtype == found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))


def test_the_tower_is_as_before_even_after_a_failure(openai: FrozenClip) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("out of memory")

    template = prompt_template(openai, length=3)
    before = openai.encode_texts(["a photo of a dog."])
    encode_prompts(openai, torch.ones(1, 3, 24), template)
    assert torch.equal(openai.encode_texts(["a photo of a dog."]), before)
    handle = openai.model.ln_final.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        encode_prompts(openai, torch.ones(1, 3, 24), template)
    handle.remove()
    assert torch.equal(openai.encode_texts(["a photo of a dog."]), before)


def test_initial_prompts_follow_their_distribution(shipped: FrozenClip) -> None:
    def draw(init: str, seed: int = 0) -> Tensor:
        return initial_prompts(shipped, 8, 16, init=init, generator=torch.Generator().manual_seed(seed))

    uniform, normal, vocabulary = draw("uniform"), draw("normal"), draw("vocabulary")
    assert uniform.shape == normal.shape == vocabulary.shape == (8, 16, 64)
    assert 0 <= uniform.min() and uniform.max() < 1 and uniform.mean() == pytest.approx(0.5, abs=0.02)
    assert normal.std() == pytest.approx(0.02, rel=0.05) and normal.mean() == pytest.approx(0, abs=0.001)
    weight = shipped.model.token_embedding.weight
    spread = vocabulary - weight.mean(dim=0)
    assert spread.std() == pytest.approx(weight.std().item(), rel=0.05)
    assert spread.mean(dim=(0, 1)).abs().max() < 0.5 * weight.std()
    assert torch.equal(draw("vocabulary"), vocabulary) and not torch.equal(draw("vocabulary", 1), vocabulary)


def test_learning_moves_the_prompts_to_a_given_text(shipped: FrozenClip) -> None:
    template = prompt_template(shipped, length=4)
    target = shipped.encode_texts(["a photo of water.", "a photo of grass."])
    generator = torch.Generator().manual_seed(0)
    prompts = LearnedPrompts(initial_prompts(shipped, 2, 4, init="vocabulary", generator=generator))
    optimiser = torch.optim.Adam(prompts.parameters(), lr=0.03)
    for _ in range(60):
        agreement = (encode_prompts(shipped, prompts(), template) * target).sum(dim=1)
        optimiser.zero_grad()
        (-agreement.sum()).backward()
        optimiser.step()
    assert agreement.min() > 0.95


def stored(folder: Path, clip: FrozenClip) -> Tensor:
    vectors = initial_prompts(clip, 2, 3, init="uniform", generator=torch.Generator().manual_seed(0))
    template = prompt_template(clip, length=3)
    save_prompts(str(folder), vectors, template=template, class_names=["dog", "boat"], clip_fingerprint="0123")
    return vectors


def test_prompts_come_back_from_disk(tmp_path: Path, shipped: FrozenClip) -> None:
    vectors = stored(tmp_path / "prompts", shipped)
    found = load_prompts(str(tmp_path / "prompts"), clip_fingerprint="0123")
    assert torch.equal(found.vectors, vectors) and found.class_names == ("dog", "boat")
    assert found.template == prompt_template(shipped, length=3) and found.clip_fingerprint == "0123"


def test_absent_foreign_and_broken_prompts_are_refused(tmp_path: Path, shipped: FrozenClip) -> None:
    folder = tmp_path / "prompts"
    with pytest.raises(ArtifactError, match="no learned prompts"):
        load_prompts(str(folder))
    stored(folder, shipped)
    with pytest.raises(ArtifactError, match="CLIP 0123, this run has 4567"):
        load_prompts(str(folder), clip_fingerprint="4567")
    description = json.loads((folder / "prompts.json").read_text())
    for broken in ("{", "[]", json.dumps(description | {"class_names": ["dog"]}), json.dumps({"template": {}})):
        (folder / "prompts.json").write_text(broken)
        with pytest.raises(ArtifactError, match="broken"):
            load_prompts(str(folder))
    (folder / "prompts.json").write_text(json.dumps(description))
    save_file({"other": torch.zeros(1)}, folder / "prompts.safetensors")
    with pytest.raises(ArtifactError, match="broken"):
        load_prompts(str(folder))
    save_file({"vectors": torch.full((2, 3, 64), torch.nan)}, folder / "prompts.safetensors")
    with pytest.raises(ArtifactError, match=r"broken .*NaN or infinite numbers in vectors"):
        load_prompts(str(folder))
    (folder / "prompts.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ArtifactError, match="broken"):
        load_prompts(str(folder))
    (folder / "prompts.safetensors").unlink()
    with pytest.raises(ArtifactError, match="broken"):
        load_prompts(str(folder))

"""Learnable token vectors in the place of words, for the text tower of a frozen CLIP (SemPLeS 3.2; rows S12, S13).

A prompt of a class is a short sequence of vectors as wide as the tower's token embeddings. The tower sees a sentence
of its own tokenizer, "a photo of a a ... a.", in which the vectors replace the embeddings of the filler words; start,
end, padding, positions, masks and pooling stay the tower's own business, so any open_clip text tower will do.

Stored as ``prompts.json`` (template, classes, which CLIP) and ``prompts.safetensors`` (vectors).
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import Tensor, nn

from qaclims_ray.data import storage, whole_files
from qaclims_ray.errors import ArtifactError, ConfigError, DataError, ModelError
from qaclims_ray.models.clip.config import PROMPTS_NAME, VECTORS_NAME
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.devices import constant
from qaclims_ray.models.weight_files import read_stored
from qaclims_ray.models.weight_fit import require_finite

_VECTORS_KEY = "vectors"
_FILLERS = ("a", "of")
"""Two words of every vocabulary: where texts made with one and the other differ, there is room for vectors."""

FullStop = Literal["end_of_word", "vocabulary"]
PromptInit = Literal["uniform", "normal", "vocabulary"]


@dataclass(frozen=True, kw_only=True)
class PromptTemplate:
    """The sentence around a prompt, as token ids."""

    before: tuple[int, ...]
    """Start token and prefix."""
    length: int
    """Vectors per prompt."""
    after: tuple[int, ...]
    """Full stop, end token and padding."""
    end_position: int
    """Index of the token after the full stop: the end token."""
    filler: int
    """Id that stands in the vectors' places: neither end nor padding, so that pooling and masks see a word."""

    @property
    def context_length(self) -> int:
        """Tokens in all."""
        return len(self.before) + self.length + len(self.after)

    @property
    def tokens(self) -> list[int]:
        """The whole sentence, fillers in the vectors' places."""
        return [*self.before, *[self.filler] * self.length, *self.after]


@dataclass(frozen=True)
class StoredPrompts:
    """Learned prompts as read from disk."""

    vectors: Float[Tensor, "class token width"]
    """Token vectors."""
    template: PromptTemplate
    """The sentence they were learned in."""
    class_names: tuple[str, ...]
    """Class of each row."""
    clip_fingerprint: str
    """`FrozenClip.fingerprint()` of the model they were learned with; they mean nothing to another."""


class LearnedPrompts(nn.Module):
    """Token vectors as a module, so that optimisers, checkpoints and DDP see them."""

    def __init__(self, vectors: Float[Tensor, "class token width"]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone())

    def forward(self) -> Float[Tensor, "class token width"]:
        """Return the vectors."""
        return self.vectors


def prompt_template(
    clip: FrozenClip, *, prefix: str = "a photo of", length: int, full_stop: FullStop = "end_of_word"
) -> PromptTemplate:
    """Lay out "{prefix} {vectors}." for a tower.

    Args:
        clip: supplies the tokenizer and the context length.
        prefix: words before the vectors; may be empty.
        length: vectors per prompt, K in the paper.
        full_stop: `end_of_word` ends the prompt as the tokenizer ends a sentence; with OpenAI's vocabulary this is
            "." at the end of a word (269). `vocabulary` takes the entry "." (13), as the released code does (S13).

    Raises:
        ConfigError: the length is below 1 or does not fit into the context.
        ModelError: the tokenizer cannot hold vectors, or has no second full stop to choose.
    """
    if length < 1:
        raise ConfigError(f"prompt length is {length}, expected at least 1 vector.")
    template = _laid_out(clip, prefix, length)
    if template is None:
        longest = max((n for n in range(_context_length(clip)) if _laid_out(clip, prefix, n)), default=0)
        advice = f"At most {longest} fit." if longest else "None fit: use a shorter prefix or another text tower."
        raise ConfigError(
            f"a prompt of {length} vectors after {prefix!r} does not fit into the {_context_length(clip)} tokens of "
            f"this text tower. {advice}"
        )
    if full_stop == "end_of_word":
        return template
    return dataclasses.replace(template, after=(_vocabulary_full_stop(clip, template), *template.after[1:]))


def encode_prompts(
    clip: FrozenClip, vectors: Float[Tensor, "class token width"], template: PromptTemplate
) -> Float[Tensor, "class dim"]:
    """Embed prompts; gradients flow to the vectors and to nothing else.

    SemPLeS 3.2, symbol u_b. Not for two threads with the same `clip` at once.

    Args:
        clip: frozen CLIP; its text tower runs as it is.
        vectors: token vectors of each class, as wide as the tower's token embeddings.
        template: made by `prompt_template` with the same `clip`.

    Returns:
        L2-normalised embeddings, at least float32.

    Raises:
        ModelError: vectors, template and tower do not fit together.
    """
    embedding = _token_embedding(clip)
    expected = (template.length, embedding.embedding_dim)
    if tuple(vectors.shape[1:]) != expected:
        raise ModelError(
            f"prompts have {vectors.shape[1]} vectors of width {vectors.shape[2]}, expected {expected[0]} of width "
            f"{expected[1]}: they belong to another template or text tower."
        )
    if template.context_length != _context_length(clip):
        raise ModelError(
            f"the prompt template has {template.context_length} tokens, the text tower takes {_context_length(clip)}. "
            "Make the template with this CLIP."
        )
    start, end = len(template.before), len(template.before) + template.length

    def insert(_module: nn.Module, _inputs: Any, embedded: Tensor) -> Tensor:
        return torch.cat([embedded[:, :start], vectors.to(embedded.dtype), embedded[:, end:]], dim=1)

    tokens = constant(tuple(template.tokens), embedding.weight.device, torch.int64).expand(len(vectors), -1)
    # The tower looks up words once, at its beginning. A hook there changes their vectors and nothing else.
    handle = embedding.register_forward_hook(insert)
    try:
        features = clip.model.encode_text(tokens)
    finally:
        handle.remove()
    return F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)


def initial_prompts(
    clip: FrozenClip, num_classes: int, length: int, *, init: PromptInit, generator: torch.Generator
) -> Float[Tensor, "class token width"]:
    """Draw random prompts, float32, on the text tower's device.

    Args:
        clip: gives the width and, for `vocabulary`, the token embeddings.
        num_classes: K.
        length: vectors per prompt.
        init: `uniform` in [0, 1), as released (S12); `normal` with deviation 0.02, that of fresh token embeddings;
            `vocabulary` with the mean and the overall deviation of this tower's token embeddings.
        generator: source of randomness; the draw is made on its device, so a CPU generator gives the same prompts
            everywhere.
    """
    weight = _token_embedding(clip).weight.detach().float()
    shape = (num_classes, length, weight.shape[1])
    if init == "uniform":
        return torch.rand(shape, generator=generator, device=generator.device).to(weight.device)
    draw = torch.randn(shape, generator=generator, device=generator.device).to(weight.device)
    return 0.02 * draw if init == "normal" else weight.mean(dim=0) + weight.std() * draw


def save_prompts(
    folder: str,
    vectors: Float[Tensor, "class token width"],
    *,
    template: PromptTemplate,
    class_names: Sequence[str],
    clip_fingerprint: str,
) -> None:
    """Write prompts into a local folder, which is made if it is not there.

    Args:
        folder: local path.
        vectors: token vectors of each class.
        template: the sentence they were learned in.
        class_names: class of each row.
        clip_fingerprint: `FrozenClip.fingerprint()` of the model they were learned with.
    """
    _check_shape(vectors, template, class_names)
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file({_VECTORS_KEY: vectors.detach().float().cpu().contiguous()}, Path(folder, VECTORS_NAME))
    description = {
        "template": dataclasses.asdict(template),
        "class_names": list(class_names),
        "clip_fingerprint": clip_fingerprint,
    }
    Path(folder, PROMPTS_NAME).write_text(json.dumps(description, indent=2), encoding="utf-8")


def load_prompts(
    folder: str, device: torch.device | str = "cpu", *, clip_fingerprint: str | None = None
) -> StoredPrompts:
    """Read prompts back.

    Args:
        folder: local path or URI.
        device: where the vectors go.
        clip_fingerprint: refuse prompts learned with another CLIP, where given.

    Raises:
        ArtifactError: when the folder holds no prompts, broken ones, or those of another CLIP.
    """
    if not storage.exists(storage.join(folder, PROMPTS_NAME)):
        raise ArtifactError(f"there are no learned prompts at {folder} (no {PROMPTS_NAME}); train them first")
    try:
        content: dict[str, Any] = json.loads(whole_files.read_whole(storage.join(folder, PROMPTS_NAME)))
        template = TypeAdapter(PromptTemplate).validate_python(content["template"])
        class_names = TypeAdapter(tuple[str, ...]).validate_python(content["class_names"])
        learned_with = TypeAdapter(str).validate_python(content["clip_fingerprint"])
        with whole_files.whole_copy(storage.join(folder, VECTORS_NAME)) as path:
            vectors = read_stored(path, named=VECTORS_NAME)[_VECTORS_KEY]
        require_finite({_VECTORS_KEY: vectors}, source=VECTORS_NAME)
        _check_shape(vectors, template, class_names)
    except (ValueError, KeyError, TypeError, RecursionError, DataError, ModelError) as error:
        raise ArtifactError(
            f"the prompts at {folder} are broken ({error}); remove the folder of their network, which holds them, and "
            "run `qaclims train` again"
        ) from None
    if clip_fingerprint is not None and learned_with != clip_fingerprint:
        raise ArtifactError(
            f"the prompts at {folder} were learned with CLIP {learned_with}, this run has {clip_fingerprint}; "
            "use that CLIP, or learn them again"
        )
    return StoredPrompts(vectors.to(device), template, class_names, learned_with)


def _check_shape(vectors: Tensor, template: PromptTemplate, class_names: Sequence[str]) -> None:
    if vectors.ndim != 3 or tuple(vectors.shape[:2]) != (len(class_names), template.length):
        raise ValueError(
            f"vectors have shape {tuple(vectors.shape)}, expected ({len(class_names)}, {template.length}, width) for "
            f"{len(class_names)} classes"
        )


def _laid_out(clip: FrozenClip, prefix: str, length: int) -> PromptTemplate | None:
    """Return the template, or None where the tokenizer had to cut the sentence."""
    if length < 1:
        return None
    places, sentence = _filler_places(clip, prefix, length)
    one_place, one = _filler_places(clip, prefix, 1)
    # Most of an empty text is padding.
    padding = int(clip.tokenize([""])[0].mode().values)
    # Without any padding even the sentence with one filler was cut: the prefix is too long, and the words are not at
    # fault.
    if len(one_place) != 1 and padding not in one:
        return None
    if len(one_place) != 1:
        raise ModelError(
            f"this tokenizer does not make one token of each of the words {' and '.join(map(repr, _FILLERS))} after "
            f"{prefix!r}, so there is no place for learned vectors. Use another prefix or text tower."
        )
    start = one_place[0]
    if places != list(range(start, start + length)):
        return None
    # What follows many fillers must be what follows one; else the end was cut off.
    rest = [[token for token in after if token != padding] for after in (sentence[start + length :], one[start + 1 :])]
    if rest[0] != rest[1] or start + length >= len(sentence):
        return None
    # Some tokenizers drop punctuation; then the sentence without a full stop gives the same tokens.
    has_full_stop = one != clip.tokenize([_sentence(prefix, _FILLERS[0], 1)[:-1]])[0].tolist()
    return PromptTemplate(
        before=tuple(sentence[:start]),
        length=length,
        after=tuple(sentence[start + length :]),
        end_position=start + length + has_full_stop,
        filler=sentence[start],
    )


def _filler_places(clip: FrozenClip, prefix: str, length: int) -> tuple[list[int], list[int]]:
    """Return where the filler words stand, and the sentence made with the first of them."""
    first, second = clip.tokenize([_sentence(prefix, word, length) for word in _FILLERS]).tolist()
    return [place for place, pair in enumerate(zip(first, second, strict=True)) if pair[0] != pair[1]], first


def _sentence(prefix: str, filler: str, length: int) -> str:
    return " ".join([*prefix.split(), *[filler] * length]) + "."


def _vocabulary_full_stop(clip: FrozenClip, template: PromptTemplate) -> int:
    """Return the id of the vocabulary's entry ".", where it is another than the end of a sentence."""
    tokenizer: Any = clip.tokenize
    if hasattr(tokenizer, "encoder"):
        vocabulary = tokenizer.encoder
    elif hasattr(getattr(tokenizer, "tokenizer", None), "get_vocab"):
        vocabulary = tokenizer.tokenizer.get_vocab()
    else:
        raise ModelError(f'{type(tokenizer).__name__} shows no vocabulary to find "." in. Use full_stop end_of_word.')
    found, usual = vocabulary.get("."), template.after[0]
    has_full_stop = template.end_position > len(template.before) + template.length
    if not has_full_stop or found is None or found == usual:
        raise ModelError(
            "this tokenizer has no full stop besides the one that ends a sentence "
            f'(id {usual if has_full_stop else None}, entry ".": {found}). Use full_stop end_of_word.'
        )
    return int(found)


def _context_length(clip: FrozenClip) -> int:
    return clip.tokenize([""]).shape[1]


def _token_embedding(clip: FrozenClip) -> nn.Embedding:
    """Return the layer that looks up words, in any of open_clip's layouts."""
    tower = getattr(clip.model, "text", clip.model)
    embedding = getattr(tower, "token_embedding", None)
    if embedding is None and hasattr(getattr(tower, "transformer", None), "get_input_embeddings"):
        embedding = tower.transformer.get_input_embeddings()
    if not isinstance(embedding, nn.Embedding):
        raise ModelError(
            f"the text tower {type(tower).__name__} has no token embedding that vectors could replace. "
            "Use an open_clip CLIP, CustomTextCLIP or Hugging Face text tower."
        )
    return embedding

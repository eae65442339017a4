"""BLIP answers questions about images: the VQA model of QA-CLIMS (section 3.2), many questions at a time.

The weights are those of transformers' ``BlipForQuestionAnswering``. Its own way is one question at a time, the image
encoded anew for each. Here every image is encoded once, its cross-attention keys and values are computed once and
shared by its questions, and the questions of several images are answered together. The answers are token for token
those of ``generate`` run for each question alone.

transformers, unlike the authors' first BLIP code, keeps the tokenizer's first token ([CLS]) in front of a question
instead of putting [ENC] there; so does this module.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, BlipForQuestionAnswering

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.devices import constant, upload
from qaclims_ray.models.graphs import Captured
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.models.vqa.beam_search import EarlyStopping, Rules, search, step
from qaclims_ray.models.vqa.blip_layers import AnswerDecoder, ImageEncoder, QuestionEncoder, added_mask

_EXPECTED = (
    "a folder written by save_pretrained of BlipForQuestionAnswering and BlipProcessor, or a reachable hub model"
)

QUESTIONS_PER_SLOT = 16
"""Questions of one image that are computed side by side (the number of templates of QA-CLIMS)."""

_TOKENS_PER_BUCKET = 8
"""With static shapes, questions are padded to a multiple of so many tokens."""
_MOST_STEPS = 8
"""Recordings of a step on a GPU: each holds what 256 questions keep of an answer, a fifth of a GiB in bfloat16."""
_SLOTS_PER_BUCKET = 4
"""With static shapes, slots are repeated up to a multiple of so many."""


class BlipVqa:
    """A frozen BLIP that answers questions. Build it with ``load_vqa``."""

    def __init__(self, model: BlipForQuestionAnswering, processor, *, image_size: int):
        """Take over the weights of ``model``, on the device and in the precision it has.

        Args:
            model: The VQA model; do not change it afterwards.
            processor: Its processor: tokenizer and image statistics.
            image_size: Side of the square images, in pixels; position embeddings are interpolated to it.
        """
        model = model.eval().requires_grad_(False)
        config: Any = model.config.text_config
        self.image_size = image_size
        self.device, self.dtype = model.device, model.dtype
        self.tokenizer = processor.tokenizer
        self.image_mean = tuple(processor.image_processor.image_mean)
        """Mean of each colour channel, of values in 0..1."""
        self.image_std = tuple(processor.image_processor.image_std)
        """Standard deviation of each colour channel."""
        self.start_token, self.end_token = model.decoder_start_token_id, config.sep_token_id
        self.pad_token = config.pad_token_id
        self._image_encoder = ImageEncoder(model.vision_model, image_size)
        self._question_encoder = QuestionEncoder(model.text_encoder)
        self._answer_decoder = AnswerDecoder(model.text_decoder)
        self._encode_questions = Captured(self._question_encoder, "BLIP's question encoder")
        scored = functools.partial(step, self._answer_decoder)
        self._advance = Captured(scored, "BLIP's step of an answer", most_shapes=_MOST_STEPS)
        self._weights = model.state_dict()  # only now: the layers above have joined some of them
        self.has_static_shapes = self.device.type != "cpu"
        """Whether batches of questions are padded to few shapes and stay whole to the end, which suits a GPU."""

    @torch.inference_mode()
    def answer(
        self,
        images: UInt8[Tensor, "image 3 height width"],
        questions: list[list[str]],
        *,
        num_beams: int = 3,
        max_length: int = 10,
        min_length: int = 1,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = False,
        max_question_tokens: int = 35,
        questions_per_batch: int = 256,
    ) -> list[list[str]]:
        """Answer the questions of each image.

        Args:
            images: RGB images, already resized to ``image_size`` squared.
            questions: Per image, its questions; their number may differ and may be 0.
            num_beams: Beams of the search; 1 is greedy (official: 3).
            max_length: Longest answer in tokens, the start token included (official: 10).
            min_length: Shortest answer in tokens, the start token included (official: 1, no constraint).
            length_penalty: Exponent of the length that divides a beam's score.
            early_stopping: Stopping rule of beam search, see ``beam_search``.
            max_question_tokens: Longer questions are cut (official: 35).
            questions_per_batch: Questions answered side by side; bounds the memory, does not change the answers.

        Returns:
            The decoded answers, as ``questions`` is laid out.
        """
        if len(images) != len(questions):
            raise ValueError(f"{len(images)} images but questions for {len(questions)}")
        if tuple(images.shape[2:]) != (self.image_size, self.image_size):
            raise ValueError(f"images are {tuple(images.shape[2:])}, the model takes {self.image_size} squared")
        rules = Rules(
            num_beams,
            max_length,
            min_length,
            self.start_token,
            self.end_token,
            self.pad_token,
            length_penalty,
            early_stopping,
        )
        answers = [[""] * len(texts) for texts in questions]
        for members, passes in _plan([len(texts) for texts in questions], questions_per_batch):
            contexts = self._image_contexts(images[members])
            for slots in passes:
                num_slots = len(slots)
                if self.has_static_shapes:
                    slots = [*slots, *[slots[0]] * (-num_slots % _SLOTS_PER_BUCKET)]
                asked = [questions[slot.image][column] for slot in slots for column in _padded(slot, slots)]
                chosen = self._contexts_of([members.index(slot.image) for slot in slots], contexts)
                found = self._answer_slots(chosen, asked, rules, max_question_tokens)
                places = [(slot, column) for slot in slots[:num_slots] for column in range(_width(slots))]
                for (slot, column), text in zip(places, found[: len(places)], strict=True):
                    if column < len(slot.columns):
                        answers[slot.image][slot.columns[column]] = text
        return answers

    def _contexts_of(self, images: list[int], contexts: Tensor) -> Tensor:
        """Return the images' contexts by position; mostly every image has one slot, in order, and nothing is copied."""
        if images == list(range(len(contexts))):
            return contexts
        return contexts[upload(torch.tensor(images), self.device)]

    def fingerprint(self) -> str:
        """Return a hash of weights, precision, image size and vocabulary: equal ones give equal answers."""
        digest = hashlib.sha256(f"{self.image_size} {self.image_mean} {self.image_std} {self.dtype}".encode())
        for name, weight in sorted(self._weights.items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()[:16]

    def _image_contexts(
        self, images: UInt8[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image position layer 2 head size"]:
        """Encode images; return their keys and values for every layer of the question encoder."""
        mean, std = (
            constant(tuple(values), self.device).view(1, 3, 1, 1) for values in (self.image_mean, self.image_std)
        )
        pixels = (upload(images, self.device).float() / 255 - mean) / std
        return self._question_encoder.image_context(self._image_encoder(pixels.to(self.dtype)))

    def _answer_slots(
        self,
        images: Float[Tensor, "image position layer 2 head size"],
        asked: list[str],
        rules: Rules,
        max_question_tokens: int,
    ) -> list[str]:
        """Answer the same number of questions for every image context."""
        encoded = self.tokenizer(
            asked,
            padding=True,
            padding_side="right",
            truncation=True,
            max_length=max_question_tokens,
            return_tensors="pt",
        )
        tokens, is_word = encoded["input_ids"], encoded["attention_mask"].bool()
        if self.has_static_shapes:
            missing = -tokens.shape[1] % _TOKENS_PER_BUCKET
            tokens, is_word = F.pad(tokens, (0, missing), value=self.pad_token), F.pad(is_word, (0, missing))
        has_mask = self.has_static_shapes or not bool(is_word.all())
        mask = added_mask(upload(is_word, self.device)[:, None, None, :], self.dtype) if has_mask else None
        states = self._encode_questions(upload(tokens, self.device), mask, images)
        context = (self._answer_decoder.question_context(states), *(() if mask is None else (mask,)))
        found = search(
            self._advance,
            context,
            rules,
            num_questions=len(asked),
            device=self.device,
            has_static_shapes=self.has_static_shapes,
        )
        rows = [row[1:] for row in found.tolist()]
        ended = [row[: row.index(self.end_token)] if self.end_token in row else row for row in rows]
        return self.tokenizer.batch_decode(ended, skip_special_tokens=True)


@dataclass(frozen=True)
class _Slot:
    """Some questions of one image that are answered side by side."""

    image: int
    columns: range


def _plan(counts: list[int], questions_per_batch: int) -> Iterator[tuple[list[int], list[list[_Slot]]]]:
    """Yield groups of images, each with the passes that answer all of its questions.

    An image belongs to one group, so it is encoded once. A group fills one pass unless a single image needs several.
    """
    width = max(1, min(QUESTIONS_PER_SLOT, questions_per_batch, max(counts, default=1)))
    capacity = max(1, questions_per_batch // width)
    members: list[int] = []
    slots: list[_Slot] = []
    for image, count in enumerate(counts):
        new = [_Slot(image, range(first, min(first + width, count))) for first in range(0, count, width)]
        if slots and len(slots) + len(new) > capacity:
            yield members, [slots[first : first + capacity] for first in range(0, len(slots), capacity)]
            members, slots = [], []
        if new:
            members, slots = [*members, image], [*slots, *new]
    if slots:
        yield members, [slots[first : first + capacity] for first in range(0, len(slots), capacity)]


def _width(slots: list[_Slot]) -> int:
    return max(len(slot.columns) for slot in slots)


def _padded(slot: _Slot, slots: list[_Slot]) -> list[int]:
    """Columns of a slot, its first repeated until it is as wide as the others; those answers are not used."""
    return [*slot.columns, *[slot.columns[0]] * (_width(slots) - len(slot.columns))]


def load_vqa(model: str, *, image_size: int, device: torch.device | str, dtype: torch.dtype = torch.float32) -> BlipVqa:
    """Load a BLIP VQA model from a folder or the Hugging Face hub.

    Args:
        model: A local folder, or a hub name such as ``Salesforce/blip-vqa-base``.
        image_size: Side of the square input images in pixels (official: 480); a multiple of the patch size.
        device: Where it runs.
        dtype: Precision of weights and activations; scores are float32 always. A folder of half-precision weights
            is converted.

    Returns:
        The frozen model.

    Raises:
        ModelError: Model or tokenizer are absent, broken, or of another kind.
        ConfigError: ``image_size`` does not fit the patches.
    """
    model = fetched_for(model) or model
    config = _read(model, "configuration", lambda: AutoConfig.from_pretrained(model))
    if config.model_type != "blip":
        raise ModelError(
            f"{model} holds a model of type {config.model_type!r}. Expected a BLIP VQA model, such as "
            "Salesforce/blip-vqa-base. Give the name or folder of one."
        )
    patch_size = config.vision_config.patch_size
    if image_size < patch_size or image_size % patch_size:
        raise ConfigError(
            f"VQA image size {image_size} does not divide into patches of {patch_size} pixels. Expected a multiple."
        )
    processor = _read(model, "tokenizer or image processor", lambda: AutoProcessor.from_pretrained(model))
    if not hasattr(processor, "tokenizer") or not hasattr(processor, "image_processor"):
        raise ModelError(
            f"{model} has no complete processor (found {type(processor).__name__}). Expected tokenizer files and "
            "image statistics beside the weights. Save them with BlipProcessor.save_pretrained."
        )
    _check_tokenizer(model, processor.tokenizer, config.text_config)
    blip, report = _read(
        model,
        "weights",
        lambda: BlipForQuestionAnswering.from_pretrained(model, dtype=dtype, output_loading_info=True),
    )
    if absent := sorted(report["missing_keys"]):
        raise ModelError(
            f"{model} lacks {len(absent)} of the weights of a BLIP VQA model (first: {absent[0]}). Expected one saved "
            "as BlipForQuestionAnswering; a captioning or retrieval BLIP cannot answer questions."
        )
    if surplus := sorted(key for key in report["unexpected_keys"] if ".layer" in key):
        raise ModelError(
            f"{model} has weights of more layers than its config.json names (first: {surplus[0]}). Expected both from "
            "one model. Copy config.json and weights again."
        )
    return BlipVqa(blip.to(device), processor, image_size=image_size)


def _check_tokenizer(model: str, tokenizer: Any, text_config: Any) -> None:
    """Refuse a tokenizer of another model; transformers makes up an almost empty one when its files are absent."""
    known, expected = len(tokenizer), text_config.vocab_size
    ids = (tokenizer.sep_token_id, tokenizer.pad_token_id)
    expected_ids = (text_config.sep_token_id, text_config.pad_token_id)
    # BLIP's weights have a few rows more than its tokenizer has words ([DEC], [ENC], padding to a round number).
    if not expected // 2 < known <= expected or ids != expected_ids:
        raise ModelError(
            f"{model} has a tokenizer of {known} words with end and padding token {ids}, or none at all, but weights "
            f"for {expected} words and {expected_ids}. Expected the tokenizer the model was trained with, saved in "
            "the same folder (tokenizer.json or vocab.txt, tokenizer_config.json)."
        )


def _read(model: str, what: str, load: Callable[[], Any]) -> Any:
    return read_pretrained(f"{what} of the VQA model", model, load, expected=_EXPECTED)

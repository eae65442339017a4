"""BLIP answers questions about images: the VQA model of QA-CLIMS (section 3.2), many questions at a time.

The weights are those of transformers' ``BlipForQuestionAnswering``. Its own way is one question at a time, the image
encoded anew for each. Here every image is encoded once, its cross-attention keys and values are computed once and
shared by its questions, and the questions of several images are answered together. The answers are token for token
those of ``generate`` run for each question alone.

transformers, unlike the authors' first BLIP code, keeps the tokenizer's first token ([CLS]) in front of a question
instead of putting [ENC] there; so does this module.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from transformers import AutoConfig, AutoProcessor, BlipForQuestionAnswering

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.models.devices import constant, upload
from qaclims_ray.models.pretrained import read_pretrained
from qaclims_ray.models.vqa.beam_search import EarlyStopping, beam_search, greedy_search
from qaclims_ray.models.vqa.blip_layers import AnswerHead, ImageEncoder, TextEmbedding, TextLayer

_EXPECTED = (
    "a folder written by save_pretrained of BlipForQuestionAnswering and BlipProcessor, or a reachable hub model"
)

QUESTIONS_PER_SLOT = 16
"""Questions of one image that are computed side by side (the number of templates of QA-CLIMS)."""


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
        self._weights = model.state_dict()
        self._image_encoder = ImageEncoder(model.vision_model, image_size)
        self._question_embedding = TextEmbedding(model.text_encoder.embeddings)
        self._question_layers = [TextLayer(layer) for layer in model.text_encoder.encoder.layer]
        decoder = model.text_decoder
        self._answer_embedding = TextEmbedding(decoder.bert.embeddings)
        self._answer_layers = [TextLayer(layer) for layer in decoder.bert.encoder.layer]
        self._answer_head = AnswerHead(decoder.cls.predictions)

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
        search = _BeamSettings(num_beams, max_length, min_length, length_penalty, early_stopping)
        answers = [[""] * len(texts) for texts in questions]
        for members, passes in _plan([len(texts) for texts in questions], questions_per_batch):
            contexts = self._image_contexts(images[members])
            for slots in passes:
                of_slot = [members.index(slot.image) for slot in slots]
                chosen = contexts
                # Mostly every image has one slot, in order; then nothing is copied.
                if of_slot != list(range(len(members))):
                    rows = upload(torch.tensor(of_slot), self.device)
                    chosen = [(keys[rows], values[rows]) for keys, values in contexts]
                asked = [questions[slot.image][column] for slot in slots for column in _padded(slot, slots)]
                found = self._answer_slots(chosen, asked, search, max_question_tokens)
                places = [(slot, column) for slot in slots for column in range(_width(slots))]
                for (slot, column), text in zip(places, found, strict=True):
                    if column < len(slot.columns):
                        answers[slot.image][slot.columns[column]] = text
        return answers

    def fingerprint(self) -> str:
        """Return a hash of weights, precision, image size and vocabulary: equal ones give equal answers."""
        digest = hashlib.sha256(f"{self.image_size} {self.image_mean} {self.image_std} {self.dtype}".encode())
        for name, weight in sorted(self._weights.items()):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        return digest.hexdigest()[:16]

    def _image_contexts(self, images: UInt8[Tensor, "image 3 height width"]) -> list[tuple[Tensor, Tensor]]:
        """Encode images; return their keys and values for every layer of the question encoder."""
        mean, std = (
            constant(tuple(values), self.device).view(1, 3, 1, 1) for values in (self.image_mean, self.image_std)
        )
        pixels = (upload(images, self.device).float() / 255 - mean) / std
        states = self._image_encoder(pixels.to(self.dtype))
        return [layer.cross_keys_values(states) for layer in self._question_layers]

    def _answer_slots(
        self, contexts: list[tuple[Tensor, Tensor]], asked: list[str], search: "_BeamSettings", max_question_tokens: int
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
        tokens = upload(encoded["input_ids"], self.device)
        is_padded = not bool(encoded["attention_mask"].all())
        mask = upload(encoded["attention_mask"].bool(), self.device)[:, None, None, :] if is_padded else None
        states = self._question_embedding(tokens)
        for layer, context in zip(self._question_layers, contexts, strict=True):
            states = layer(states, layer.own_projections(states), context, own_mask=mask)
        decoder = _AnswerDecoder(self._answer_embedding, self._answer_layers, self._answer_head, states, mask)
        fixed = {
            "num_questions": len(asked),
            "max_length": search.max_length,
            "min_length": search.min_length,
            "start_token": self.start_token,
            "end_token": self.end_token,
            "pad_token": self.pad_token,
            "device": self.device,
        }
        if search.num_beams == 1:
            found = greedy_search(decoder, **fixed)
        else:
            found = beam_search(
                decoder,
                **fixed,
                num_beams=search.num_beams,
                length_penalty=search.length_penalty,
                early_stopping=search.early_stopping,
            )
        rows = [row[1:] for row in found.tolist()]
        ended = [row[: row.index(self.end_token)] if self.end_token in row else row for row in rows]
        return self.tokenizer.batch_decode(ended, skip_special_tokens=True)


class _AnswerDecoder:
    """The answer decoder with its past, a ``StepDecoder``: one context per question, shared by its beams."""

    def __init__(
        self,
        embedding: TextEmbedding,
        layers: list[TextLayer],
        head: AnswerHead,
        question_states: Float[Tensor, "question token dim"],
        mask: Bool[Tensor, "question 1 1 token"] | None,
    ):
        self._embedding, self._layers, self._head = embedding, layers, head
        self._contexts = [layer.cross_keys_values(question_states) for layer in layers]
        self._mask = mask
        self._past: list[tuple[Tensor, Tensor]] = []
        self._position = 0

    def advance(self, tokens: Int[Tensor, " row"]) -> Float[Tensor, "row vocabulary"]:
        """Append one token to every row and return the logits of the next one."""
        states = self._embedding(tokens[:, None], self._position)
        present = []
        for index, (layer, context) in enumerate(zip(self._layers, self._contexts, strict=True)):
            queries, keys, values = layer.own_projections(states)
            if self._past:
                keys = torch.cat([self._past[index][0], keys], dim=2)
                values = torch.cat([self._past[index][1], values], dim=2)
            present.append((keys, values))
            states = layer(states, (queries, keys, values), context, context_mask=self._mask)
        self._past, self._position = present, self._position + 1
        return self._head(states[:, 0])

    def select(self, rows: Int[Tensor, " new_row"], questions: Int[Tensor, " kept"] | None) -> None:
        """Go on from copies of these rows and, where given, with these questions only."""
        self._past = [(keys[rows], values[rows]) for keys, values in self._past]
        if questions is not None:
            self._contexts = [(keys[questions], values[questions]) for keys, values in self._contexts]
            self._mask = None if self._mask is None else self._mask[questions]


@dataclass(frozen=True)
class _BeamSettings:
    num_beams: int
    max_length: int
    min_length: int
    length_penalty: float
    early_stopping: EarlyStopping


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

"""Train the tiny BLIP of the miniature world to answer the sixteen questions of QA-CLIMS.

The model is transformers' own ``BlipForQuestionAnswering`` at a small size with a word-level tokenizer, so what is
saved loads with stock transformers and takes the place of ``Salesforce/blip-vqa-base``. It learns from scenes where
class and stuff hardly go together (``VQA_SET``), otherwise it could answer from the class name alone. Questions are
never padded in training: those of a step are grouped by length, so answering one by one or batched agrees.
"""

import logging
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    BlipImageProcessor,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.errors import ModelError
from qaclims_ray.miniature.answers import NUM_ANSWERS, true_answers
from qaclims_ray.miniature.canvas import IMAGE_SIZE
from qaclims_ray.miniature.scenes import VQA_SET, Scene, scenes
from qaclims_ray.miniature.tokenizer import PAD, UNKNOWN
from qaclims_ray.miniature.vocabulary import CLASSES, world_words
from qaclims_ray.miniature.vqa_card import VqaReport, measure_vqa, write_vqa_card
from qaclims_ray.models.vqa.blip import load_vqa
from qaclims_ray.models.weight_files import read_stored

logger = logging.getLogger(__name__)

START_QUESTION, SEPARATOR, START_ANSWER = "[CLS]", "[SEP]", "[DEC]"
IMAGE_MEAN, IMAGE_STD = 0.5, 0.25
TRAINING_STREAM = 40
"""Stream of scenes the VQA learns from; the held-out ones of its card are another."""

_CHECKPOINT_NAME = "training_state.pt"


@dataclass(frozen=True, kw_only=True)
class VqaSettings:
    """Size and training recipe of the tiny VQA."""

    steps: int = 2200
    """Optimiser steps."""
    batch_pairs: int = 64
    """(Image, class) pairs per step."""
    questions_per_pair: int = 5
    """Questions drawn without replacement for each pair of a step."""
    num_images: int = 6000
    """Training scenes."""
    learning_rate: float = 1.5e-3
    """Peak rate of AdamW; linear warm-up, then cosine to zero."""
    warmup_steps: int = 150
    """Steps of the warm-up."""
    weight_decay: float = 0.02
    """AdamW's weight decay."""
    max_gradient_norm: float = 1.0
    """Gradient clipping."""
    fine_grained_weight: float = 1.5
    """Weight in the drawing of questions of a fine-grained one (a background one has 1)."""
    alias_weight: float = 0.5
    """Weight of an alias question."""
    hidden_size: int = 96
    """Width of the image and text transformers."""
    vision_layers: int = 3
    """Layers of the image encoder."""
    text_layers: int = 2
    """Layers of the question encoder and of the answer decoder, each."""
    num_heads: int = 4
    """Attention heads."""
    patch_size: int = 8
    """Side of an image patch in pixels."""
    log_every: int = 100
    """Steps between two lines of the log."""
    num_held_out_images: int = 300
    """Scenes of the card's measurement."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""


@dataclass(frozen=True)
class QuestionAnswers:
    """Training data: every (image, class) pair with its true answers, upright and mirrored."""

    images: UInt8[Tensor, "image 3 height width"]
    image_of_pair: Int[Tensor, " pair"]
    class_of_pair: Int[Tensor, " pair"]
    answers: Int[Tensor, "pair 2 question"]
    """Token of the one-word answer: [:, 0] for the picture as it is, [:, 1] for its mirror image."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Return the word-level tokenizer of the miniature world: lower case, punctuation split off, [CLS] ... [SEP]."""
    words = [PAD, UNKNOWN, START_QUESTION, SEPARATOR, START_ANSWER, *world_words()]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START_QUESTION} $A {SEPARATOR}",
        special_tokens=[(word, words.index(word)) for word in (START_QUESTION, SEPARATOR)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        cls_token=START_QUESTION,
        sep_token=SEPARATOR,
        bos_token=START_ANSWER,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_model(settings: VqaSettings, tokenizer: PreTrainedTokenizerFast, *, seed: int) -> BlipForQuestionAnswering:
    """Return the untrained tiny BLIP; its random start depends on ``seed`` only."""
    size = settings.hidden_size
    shared = {
        "hidden_size": size,
        "intermediate_size": 3 * size,
        "projection_dim": size,
        "num_attention_heads": settings.num_heads,
        "hidden_act": "gelu",
    }
    text = {
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": size,
        "num_hidden_layers": settings.text_layers,
        "max_position_embeddings": 32,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "sep_token_id": tokenizer.sep_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "num_hidden_layers": settings.vision_layers,
        "image_size": IMAGE_SIZE,
        "patch_size": settings.patch_size,
    }
    config = BlipConfig(
        text_config={**shared, **text},
        vision_config={**shared, **vision},
        projection_dim=size,
        image_text_hidden_size=size,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BlipForQuestionAnswering(config)


def mirrored(scene: Scene) -> Scene:
    """Return the scene seen in a mirror: what was to the left of an object is to its right."""
    return Scene(
        image=scene.image[:, ::-1].copy(),
        label_map=scene.label_map[:, ::-1].copy(),
        stuff_map=scene.stuff_map[:, ::-1].copy(),
        objects=scene.objects,
    )


def question_answers(drawn: list[Scene], tokenizer: PreTrainedTokenizerFast) -> QuestionAnswers:
    """Collect the true answers of every (scene, class) pair as tokens."""
    image_of_pair, class_of_pair, answers = [], [], []
    for index, scene in enumerate(drawn):
        views = (scene, mirrored(scene))
        for class_id in scene.class_ids:
            image_of_pair.append(index)
            class_of_pair.append(class_id)
            answers.append([tokenizer.convert_tokens_to_ids(true_answers(view, class_id)) for view in views])
    return QuestionAnswers(
        images=torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).contiguous(),
        image_of_pair=torch.tensor(image_of_pair),
        class_of_pair=torch.tensor(class_of_pair),
        answers=torch.tensor(answers),
    )


def question_tokens(
    tokenizer: PreTrainedTokenizerFast,
) -> tuple[Int[Tensor, "class question token"], Int[Tensor, "class question"]]:
    """Return the tokens of every question about every class (zeros after the end) and their numbers."""
    texts = [question.ask(name) for name in CLASSES for question in OFFICIAL_QUESTIONS]
    rows = tokenizer(texts)["input_ids"]
    tokens = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for row, ids in enumerate(rows):
        tokens[row, : len(ids)] = torch.tensor(ids)
    shape = (len(CLASSES), NUM_ANSWERS)
    return tokens.view(*shape, -1), torch.tensor([len(ids) for ids in rows]).view(shape)


def answer_loss(
    model: BlipForQuestionAnswering,
    pixels: Float[Tensor, "pair 3 height width"],
    tokens: Int[Tensor, "pair question token"],
    lengths: Int[Tensor, "pair question"],
    answers: Int[Tensor, "pair question"],
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of answer and end token over all questions of a step.

    Args:
        model: The VQA model.
        pixels: Normalised images.
        tokens: Question tokens; those after a question's length are not read.
        lengths: Number of tokens of each question.
        answers: Token of each one-word answer.
    """
    config: Any = model.config.text_config
    image_states = model.vision_model(pixel_values=pixels).last_hidden_state
    total = image_states.new_zeros(())
    for length in lengths.unique().tolist():
        pair, column = (lengths == length).nonzero(as_tuple=True)
        question_states = model.text_encoder(
            input_ids=tokens[pair, column, :length], encoder_hidden_states=image_states[pair]
        ).last_hidden_state
        answer = answers[pair, column]
        start, end = torch.full_like(answer, config.bos_token_id), torch.full_like(answer, config.sep_token_id)
        text = torch.stack([start, answer, end], dim=1)
        # transformers shifts the labels itself: what is learned is the answer and the end token.
        output = model.text_decoder(
            input_ids=text, encoder_hidden_states=question_states, labels=text, reduction="mean"
        )
        total = total + output.loss * len(pair)
    return total / lengths.numel()


def train_vqa(settings: VqaSettings, *, seed: int, out_dir: str | Path) -> VqaReport:
    """Train the tiny VQA, save it, measure what was saved and write its card beside the folder.

    An interrupted training goes on from its last checkpoint.

    Args:
        settings: The recipe.
        seed: Fixes scenes, start and order: the same seed, machine and number of threads give the same weights.
        out_dir: Folder for weights (safetensors, half precision), configuration and tokenizer.

    Returns:
        What the saved weights can do.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer()
    model = build_model(settings, tokenizer, seed=seed)
    seconds = _fit(model, tokenizer, settings, seed=seed, checkpoint=out_dir / _CHECKPOINT_NAME)
    save_vqa(model, tokenizer, out_dir)
    vqa = load_vqa(str(out_dir), image_size=IMAGE_SIZE, device="cpu")
    report = measure_vqa(vqa, num_images=settings.num_held_out_images, seed=seed)
    write_vqa_card(
        out_dir.parent / "VQA_CARD.md",
        report,
        settings=asdict(settings),
        seed=seed,
        training_seconds=seconds,
        threads=torch.get_num_threads(),
        fingerprint=vqa.fingerprint(),
    )
    (out_dir / _CHECKPOINT_NAME).unlink(missing_ok=True)
    return report


def _fit(
    model: BlipForQuestionAnswering,
    tokenizer: PreTrainedTokenizerFast,
    settings: VqaSettings,
    *,
    seed: int,
    checkpoint: Path,
) -> float:
    """Run the optimiser steps and return their wall-clock seconds, those before an interruption included."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    generator = torch.Generator().manual_seed(seed)
    first_step, earlier_seconds = _resume(checkpoint, settings, seed, model, optimizer, generator)
    data = question_answers(scenes(settings.num_images, stream=TRAINING_STREAM, seed=seed, settings=VQA_SET), tokenizer)
    tokens, lengths = question_tokens(tokenizer)
    started, losses = time.monotonic() - earlier_seconds, []
    for step in range(first_step, settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _rate(step, settings)
        pixels, classes, questions, answers = _draw(data, settings, generator)
        of_pair = classes[:, None]
        loss = answer_loss(model, pixels, tokens[of_pair, questions], lengths[of_pair, questions], answers)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimizer.step()
        losses.append(loss.item())
        done, seconds = step + 1, time.monotonic() - started
        if done % settings.log_every == 0 or done == settings.steps:
            logger.info("step %d loss %.4f after %.0f s", done, sum(losses) / len(losses), seconds)
            losses = []
        if done % settings.checkpoint_every == 0:
            _save_checkpoint(checkpoint, settings, seed, done, seconds, model, optimizer, generator)
    model.eval()
    return time.monotonic() - started


def save_vqa(model: BlipForQuestionAnswering, tokenizer: PreTrainedTokenizerFast, out_dir: str | Path) -> None:
    """Write weights (half precision), configuration, tokenizer and image statistics; ``model`` stays as it is."""
    image_processor = BlipImageProcessor(
        size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}, image_mean=[IMAGE_MEAN] * 3, image_std=[IMAGE_STD] * 3
    )
    half = BlipForQuestionAnswering(model.config)
    half.load_state_dict(model.state_dict())
    half.half().save_pretrained(out_dir)
    BlipProcessor(image_processor, tokenizer).save_pretrained(out_dir)


def _rate(step: int, settings: VqaSettings) -> float:
    """Share of the peak learning rate at a step."""
    return min(1.0, (step + 1) / settings.warmup_steps) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))


def _draw(
    data: QuestionAnswers, settings: VqaSettings, generator: torch.Generator
) -> tuple[
    Float[Tensor, "pair 3 height width"],
    Int[Tensor, " pair"],
    Int[Tensor, "pair question"],
    Int[Tensor, "pair question"],
]:
    """Draw a step: normalised images (half of them mirrored), classes, question numbers and true answers."""
    group_weights = {"fine_grained": settings.fine_grained_weight, "alias": settings.alias_weight}
    weights = torch.tensor([group_weights.get(question.group, 1.0) for question in OFFICIAL_QUESTIONS])
    pairs = torch.randint(len(data.image_of_pair), (settings.batch_pairs,), generator=generator)
    questions = torch.multinomial(
        weights.expand(settings.batch_pairs, -1), settings.questions_per_pair, generator=generator
    )
    is_mirrored = torch.rand(settings.batch_pairs, generator=generator) < 0.5
    images = data.images[data.image_of_pair[pairs]]
    images = torch.where(is_mirrored[:, None, None, None], images.flip(3), images)
    answers = data.answers[pairs[:, None], is_mirrored.long()[:, None], questions]
    return (images.float() / 255 - IMAGE_MEAN) / IMAGE_STD, data.class_of_pair[pairs], questions, answers


def _save_checkpoint(path, settings, seed, step, seconds, model, optimizer, generator) -> None:
    state = {
        "settings": asdict(settings),
        "seed": seed,
        "step": step,
        "seconds": seconds,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "generator": generator.get_state(),
    }
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def _resume(path, settings, seed, model, optimizer, generator) -> tuple[int, float]:
    """Restore a checkpoint, if there is one; return the step to go on from and the seconds spent before it."""
    if not path.exists():
        return 0, 0.0
    state = read_stored(path)
    if state["settings"] != asdict(settings) or state["seed"] != seed:
        raise ModelError(
            f"{path} is a checkpoint of another training (seed {state['seed']}, settings {state['settings']}). "
            f"Expected seed {seed} and {asdict(settings)}. Delete it to start anew, or train into another folder."
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    generator.set_state(state["generator"])
    return state["step"], state["seconds"]

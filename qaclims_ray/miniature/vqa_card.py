"""Measure the tiny VQA on held-out scenes and write its model card.

The scenes are drawn like the weakly labelled set (strong co-occurrence of class and stuff), which the VQA was not
trained on: these are the pictures it has to answer about when it is used.
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import transformers

from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.miniature.answers import true_answers
from qaclims_ray.miniature.scenes import WEAK_SET, Scene, scenes
from qaclims_ray.miniature.vocabulary import CLASSES, STUFF
from qaclims_ray.models.vqa.blip import BlipVqa

HELD_OUT_STREAM = 41
"""Stream of the scenes a card is measured on."""

_OBJECT_COLUMNS = [index for index, question in enumerate(OFFICIAL_QUESTIONS) if question.group == "objects"]


@dataclass(frozen=True, kw_only=True)
class VqaReport:
    """How well the VQA answers; shares lie in 0..1."""

    num_images: int
    num_pairs: int
    """(Image, class) pairs; each has sixteen answers."""
    accuracy: dict[str, float]
    """Share of answers equal to the true one, per question group."""
    named_present: float
    """Share of answers about surrounding objects that name something really in the picture."""
    named_co_occurring: float
    """Share of those pairs with visible primary stuff of the class where an answer names it."""


def measure_vqa(vqa: BlipVqa, *, num_images: int = 300, seed: int = 0, num_beams: int = 3) -> VqaReport:
    """Ask all questions about held-out scenes and compare with the truth.

    Args:
        vqa: The model, at the scenes' image size.
        num_images: Number of held-out scenes.
        seed: Which ones.
        num_beams: Beams of the search.
    """
    drawn = scenes(num_images, stream=HELD_OUT_STREAM, seed=seed, settings=WEAK_SET)
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2).contiguous()
    questions = [
        [question.ask(CLASSES[class_id]) for class_id in scene.class_ids for question in OFFICIAL_QUESTIONS]
        for scene in drawn
    ]
    given = vqa.answer(images, questions, num_beams=num_beams)
    is_right, is_present, names_own = [], [], []
    for scene, answers in zip(drawn, given, strict=True):
        present = present_names(scene)
        for position, class_id in enumerate(scene.class_ids):
            own = answers[position * len(OFFICIAL_QUESTIONS) : (position + 1) * len(OFFICIAL_QUESTIONS)]
            is_right.append([answer == truth for answer, truth in zip(own, true_answers(scene, class_id), strict=True)])
            objects = [own[column] for column in _OBJECT_COLUMNS]
            is_present.append([answer in present for answer in objects])
            if STUFF[class_id] in present:
                names_own.append(STUFF[class_id] in objects)
    right = np.array(is_right)
    groups = np.array([question.group for question in OFFICIAL_QUESTIONS])
    return VqaReport(
        num_images=num_images,
        num_pairs=len(right),
        accuracy={group: float(right[:, groups == group].mean()) for group in dict.fromkeys(groups.tolist())},
        named_present=float(np.mean(is_present)),
        named_co_occurring=float(np.mean(names_own)) if names_own else float("nan"),
    )


def present_names(scene: Scene) -> set[str]:
    """Return the names of all stuffs and classes with a visible pixel."""
    stuff_ids = np.unique(scene.stuff_map[scene.label_map == 0])
    return {STUFF[stuff_id] for stuff_id in stuff_ids} | {CLASSES[class_id] for class_id in scene.class_ids}


def write_vqa_card(
    path: str | Path,
    report: VqaReport,
    *,
    settings: Mapping[str, object],
    seed: int,
    training_seconds: float,
    threads: int,
    fingerprint: str,
) -> None:
    """Write the model card from measured numbers.

    Args:
        path: The Markdown file.
        report: What ``measure_vqa`` found for the saved weights.
        settings: The training recipe by name.
        seed: Its seed.
        training_seconds: Wall-clock time of the optimiser steps.
        threads: CPU threads they had.
        fingerprint: ``BlipVqa.fingerprint`` of the saved weights in float32.
    """
    lines = [
        "# Tiny BLIP of the miniature world",
        "",
        "A `BlipForQuestionAnswering` (transformers) of 0.9 M parameters with a word-level tokenizer. It answers the",
        "sixteen questions of QA-CLIMS about 64 x 64 scenes of the miniature world, and nothing else. It is made by",
        "`python -m qaclims_ray.miniature.pretraining --stage vqa` from scenes in which class and stuff hardly go",
        "together. Weights are stored in half precision and used in float32.",
        "",
        "## Measured",
        "",
        f"{report.num_pairs} (image, class) pairs of {report.num_images} held-out scenes drawn like the weakly",
        "labelled set (strong co-occurrence), three beams, the saved weights in float32:",
        "",
        "| Questions | Answers equal to the truth |",
        "|---|---|",
        *[f"| {group} | {share:.3f} |" for group, share in report.accuracy.items()],
        "",
        f"- Answers about surrounding objects that name something visible in the picture: {report.named_present:.3f}.",
        f"- Pairs whose class's usual stuff is visible, and some answer names it: {report.named_co_occurring:.3f}.",
        "",
        "## Training",
        "",
        f"Seed {seed}, {training_seconds:.0f} s on {threads} CPU thread(s) of a shared machine, {platform.machine()},",
        f"torch {torch.__version__}, transformers {transformers.__version__}. Fingerprint `{fingerprint}`.",
        "",
        "| Setting | Value |",
        "|---|---|",
        *[f"| {name} | {value} |" for name, value in settings.items()],
        "",
    ]
    Path(path).write_text("\n".join(lines), encoding="utf-8")

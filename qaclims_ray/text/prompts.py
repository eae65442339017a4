"""From answers to prompts: the foreground and background texts of every pair (QA-CLIMS 3.2.3, Table 5).

A pair is one (image, present class). Letters and numbers such as "Q8" name rows of ``docs/method.md``.
"""

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from qaclims_ray.corpus.answers import class_text, drop_named, short_forms_of, without_duplicates
from qaclims_ray.corpus.questions import KIND_OF_GROUP
from qaclims_ray.data.classes import require_classes
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.text.config import SHARED_KEY, TextConfig

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairPrompts:
    """The prompts of one pair, ready for the text encoder."""

    image_id: str
    """The image."""
    class_id: int
    """The present class."""
    foreground: tuple[str, ...]
    """The class name first, then its answers; duplicates stay and weigh more (row Q8)."""
    background: tuple[str, ...]
    """Distinct; empty where the pair is skipped by both losses (row Q10)."""


@dataclass(frozen=True)
class PairAnswers:
    """Cleaned answers of one pair, in asking order, of the groups in use."""

    foreground: tuple[str, ...] = ()
    """Kinds and other names of the class."""
    background: tuple[str, ...] = ()
    """What surrounds it."""


_Pair = tuple[str, int]


def foreground_weights(num_texts: int, mix: Literal["half", "uniform"]) -> tuple[float, ...]:
    """Return the weights of a pair's foreground texts in their mean; they sum to 1 (row Q6).

    Args:
        num_texts: L + 1, the class name (first) and L answers.
        mix: "half" gives the class name 1/2 and the answers 1/(2L) each (official), "uniform" all 1/(L+1)
            (paper). Without answers the class name has all the weight.
    """
    if num_texts == 1:
        return (1.0,)
    num_answers = num_texts - 1
    if mix == "half":
        return (0.5, *[0.5 / num_answers] * num_answers)
    return (1.0 / num_texts,) * num_texts


def class_words(class_names: Sequence[str], text: TextConfig) -> tuple[str, ...]:
    """Return the words that stand for each class in texts: its name, unless `text.class_words` says otherwise (C6).

    Raises:
        ConfigError: when `text.class_words` names something that is no class.
    """
    words = dict(text.class_words)
    require_classes("text.class_words", words, class_names)
    return tuple(words.get(name, name) for name in class_names)


def class_prompts(class_names: Sequence[str], text: TextConfig) -> list[str]:
    """Return the text of every class, "a photo of {class}." (SemPLeS u_f, CLIMS).

    Raises:
        ConfigError: see `class_words`.
    """
    return [text.template.replace("{}", words) for words in class_words(class_names, text)]


def pair_prompts(corpus: pd.DataFrame | None, manifest: Manifest, text: TextConfig) -> list[PairPrompts]:
    """Make the prompts of every pair of a manifest.

    The class name is always a foreground text. Where no group of background answers is in use, the background is
    "no {class}", as in the paper's runs without QAPE and in rows 1-3 and 6 of Table 5 (row Q14).

    Args:
        corpus: the answers; only `source = "qape"` reads them.
        manifest: images and labels, which define the pairs and their order.
        text: what to make of the answers.

    Raises:
        ArtifactError: when the corpus lacks a pair, or calls its class otherwise.
        ConfigError: when `fixed_background` names something that is no class, or there is no corpus to read.
    """
    answers = _answers(corpus, manifest, text)
    fixed = _fixed_background(manifest.class_names, text) if text.source == "fixed" else {}
    words = class_words(manifest.class_names, text)
    prompts = []
    for record in manifest.records:
        for class_id in record.labels:
            # An image that failed in the corpus still has its class name.
            found = answers.get((record.image_id, class_id), PairAnswers())
            own = fixed.get(class_id, ())
            prompts.append(_prompts_of(record, class_id, words[class_id], found, own, manifest.class_names, text))
    return prompts


def _prompts_of(
    record: ImageRecord,
    class_id: int,
    words: str,
    answers: PairAnswers,
    fixed: Sequence[str],
    class_names: Sequence[str],
    text: TextConfig,
) -> PairPrompts:
    short_forms = short_forms_of(class_names[class_id], text.class_synonyms)
    foreground = [class_text(a, words, short_forms=short_forms, rule=text.suffix_rule) for a in answers.foreground]
    match text.source:
        case "fixed":
            background = _kept(fixed, record, class_id, class_names, text)
        case "qape" if _uses(text, "background"):
            background = _kept(answers.background, record, class_id, class_names, text)
        case _:
            background = [f"no {words}"]
    if not background and text.empty_background == "no_class":
        background = [f"no {words}"]
    return PairPrompts(
        image_id=record.image_id,
        class_id=class_id,
        foreground=tuple(text.template.replace("{}", words) for words in (words, *foreground)),
        background=tuple(text.template.replace("{}", words) for words in background),
    )


def _kept(
    texts: Sequence[str], record: ImageRecord, class_id: int, class_names: Sequence[str], text: TextConfig
) -> list[str]:
    """Distinct background texts that do not name what the image is labelled with (rows Q8, Q9)."""
    filters = text.background_filters
    labels = record.labels if "other_labels" in filters else (class_id,)
    names = [class_names[label] for label in labels]
    if "synonyms" in filters:
        names += [form for name in names for form in short_forms_of(name, text.class_synonyms)]
    kept = [answer for answer in texts if answer.strip()] if "empty" in filters else texts
    return without_duplicates(drop_named(kept, names, containing="containing" in filters))


def _uses(text: TextConfig, kind: Literal["foreground", "background"]) -> bool:
    return any(KIND_OF_GROUP[group] == kind for group in text.groups)


def _fixed_background(class_names: Sequence[str], text: TextConfig) -> dict[int, tuple[str, ...]]:
    """Per class its own fixed texts, then the shared ones."""
    require_classes("text.fixed_background", dict(text.fixed_background), class_names, or_all=SHARED_KEY)
    return {
        class_id: tuple(
            words for wanted in (name, SHARED_KEY) for key, texts in text.fixed_background if key == wanted
            for words in texts
        )
        for class_id, name in enumerate(class_names)
    }  # fmt: skip


def _answers(corpus: pd.DataFrame | None, manifest: Manifest, text: TextConfig) -> dict[_Pair, PairAnswers]:
    """Answers in use of every pair; empty for the sources that read no corpus."""
    if text.source != "qape":
        return {}
    if corpus is None:
        raise ConfigError("text.source is qape, which reads the corpus, but none was given")
    answers = corpus_answers(corpus, text)
    _check_corpus(corpus, manifest)
    pairs = [(record.image_id, class_id) for record in manifest.records for class_id in record.labels]
    answers = {pair: answers[pair] for pair in pairs if pair in answers}
    if num_unanswered := len(pairs) - len(answers):
        _logger.warning("%d of %d pairs have no answers: their images failed in the corpus", num_unanswered, len(pairs))
    return shuffle_within_class(answers, text.seed) if text.shuffle_answers else answers


def corpus_answers(corpus: pd.DataFrame, text: TextConfig) -> dict[_Pair, PairAnswers]:
    """Return the cleaned answers of the groups in use, per pair, in asking order.

    A pair whose image failed is absent; a pair that was answered is present even when no group of it is in use.
    """
    answered: Any = corpus[corpus["status"] == "ok"]
    ordered = answered.sort_values("question_index", kind="stable")
    columns = [ordered[name].tolist() for name in ("image_id", "class_id", "kind", "group", "answer")]
    found: dict[_Pair, dict[str, list[str]]] = {}
    for image_id, class_id, kind, group, answer in zip(*columns, strict=True):
        of_pair = found.setdefault((image_id, class_id), {"foreground": [], "background": []})
        if group in text.groups:
            of_pair[kind].append(answer)
    return {pair: PairAnswers(tuple(of["foreground"]), tuple(of["background"])) for pair, of in found.items()}


def shuffle_within_class(answers: Mapping[_Pair, PairAnswers], seed: int) -> dict[_Pair, PairAnswers]:
    """Give each pair the answers of another image of the same class, a control for image-specific answers.

    Each pair's answers go to exactly one other pair; a class with one image keeps its own.

    Args:
        answers: per pair.
        seed: the order of the exchange depends on it and on the pairs alone.
    """
    images_of_class: dict[int, list[str]] = defaultdict(list)
    for image_id, class_id in sorted(answers):
        images_of_class[class_id].append(image_id)
    shuffled: dict[_Pair, PairAnswers] = {}
    for class_id, image_ids in images_of_class.items():
        order = np.random.default_rng([seed, class_id]).permutation(len(image_ids))
        # One cycle through all images of the class, so that none gets its own answers.
        for receiver, giver in zip(order, np.roll(order, 1), strict=True):
            shuffled[image_ids[receiver], class_id] = answers[image_ids[giver], class_id]
    return shuffled


def _check_corpus(corpus: pd.DataFrame, manifest: Manifest) -> None:
    """Refuse a corpus that is not about these pairs; a failed image has a row too, so it is known."""
    names = dict(zip(corpus["class_id"], corpus["class_name"], strict=True))
    for class_id, name in names.items():
        expected = manifest.class_names[class_id] if 0 <= class_id < len(manifest.class_names) else None
        if name != expected:
            raise ArtifactError(
                f"the corpus calls class {class_id} {name!r}, the manifest {expected!r}: it was made from another "
                "data set. Make it again with `qaclims corpus`"
            )
    known = set(zip(corpus["image_id"], corpus["class_id"], strict=True))
    pairs = [(record.image_id, class_id) for record in manifest.records for class_id in record.labels]
    if missing := [pair for pair in pairs if pair not in known]:
        image_id, class_id = missing[0]
        raise ArtifactError(
            f"the corpus has no answers for {len(missing)} of {len(pairs)} pairs, e.g. {image_id} (class "
            f'"{manifest.class_names[class_id]}"); the manifest is {manifest.fingerprint()}. '
            "Make the corpus again with `qaclims corpus`"
        )

"""Building the corpus, without Ray: planning shards, decoding, asking, and counting what failed (QA-CLIMS 3.2).

``stages/corpus.py`` calls these functions in tasks and actors; a loop over them in one process does the same.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.corpus.answers import clean_answer, without_sentence
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.corpus.questions import Question
from qaclims_ray.corpus.table import NO_QUESTION
from qaclims_ray.data.images import load_image, resize_square
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import ConfigError, DataError, ModelError, ResourceError
from qaclims_ray.models.devices import ItemsAtOnce

Ask = Callable[[UInt8[Tensor, "batch 3 height width"], list[list[str]]], list[list[str]]]
"""Answers the questions of each image of a batch: what a VQA model's `answer` does, with its settings bound."""

QUESTIONS_AT_ONCE = ItemsAtOnce(on_cpu=192, per_gib=32.0, most=1536)
"""`corpus.questions_per_batch` where it is open: 1,536 questions about 64 images took a prototype of BLIP 10 GiB in
bfloat16, and twice as many were hardly faster."""
_NUM_EXAMPLES = 5
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class DecodedShard:
    """The images of one shard, ready to be asked about."""

    records: tuple[ImageRecord, ...]
    """Records of the images that could be read."""
    images: UInt8[Tensor, "batch 3 height width"]
    """Their pixels, RGB, all of one square size."""
    failed: tuple[tuple[ImageRecord, str], ...]
    """Records of the others, each with the reason."""


@dataclass(frozen=True)
class AnsweredShard:
    """What a VQA model said about a shard, of which the table's rows are made; its pixels are gone."""

    records: tuple[ImageRecord, ...]
    """Records of the images that were asked about."""
    asked: list[list[str]]
    """What was asked about each, by `questions_of`."""
    outcomes: list[list[str] | str]
    """The answers about each, or the reason why there are none."""
    failed: tuple[tuple[ImageRecord, str], ...]
    """Records of the images that could not be read, each with the reason."""


def plan_shards(manifest: Manifest, images_per_shard: int) -> list[list[ImageRecord]]:
    """Cut the labelled images into shards, in the manifest's order; an image without labels has no rows."""
    records = [record for record in manifest.records if record.labels]
    return [records[start : start + images_per_shard] for start in range(0, len(records), images_per_shard)]


def question_words(class_names: Sequence[str], aliases: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """Return the words for each class in the questions: its alias, or else its name (row Q3).

    Raises:
        ConfigError: when an alias is given for something that is no class.
    """
    by_name = dict(aliases)
    if unknown := sorted(by_name.keys() - set(class_names)):
        raise ConfigError(f"corpus.class_aliases names {unknown}, which are no classes; expected {list(class_names)}")
    return tuple(by_name.get(name, name) for name in class_names)


def decode_shard(records: Sequence[ImageRecord], image_size: int) -> DecodedShard:
    """Read the images of a shard as squares; an image that cannot be read is kept as data.

    Args:
        records: the images.
        image_size: side in pixels; bicubic, aspect not kept (row Q1).
    """
    readable: list[ImageRecord] = []
    images: list[Tensor] = []
    failed: list[tuple[ImageRecord, str]] = []
    for record in records:
        try:
            images.append(resize_square(load_image(record.image_uri), image_size))
            readable.append(record)
        except DataError as error:
            failed.append((record, str(error)))
    stacked = torch.stack(images) if images else no_images(image_size)
    return DecodedShard(records=tuple(readable), images=stacked, failed=tuple(failed))


def no_images(image_size: int) -> UInt8[Tensor, "0 3 height width"]:
    """Return a batch without images."""
    return torch.empty((0, 3, image_size, image_size), dtype=torch.uint8)


def answer_shard(
    decoded: DecodedShard,
    ask: Ask,
    questions: Sequence[Question],
    class_names: Sequence[str],
    config: CorpusConfig,
) -> list[dict[str, Any]]:
    """Return a shard's rows of `table.SCHEMA`: `ask_shard` and `shard_rows` in one."""
    return shard_rows(ask_shard(decoded, ask, questions, class_names, config), questions, class_names, config)


def ask_shard(
    decoded: DecodedShard,
    ask: Ask,
    questions: Sequence[Question],
    class_names: Sequence[str],
    config: CorpusConfig,
) -> AnsweredShard:
    """Ask every question about every present class of every image of a shard.

    All images are asked about together. When that fails they are asked about one by one, so that one image
    that the model cannot take does not cost the others their answers.

    Args:
        decoded: the images.
        ask: the VQA model.
        questions: the question templates, in asking order.
        class_names: natural names in label order.
        config: aliases.

    Raises:
        ModelError: when the model returns another number of answers than it was asked for.
        ResourceError: when the device's memory is exhausted.
    """
    asked = questions_of(decoded.records, questions, class_names, config)
    return AnsweredShard(decoded.records, asked, _ask_all(decoded, ask, asked), decoded.failed)


def questions_of(
    records: Sequence[ImageRecord], questions: Sequence[Question], class_names: Sequence[str], config: CorpusConfig
) -> list[list[str]]:
    """Return what is asked about each image: every question about its first label, then about the next."""
    words = question_words(class_names, config.class_aliases)
    return [
        [question.ask(words[class_id]) for class_id in record.labels for question in questions] for record in records
    ]


def shard_rows(
    answered: AnsweredShard, questions: Sequence[Question], class_names: Sequence[str], config: CorpusConfig
) -> list[dict[str, Any]]:
    """Return a shard's rows of `table.SCHEMA`, in the order of records, labels and questions; failed images last.

    Args:
        answered: the answers.
        questions: the question templates, in asking order.
        class_names: natural names in label order.
        config: answer clean-up.
    """
    rows: list[dict[str, Any]] = []
    failed = list(answered.failed)
    for record, texts, outcome in zip(answered.records, answered.asked, answered.outcomes, strict=True):
        if isinstance(outcome, str):
            failed.append((record, outcome))
        else:
            rows += _answer_rows(record, texts, outcome, questions, class_names, config)
    return rows + [row for record, reason in failed for row in _error_rows(record, reason, class_names)]


def _ask_all(decoded: DecodedShard, ask: Ask, asked: list[list[str]]) -> list[list[str] | str]:
    """Per image its answers, or the reason why there are none."""
    if not asked:
        return []
    together = _try_to_ask(decoded.images, ask, asked)
    if not isinstance(together, str):
        return [*together]
    if len(asked) == 1:
        return [together]
    _logger.warning("asking %d images together failed (%s); asking one by one", len(asked), together)
    outcomes: list[list[str] | str] = []
    for index, texts in enumerate(asked):
        alone = _try_to_ask(decoded.images[index : index + 1], ask, [texts])
        outcomes.append(alone if isinstance(alone, str) else alone[0])
    return outcomes


def _try_to_ask(images: Tensor, ask: Ask, asked: list[list[str]]) -> list[list[str]] | str:
    try:
        answers = ask(images, asked)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise ResourceError(
            f"the VQA model ran out of memory on {len(images)} images ({error}); "
            "lower corpus.questions_per_batch or corpus.images_per_shard"
        ) from error
    # These are not about one image: they would come for any other too.
    except (ModelError, ConfigError, ResourceError):
        raise
    except Exception as error:  # whatever a model does on one bad image: it becomes a row that says so
        return f"the VQA model failed: {type(error).__name__}: {error}"
    if [len(texts) for texts in answers] != [len(texts) for texts in asked]:
        raise ModelError(
            f"the VQA model gave {[len(texts) for texts in answers]} answers, expected "
            f"{[len(texts) for texts in asked]}: one per question of each image"
        )
    return answers


def _answer_rows(
    record: ImageRecord,
    asked: list[str],
    answers: list[str],
    questions: Sequence[Question],
    class_names: Sequence[str],
    config: CorpusConfig,
) -> list[dict[str, Any]]:
    places = [(class_id, index, question) for class_id in record.labels for index, question in enumerate(questions)]
    return [
        {
            "image_id": record.image_id,
            "class_id": class_id,
            "class_name": class_names[class_id],
            "question_index": index,
            "question": text,
            "kind": question.kind,
            "group": question.group,
            "raw_answer": answer,
            "answer": clean_answer(
                answer if config.engine == "blip" else without_sentence(answer), lemmatise=config.lemmatise
            ),
            "status": "ok",
            "error": None,
        }
        for (class_id, index, question), text, answer in zip(places, asked, answers, strict=True)
    ]


def _error_rows(record: ImageRecord, reason: str, class_names: Sequence[str]) -> list[dict[str, Any]]:
    empty = dict.fromkeys(("question", "kind", "group", "raw_answer", "answer"), "")
    return [
        {
            "image_id": record.image_id,
            "class_id": class_id,
            "class_name": class_names[class_id],
            "question_index": NO_QUESTION,
            **empty,
            "status": "error",
            "error": reason,
        }
        for class_id in record.labels
    ]


def failed_images(corpus: pd.DataFrame) -> dict[str, str]:
    """Return the images without answers: image id -> reason, in the table's order."""
    failed: Any = corpus[corpus["status"] == "error"]
    reasons: dict[str, str] = {}
    for image_id, reason in zip(failed["image_id"], failed["error"], strict=True):
        reasons.setdefault(image_id, reason)
    return reasons


def summarise_corpus(corpus: pd.DataFrame) -> dict[str, Any]:
    """Return the counts worth a look, as JSON types."""
    answered: Any = corpus[corpus["status"] == "ok"]
    answers: Any = answered["answer"]
    num_images = len(set(corpus["image_id"]))
    num_failed = len(failed_images(corpus))
    by_group = answered.groupby("group")["answer"].nunique()
    return {
        "rows": len(corpus),
        "images": num_images,
        "pairs": len(set(zip(corpus["image_id"], corpus["class_id"], strict=True))),
        "failed_images": num_failed,
        "failed_fraction": num_failed / num_images if num_images else 0.0,
        "distinct_answers": len(set(answers)),
        "empty_answers": int((answers == "").sum()),
        "distinct_answers_by_group": {str(group): int(count) for group, count in by_group.items()},
        "top_answers": {str(answer): int(count) for answer, count in answers.value_counts().head(20).items()},
    }


def check_failures(failed: pd.DataFrame, num_images: int, max_failed_fraction: float) -> None:
    """Refuse a corpus in which too many images have no answers.

    Args:
        failed: the corpus, or its rows with status "error".
        num_images: images in all.
        max_failed_fraction: share of images that may fail, 0 to 1.

    Raises:
        DataError: when more failed; names the first few and why.
    """
    reasons = failed_images(failed)
    if len(reasons) <= max_failed_fraction * num_images:
        return
    examples = [f"\n  {image_id}: {reason}" for image_id, reason in reasons.items()][:_NUM_EXAMPLES]
    raise DataError(
        f"{len(reasons)} of {num_images} images could not be read or answered, more than the accepted share "
        f"corpus.max_failed_fraction = {max_failed_fraction}. Mend or remove them, or raise the share. The first:"
        + "".join(examples)
    )

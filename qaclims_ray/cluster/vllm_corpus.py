"""The corpus through ``ray.data.llm``: vLLM answers the questions where it is installed.

A row of the data set is one question with its image. vLLM batches the rows as it likes, across shards; the driver puts
the answers, which are short, back into their places and publishes a shard when its last answer is there. What is not
Ray's is in plain functions, tested as such: vLLM itself needs a GPU.
"""

import base64
import importlib.util
import io
import pickle
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray.data
from jaxtyping import UInt8
from PIL import Image
from ray.data.llm import build_processor, vLLMEngineProcessorConfig
from torch import Tensor

from qaclims_ray.cluster.patience import patience_s
from qaclims_ray.cluster.shards import ShardProgress, stage_errors
from qaclims_ray.corpus import build, table
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.corpus.questions import Question
from qaclims_ray.data import storage
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ModelError

FAILURE = "__inference_error__"
"""Column in which ray.data.llm says why a row has no answer."""
JPEG_QUALITY = 95


def check_vllm() -> None:
    """Refuse a run whose questions vLLM should answer where it is not installed.

    Raises:
        ModelError: when it is not.
    """
    if importlib.util.find_spec("vllm") is None:
        raise ModelError(
            "corpus.engine is vllm, but there is no package vllm here. Install it on every node (it needs a GPU and "
            "pins its own torch), or set corpus.engine image_text_to_text, which asks the same models without it"
        )


def run_vllm_shards(
    shards: Sequence[tuple[int, list[ImageRecord]]],
    *,
    finished: Collection[int] = (),
    decode: Callable[[Any], tuple[int, build.DecodedShard]],
    model: str,
    config: CorpusConfig,
    questions: tuple[Question, ...],
    class_names: tuple[str, ...],
    uri: str,
    plan: str,
    progress: ShardProgress,
) -> None:
    """Ask about every shard and publish each when it is whole.

    Args:
        shards: index and images of each, of all shards.
        finished: shards that are there already; they are left out.
        decode: reads a shard's images.
        model: hub name or folder.
        config: settings of the corpus.
        questions: the question templates, in asking order.
        class_names: natural names in label order.
        uri: folder of the corpus table.
        plan: fingerprint of the plan.
        progress: called with (shards done, shards in all).

    Raises:
        ConfigError: when an alias names no class.
        ResourceError: when Ray or vLLM fails for a reason of its own, or no answer comes for longer than
            `patience.patience_s`; what is published stays.
    """
    todo = [shard for shard in shards if shard[0] not in finished]
    if not todo:
        return
    # Called for its check only: a wrong alias is reported before vLLM loads a model.
    build.question_words(class_names, config.class_aliases)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = patience_s() or -1
    split = QuestionRows(decode, questions, class_names, config)
    rows = [{"shard": pickle.dumps(shard)} for shard in todo]
    asked = ray.data.from_items(rows, override_num_blocks=len(rows)).flat_map(split)
    answered = vllm_engine(model, config)(asked).map(outcome_of)
    waiting = {index: OpenShard(records, questions, class_names, config) for index, records in todo}

    def publish(index: int) -> None:
        table.write_shard(storage.join(uri, shard_name(index)), waiting.pop(index).rows(), plan=plan)
        progress(len(shards) - len(waiting), len(shards))

    with stage_errors(lambda: f"{len(todo) - len(waiting)} of {len(todo)} shards"):
        for row in answered.iter_rows():
            if waiting[row["shard"]].take(row):
                publish(row["shard"])
    # A shard of which no image can be read has no question, and so no row that comes back.
    for index, records in [(index, records) for index, records in todo if index in waiting]:
        waiting[index].failed = decode((index, records))[1].failed
        publish(index)


def vllm_engine(model: str, config: CorpusConfig) -> Callable[[ray.data.Dataset], ray.data.Dataset]:
    """Return what turns rows of `QuestionRows` into answered ones: one engine for each of `num_actors`."""
    assert config.num_actors is not None, "what is left open is shared out before"
    settings = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs={
            "tensor_parallel_size": int(config.gpus_per_actor),
            "dtype": {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[config.arithmetic],
            "limit_mm_per_prompt": {"image": 1},
        },
        batch_size=config.questions_per_batch or build.QUESTIONS_AT_ONCE.on_cpu,
        concurrency=config.num_actors,
        # A question that fails becomes a row with `FAILURE`; by default it would end the whole stage.
        should_continue_on_error=True,
        prepare_multimodal_stage={"enabled": True},
        chat_template_stage={"enabled": True},
        # vLLM makes tokens of text and image itself, and text of the tokens that it generates.
        tokenize_stage={"enabled": False},
        detokenize_stage={"enabled": False},
    )
    return build_processor(settings, preprocess=ChatRequest(config.prompt, config.max_length), postprocess=dict)


@dataclass(frozen=True)
class QuestionRows:
    """Turns a pickled shard into one row for each of its questions, with the image as a data URL."""

    decode: Callable[[Any], tuple[int, build.DecodedShard]]
    questions: tuple[Question, ...]
    class_names: tuple[str, ...]
    config: CorpusConfig

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the rows; each knows how many there are and which images of its shard failed."""
        index, decoded = self.decode(pickle.loads(row["shard"]))
        asked = build.questions_of(decoded.records, self.questions, self.class_names, self.config)
        failed = pickle.dumps(decoded.failed)
        rows: list[dict[str, Any]] = []
        for record, image, texts in zip(decoded.records, decoded.images, asked, strict=True):
            url = data_url(image)
            for place, text in enumerate(texts):
                place_of = {"shard": index, "image_id": record.image_id, "place": place}
                rows.append({**place_of, "question": text, "url": url, "failed": failed})
        return [{**row, "num_rows": len(rows)} for row in rows]


@dataclass(frozen=True)
class ChatRequest:
    """Writes a row as a request in the form of OpenAI's chat API."""

    prompt: str
    max_tokens: int

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the columns that the engine reads; the row's own stay beside them."""
        content = [
            {"type": "image_url", "image_url": {"url": row["url"]}},
            {"type": "text", "text": self.prompt.replace("{}", row["question"])},
        ]
        return {
            "messages": [{"role": "user", "content": content}],
            "sampling_params": {"temperature": 0.0, "max_tokens": self.max_tokens},
        }


def outcome_of(row: dict[str, Any]) -> dict[str, Any]:
    """Return of an answered row what the driver reads: its place, and its answer or why there is none."""
    kept = {name: row[name] for name in ("shard", "image_id", "place", "failed", "num_rows")}
    failure = str(row.get(FAILURE) or "")
    return {**kept, "answer": "" if failure else str(row["generated_text"]), "failure": failure}


class OpenShard:
    """A shard whose answers are coming in, in any order."""

    def __init__(
        self,
        records: Sequence[ImageRecord],
        questions: tuple[Question, ...],
        class_names: tuple[str, ...],
        config: CorpusConfig,
    ) -> None:
        self._records, self._questions, self._class_names, self._config = records, questions, class_names, config
        self._answers: dict[tuple[str, int], str] = {}
        self._failures: dict[str, str] = {}
        self.failed: tuple[tuple[ImageRecord, str], ...] = ()

    def take(self, row: dict[str, Any]) -> bool:
        """Keep an outcome; return whether it was the last one."""
        self._answers[row["image_id"], row["place"]] = row["answer"]
        if row["failure"]:
            self._failures.setdefault(row["image_id"], f"the VQA model failed: {row['failure']}")
        self.failed = pickle.loads(row["failed"])
        return len(self._answers) == row["num_rows"]

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of the corpus table."""
        unread = {record.image_id for record, _ in self.failed}
        readable = tuple(record for record in self._records if record.image_id not in unread)
        asked = build.questions_of(readable, self._questions, self._class_names, self._config)
        outcomes = [
            self._failures.get(record.image_id)
            or [self._answers[record.image_id, place] for place in range(len(texts))]
            for record, texts in zip(readable, asked, strict=True)
        ]
        answered = build.AnsweredShard(readable, asked, outcomes, self.failed)
        return build.shard_rows(answered, self._questions, self._class_names, self._config)


def data_url(image: UInt8[Tensor, "3 height width"]) -> str:
    """Return an RGB image as a JPEG in a data URL."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(image.permute(1, 2, 0))).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

"""Ray Data asks the VQA model all questions about every training image (QAPE, QA-CLIMS 3.2)."""

import dataclasses
import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor

from qaclims_ray.cluster.shards import ShardProgress, run_shards
from qaclims_ray.corpus import build, table
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.corpus.questions import Question, question_set, questions_fingerprint
from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.shards import shard_name
from qaclims_ray.models.devices import BatchSize, device_of_worker, dtype_of
from qaclims_ray.models.weights import weights_fingerprint
from qaclims_ray.stages.layout import CORPUS_TABLE
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.recipe import vqa_model

# Where a corpus is computed says nothing about what is in it.
_RESOURCE_FIELDS = ("num_actors", "gpus_per_actor", "questions_per_batch", "max_failed_fraction")


class CorpusActor:
    """Hold the VQA model; ask it about one decoded shard."""

    def __init__(
        self, model: str, config: CorpusConfig, questions: tuple[Question, ...], class_names: tuple[str, ...]
    ) -> None:
        torch.set_num_threads(1)
        # Of other models' memory nothing is known, so that they take the number of a CPU.
        device = device_of_worker(config.gpus_per_actor if config.engine == "blip" else 0)
        size = build.QUESTIONS_AT_ONCE.chosen(config.questions_per_batch, device, config.gpus_per_actor)
        self.at_once = BatchSize(size, "corpus.questions_per_batch")
        self.ask = load_engine(model, config, self.at_once)
        self.config, self.questions, self.class_names = config, questions, class_names

    def __call__(self, shard: tuple[int, Any]) -> tuple[int, build.AnsweredShard, str]:
        """Return the shard's number, the answers, and a remark (`run_shards`)."""
        index, decoded = shard
        answered = build.ask_shard(decoded, self.ask, self.questions, self.class_names, self.config)
        return index, answered, self.at_once.remark


def write_answers(
    shard: tuple[int, build.AnsweredShard, str],
    *,
    config: CorpusConfig,
    questions: tuple[Question, ...],
    class_names: tuple[str, ...],
    uri: str,
    plan: str,
) -> dict[str, Any]:
    """Clean a shard's answers and publish its Parquet file; return the number of rows."""
    index, answered, remark = shard
    rows = build.shard_rows(answered, questions, class_names, config)
    table.write_shard(storage.join(uri, shard_name(index)), rows, plan=plan)
    return {"rows": len(rows), "remark": remark}


def load_engine(model: str, config: CorpusConfig, at_once: BatchSize) -> build.Ask:
    """Load the model that answers inside an actor; the settings are bound to what is returned.

    Args:
        model: of the engine.
        config: engine and how it answers.
        at_once: questions that are answered together.

    Raises:
        ModelError: when it cannot be loaded.
    """
    device = device_of_worker(config.gpus_per_actor)
    dtype = dtype_of(config.arithmetic, device)
    answer: Callable[..., list[list[str]]]
    if config.engine == "blip":
        from qaclims_ray.models.vqa.blip import load_vqa

        vqa = load_vqa(model, image_size=config.image_size, device=device, dtype=dtype)
        answer = functools.partial(vqa.answer, max_question_tokens=config.max_question_tokens)
    else:
        from qaclims_ray.models.vqa.image_text_to_text import load_image_text_to_text

        chat = load_image_text_to_text(model, prompt=config.prompt, device=device, dtype=dtype)
        answer = functools.partial(chat.answer, prompt=config.prompt)

    def ask(images: Tensor, questions: list[list[str]]) -> list[list[str]]:
        return at_once.run(
            lambda together: answer(
                images,
                questions,
                num_beams=config.num_beams,
                max_length=config.max_length,
                min_length=config.min_length,
                questions_per_batch=together,
            )
        )

    return ask


def run_corpus(stage: Stage, manifest: Manifest) -> ArtifactMeta:
    """Build the corpus of the training images, or go on with a build that was cut off.

    Raises:
        ModelError: when the VQA model cannot be loaded.
        DataError: when more than `corpus.max_failed_fraction` of the images fail.
    """
    config, model = stage.config.corpus, vqa_model(stage.config)
    questions = question_set(config.questions)
    artifact = Artifact(
        uri=stage.layout.corpus,
        kind="corpus",
        settings={
            **{name: value for name, value in plain(config).items() if name not in _RESOURCE_FIELDS},
            "precision": config.arithmetic,
        },
        inputs={
            "manifest": manifest.images_fingerprint(),
            "questions": questions_fingerprint(questions),
            "vqa": weights_fingerprint(model),
        },
        verb="corpus",
    )

    def work() -> dict[str, Any]:
        _ask_all(stage, manifest, artifact, model, questions)
        frame = table.read_corpus(_table_of(artifact))
        build.check_failures(frame, len(manifest.records), config.max_failed_fraction)
        summary = build.summarise_corpus(frame)
        stage.tracker.log_metrics({f"corpus/{k}": v for k, v in summary.items() if isinstance(v, int | float)})
        return summary

    def describe(meta: ArtifactMeta) -> str:
        return f"{meta.summary.get('rows')} answers from {len(manifest.records)} images"

    return stage.make(artifact, "corpus", work, describe, goes_on=True)


def _table_of(artifact: Artifact) -> str:
    """Return the folder of the shards while they are made."""
    return storage.join(artifact.workshop, CORPUS_TABLE)


def _ask_all(stage: Stage, manifest: Manifest, artifact: Artifact, model: str, questions: tuple[Question, ...]) -> None:
    """Ask about every shard that is not there yet."""
    config, uri = stage.config.corpus, _table_of(artifact)
    plan = build.plan_shards(manifest, config.images_per_shard)
    finished = set(range(len(plan))) - set(table.missing_shards(uri, len(plan), artifact.fingerprint))
    asked_for: dict[str, Any] = {
        "model": model,
        "config": dataclasses.replace(config, num_actors=stage.room.actors(config.num_actors, config.gpus_per_actor)),
        "questions": questions,
        "class_names": manifest.class_names,
        "uri": uri,
        "plan": artifact.fingerprint,
    }
    run: Callable[..., None] = _run_actors
    if config.engine == "vllm":
        from qaclims_ray.cluster.vllm_corpus import run_vllm_shards

        run = run_vllm_shards
    run(
        list(enumerate(plan)),
        finished=finished,
        decode=functools.partial(_decode, image_size=config.image_size),
        progress=stage.progress.advance,
        **asked_for,
    )


def _run_actors(
    shards: Sequence[Any],
    *,
    finished: Collection[int],
    decode: Callable[[Any], Any],
    progress: ShardProgress,
    model: str,
    uri: str,
    plan: str,
    **asked_for: Any,
) -> None:
    config: CorpusConfig = asked_for["config"]
    assert config.num_actors is not None, "what is left open is shared out before"
    run_shards(
        shards,
        finished=finished,
        decode=decode,
        actor=CorpusActor,
        actor_kwargs={**asked_for, "model": model},
        write=functools.partial(write_answers, **asked_for, uri=uri, plan=plan),
        num_actors=config.num_actors,
        gpus_per_actor=config.gpus_per_actor,
        progress=progress,
    )


def _decode(shard: tuple[int, Any], *, image_size: int) -> tuple[int, Any]:
    index, records = shard
    return index, build.decode_shard(records, image_size)

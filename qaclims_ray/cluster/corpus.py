"""Stage 2: Ray Data asks the VQA model all questions about every training image (QAPE, QA-CLIMS 3.2)."""

import functools
from typing import Any

import torch

from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.cluster.stage import Stage, current, vqa_model, weights_fingerprint
from qaclims_ray.config import CorpusConfig
from qaclims_ray.corpus import build, table
from qaclims_ray.corpus.questions import Question, question_set, questions_fingerprint
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.models.blip import load_vqa

# Where a corpus is computed says nothing about what is in it.
RESOURCE_FIELDS = ("num_actors", "gpus_per_actor", "questions_per_batch", "max_failed_fraction")


class CorpusActor:
    """Hold the VQA model; answer one decoded shard and publish its Parquet file."""

    def __init__(
        self,
        model: str,
        config: CorpusConfig,
        questions: tuple[Question, ...],
        class_names: tuple[str, ...],
        uri: str,
        plan: str,
    ) -> None:
        torch.set_num_threads(1)
        dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
        device = torch.device("cuda" if config.gpus_per_actor > 0 else "cpu")
        self.vqa = load_vqa(model, image_size=config.image_size, device=device, dtype=dtype)
        self.config, self.questions, self.class_names = config, questions, class_names
        self.uri, self.plan = uri, plan

    def __call__(self, shard: tuple[int, Any]) -> dict[str, Any]:
        """Return counts of the shard's rows."""
        index, decoded = shard
        ask = functools.partial(
            self.vqa.answer,
            num_beams=self.config.num_beams,
            max_length=self.config.max_length,
            min_length=self.config.min_length,
            max_question_tokens=self.config.max_question_tokens,
            questions_per_batch=self.config.questions_per_batch,
        )
        rows = build.answer_shard(decoded, ask, self.questions, self.class_names, self.config)
        table.write_shard(storage.join(self.uri, table.shard_name(index)), rows, plan=self.plan)
        return {"rows": len(rows)}


def run_corpus(stage: Stage, manifest: Manifest) -> ArtifactMeta:
    """Build the corpus of the training images, or go on with a build that was cut off.

    Raises:
        ModelError: when the VQA model cannot be loaded.
        DataError: when more than `corpus.max_failed_fraction` of the images fail.
    """
    config, uri = stage.config.corpus, stage.layout.corpus
    stage.progress.start("corpus")
    questions = question_set(config.questions)
    model = vqa_model(stage.config)
    settings = {k: v for k, v in artifacts.plain(config).items() if k not in RESOURCE_FIELDS}
    inputs = {
        "manifest": manifest.fingerprint(),
        "questions": questions_fingerprint(questions),
        "vqa": weights_fingerprint(model),
    }
    if meta := current(uri, "corpus", settings, inputs):
        stage.progress.finish(f"{meta.summary.get('rows')} answers (there already)", is_new=False)
        return meta
    plan = build.plan_shards(manifest, config.images_per_shard)
    fingerprint = artifacts.expected_fingerprint("corpus", settings, inputs)
    todo = table.missing_shards(stage.layout.corpus_table, len(plan), fingerprint)
    done_before = len(plan) - len(todo)
    run_shards(
        [(index, plan[index]) for index in todo],
        decode=functools.partial(_decode, image_size=config.image_size),
        actor=CorpusActor,
        actor_kwargs={
            "model": model,
            "config": config,
            "questions": questions,
            "class_names": manifest.class_names,
            "uri": stage.layout.corpus_table,
            "plan": fingerprint,
        },
        num_actors=min(config.num_actors, max(len(todo), 1)),
        gpus_per_actor=config.gpus_per_actor,
        progress=lambda done, _: stage.progress.advance(done_before + done, len(plan)),
    )
    frame = table.read_corpus(stage.layout.corpus_table)
    summary = build.summarise(frame)
    build.check_failures(frame, len(manifest.records), config.max_failed_fraction)
    meta = artifacts.write_meta(uri, "corpus", settings, inputs, summary)
    stage.tracker.log_metrics({f"corpus/{k}": v for k, v in summary.items() if isinstance(v, int | float)})
    stage.progress.finish(
        f"{summary.get('rows', len(frame))} answers from {len(manifest.records)} images, "
        f"{len(todo)} of {len(plan)} shards asked now -> {uri}"
    )
    return meta


def _decode(shard: tuple[int, Any], *, image_size: int) -> tuple[int, Any]:
    index, records = shard
    return index, build.decode_shard(records, image_size)

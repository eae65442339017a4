"""Stage 3: the texts of every pair, each distinct prompt encoded once by CLIP."""

from typing import Any

import ray
import torch

from qaclims_ray.corpus import table
from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import QaclimsError
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.stage import Stage, clip_model, current, weights_fingerprint
from qaclims_ray.text.bank import build_bank, write_bank


def run_text(stage: Stage, system: str, manifest: Manifest) -> ArtifactMeta:
    """Build a system's text bank.

    Raises:
        ArtifactError: when the system reads the corpus and there is none.
        ModelError: when CLIP cannot be loaded.
    """
    config, uri = stage.config, stage.layout.text_bank(system)
    stage.progress.start(f"text bank of {system}")
    settings, inputs = bank_identity(stage, manifest)
    if meta := current(uri, "text_bank", settings, inputs):
        stage.progress.finish(f"{meta.summary.get('texts')} texts (there already)", is_new=False)
        return meta
    corpus_uri = stage.layout.corpus_table if config.text.source == "qape" else None
    # Where it fits, and not within what a trial of a search holds: that is next to nothing.
    task = _build.options(num_cpus=1, num_gpus=1 if config.cluster.use_gpu else 0, scheduling_strategy="DEFAULT")
    outcome: Any = ray.get(task.remote(config, manifest, corpus_uri, uri, settings, inputs))
    if isinstance(outcome, QaclimsError):
        raise outcome
    stage.tracker.log_metrics({f"text/{k}": v for k, v in outcome.summary.items() if isinstance(v, int | float)})
    stage.progress.finish(
        f"{outcome.summary.get('texts')} distinct texts for {outcome.summary.get('pairs')} pairs -> {uri}"
    )
    return outcome


def bank_identity(stage: Stage, manifest: Manifest) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings and inputs that make up a text bank's fingerprint."""
    config = stage.config
    inputs = {"manifest": manifest.fingerprint(), "clip": weights_fingerprint(*clip_model(config))}
    if config.text.source == "qape":
        inputs["corpus"] = artifacts.require(stage.layout.corpus, "corpus", verb="corpus").fingerprint
    return artifacts.plain({"text": config.text, "clip": config.clip}), inputs


@ray.remote(max_retries=1)
def _build(
    config: RunConfig, manifest: Manifest, corpus_uri: str | None, uri: str, settings: Any, inputs: dict[str, str]
) -> ArtifactMeta | QaclimsError:
    try:
        model, weights = clip_model(config)
        device = torch.device("cuda" if config.cluster.use_gpu else "cpu")
        clip = load_clip(model, weights, device=device, dtype=torch.float32, mask_adapted=config.clip.mask_adapted)
        corpus = table.read_corpus(corpus_uri) if corpus_uri else None
        bank = build_bank(corpus, manifest, config.text, clip.encode_texts, tokenize=clip.tokenize)
        write_bank(bank, uri, settings, inputs)
    except QaclimsError as error:
        return error
    return artifacts.require(uri, "text_bank", verb="text")

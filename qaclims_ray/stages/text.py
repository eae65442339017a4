"""The texts of every pair, each distinct prompt encoded once by CLIP."""

from typing import Any

from qaclims_ray.cluster.tasks import run_task
from qaclims_ray.corpus import table
from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.models.devices import device_of_worker, dtype_of
from qaclims_ray.models.precision import recorded
from qaclims_ray.models.weights import weights_fingerprint
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.recipe import clip_files
from qaclims_ray.text.bank import TextBank, bank_artifact, build_bank, write_bank


def run_text(stage: Stage, system: str, manifest: Manifest) -> ArtifactMeta:
    """Build a system's text bank.

    Raises:
        ArtifactError: when the system reads the corpus and there is none.
        ModelError: when CLIP cannot be loaded.
    """
    config, artifact = stage.config, bank_of(stage, system, manifest)
    corpus_uri = stage.layout.corpus_table if config.text.source == "qape" else None

    def work() -> dict[str, Any]:
        gpus = config.cluster.gpus_per_worker
        summary = run_task(_write, config, manifest, corpus_uri, artifact, num_gpus=gpus)
        stage.tracker.log_metrics({f"text/{k}": v for k, v in summary.items() if isinstance(v, int | float)})
        return summary

    def describe(meta: ArtifactMeta) -> str:
        return f"{meta.summary.get('texts')} distinct texts for {meta.summary.get('pairs')} pairs"

    return stage.make(artifact, f"text bank of {system}", work, describe)


def bank_of(stage: Stage, system: str, manifest: Manifest) -> Artifact:
    """Return a system's text bank as an artefact.

    Raises:
        ArtifactError: when the system reads the corpus and there is none.
    """
    config = stage.config
    inputs = {"manifest": manifest.images_fingerprint(), "clip": weights_fingerprint(*clip_files(config))}
    if config.text.source == "qape":
        inputs["corpus"] = artifacts.require_artifact(stage.layout.corpus, "corpus", verb="corpus").fingerprint
    text = {name: value for name, value in plain(config.text).items() if name != "precision"}
    settings = {"text": text | recorded(config.text.arithmetic), "clip": plain(config.clip)}
    return bank_artifact(stage.layout.text_bank(system), settings, inputs)


def _write(config: RunConfig, manifest: Manifest, corpus_uri: str | None, artifact: Artifact) -> dict[str, Any]:
    bank = _build(config, manifest, corpus_uri)
    write_bank(bank, artifact)
    return bank.summary()


def _build(config: RunConfig, manifest: Manifest, corpus_uri: str | None) -> TextBank:
    from qaclims_ray.models.clip.frozen import load_clip  # here, since planning needs no CLIP

    model, weights = clip_files(config)
    device = device_of_worker(config.cluster.gpus_per_worker)
    dtype = dtype_of(config.text.arithmetic, device)
    clip = load_clip(model, weights, device=device, dtype=dtype, mask_adapted=config.clip.mask_adapted)
    corpus = table.read_corpus(corpus_uri) if corpus_uri else None
    return build_bank(corpus, manifest, config.text, clip.encode_texts, tokenize=clip.tokenize)

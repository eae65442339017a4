"""Stages 4 and 5: what is trained for a system, from what, and what its fingerprint depends on."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qaclims_ray.cluster.workers import plan_training, run_training, run_trainings
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.methods.classifier.task import CALIBRATED_DIR
from qaclims_ray.methods.semples.phases import Phase, run_phases
from qaclims_ray.methods.semples.prompts import PROMPTS_DIR
from qaclims_ray.models.clip.prompts import PROMPTS_NAME, VECTORS_NAME
from qaclims_ray.models.generators.mask_generator import initial_generator, save_mask_generator
from qaclims_ray.models.network_folder import CONFIG_NAME, WEIGHTS_NAME
from qaclims_ray.run_config import RunConfig, System
from qaclims_ray.stages.data import training_manifest
from qaclims_ray.stages.given_cams import run_training_cams
from qaclims_ray.stages.stage import Stage, backbone_weights, clip_model, current, weights_fingerprint
from qaclims_ray.stages.text import bank_identity
from qaclims_ray.stages.training_job import RegionsOf, TrainingJob
from qaclims_ray.systems.table import artifact_kind, system_of, uses_given
from qaclims_ray.training.group import CURVES_NAME, Curves, Training, raw_curves

_GENERATOR_FIELDS = (
    "background_weight", "area_weight", "mask", "mask_epsilon", "omega", "clip_normalisation", "antialias",
    "train_scope", "freeze_batch_norm",
)  # fmt: skip
"""Settings of SemPLeS that every training of the mask generator depends on."""
_REGION_FIELDS = ("mask", "omega", "clip_normalisation", "antialias")
"""Settings of SemPLeS that prompts depend on besides their own."""


@dataclass(frozen=True)
class Trained:
    """A trained artefact that later phases start from."""

    uri: str
    """Its folder."""
    fingerprint: str
    """Its fingerprint."""
    is_cams: bool = False
    """Whether it is CAMs of the training images and no network."""


def run_classifier(stage: Stage, manifest: Manifest) -> ArtifactMeta:
    """Train the image-level classifier: the baseline CAM and the other systems' starting point."""
    config = stage.config
    settings = artifacts.plain(
        {"cam_net": config.cam_net, "augment": config.augment, "classifier": config.classifier, **_numerics(config)}
    )
    inputs = {
        "manifest": training_manifest(manifest, config).fingerprint(),
        "weights": weights_fingerprint(backbone_weights(config), config.classifier.network or None),
    }
    if config.classifier.network:
        return _take_network(stage, settings, inputs, len(manifest.class_names))
    job = TrainingJob(kind="classifier", config=config, manifest_uri=stage.layout.manifest)
    return run_training(stage, job, stage.layout.classifier, settings, inputs, manifest, label="classifier")


def _take_network(stage: Stage, settings: dict[str, Any], inputs: dict[str, str], num_classes: int) -> ArtifactMeta:
    """Copy the network that the user brought.

    Raises:
        ArtifactError: when it is not there, broken, or not what `cam_net` and the data set say.
    """
    source, uri = stage.config.classifier.network, stage.layout.classifier
    stage.progress.start("classifier")
    if meta := current(uri, "classifier", settings, inputs):
        stage.progress.finish(f"taken from {source} (there already)", is_new=False)
        return meta
    with storage.local_copy(source) as folder:
        network = initial_generator(folder, stage.config.cam_net, num_classes)
        storage.remove_tree(uri)
        with tempfile.TemporaryDirectory() as copy:
            save_mask_generator(network, copy)
            storage.upload_tree(copy, uri)
    stage.progress.finish(f"taken from {source} -> {uri}")
    return artifacts.write_meta(uri, "classifier", settings, inputs, {"taken_from": source})


def run_method(stage: Stage, name: str, manifest: Manifest) -> ArtifactMeta:
    """Train a system's network into its folder.

    Raises:
        ArtifactError: when what it starts from is not there.
    """
    system = system_of(stage.config, name)
    match system.method:
        case "qa_clims" | "clims" if system.base:
            return _run_with_prompts(stage, name, system, manifest)
        case "qa_clims" | "clims":
            return run_trainings(stage, [_text_training(stage, name, manifest, None)], manifest)[0]
        case "semples":
            return _run_semples(stage, name, system, manifest)
        case _:
            raise AssertionError("the classifier is trained once for all systems; the others have no CAM network")


def run_text_methods(stages: Mapping[str, Stage], manifest: Manifest) -> None:
    """Train systems that start from the classifier and learn from texts, on the same workers one after the other.

    Args:
        stages: surroundings, by system.
        manifest: the whole manifest.

    Raises:
        ArtifactError: when the classifier or a text bank is not there.
    """
    trainings = [_text_training(stage, name, manifest, None) for name, stage in stages.items()]
    run_trainings(next(iter(stages.values())), trainings, manifest)


def _text_training(stage: Stage, name: str, manifest: Manifest, prompts: Trained | None) -> Training:
    """Return the training of RITC, with learned prompts where they are given, or of CLIMS."""
    config, layout, method = stage.config, stage.layout, system_of(stage.config, name).method
    start = _classifier_start(stage)
    bank_settings, bank_inputs = bank_identity(stage, training_manifest(manifest, config))
    bank = artifacts.require(
        layout.text_bank(name),
        "text_bank",
        verb="text",
        fingerprint=artifacts.expected_fingerprint("text_bank", bank_settings, bank_inputs),
    )
    settings = artifacts.plain(
        {
            "cam_net": config.cam_net,
            "augment": config.augment,
            **({"ritc": config.ritc} if method == "qa_clims" else {"clims": config.clims}),
            "selection": _selection(config),
            **_numerics(config),
        }
    )
    inputs = {
        "classifier": start.fingerprint,
        "text_bank": bank.fingerprint,
        "clip": bank_inputs["clip"],
        **({"prompts": prompts.fingerprint} if prompts else {}),
    }
    job = TrainingJob(
        kind="ritc" if method == "qa_clims" else "clims",
        config=config,
        manifest_uri=layout.manifest,
        bank_uri=layout.text_bank(name),
        init_uri=start.uri,
        prompts_uri=prompts.uri if prompts else "",
    )
    return plan_training(stage, job, layout.network(name), settings, inputs, label=name)


def _run_with_prompts(stage: Stage, name: str, system: System, manifest: Manifest) -> ArtifactMeta:
    prompts = _run_phase(stage, name, manifest, Phase("prompts"), _base(stage, system), None, regions_of="ritc")
    meta = run_trainings(stage, [_text_training(stage, name, manifest, prompts)], manifest)[0]
    _copy_prompts(prompts.uri, stage.layout.prompts(name))
    return meta


def _run_semples(stage: Stage, name: str, system: System, manifest: Manifest) -> ArtifactMeta:
    """Train the phases, each kept in a folder named by its fingerprint, and copy the last network."""
    uri = stage.layout.network(name)
    given = _given(stage, name, manifest) if uses_given(stage.config, name) else None
    start = _base(stage, system) if system.base and given is None else _classifier_start(stage)
    phases: list[tuple[Phase, Trained]] = []

    def train(phase: Phase, init: Trained, prompts: Trained | None) -> Trained:
        phases.append((phase, _run_phase(stage, name, manifest, phase, init, prompts)))
        return phases[-1][1]

    last = run_phases(stage.config.semples, start, train, given=given)
    inputs = {"network": last.fingerprint}
    if meta := current(uri, "semples", {}, inputs):
        return meta
    storage.remove_tree(uri)
    for file_name in (CONFIG_NAME, WEIGHTS_NAME):
        storage.write_bytes(storage.join(uri, file_name), storage.read_bytes(storage.join(last.uri, file_name)))
    prompts = [trained.uri for phase, trained in phases if phase.kind == "prompts"]
    prompts += [storage.join(trained.uri, PROMPTS_DIR) for phase, trained in phases if phase.kind == "joint"]
    if prompts:
        _copy_prompts(prompts[-1], stage.layout.prompts(name))
    storage.write_bytes(storage.join(uri, CURVES_NAME), json.dumps(_joined_curves(phases)).encode())
    summary = {"phases": {phase.name: trained.uri.rsplit("/", 1)[-1] for phase, trained in phases}}
    return artifacts.write_meta(uri, "semples", {}, inputs, summary)


def _copy_prompts(source: str, target: str) -> None:
    """Keep a system's prompts beside its network, where they are read."""
    for file_name in (PROMPTS_NAME, VECTORS_NAME):
        storage.write_bytes(storage.join(target, file_name), storage.read_bytes(storage.join(source, file_name)))


def _run_phase(
    stage: Stage,
    name: str,
    manifest: Manifest,
    phase: Phase,
    init: Trained,
    prompts: Trained | None,
    *,
    regions_of: RegionsOf = "semples",
) -> Trained:
    config, layout = stage.config, stage.layout
    settings = phase_settings(config, phase, regions_of)
    inputs = {
        "manifest": training_manifest(manifest, config).fingerprint(),
        "network": init.fingerprint,
        "clip": weights_fingerprint(*clip_model(config)),
        **({"prompts": prompts.fingerprint} if prompts else {}),
    }
    job = TrainingJob(
        kind=phase.kind,
        config=config,
        manifest_uri=layout.manifest,
        init_uri=init.uri,
        prompts_uri=prompts.uri if prompts else "",
        regions_of=regions_of,
        phase=phase.name,
        on_given=init.is_cams,
    )
    uri = layout.phase(f"{phase.kind}-{artifacts.expected_fingerprint(phase.kind, settings, inputs)}")
    meta = run_training(stage, job, uri, settings, inputs, manifest, label=f"{name}: {phase.name}")
    return Trained(uri, meta.fingerprint)


def phase_settings(config: RunConfig, phase: Phase, regions_of: RegionsOf) -> dict[str, Any]:
    """Return what a phase depends on, and nothing else, so that systems share the phases they have in common."""
    semples = artifacts.plain(config.semples)
    settings: dict[str, Any] = {
        "cam_net": config.cam_net,
        "augment": config.augment,
        "clip": config.clip,
        "texts": [config.text.template, config.text.class_words],
        **_numerics(config),
    }
    if phase.kind != "prompts":
        settings["selection"] = _selection(config)
    if phase.kind in ("prompts", "joint"):
        settings["prompt"] = config.semples.prompt
    if phase.kind == "prompts":
        regions = artifacts.plain(config.ritc) if regions_of == "ritc" else {k: semples[k] for k in _REGION_FIELDS}
        settings["regions"] = {k: v for k, v in regions.items() if k not in ("optim", "prompt_weight", "prompt_text")}
    else:
        settings["generator"] = {k: semples[k] for k in _GENERATOR_FIELDS}
        settings["optim"] = phase.optim(config.semples)
    if phase.kind in ("refine", "joint"):
        settings["refine_weight"] = config.semples.refine_weight
    return artifacts.plain(settings)


def _joined_curves(phases: list[tuple[Phase, Trained]]) -> Curves:
    joined: Curves = {}
    for phase, trained in phases:
        for step, metrics in raw_curves(trained.uri).items():
            joined.setdefault(step, {}).update({f"{phase.name}/{figure}": value for figure, value in metrics.items()})
    return joined


def _classifier_start(stage: Stage) -> Trained:
    layout = stage.layout
    fingerprint = artifacts.require(layout.classifier, "classifier", verb="train").fingerprint
    calibrated = storage.join(layout.classifier, CALIBRATED_DIR)
    return Trained(calibrated if stage.config.classifier.calibrate else layout.classifier, fingerprint)


def _base(stage: Stage, system: System) -> Trained:
    uri = stage.layout.network(system.base)
    kind = artifact_kind(system_of(stage.config, system.base).method)
    return Trained(uri, artifacts.require(uri, kind, verb="train").fingerprint)


def _given(stage: Stage, name: str, manifest: Manifest) -> Trained:
    uri, meta = run_training_cams(stage, training_manifest(manifest, stage.config), label=name)
    return Trained(uri, meta.fingerprint, is_cams=True)


def _selection(config: RunConfig) -> dict[str, Any]:
    """Return what the choice of the epoch depends on; one criterion rates masks as they are scored."""
    found = {name: value for name, value in artifacts.plain(config.selection).items() if (name, value) != ("split", "")}
    if config.selection.criterion == "separation":
        found |= artifacts.plain({"cams": config.cams, "threshold": config.evaluation.fixed_threshold})
    return found


def _numerics(config: RunConfig) -> dict[str, Any]:
    return {"seed": config.seed, "precision": config.cluster.precision}

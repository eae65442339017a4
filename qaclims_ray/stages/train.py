"""The trainings of the systems' methods, each phase an artefact of its own."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.data.splits import scored_images, training_images
from qaclims_ray.methods.classifier.config import CALIBRATED_DIR
from qaclims_ray.methods.classifier.method import CLASSIFIER
from qaclims_ray.methods.method import Method, Outcome, Phase, Recipe, Sources, Trained, run_phases
from qaclims_ray.methods.semples.config import PROMPTS_DIR
from qaclims_ray.methods.table import method_of
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.models.clip.config import PROMPTS_NAME, VECTORS_NAME
from qaclims_ray.models.network_folder import CONFIG_NAME, WEIGHTS_NAME
from qaclims_ray.models.weights import weights_fingerprint
from qaclims_ray.stages.cams import cam_artifact, import_cams_of
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.text import bank_of
from qaclims_ray.stages.trainings import local_start, plan_training, run_trainings
from qaclims_ray.systems.needs import source_of_cams
from qaclims_ray.systems.recipe import clip_files, recipe_of
from qaclims_ray.systems.table import system_of
from qaclims_ray.training.context import WorkerContext
from qaclims_ray.training.group import CURVES_NAME, Curves, Training, raw_curves
from qaclims_ray.training.meter import OnStep


@dataclass(frozen=True)
class PhaseWork:
    """One phase as every worker is told of it."""

    phase: Phase
    """What is trained."""
    recipe: Recipe
    """Settings of the system."""
    manifest_uri: str
    """The manifest."""
    data: DataConfig
    """Its splits."""

    def __call__(self, context: WorkerContext, on_step: OnStep) -> dict[str, float]:
        """Train on this worker."""
        from qaclims_ray.training.setup import TrainingSetup  # here, since planning needs no network

        recipe, phase = self.recipe, self.phase
        setup = TrainingSetup(
            manifest=training_images(read_manifest(self.manifest_uri), self.data),
            cam_net=recipe.cam_net,
            augment=recipe.augment,
            precision=recipe.precision,
            loader_workers=context.loader_workers,
            seed=recipe.seed,
            context=context,
            on_step=on_step,
        )
        with local_start(phase.start.uri if phase.start else "") as start_dir:
            return phase.train(
                Workbench(
                    recipe=recipe,
                    setup=setup,
                    start_dir=start_dir,
                    texts_uri=phase.texts.uri if phase.texts else "",
                    prompts_uri=phase.prompts.uri if phase.prompts else "",
                    images_to_score=self._images_to_score,
                )
            )

    def _images_to_score(self) -> Manifest:
        whole, split = read_manifest(self.manifest_uri), self.recipe.selection.split
        return whole.subset(split) if split else scored_images(whole, self.data)


def _plan_classifier(stage: Stage, manifest: Manifest) -> Training:
    assert CLASSIFIER.phases is not None
    sources = Sources(manifest=training_images(manifest, stage.config.data).images_fingerprint())
    phase = next(CLASSIFIER.phases(recipe_of(stage.config, CLASSIFIER), sources))
    return _plan(stage, "classifier", phase, manifest, uri=stage.layout.classifier)


def _take_network(stage: Stage, artifact: Artifact, num_classes: int) -> ArtifactMeta:
    from qaclims_ray.models.generators.mask_generator import initial_generator, save_mask_generator

    source = stage.config.classifier.network

    def work() -> dict[str, str]:
        with storage.local_copy(source) as folder:
            network = initial_generator(folder, stage.config.cam_net, num_classes)
            with tempfile.TemporaryDirectory() as copy:
                save_mask_generator(network, copy)
                storage.upload_tree(copy, artifact.workshop)
        return {"taken_from": source}

    return stage.make(artifact, "classifier", work, lambda _: f"taken from {source}")


def run_method(stage: Stage, name: str, manifest: Manifest) -> ArtifactMeta:
    """Train a system's network into its folder, phase by phase.

    Raises:
        ArtifactError: when what it starts from is not there.
    """
    method = method_of(system_of(stage.config, name).method)
    assert method.phases is not None
    done: list[tuple[Phase, Trained]] = []
    before = artifacts.readable_meta(stage.layout.network(name))
    earlier: Mapping[str, str] = before.summary.get("phases", {}) if before is not None else {}

    def train(phase: Phase) -> Trained:
        training = _plan(stage, name, phase, manifest)
        # A phase's folder is named by its fingerprint, so one of other settings lies elsewhere.
        if phase.name in earlier and training.artifact.current() is None:
            stage.say_why(training.artifact.at(stage.layout.phase(earlier[phase.name])))
        meta = run_trainings(stage, [training])[0]
        done.append((phase, Trained(training.artifact.uri, meta.fingerprint)))
        return done[-1][1]

    outcome = run_phases(method.phases(recipe_of(stage.config, method), sources_of(stage, name, manifest)), train)
    return _keep(stage, name, method.kind, outcome, done)


def train_together(classifier: Stage | None, stages: Mapping[str, Stage], manifest: Manifest) -> None:
    """Train the image-level classifier and systems of one phase, on the same workers one after the other.

    Args:
        classifier: surroundings of the classifier; None where the run needs none.
        stages: surroundings of systems that start from nothing else that is trained, by name.
        manifest: the whole manifest.

    Raises:
        ArtifactError: when something else that they start from is not there, or when the network that the user brought
            for the classifier is not there, broken, or not what `cam_net` and the data set say.
    """
    trainings = []
    first = _plan_classifier(classifier, manifest) if classifier is not None else None
    if classifier is not None and first is not None:
        if classifier.config.classifier.network:
            _take_network(classifier, first.artifact, len(manifest.class_names))
        else:
            trainings.append(first)
    for name, stage in stages.items():
        method = method_of(system_of(stage.config, name).method)
        assert method.phases is not None
        after = (first.artifact,) if method.uses_classifier and first is not None else ()
        sources = sources_of(stage, name, manifest, classifier=after[0].fingerprint if after else "")
        phase = next(method.phases(recipe_of(stage.config, method), sources))
        trainings.append(replace(_plan(stage, name, phase, manifest), after=after))
    if trainings:
        run_trainings(classifier or next(iter(stages.values())), trainings)


def _plan(stage: Stage, name: str, phase: Phase, manifest: Manifest, *, uri: str = "") -> Training:
    """Return a phase as a training; one that is not the whole of a system goes to a folder that systems share."""
    config, layout = stage.config, stage.layout
    recipe = recipe_of(config, CLASSIFIER if uri else method_of(system_of(config, name).method))
    inputs = dict(phase.inputs)
    if phase.is_rated and recipe.selection.criterion == "oracle":
        split = recipe.selection.split or config.data.eval_split
        inputs["rated"] = manifest.subset(split).truth_fingerprint()
    artifact = Artifact(
        uri=uri or layout.network(name), kind=phase.kind, settings=phase.settings, inputs=inputs, verb="train"
    )
    if not phase.is_last or phase.prompts is not None:
        artifact = artifact.at(layout.phase(f"{phase.kind}-{artifact.fingerprint}"))
    num_images = len(training_images(manifest, config.data).records)
    counts_steps = phase.steps_per_epoch is not None
    return plan_training(
        stage,
        artifact,
        PhaseWork(phase, recipe, layout.manifest, config.data),
        phase.optim,
        label=f"{name}: {phase.name}" if phase.name else name,
        num_images=num_images,
        num_steps=phase.num_steps(num_images) if counts_steps else None,
        phase=phase.name,
    )


def sources_of(stage: Stage, name: str, manifest: Manifest, *, classifier: str = "") -> Sources:
    """Return what the run offers a system.

    Args:
        stage: surroundings.
        name: of the system.
        manifest: the whole manifest.
        classifier: fingerprint of the run's classifier where it may be yet to be trained.

    Raises:
        ArtifactError: when something that the system's method uses is not there.
    """
    config, layout = stage.config, stage.layout
    system = system_of(config, name)
    method, trained = method_of(system.method), training_images(manifest, config.data)
    brings = source_of_cams(config, name)
    given = _given(stage, brings, name, trained) if brings is not None else None
    base = None
    if system.base and given is None:
        kind = method_of(system_of(config, system.base).method).kind
        uri = layout.network(system.base)
        base = Trained(uri, artifacts.require_artifact(uri, kind, verb="train").fingerprint)
    texts = None
    if method.uses_texts:
        texts = Trained(layout.text_bank(name), bank_of(stage, name, trained).require().fingerprint)
    return Sources(
        manifest=trained.images_fingerprint(),
        clip=weights_fingerprint(*clip_files(config)) if method.uses_clip else "",
        classifier=_classifier(stage, classifier) if method.uses_classifier else None,
        texts=texts,
        base=base,
        given=given,
    )


def _classifier(stage: Stage, fingerprint: str) -> Trained:
    layout = stage.layout
    if not fingerprint:
        fingerprint = artifacts.require_artifact(layout.classifier, CLASSIFIER.kind, verb="train").fingerprint
    calibrated = storage.join(layout.classifier, CALIBRATED_DIR)
    return Trained(calibrated if stage.config.classifier.calibrate else layout.classifier, fingerprint)


def _given(stage: Stage, method: Method, name: str, trained: Manifest) -> Trained:
    """Bring CAMs of the training images, which need not be the scored ones; systems share them."""
    assert method.cam_work is not None
    work = method.cam_work(recipe_of(stage.config, method), trained)
    uri = stage.layout.phase(f"cams-{cam_artifact('', work).fingerprint}")
    meta = import_cams_of(stage, method, uri, trained, label=f"training of {name}")
    return Trained(uri, meta.fingerprint, is_cams=True)


def _keep(stage: Stage, name: str, kind: str, outcome: Outcome, done: Sequence[tuple[Phase, Trained]]) -> ArtifactMeta:
    """Bring the outcome into the system's folder, where it was not trained right into it."""
    uri = stage.layout.network(name)
    if outcome.network.uri == uri:
        return artifacts.require_artifact(uri, kind, verb="train")
    artifact = Artifact(uri=uri, kind=kind, settings={}, inputs={"network": outcome.network.fingerprint}, verb="train")
    if meta := artifact.current():
        return meta
    artifact.begin()
    _copy(outcome.network.uri, artifact.workshop, CONFIG_NAME, WEIGHTS_NAME)
    _copy(outcome.prompts_uri, storage.join(artifact.workshop, PROMPTS_DIR), PROMPTS_NAME, VECTORS_NAME)
    curves = json.dumps(_joined_curves(done))
    storage.write_bytes(storage.join(artifact.workshop, CURVES_NAME), curves.encode())
    return artifact.complete({"phases": {phase.name: trained.uri.rsplit("/", 1)[-1] for phase, trained in done}})


def _copy(source: str, target: str, *file_names: str) -> None:
    for file_name in file_names if source else ():
        storage.write_bytes(storage.join(target, file_name), whole_files.read_whole(storage.join(source, file_name)))


def _joined_curves(done: Sequence[tuple[Phase, Trained]]) -> Curves:
    joined: Curves = {}
    for phase, trained in done:
        for step, metrics in raw_curves(trained.uri).items():
            joined.setdefault(step, {}).update({f"{phase.name}/{figure}": value for figure, value in metrics.items()})
    return joined

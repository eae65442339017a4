"""The main job: every stage in order, each skipped when its artefact is there and matches."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from qaclims_ray.cluster.session import ray_session
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ConfigError
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.presets.table import started_from
from qaclims_ray.run_config import RunConfig, to_dict
from qaclims_ray.stages.cams import run_cams
from qaclims_ray.stages.console import ConsoleProgress
from qaclims_ray.stages.corpus import run_corpus
from qaclims_ray.stages.data import cam_manifest, predicted_manifest, run_data, scored_manifest, training_manifest
from qaclims_ray.stages.evaluate import Evaluation, can_score, run_evaluate
from qaclims_ray.stages.given_cams import run_given_cams
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.refine import PseudoMasks, run_refine
from qaclims_ray.stages.report import read_timings, run_report, write_timings
from qaclims_ray.stages.results import Results, log_masks, log_scores, log_segmentation, note_figures
from qaclims_ray.stages.segment import Segmentation, score_final_network, train_final_networks
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.text import run_text
from qaclims_ray.stages.train import run_classifier, run_method, run_text_methods
from qaclims_ray.systems.table import (
    SUPERVISED,
    artifact_kind,
    needs_classifier,
    needs_corpus,
    system_config,
    system_of,
    systems_with_cams,
    training_order,
)
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.run_description import changed_settings, run_note, run_tags
from qaclims_ray.tracking.store import shown
from qaclims_ray.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

STAGES = ("data", "corpus", "text", "train", "cams", "evaluate", "refine", "segment", "report", "run")
"""In order; each verb runs everything before it that is not there yet."""

OnEpoch = Callable[[Mapping[str, float]], None]

_TAG_LENGTH = 500
"""Longest tag; stores refuse very long ones."""


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind."""

    layout: RunLayout
    """Where its artefacts are."""
    scores: dict[str, Evaluation] = field(default_factory=dict)
    """Seed scores by system, as far as there are masks."""
    masks: dict[str, PseudoMasks] = field(default_factory=dict)
    """Pseudo masks by system, where the run goes so far."""
    segmentations: dict[str, Segmentation] = field(default_factory=dict)
    """Final networks by system, where the run goes so far; the fully supervised one among them."""
    labels: dict[str, str] = field(default_factory=dict)
    """Short names of the systems, for tables."""
    report_uri: str = ""
    """The HTML report, when it was written."""
    tracking: str = ""
    """Tracking server or store."""


def run_pipeline(
    config: RunConfig,
    out: str,
    *,
    until: str = "run",
    console: Console | None = None,
    trial: str = "",
    on_epoch: OnEpoch | None = None,
) -> Outcome:
    """Run the pipeline up to a stage.

    Args:
        config: the resolved configuration.
        out: output folder, a path or fsspec URI.
        until: last stage, one of `STAGES`.
        console: where the lines go.
        trial: keep configuration, timings and tracking under this name, beside other runs at work in the same folder.
        on_epoch: see `Stage.on_epoch`.

    Raises:
        QaclimsError: for every mistake a user can mend; what was finished before is kept.
    """
    if until not in STAGES:
        raise ConfigError(f"there is no stage {until!r}; known: {', '.join(STAGES)}")
    if (until, config.goal) in (("refine", "seed"), ("segment", "seed"), ("segment", "mask")):
        needed = "mask" if until == "refine" else "segmentation"
        raise ConfigError(f"this run ends with its {config.goal}s: set --goal {needed} to go on to {until}")
    out = storage.absolute(out)
    layout = RunLayout(out, trial)
    preflight(config, out)
    progress = ConsoleProgress(console, read_timings(layout))
    storage.write_bytes(layout.config, json.dumps(to_dict(config), indent=2).encode())
    identity = artifacts.fingerprint_of(to_dict(config))
    run_name = "/".join(name for name in (out.rstrip("/").rsplit("/", 1)[-1], trial) if name)
    tracker = open_tracker(
        config.tracking, run_name=run_name, out_dir=layout.records, identity=identity, tags=run_tags(config)
    )
    handle = tracker.handle()
    with _ending(tracker, progress), ray_session(config):
        tracker.log_params(to_dict(config))
        run = _Run(config, layout, tracker, progress, STAGES.index(until), on_epoch)
        with run.stage("data") as stage:
            manifest = run_data(stage)
        tracker.set_tags(run_tags(config, data_fingerprint=manifest.fingerprint()))
        found = run.stages(manifest)
        tracker.set_tags(_note(config, found))
        report_uri = ""
        if run.reaches("report"):
            with run.stage("report") as stage:
                report_uri = run_report(stage, tracker, manifest, found, progress.seconds)
        write_timings(layout, progress.seconds)
    return Outcome(
        layout=layout,
        scores=found.scores,
        masks=found.masks,
        segmentations=found.segmentations,
        labels={name: system_of(config, name).label for name in (*config.systems, SUPERVISED)},
        report_uri=report_uri,
        tracking=shown(handle.uri) if handle else "",
    )


def _note(config: RunConfig, found: Results) -> dict[str, str]:
    """Return the tags that say, above the run in MLflow's UI, what it scored and how it differs from its preset."""
    changed = changed_settings(config, default) if (default := started_from(config)) is not None else {}
    rows = {system_of(config, name).label: note_figures(found, name) for name in found.names(config)}
    listed = ", ".join(f"{name}={value}" for name, value in changed.items())
    return {"mlflow.note.content": run_note(rows, changed), "changed": listed[:_TAG_LENGTH] or "nothing"}


@dataclass(frozen=True)
class _Run:
    config: RunConfig
    layout: RunLayout
    tracker: Tracker
    progress: ConsoleProgress
    last: int
    on_epoch: OnEpoch | None = None

    def reaches(self, stage: str) -> bool:
        return STAGES.index(stage) <= self.last

    def stages(self, manifest: Manifest) -> Results:
        if self.config.goal == "segmentation":
            predicted_manifest(manifest, self.config)  # a test split that is not there is found now, not at the end
        if self.reaches("corpus") and needs_corpus(self.config):
            with self.stage("corpus") as stage:
                run_corpus(stage, training_manifest(manifest, self.config))
        if self.reaches("train") and needs_classifier(self.config):
            with self.stage("classifier") as stage:
                run_classifier(stage, manifest)
        found = Results()
        order = [s for s in training_order(self.config) if system_of(self.config, s).method != "supervised"]
        self.networks(order, manifest)
        for system in order:
            if system in self.config.systems:  # the others are systems' bases: trained, not compared
                self.seeds(system, manifest, found)
        for system in systems_with_cams(self.config):
            self.masks(system, manifest, found)
        self.segmentations(self.segmented(manifest), manifest, found)
        return found

    def networks(self, systems: list[str], manifest: Manifest) -> None:
        """Train the mask generators; those that start from the classifier and from texts share their workers."""
        with_texts = [s for s in systems if system_of(self.config, s).method in ("qa_clims", "clims")]
        if self.reaches("text"):
            for system in with_texts:
                with self.stage("text", system) as stage:
                    run_text(stage, system, training_manifest(manifest, self.config))
        if not self.reaches("train"):
            return
        together = [system for system in with_texts if not system_of(self.config, system).base]
        if together:
            with contextlib.ExitStack() as stack:
                run_text_methods(
                    {system: stack.enter_context(self.stage("train", system)) for system in together}, manifest
                )
        for system in systems:
            if system_of(self.config, system).method not in ("classifier", "given") and system not in together:
                with self.stage("train", system) as stage:
                    run_method(stage, system, manifest)

    def seeds(self, system: str, manifest: Manifest, found: Results) -> None:
        method = system_of(self.config, system).method
        network = self.layout.classifier if method in ("classifier", "given") else self.layout.network(system)
        images = cam_manifest(manifest, self.config)
        if self.reaches("cams"):
            with self.stage("cams", system) as stage:
                if method == "given":
                    run_given_cams(stage, self.layout.cams(system), images, label=system)
                else:
                    run_cams(stage, network, artifact_kind(method), self.layout.cams(system), images)
        if self.reaches("evaluate") and can_score(scored_manifest(manifest, self.config)):
            with self.stage("evaluate", system) as stage:
                found.scores[system] = run_evaluate(stage, system, images)
                log_scores(stage.tracker, self.tracker, system, found.scores[system])

    def masks(self, system: str, manifest: Manifest, found: Results) -> None:
        if self.config.goal == "seed" or not self.reaches("refine"):
            return
        with self.stage("refine", system) as stage:
            found.masks[system] = run_refine(stage, system, manifest)
            log_masks(stage.tracker, self.tracker, system, found.masks[system])

    def segmented(self, manifest: Manifest) -> list[str]:
        """Return the systems that get a final network; the true masks' one is added where there are any."""
        if self.config.goal != "segmentation" or not self.reaches("segment"):
            return []
        has_truth = any(record.mask_uri for record in training_manifest(manifest, self.config).records)
        return list(dict.fromkeys([*self.config.systems, *([SUPERVISED] if has_truth else [])]))

    def segmentations(self, systems: list[str], manifest: Manifest, found: Results) -> None:
        """Train all final networks on one group of workers, then score them."""
        if not systems:
            return
        with contextlib.ExitStack() as stack:
            stages = {system: stack.enter_context(self.stage("segment", system)) for system in systems}
            networks = train_final_networks(stages, manifest)
            for system, stage in stages.items():
                found.segmentations[system] = score_final_network(stage, system, networks[system], manifest)
                log_segmentation(stage.tracker, self.tracker, system, found.segmentations[system])

    @contextlib.contextmanager
    def stage(self, name: str, system: str = "") -> Iterator[Stage]:
        config = system_config(self.config, system) if system else self.config
        tracker = _child(self.tracker, config, name, system)
        tracker.log_params(to_dict(config))
        try:
            yield Stage(config, self.layout, tracker, self.progress, self.on_epoch)
        except BaseException:
            tracker.finish("FAILED")
            raise
        tracker.finish("FINISHED")


def _child(parent: Tracker, config: RunConfig, stage: str, system: str = "") -> Tracker:
    tracker = parent.child(f"{system}/{stage}" if system else stage)
    tracker.set_tags(run_tags(config, system=system, stage=stage))
    return tracker


@contextlib.contextmanager
def _ending(tracker: Tracker, progress: ConsoleProgress) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        progress.abort()
        tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    tracker.finish("FINISHED")


def print_results(outcome: Outcome, console: Console) -> None:
    """Print the table of systems and where report and tracking store are."""
    if outcome.scores:
        console.print(_seed_table(outcome))
        if _has_background(outcome):
            console.print(
                "FP and FN rates at the fixed threshold. * best of the sweep: chosen with pixel labels", highlight=False
            )
    if outcome.masks or outcome.segmentations:
        console.print(_final_table(outcome))
    if outcome.report_uri:
        console.print(f"report   {outcome.report_uri}", highlight=False, soft_wrap=True)
        console.print(f"figures  {outcome.report_uri.replace('.html', '.json')}", highlight=False, soft_wrap=True)
    if outcome.tracking:
        console.print(f"MLflow   {outcome.tracking}", highlight=False, soft_wrap=True)


def _has_background(outcome: Outcome) -> bool:
    scored = [
        *(evaluation.seed for evaluation in outcome.scores.values()),
        *(found.scores for found in outcome.masks.values()),
        *(found.plain for found in outcome.segmentations.values()),
    ]
    return all(scores.has_background for scores in scored if scores is not None)


def _seed_table(outcome: Outcome) -> Table:
    if not _has_background(outcome):
        table = _table("Seeds, %, over the classes", "mIoU", "Dice", "FP", "FN")
        for name, evaluation in outcome.scores.items():
            s = evaluation.seed
            figures = (s.miou_fixed, s.mdice_fixed, s.false_positive_rate, s.false_negative_rate)
            table.add_row(outcome.labels[name], *(f"{100 * figure:.1f}" for figure in figures))
        return table
    table = _table("Seed mIoU, %, by choice of threshold", "fixed", "label-free", "best *", "FP", "FN")
    for name, evaluation in outcome.scores.items():
        s = evaluation.seed
        figures = (s.miou_fixed, s.miou_label_free, s.miou_best, s.false_positive_rate, s.false_negative_rate)
        table.add_row(outcome.labels[name], *(f"{100 * figure:.1f}" for figure in figures))
    return table


def _final_table(outcome: Outcome) -> Table:
    figure = "mIoU" if _has_background(outcome) else "mIoU / Dice"
    table = _table(f"{figure}, %, from seeds to the final network", "seed", "mask", "segmentation", "with CRF")
    for name in dict.fromkeys([*outcome.masks, *outcome.segmentations]):
        seed, mask, final = outcome.scores.get(name), outcome.masks.get(name), outcome.segmentations.get(name)
        scores = (
            seed.seed if seed else None,
            mask.scores if mask else None,
            final.plain if final else None,
            final.crf if final else None,
        )
        table.add_row(outcome.labels[name], *(_figures(s) if s else "-" for s in scores))
    return table


def _figures(scores: SeedScores) -> str:
    miou = f"{100 * scores.miou_fixed:.1f}"
    return miou if scores.has_background else f"{miou} / {100 * scores.mdice_fixed:.1f}"


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("system", *columns):
        table.add_column(column, justify="left" if column == "system" else "right")
    return table

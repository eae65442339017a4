"""The main job: every stage in order, each skipped when its artefact is there and matches."""

import contextlib
import functools
import json
import logging
from collections.abc import Container, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rich.console import Console

from qaclims_ray.cluster.ray_address import address_to_join
from qaclims_ray.data import artifacts, places, storage
from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.partial_files import remove_abandoned
from qaclims_ray.data.splits import images_with_cams, scored_images, segmented_images, training_images
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.table import method_of
from qaclims_ray.presets.table import started_from
from qaclims_ray.run_config import RunConfig, to_dict
from qaclims_ray.stages.cams import run_cams
from qaclims_ray.stages.console import ConsoleProgress
from qaclims_ray.stages.corpus import run_corpus
from qaclims_ray.stages.data import log_data, run_data
from qaclims_ray.stages.evaluate import can_score, run_evaluate
from qaclims_ray.stages.given_masks import check_given_masks, run_given_masks
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.local_weights import random_start_remarks
from qaclims_ray.stages.log_network import log_network
from qaclims_ray.stages.mask_images import require_truth
from qaclims_ray.stages.mending import Mending
from qaclims_ray.stages.opening import Opening
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.refine import run_refine
from qaclims_ray.stages.report import read_timings, run_report, write_timings
from qaclims_ray.stages.results import (
    Results,
    log_figures,
    log_masks,
    log_scores,
    log_segmentation,
    log_threshold,
    log_trust,
    note_figures,
    note_remarks,
    splits_of,
)
from qaclims_ray.stages.run_description import changed_settings, failure_tag, run_note, run_tags, without_password
from qaclims_ray.stages.segment import score_final_network, train_final_networks
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.text import run_text
from qaclims_ray.stages.threshold import at_chosen_threshold, run_threshold, wants_threshold
from qaclims_ray.stages.train import run_method, train_together
from qaclims_ray.stages.trust import run_trust
from qaclims_ray.systems.checks import check_named_classes, threshold_remarks, unused_remarks
from qaclims_ray.systems.licences import weights_used
from qaclims_ray.systems.needs import (
    needs_classifier,
    needs_corpus,
    systems_with_masks,
    systems_with_networks,
    trains_nothing,
)
from qaclims_ray.systems.planning import is_one_phase
from qaclims_ray.systems.table import SUPERVISED, system_config, system_of, training_order
from qaclims_ray.tracking.mlflow_tracker import open_tracker
from qaclims_ray.tracking.tracker import Tracker

if TYPE_CHECKING:
    from qaclims_ray.cluster.workers import OnEpoch

logger = logging.getLogger(__name__)

STAGE_ORDER = ("data", "corpus", "text", "train", "cams", "evaluate", "refine", "segment", "report", "run")
"""In order; each verb runs everything before it that is not there yet."""

_TAG_LENGTH = 500
"""Longest tag; stores refuse very long ones."""


@dataclass(frozen=True)
class RunOutcome:
    """What a run leaves behind."""

    layout: RunLayout
    """Where its artefacts are."""
    results: Results = field(default_factory=Results)
    """What its systems scored."""
    labels: dict[str, str] = field(default_factory=dict)
    """Short names of the systems, for tables."""
    splits: dict[str, str] = field(default_factory=dict)
    """Which split each part is scored on (`ReportData.splits`)."""
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
    on_epoch: "OnEpoch | None" = None,
    parent_run_id: str = "",
    said: Container[str] = (),
) -> RunOutcome:
    """Run the pipeline up to a stage.

    Args:
        config: the resolved configuration.
        out: output folder, a path or fsspec URI.
        until: last stage, one of `STAGE_ORDER`.
        console: where the lines go.
        trial: keep configuration, timings and tracking under this name, beside other runs at work in the same folder.
        on_epoch: see `StageProgress.epoch`.
        parent_run_id: run of the tracker that this one is part of; empty for none.
        said: notes and remarks that the console has shown before.

    Raises:
        QaclimsError: for every mistake a user can mend; what was finished before is kept.
    """
    _check_last(config, until)
    out = storage.absolute(out)
    layout = RunLayout(out, trial)
    preflight(config, out)
    if not trial and not storage.is_remote(out):  # trials have neighbours, and are many
        remove_abandoned(out)
    keep_timings = functools.partial(write_timings, layout)
    progress = ConsoleProgress(console, read_timings(layout), on_epoch, keep_timings, said=said)
    for used in () if trial else weights_used(config):
        progress.note(used.line)
    progress.remarks([*unused_remarks(config), *threshold_remarks(config), *random_start_remarks(config)])
    settings = places.stored(to_dict(config), layout.records)
    with contextlib.ExitStack() as session:
        opening = Opening(config, session, progress)
        data_stage = Stage(config, layout, progress=progress, opening=opening)
        manifest = _read_data(data_stage, until)
        was_begun = storage.exists(layout.config)
        _keep_settings(layout, json.dumps(settings, indent=2).encode(), opening if until != "data" else None)
        tracker = _tracker(config, layout, settings, parent_run_id, was_begun=was_begun)
        handle = tracker.handle()
        run = _PipelineRun(config, layout, tracker, progress, STAGE_ORDER.index(until), opening)
        # The session too, so that a Ray of this run's own ends before the tracking does.
        with _ending(run), session:
            _tell_of_data(run, manifest)
            mending = Mending(progress)
            # Pictures of the miniature that were changed since are drawn again by reading the data.
            found = mending.whole(lambda: run.stages(manifest), lambda: _read_data(data_stage, until))
            tracker.set_tags(_note(config, found))
            report_uri, found = _reported(run, manifest, found, mending) if run.reaches("report") else ("", found)
            log_figures(tracker, config, found, run.figures)  # of what the report may have found damaged too
    labels = {name: system_of(config, name).label for name in (*config.systems, SUPERVISED)}
    return RunOutcome(
        layout, found, labels, splits_of(config), report_uri, without_credentials(handle.uri) if handle else ""
    )


def _reported(run: "_PipelineRun", manifest: Manifest, found: Results, mending: Mending) -> tuple[str, Results]:
    """Write the report; return its page's URI, and the results that it shows: what it finds damaged is made again."""
    results = [found]
    again = functools.partial(run.stages, manifest)
    page = mending.whole(lambda: run.report(manifest, results[-1]), lambda: results.append(mending.whole(again)))
    return page, results[-1]


def _tracker(config: RunConfig, layout: RunLayout, settings: Any, parent_run_id: str, *, was_begun: bool) -> Tracker:
    out, trial = layout.out.rstrip("/").rsplit("/", 1)[-1], layout.trial
    tracker = open_tracker(
        config.tracking,
        run_name="/".join(name for name in (out, trial) if name),
        out_dir=layout.records,
        identity=artifacts.fingerprint_of(settings),
        tags=run_tags(config),
        parent_run_id=parent_run_id,
        was_begun=was_begun,
    )
    tracker.log_params(without_password(settings))
    return tracker


def _tell_of_data(run: "_PipelineRun", manifest: Manifest) -> None:
    run.tracker.set_tags(run_tags(run.config, data_fingerprint=manifest.fingerprint()))
    with run.stage("data"):
        log_data(run.tracker, run.config.data, manifest)


def _keep_settings(layout: RunLayout, settings: bytes, opening: Opening | None) -> None:
    """Keep the settings of a run, once its networks were tried where it has not been here with these settings.

    With those of a call before, all may be there already; what is not is tried before it is made, and so is all of a
    call that reads the data alone, which has no `opening`.
    """
    if not storage.exists(layout.config) or storage.read_bytes(layout.config) != settings:
        if opening is not None:
            opening.try_once()
        storage.write_bytes(layout.config, settings)


def _read_data(stage: Stage, until: str) -> Manifest:
    """Read the data, before weights, Ray and MLflow: what is wrong with it is told first, and leaves no failed run.

    Before that, make sure that a Ray answers where this process is told to join one.
    """
    if STAGE_ORDER.index(until) >= STAGE_ORDER.index("corpus") and address_to_join():
        from qaclims_ray.cluster.session import require_reachable

        require_reachable()
    try:
        manifest = run_data(stage)
    except BaseException:
        stage.progress.abort()
        raise
    check_named_classes(stage.config, manifest.class_names)
    if STAGE_ORDER.index(until) > STAGE_ORDER.index("data"):
        check_given_masks(stage, manifest)
    return manifest


def _check_last(config: RunConfig, until: str) -> None:
    if until not in STAGE_ORDER:
        raise ConfigError(f"there is no stage {until!r}; known: {', '.join(STAGE_ORDER)}")
    if (until, config.goal) in (("refine", "seed"), ("segment", "seed"), ("segment", "mask")):
        needed = "mask" if until == "refine" else "segmentation"
        raise ConfigError(f"this run ends with its {config.goal}s: set --goal {needed} to go on to {until}")


def _note(config: RunConfig, found: Results) -> dict[str, str]:
    """Return the tags that say, above the run in MLflow's UI, what it scored and how it differs from its preset."""
    changed = changed_settings(config, default) if (default := started_from(config)) is not None else {}
    rows = {system_of(config, name).label: note_figures(found, name, splits_of(config)) for name in found.names(config)}
    listed = ", ".join(f"{name}={value}" for name, value in changed.items())
    return {
        "mlflow.note.content": run_note(rows, changed, note_remarks(found, config)),
        "changed": listed[:_TAG_LENGTH] or "nothing",
    }


@dataclass(frozen=True)
class _PipelineRun:
    config: RunConfig
    layout: RunLayout
    tracker: Tracker
    progress: ConsoleProgress
    last: int
    opening: Opening
    figures: dict[str, float] = field(default_factory=dict)
    """What the pipeline's own run of the tracker repeats of its stages."""

    def reaches(self, stage: str) -> bool:
        return STAGE_ORDER.index(stage) <= self.last

    def stages(self, manifest: Manifest) -> Results:
        if self.config.goal == "segmentation":
            # A test split that is not there, or a bound without true masks, is found now and not at the end.
            segmented_images(manifest, self.config.data)
            trained = systems_with_networks(self.config)
            if any(method_of(system_of(self.config, name).method).learns_from_truth for name in trained):
                require_truth(manifest, self.config.data.train_split)
        if self.reaches("corpus") and needs_corpus(self.config):
            with self.stage("corpus") as stage:
                run_corpus(stage, training_images(manifest, self.config.data))
        found = Results()
        order = [s for s in training_order(self.config) if method_of(system_of(self.config, s).method).has_cams]
        self.texts(training_order(self.config), manifest)
        compared = [system for system in order if system in self.config.systems]  # the others are bases: trained alone
        # First what needs no training: its maps can be looked at while the others learn.
        at_once = [system for system in compared if trains_nothing(self.config, system)]
        for system in at_once:
            self.seeds(system, manifest, found)
        self.networks(order, manifest)
        for system in [system for system in compared if system not in at_once]:
            self.seeds(system, manifest, found)
        for system in systems_with_masks(self.config):
            self.masks(system, manifest, found)
        if self.reaches("segment"):
            self.segmentations(systems_with_networks(self.config), manifest, found)
        return self.trusted(manifest, found) if self.reaches("report") else found

    def report(self, manifest: Manifest, found: Results) -> str:
        """Write the report; return its page's URI."""
        with self.stage("report") as stage:
            return run_report(stage, self.tracker, manifest, found, self.progress.seconds)

    def texts(self, systems: list[str], manifest: Manifest) -> None:
        """Encode the texts of those that have any."""
        if not self.reaches("text"):
            return
        for system in systems:
            if method_of(system_of(self.config, system).method).uses_texts:
                with self.stage("text", system) as stage:
                    run_text(stage, system, training_images(manifest, self.config.data))

    def networks(self, systems: list[str], manifest: Manifest) -> None:
        """Train classifier and mask generators; it and those that train once, from it, share their workers."""
        methods = {system: method_of(system_of(self.config, system).method) for system in systems}
        if not self.reaches("train"):
            return
        trained = [system for system, method in methods.items() if method.phases and not method.is_classifier]
        together = [system for system in trained if is_one_phase(self.config, system)]
        with contextlib.ExitStack() as stack:
            classifier = stack.enter_context(self.stage("classifier")) if needs_classifier(self.config) else None
            stages = {system: stack.enter_context(self.stage("train", system)) for system in together}
            train_together(classifier, stages, manifest)
        for system in [system for system in trained if system not in together]:
            with self.stage("train", system) as stage:
                run_method(stage, system, manifest)

    def seeds(self, system: str, manifest: Manifest, found: Results) -> None:
        data = self.config.data
        images = images_with_cams(manifest, data, with_training=self.config.goal != "seed")
        if self.reaches("cams"):
            with self.stage("cams", system) as stage:
                run_cams(stage, system, images)
        scored = scored_images(manifest, data)
        is_scored, is_chosen = can_score(scored), wants_threshold(system_config(self.config, system), scored)
        if not self.reaches("evaluate") or not (is_scored or is_chosen):
            return
        with self.stage("evaluate", system) as stage:
            chosen = None
            if is_chosen:
                found.thresholds[system] = run_threshold(stage, system, images)
                log_threshold(stage.tracker, self.figures, system, found.thresholds[system])
                chosen = found.thresholds[system].threshold
                stage = replace(stage, config=stage.config.at_threshold(chosen))
            if is_scored:
                found.scores[system] = run_evaluate(stage, system, images, chosen)
                log_scores(stage.tracker, self.figures, system, found.scores[system])

    def masks(self, system: str, manifest: Manifest, found: Results) -> None:
        if self.config.goal == "seed" or not self.reaches("refine"):
            return
        make = run_given_masks if method_of(system_of(self.config, system).method).brings_masks else run_refine
        with self.stage("refine", system) as stage:
            found.masks[system] = make(stage, system, manifest)
            log_masks(stage.tracker, self.figures, system, found.masks[system])

    def segmentations(self, systems: list[str], manifest: Manifest, found: Results) -> None:
        """Train all final networks on one group of workers, then score them."""
        if not systems:
            return
        with contextlib.ExitStack() as stack:
            stages = {system: stack.enter_context(self.stage("segment", system)) for system in systems}
            networks = train_final_networks(stages, manifest)
            for system, stage in stages.items():
                found.segmentations[system] = score_final_network(stage, system, networks[system], manifest)
                log_segmentation(stage.tracker, self.figures, system, found.segmentations[system])
                if system in self.config.systems:  # the bound learned from true masks and is for comparison
                    log_network(stage, self.tracker, self.config, system, manifest, found.segmentations[system].plain)

    def trusted(self, manifest: Manifest, found: Results) -> Results:
        """Add what is known without masks, and make the gallery: here, since both read maps, which may be damaged."""
        with self.stage("trust") as stage:
            trust = run_trust(stage, manifest)
            log_trust(stage.tracker, trust)
        found = replace(found, trust=trust)
        # Not at the top: with it come matplotlib and what draws.
        from qaclims_ray.stages.gallery import run_gallery

        run_gallery(Stage(self.config, self.layout, progress=self.progress, opening=self.opening), manifest, found)
        return found

    @contextlib.contextmanager
    def stage(self, name: str, system: str = "") -> Iterator[Stage]:
        config = system_config(self.config, system) if system else self.config
        # It cuts seeds: a threshold that is auto has been chosen by then.
        if name == "refine" and method_of(system_of(self.config, system).method).has_cams:
            config = at_chosen_threshold(config, self.layout, system)
        tracker = _child(self.tracker, config, name, system)
        try:
            yield Stage(config, self.layout, tracker, self.progress, self.opening)
        except BaseException as error:
            tracker.set_tags(failure_tag(error))
            tracker.finish("FAILED")
            raise
        tracker.finish("FINISHED")


def _child(parent: Tracker, config: RunConfig, stage: str, system: str = "") -> Tracker:
    tracker = parent.child(f"{system}/{stage}" if system else stage)
    tracker.set_tags(run_tags(config, system=system, stage=stage))
    return tracker


@contextlib.contextmanager
def _ending(run: _PipelineRun) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        run.progress.abort()
        run.tracker.log_metrics(run.figures)
        run.tracker.set_tags(failure_tag(error))
        run.tracker.finish("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
        raise
    run.tracker.finish("FINISHED")

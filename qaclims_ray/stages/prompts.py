"""``qaclims prompts``: show one system's learned prompts, write them down and log them into the run."""

import difflib
import json
from collections.abc import Sequence

from rich.console import Console

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.data.manifest import ImageRecord, Manifest, read_manifest
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.contents import PromptReading
from qaclims_ray.report.prompt_table import prompts_table
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.prompt_readings import (
    load_prompt_clip,
    log_reading,
    read_prompts,
    read_words,
    systems_with_prompts,
)
from qaclims_ray.stages.requests import PromptArguments
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.systems.table import system_config, system_of
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.mlflow_runs import RECORD_NAME
from qaclims_ray.tracking.mlflow_tracker import attach
from qaclims_ray.tracking.spooled_tracker import read_json
from qaclims_ray.tracking.store import SPOOL_NAME, follow_move, store_marks, tracking_uri
from qaclims_ray.tracking.tracker import TrackerHandle


def run_read_prompts(arguments: PromptArguments, console: Console) -> PromptReading:
    """Read one system's prompts; print the table, write JSON and figure, log them into the run.

    Raises:
        QaclimsError: when there is no such run, the system has no prompts, an image is unknown, or there are no words.
    """
    run = storage.absolute(arguments.run)
    config, layout = load_config(run, can_begin=False), RunLayout(run)
    if arguments.top < 1:
        raise ConfigError(f"--top is {arguments.top}, expected at least 1")
    system = _chosen_system(config, layout, arguments.system)
    resolved, manifest = system_config(config, system), read_manifest(layout.manifest)
    words = read_words(storage.absolute(arguments.words)) if arguments.words else None
    records = _named_images(manifest, arguments.images)
    out = storage.absolute(arguments.out) if arguments.out else storage.join(layout.report, "prompts", system)
    storage.check_writable(out)
    reading = read_prompts(
        resolved,
        layout,
        system,
        manifest,
        load_prompt_clip(resolved),
        words=words,
        records=records,
        manual=arguments.manual,
        top=arguments.top,
    )
    label = system_of(config, system).label
    content = {"run": run, "system": system, "label": label, **reading_json(reading)}
    storage.write_bytes(storage.join(out, "prompts.json"), json.dumps(content, indent=2).encode())
    if reading.picture:
        storage.write_bytes(storage.join(out, "prompts.png"), reading.picture)
    print_reading(reading, label, console)
    print_line(console, f"written  {out}")
    if (handle := _run_handle(config.tracking, layout)) is not None:
        tracker = attach(handle)
        log_reading(tracker, system, reading)
        tracker.close()
        print_line(console, f"MLflow   {without_credentials(handle.uri)}")
    return reading


def reading_json(reading: PromptReading) -> dict[str, object]:
    """Return what ``prompts.json`` says of the prompts."""
    return {
        "vocabulary": reading.vocabulary,
        "classes": {
            name: {"nearest": [list(pair) for pair in nearest], "own_text": reading.own_text[name]}
            for name, nearest in reading.nearest.items()
        },
        "images": [{"image": image, "class": name, "manual": list(texts)} for image, name, texts in reading.images],
        "note": reading.note,
    }


def print_reading(reading: PromptReading, label: str, console: Console) -> None:
    """Print the table of classes and what there is to say about the pictures."""
    title = f"Prompts of {label}: nearest of {reading.vocabulary}"
    print_table(console, prompts_table({label: reading}, {}), title)
    if reading.note:
        print_line(console, f"no similarity maps: {reading.note}")


def _chosen_system(config: RunConfig, layout: RunLayout, asked: str) -> str:
    known = systems_with_prompts(config, layout)
    if asked in known or (known and not asked):
        return asked or known[-1]
    there = f"In this run these have some: {', '.join(known)}" if known else "No system of this run has any"
    there += "; train one that learns prompts, e.g. semples, with `qaclims train`" if not known else ""
    if not asked:
        raise ArtifactError(f"there are no learned prompts at {layout.out}. {there}")
    system_of(config, asked)  # refuses a name that is no system at all
    raise ArtifactError(f"system {asked} has no learned prompts at {layout.prompts(asked)}. {there}")


def _named_images(manifest: Manifest, image_ids: Sequence[str]) -> list[ImageRecord]:
    records = {record.image_id: record for record in manifest.records}
    for image_id in image_ids:
        if image_id not in records:
            near = difflib.get_close_matches(image_id, list(records), n=3) or list(records)[:3]
            raise DataError(f"the run has no image {image_id!r}; ids are names without suffix, e.g. {', '.join(near)}")
        if not records[image_id].labels:
            raise DataError(f"image {image_id} shows no class, so it has no prompt; name an image with labels")
    return [records[image_id] for image_id in dict.fromkeys(image_ids)]


def _run_handle(config: TrackingConfig, layout: RunLayout) -> TrackerHandle | None:
    """Return what attaches to the run that trained, without changing its status; None where it is not tracked."""
    uri, record_uri = tracking_uri(config, layout.records), storage.join(layout.records, RECORD_NAME)
    if not config.enabled or not uri or not storage.exists(record_uri):
        return None
    record = read_json(storage.read_bytes(record_uri))
    if not record.get("run_id") or record.get("store") not in store_marks(config, uri):
        return None
    if not config.uri:  # the folder may have been moved, with the store beside it or without
        if not storage.exists(uri.removeprefix("sqlite:///")):
            return None
        follow_move(config, uri, layout.records)
    spool_dir = storage.join(layout.records, SPOOL_NAME)
    return TrackerHandle(
        uri=uri, experiment=config.experiment, run_id=str(record["run_id"]), spool_dir=spool_dir, started_ms=0
    )

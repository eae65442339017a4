"""The report: left alone where it tells of just these results; and what stages took."""

import json
import logging
from collections.abc import Mapping

from pydantic import NonNegativeFloat, TypeAdapter, ValidationError

from qaclims_ray.data import artifacts, places, storage
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.report.files import written_page
from qaclims_ray.run_config import to_dict
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.results import Results
from qaclims_ray.stages.stage import Stage
from qaclims_ray.tracking.tracker import Tracker

_log = logging.getLogger(__name__)


def run_report(stage: Stage, parent: Tracker, manifest: Manifest, found: Results, timings: Mapping[str, float]) -> str:
    """Write report.html and report.json, also into the pipeline's run, and return the page's URI.

    What is there already and tells of just these results, in this run of the tracker, stays.

    Args:
        stage: surroundings.
        parent: the pipeline's own run.
        manifest: the whole manifest.
        found: what its systems scored.
        timings: stage -> seconds.

    Raises:
        ConfigError: when the CAMs were stored without their full-resolution maps.
        DataError: when there is no system to report on.
    """
    stage.progress.start("report")
    made_from = _made_from(stage, parent, manifest, found.names(stage.config))
    if page := written_page(stage.layout.report, made_from):
        stage.progress.finish(f"{page} (there already)", is_new=False)
        return page
    # Not at the top: with it come PyTorch, matplotlib and CLIP.
    from qaclims_ray.stages.report_contents import write_contents

    page = write_contents(stage, parent, manifest, found, timings, made_from)
    stage.progress.finish(f"{len(found.names(stage.config))} systems -> {page}")
    return page


def _made_from(stage: Stage, parent: Tracker, manifest: Manifest, systems: list[str]) -> str:
    """Return a fingerprint of all that a report tells of."""
    layout, handle = stage.layout, parent.handle()
    kept = (
        layout.text_bank,
        layout.network,
        layout.cams,
        layout.threshold,
        layout.evaluation,
        layout.affinity,
        layout.masks,
    )
    folders = [place(name) for name in systems for place in (*kept, layout.segmentation, layout.predictions)]
    metas = map(artifacts.readable_meta, [layout.corpus, layout.classifier, layout.trust, layout.gallery, *folders])
    return artifacts.fingerprint_of(
        [
            places.stored(to_dict(stage.config), layout.records),
            manifest.fingerprint(),
            [meta and [meta.fingerprint, meta.created] for meta in metas],
            [artifacts.package_version(), artifacts.source_hash()],
            handle and handle.run_id,
        ]
    )


def read_timings(layout: RunLayout) -> dict[str, float]:
    """Return the seconds of stages that earlier calls ran; a damaged file is told of and counts as none."""
    uri = storage.join(layout.records, "timings.json")
    if not storage.exists(uri):
        return {}
    try:
        return TypeAdapter(dict[str, NonNegativeFloat]).validate_json(storage.read_bytes(uri), strict=True)
    except ValidationError:
        _log.warning("%s is damaged, so the times of earlier calls are lost; it is written anew", uri)
        return {}


def write_timings(layout: RunLayout, seconds: Mapping[str, float]) -> None:
    """Keep the seconds of each stage."""
    storage.write_bytes(storage.join(layout.records, "timings.json"), json.dumps(dict(seconds), indent=2).encode())

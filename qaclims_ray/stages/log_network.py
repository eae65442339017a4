"""Final networks as MLflow models, which `mlflow models serve` answers requests with."""

import base64
import io
import json
import os
import re
import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import package_version
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.sweep import SeedScores
from qaclims_ray.models.network_folder import WEIGHTS_NAME
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.data import tracked_split
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.table import system_of
from qaclims_ray.tracking.metric_names import MODEL_MDICE, MODEL_MIOU
from qaclims_ray.tracking.tracker import TrackedModel, Tracker

if TYPE_CHECKING:
    from qaclims_ray.deployment.network_facts import NetworkFacts

_LOGGED_NAME = "tracked_models.json"
"""File of the run: system -> tracker's run and fingerprint of the network that it was given."""
_LOADER = "qaclims_ray.stages.served"
_EXAMPLE_PX = (24, 32)


def log_network(
    stage: Stage, parent: Tracker, config: RunConfig, system: str, manifest: Manifest, scores: SeedScores | None
) -> None:
    """Give a system's final network to the pipeline's run, once, unless it is larger than the settings allow.

    Args:
        stage: surroundings of the system's last stage.
        parent: the pipeline's own run.
        config: the run's settings.
        system: whose network.
        manifest: the run's.
        scores: what it scores on the test split, without CRF, as it is served; None where no mask is there.
    """
    handle, uri = parent.handle(), stage.layout.segmentation(system)
    limit_mb = config.tracking.max_model_mb
    if handle is None or not limit_mb:
        return
    fingerprint = artifacts.require_artifact(uri, "segmentation", verb="segment").fingerprint
    record = storage.join(stage.layout.records, _LOGGED_NAME)
    logged = _read_logged(record)
    if logged.get(system) == [handle.run_id, fingerprint]:
        return
    size_mb = storage.size(storage.join(uri, WEIGHTS_NAME)) / 1e6
    if size_mb > limit_mb:
        stage.progress.note(
            f"the final network of {system} has {size_mb:.0f} MB: no MLflow model is made of more than "
            f"{limit_mb} (tracking.max_model_mb)"
        )
        return
    # Not at the top: the pipeline imports this module, and most of its stages need no network.
    from qaclims_ray.deployment.hub_folder import write_hub_folder
    from qaclims_ray.stages.export_network import final_facts
    from qaclims_ray.stages.predict_final import read_final_network

    facts = final_facts(config, stage.layout, system, manifest)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            folder = os.path.join(scratch, "network")
            write_hub_folder(read_final_network(uri), stage.config.segmentation.test, facts, folder)
            model = replace(tracked_model(system, fingerprint), **_described(facts, config, system))
            if scores is not None:
                on = tracked_split(stage.config.data, manifest, stage.config.data.test_split)
                figures = {MODEL_MIOU: scores.miou_fixed, MODEL_MDICE: scores.mdice_fixed}
                model = replace(model, scores=figures, scored_on=on, scored_by=f"{system}/segment")
            is_kept = parent.log_model(folder, model)
    except (OSError, SafetensorError) as error:  # a full disk for temporary files: the network itself is there
        stage.progress.note(f"no MLflow model is made of the final network of {system}: {error}")
        return
    if is_kept:
        logged[system] = [handle.run_id, fingerprint]
        storage.write_bytes(record, json.dumps(logged, indent=2).encode())


def _read_logged(uri: str) -> dict[str, list[str]]:
    """Return system -> run and network that MLflow has; none where that cannot be read: MLflow knows by itself."""
    if not storage.exists(uri):
        return {}
    try:
        return TypeAdapter(dict[str, list[str]]).validate_json(storage.read_bytes(uri))
    except (DataError, ValidationError):
        return {}


def tracked_model(system: str, fingerprint: str) -> TrackedModel:
    """Return what MLflow is told of a network."""
    return TrackedModel(
        name=re.sub(r"[^\w-]", "-", f"{system}-final"),  # MLflow takes no other signs
        fingerprint=fingerprint,
        loader=_LOADER,
        inputs={"image": "string"},
        outputs={"mask": "string", "found": "string"},
        example={"image": _example_image()},
        requirement=f"qaclims-ray=={package_version()}",
    )


def _described(facts: "NetworkFacts", config: RunConfig, system: str) -> dict[str, Any]:
    """Return what a model's page says beside its figures."""
    label = system_of(config, system).label
    return {
        "note": (
            f"The final network of {label}: {facts.architecture}, {len(facts.classes.names)} classes. A request has "
            "an image file in base64 in its column `image`; the answer has a label map.\n\n"
            "`mlflow models serve -m models:/MODEL_ID --env-manager local -h 127.0.0.1 -p 5001`"
        ),
        "params": {
            "system": system,
            "preset": config.name,
            "seed": str(config.seed),
            "architecture": facts.architecture,
            "classes": str(len(facts.classes.names)),
            "licence": facts.licence,
        },
    }


def _example_image() -> str:
    """Return a small picture as a request holds it."""
    height, width = _EXAMPLE_PX
    down, across = np.mgrid[0:height, 0:width]
    pixels = np.stack([down * 10, across * 8, np.full_like(down, 96)], axis=2).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()

"""What the report shows: figures, contact sheets, what prompts say; and the same in MLflow."""

import io
import os
import platform
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np
import psutil
import torch
from PIL import Image

from qaclims_ray.cluster.tasks import run_task
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.class_counts import class_remarks
from qaclims_ray.data.manifest import Manifest, summarise
from qaclims_ray.data.splits import images_with_cams, scored_images
from qaclims_ray.evaluation.trust import not_found, not_tagged
from qaclims_ray.methods.table import method_of
from qaclims_ray.report.contact_sheet import SheetRow, contact_sheet
from qaclims_ray.report.contents import (
    PromptReading,
    ReportData,
    SystemReport,
    TrustLists,
    data_colours,
    has_later_stages,
    winner,
)
from qaclims_ray.report.figures import figure_pixels
from qaclims_ray.report.files import write_report
from qaclims_ray.report.gallery_highlights import read_highlights
from qaclims_ray.report.stage_charts import stages_chart
from qaclims_ray.run_config import RunConfig, to_dict
from qaclims_ray.stages.evaluate import check_stores_full
from qaclims_ray.stages.given_masks import given_share
from qaclims_ray.stages.headline_figures import headline_intervals
from qaclims_ray.stages.layout import RunLayout, network_uri_of
from qaclims_ray.stages.mask_images import truth_share
from qaclims_ray.stages.results import Results, splits_of
from qaclims_ray.stages.run_description import without_password
from qaclims_ray.stages.sheet_rows import rows_of, sheet_rows
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.trust import Trust
from qaclims_ray.systems.licences import weights_used
from qaclims_ray.systems.needs import (
    methods_of,
    needs_clip,
    refinements,
    rounds_of,
    systems_with_cams,
    systems_with_given_masks,
    systems_with_networks,
    uses_given,
)
from qaclims_ray.systems.table import system_config, system_of
from qaclims_ray.tracking.tracker import Tracker
from qaclims_ray.training.group import read_curves

PACKAGES = ("ray", "torch", "timm", "transformers", "open_clip_torch", "accelerate", "mlflow", "numpy", "pyarrow")


def write_contents(
    stage: Stage,
    parent: Tracker,
    manifest: Manifest,
    found: Results,
    timings: Mapping[str, float],
    made_from: str,
) -> str:
    """Write report.html and report.json, also into the pipeline's run, and return the page's URI.

    Args:
        stage: surroundings.
        parent: the pipeline's own run.
        manifest: the whole manifest.
        found: what its systems scored.
        timings: stage -> seconds.
        made_from: see `ReportData.made_from`.
    """
    config, layout = stage.config, stage.layout
    check_stores_full(config.cams)
    readings = _prompt_readings(stage, manifest)
    rows = sheet_rows(
        stage,
        scored_images(manifest, config.data),
        images_with_cams(manifest, config.data, with_training=config.goal != "seed"),
    )
    sheet = contact_sheet(rows, manifest.class_names)
    has_gallery = artifacts.readable_meta(layout.gallery) is not None
    data = ReportData(
        title=f"Report on the run {layout.out.rstrip('/').rsplit('/', 1)[-1]} ({config.name})",
        run=_as_typed(layout.out),
        config=without_password(to_dict(config)),
        environment={**environment(), "supervision": supervision(config)},
        licences=[asdict(used) for used in weights_used(config)],
        timings={name: round(seconds, 2) for name, seconds in timings.items()},
        dataset={
            "name": config.data.dataset,
            "fingerprint": manifest.fingerprint(),
            **summarise(manifest),
            "class_names": manifest.class_names,
            "notes": [*manifest.notes, *class_remarks(manifest, config.data.train_split)],
        },
        systems={n: _system_report(stage, manifest, found, n, readings.get(n)) for n in found.names(config)},
        splits=splits_of(config),
        trust=found.trust.figures if found.trust else None,
        trust_lists=_trust_lists(found.trust, config),
        highlights=read_highlights(layout.gallery) if has_gallery else None,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        made_from=made_from,
    )
    data = _with_sheets(_with_intervals(layout, data, manifest), rows, manifest)
    page = write_report(layout.report, data)
    _log_pages(parent, layout, data, sheet)
    if readings:  # CLIP comes with them, which few reports need
        from qaclims_ray.stages.prompt_readings import log_reading

        for name, reading in readings.items():
            log_reading(parent, name, reading)
    return page


def _system_report(
    stage: Stage, manifest: Manifest, found: Results, name: str, reading: PromptReading | None
) -> SystemReport:
    config, layout = stage.config, stage.layout
    system = system_of(config, name)
    method = method_of(system.method)
    share = truth_share(manifest, config.data.train_split) if method.learns_from_truth else ""
    if method.brings_masks and name in found.masks:
        share = given_share(found.masks[name].summary)
    network = network_uri_of(layout, name, method)
    evaluation, masks, final = found.scores.get(name), found.masks.get(name), found.segmentations.get(name)
    return SystemReport(
        label=system.label,
        is_reference=bool(method.trained_on_masks),
        description=f"{system.description} It learned from {share}." if share else system.description,
        threshold_label_free=found.thresholds[name].threshold if name in found.thresholds else None,
        cooccurrence=evaluation.cooccurrence if evaluation else None,
        mask_summary=masks.summary if masks else {},
        initial_weights=_initial_weights(system_config(config, name)) if final else "",
        curves={**read_curves(network), **_final_curves(layout, name)},
        prompts=reading,
        **found.of(name),
    )


def _trust_lists(trust: Trust | None, config: RunConfig) -> dict[str, TrustLists]:
    """Return the images of each system that lack a tag, or show what they are not tagged with."""
    lists = {}
    for name in config.systems if trust else ():
        assert trust is not None
        if (last := trust.figures.last_map(name)) is not None:
            extra = not_tagged(trust.images, last.source) if last.source.stage == "final" else {}
            missing = not_found(trust.images, last.source)
            lists[name] = TrustLists(stage=last.source.stage, not_found=missing, not_tagged=extra)
    return lists


def _log_pages(parent: Tracker, layout: RunLayout, data: ReportData, sheet: np.ndarray) -> None:
    """Keep the pages and their pictures in the pipeline's run."""
    parent.log_image(sheet, "contact_sheet")
    if has_later_stages(data):
        parent.log_image(figure_pixels(stages_chart(data)), "stages")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("report.html", "report.json"):
            local = os.path.join(folder, name)
            with open(local, "wb") as handle:
                handle.write(storage.read_bytes(storage.join(layout.report, name)))
            parent.log_artifact(local, "report")
    if data.highlights is not None:
        with storage.local_copy(layout.gallery) as local:
            parent.log_artifact(local, "report")


def _with_intervals(layout: RunLayout, data: ReportData, manifest: Manifest) -> ReportData:
    intervals, leads = headline_intervals(layout, data, has_background=manifest.has_background)
    systems = {name: replace(system, intervals=intervals[name]) for name, system in data.systems.items()}
    return replace(data, systems=systems, leads=leads)


def _with_sheets(data: ReportData, rows: list[SheetRow], manifest: Manifest) -> ReportData:
    """Add a contact sheet for each system, the best one's first: narrow ones are never cut off."""
    colours, best = data_colours(data), winner(data)
    sheets = {}
    for name in [*([best] if best else []), *(name for name in data.systems if name != best)]:
        label = data.systems[name].label
        if own := rows_of(rows, label):
            sheet = contact_sheet(own, manifest.class_names, colours=colours)
            sheets[f"{label}. {_sheet_title(manifest)}"] = _png(sheet)
    return replace(data, contact_sheets=sheets)


def _sheet_title(manifest: Manifest) -> str:
    how = "masks at the fixed threshold" if manifest.classes.has_background else "each pixel takes its foremost class"
    return f"Images chosen by class, not by result; {how}"


def _initial_weights(config: RunConfig) -> str:
    net = config.segmentation.net
    return f"{net.weights} ({net.architecture}, {net.backbone})"


def _as_typed(out: str) -> str:
    """Return a run's folder as commands name it: from the working folder, where it lies below."""
    if storage.is_remote(out):
        return out
    near = os.path.relpath(out)
    return out if near.startswith("..") else near


def environment() -> dict[str, object]:
    """Return what a reader needs to know of the machine and the software."""
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "qaclims_ray": artifacts.package_version(),
        "source_hash": artifacts.source_hash(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def supervision(config: RunConfig) -> str:
    """Say which labels stand behind the figures: OVSeg's CLIP and SAM have seen masks, plain CLIP has not."""
    by_masks = systems_with_given_masks(config)
    with_tags = systems_with_cams(config) or any(method.own_network is not None for method in methods_of(config))
    labels = ["image-level labels"] if with_tags or not by_masks else []
    if by_masks:
        labels.append(
            f"{', '.join(by_masks)}: whatever labels stand behind the given masks, no image-level labels alone"
        )
    if any(uses_given(config, name) for name in config.systems):
        labels.append("whatever stands behind the given CAMs")
    for name in config.systems:
        if model := method_of(system_of(config, name).method).trained_on_masks:
            labels.append(f"{name}: {model}, trained on masks, asked by image-level labels")
    is_miniature = config.data.dataset == "miniature"
    if needs_clip(config) and not is_miniature:
        adapted = "a CLIP adapted on mask proposals of COCO (OVSeg)"
        labels.append(adapted if config.clip.mask_adapted else "a CLIP trained on pairs of image and text")
    refined = refinements(config)
    if any("sam" in masks.steps for masks in refined):
        labels.append("SAM, trained on masks")
    features = {masks.feature_affinity.backbone for masks in refined if "feature_affinity" in masks.steps}
    labels += [f"whatever {backbone} was pretrained with" for backbone in sorted(features)]
    if config.goal != "seed" and is_miniature:
        labels.append("the background scores of its masks were chosen on seeds 10 and 11, with pixel labels")
    if config.goal == "segmentation":
        started = dict.fromkeys(
            system_config(config, name).segmentation.net.weights for name in systems_with_networks(config)
        )
        labels.append(f"initial weights of the final network: {', '.join(started)}")
        rounds = {name: rounds_of(system_config(config, name), name) for name in config.systems}
        labels += [
            f"{name}: {number} final networks, each later one on masks that the one before drew within the tags"
            for name, number in rounds.items()
            if number > 1
        ]
    return "; ".join(labels)


def _prompt_readings(stage: Stage, manifest: Manifest) -> dict[str, PromptReading]:
    """Return what the systems' prompts say, read where the run's GPUs are."""
    config = stage.config
    names = list(filter(stage.layout.has_prompts, config.systems))
    if not names:
        return {}
    stage.opening()
    return run_task(_read_all, config, stage.layout, names, manifest, num_gpus=1 if config.cluster.use_gpu else 0)


def _read_all(config: RunConfig, layout: RunLayout, names: list[str], manifest: Manifest) -> dict[str, PromptReading]:
    from qaclims_ray.stages.prompt_readings import load_prompt_clip, read_prompts

    readings, clips = {}, {}
    for name in names:
        resolved = system_config(config, name)
        key = (resolved.clip, resolved.cluster)  # variants may have a CLIP of their own
        if key not in clips:
            clips = {key: load_prompt_clip(resolved)}
        readings[name] = read_prompts(resolved, layout, name, manifest, clips[key])
    return readings


def _final_curves(layout: RunLayout, name: str) -> dict[str, list[tuple[int, float]]]:
    """Return the curves of a system's affinity and final networks."""
    uris = {"irn": layout.affinity(name), "segmentation": layout.segmentation(name)}
    return {f"{part}/{figure}": points for part, uri in uris.items() for figure, points in read_curves(uri).items()}


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()

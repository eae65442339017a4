"""Seeds of systems that `miniature_results.LocalRun` trained in this process, and what they score; no Ray."""

import dataclasses
from typing import Any

from benchmarks.affinity import refined, scores
from benchmarks.affinity_seeds import Scene, Seeds, label_free_border
from benchmarks.miniature_results import LocalRun
from qaclims_ray.cams.inference import compute_cams
from qaclims_ray.data.images import load_image
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.evaluation.cooccurrence import CooccurrenceSums, cooccurrence_scores
from qaclims_ray.refine.config import MaskStep
from qaclims_ray.systems.table import system_config

_AT_ONCE = 64


def local_seeds(run: LocalRun, name: str) -> Seeds:
    """Return the maps of a system over the scored images, and the threshold that is chosen without masks.

    Args:
        run: whose networks; what is missing is trained.
        name: of the system.
    """
    config, (network, mean, std) = system_config(run.config, name), run.cam_network(name)
    records, scenes = run.scored.records, list[Scene]()
    for start in range(0, len(records), _AT_ONCE):
        some = records[start : start + _AT_ONCE]
        images = [load_image(record.image_uri) for record in some]
        labels, ids = [record.labels for record in some], [record.image_id for record in some]
        cams = compute_cams(network, images, labels, ids, config.cams, mean, std)
        for record, image, cam in zip(some, images, cams, strict=True):
            scenes.append(Scene(record, image, cam, load_mask(record.mask_uri or "")))
    return Seeds(
        name=name,
        scenes=scenes,
        border=label_free_border(scenes),
        classes=run.scored.classes,
        config=config,
        clip_files=None,
        class_texts=[],
        classifier_dir="",
    )


def seed_figures(seeds: Seeds) -> dict[str, float]:
    """Return mIoU of seeds at the threshold chosen without masks (`miou`) and at the best (`best`, pixel labels).

    Beside it, at the first threshold and in units of the objects' area: coverage, false positives on co-occurring stuff
    and elsewhere.
    """
    cams = [scene.cam for scene in seeds.scenes]
    sums = CooccurrenceSums((seeds.border,), range(len(seeds.classes)))
    for scene in seeds.scenes:
        sums.update(scene.cam, scene.truth, load_mask(scene.record.context_uri or ""))
    places = cooccurrence_scores(sums, seeds.border, seeds.classes.names)
    return {
        **scores(seeds, cams, seeds.border),
        "border": seeds.border,
        "coverage": places.coverage,
        "context": places.false_positive_context,
        "elsewhere": places.false_positive_elsewhere,
    }


def mask_figures(seeds: Seeds, steps: tuple[MaskStep, ...], **settings: Any) -> dict[str, float]:
    """Return mIoU of masks that steps make of seeds cut without masks, at the steps' own border and at the best one.

    Args:
        seeds: what they start from.
        steps: without networks.
        settings: of `masks` on top.
    """
    own = {"seed_threshold": seeds.border, "steps": steps, **settings}
    return refined(seeds, dataclasses.replace(seeds.config.masks, **own), None, 0.0)

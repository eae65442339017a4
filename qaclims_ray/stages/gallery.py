"""The gallery of a run: every image at every stage, beside the report (docs/gallery.md)."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from qaclims_ray.cluster.shards import as_it_is, run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import finished_shards, shard_name, shards_of
from qaclims_ray.data.splits import images_with_cams, segmented_images
from qaclims_ray.evaluation.agreement import MapStage
from qaclims_ray.evaluation.image_counts import IMAGE_COUNTS_FILE, read_image_counts
from qaclims_ray.evaluation.image_scores import image_scores
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.report.contents import ReportData, SystemReport, data_colours, winner
from qaclims_ray.report.gallery import Gallery, GalleryImage, GallerySource, map_key, write_gallery
from qaclims_ray.report.palette import INK
from qaclims_ray.report.wording import file_size
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.gallery_images import PicturesActor, PictureShard, PictureSource, lines_name
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.results import Results
from qaclims_ray.stages.run_maps import seed_border, written_folders
from qaclims_ray.stages.stage import Stage
from qaclims_ray.systems.needs import is_mask_trained
from qaclims_ray.systems.table import system_of

_FORM = 2
"""Counts up when the page or its pictures change."""
SCORED_BY: Mapping[MapStage, tuple[str, ...]] = {
    "seed": ("seed_fixed",),
    "mask": ("mask",),
    "final": ("segmentation", "segmentation_on_seeds"),
}
"""Stage -> figures whose counts say what an image scores there."""
_IMAGES_PER_TASK = 64


def run_gallery(stage: Stage, manifest: Manifest, found: Results) -> ArtifactMeta | None:
    """Write the gallery into ``report/gallery``; None where the settings want none, or nothing is to be seen.

    Args:
        stage: surroundings, of the whole run.
        manifest: the whole manifest.
        found: what its systems scored.

    Raises:
        DamagedError: when maps are not those that were written.
    """
    config, layout = stage.config, stage.layout
    sources = {name: _source(config, layout, manifest, name) for name in found.names(config)}
    sources = {name: source for name, source in sources.items() if source.cams or source.folders}
    if not sources or config.evaluation.gallery_images == 0:
        return None
    inputs = {"manifest": manifest.fingerprint()}
    for name, source in sources.items():
        uris = {"cams": source.cams, **source.folders, "evaluations": layout.evaluation(name)}
        for folder, uri in uris.items():
            if uri and (meta := artifacts.readable_meta(uri)) is not None:
                inputs[f"{folder}/{name}"] = meta.fingerprint
    if (meta := artifacts.readable_meta(layout.trust)) is not None:
        inputs["trust"] = meta.fingerprint
    borders = {name: source.border for name, source in sources.items()}
    settings = plain({"form": _FORM, "images": config.evaluation.gallery_images, "borders": borders})
    artifact = Artifact(uri=layout.gallery, kind="gallery", settings=settings, inputs=inputs, verb="report")

    def work() -> dict[str, Any]:
        return _make(stage, artifact, manifest, found, sources)

    return stage.make(artifact, "gallery", work, _describe, goes_on=True)


def _source(config: RunConfig, layout: RunLayout, manifest: Manifest, name: str) -> PictureSource:
    cams = layout.cams(name) if artifacts.readable_meta(layout.cams(name)) is not None else ""
    border = seed_border(config, layout, manifest.classes, name) if cams else 0.0
    return PictureSource(cams, border, written_folders(config, layout, name))


def _make(
    stage: Stage, artifact: Artifact, manifest: Manifest, found: Results, sources: Mapping[str, PictureSource]
) -> dict[str, Any]:
    config = stage.config
    records = _records(config, manifest)
    scores = scores_by_map(stage.layout, sources)
    unlike = (
        {row.image_id: 1 - row.agreement for row in found.trust.images if row.agreement is not None}
        if (found.trust)
        else {}
    )
    chosen = choose(records, _ranks(scores, unlike), config.evaluation.gallery_images)
    gallery = Gallery(
        title=f"Gallery of the run {stage.layout.out.rstrip('/').rsplit('/', 1)[-1]}",
        about=_about(len(chosen), len(records), is_scored=bool(scores)),
        classes=manifest.classes,
        sources=_lines(config, found, sources),
        shown=(_first(config, found, sources),),
        images=gallery_images(chosen, scores, unlike),
        has_truth=any(record.mask_uri for record in chosen),
        scored_on={"seed": config.data.eval_split, "mask": config.data.eval_split, "final": config.data.test_split},
        home="../report.html",
    )
    shards = _shards(config, manifest, chosen, [bool(source.cams) for source in sources.values()])
    run_shards(
        shards,
        finished=finished_shards(artifact, len(shards), lines_name),
        decode=as_it_is,
        actor=PicturesActor,
        actor_kwargs={"sources": list(sources.values()), "classes": manifest.classes, "uri": artifact.workshop},
        num_actors=stage.room.actors(config.masks.num_actors),
        progress=stage.progress.advance,
    )
    summary = write_gallery(artifact.workshop, gallery, _read_lines(artifact.workshop, len(shards)))
    storage.remove_tree(storage.join(artifact.workshop, "shards"))
    return summary


def _records(config: RunConfig, manifest: Manifest) -> list[ImageRecord]:
    """Return the images of which there is anything to be seen."""
    found = images_with_cams(manifest, config.data, with_training=config.goal != "seed").records
    if config.goal == "segmentation":
        known = {record.image_id for record in found}
        found += tuple(one for one in segmented_images(manifest, config.data).records if one.image_id not in known)
    return list(found)


def scores_by_map(layout: RunLayout, names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return `map_key` -> image id -> mean IoU of its classes, of the stages that were scored.

    Args:
        layout: where the run is.
        names: systems, in the order of their lines.
    """
    found: dict[str, dict[str, float]] = {}
    for position, name in enumerate(names):
        for stage, keys in SCORED_BY.items():
            folder = storage.join(layout.out, FIGURES[keys[0]].artefact, name)
            if artifacts.readable_meta(folder) is None or not storage.exists(storage.join(folder, IMAGE_COUNTS_FILE)):
                continue
            own: dict[str, float] = {}
            for figure in (FIGURES[key].counts for key in keys):
                remedy = f"`qaclims report --out {layout.out}`"
                for counts in read_image_counts(folder, remedy=remedy, only=(figure,)).values():
                    own |= image_scores(counts)
            if own:
                found[map_key(position, stage)] = own
    return found


def _ranks(scores: Mapping[str, Mapping[str, float]], unlike: Mapping[str, float]) -> dict[str, float]:
    """Return how good each image is, by the last stages that scored it, or else by how far its maps agree."""
    last: dict[str, dict[str, float]] = {}
    for key, own in scores.items():  # in the order of stages: later ones replace earlier ones
        for image_id, value in own.items():
            last.setdefault(image_id, {})[key.partition(".")[0]] = value
    agreed = {image_id: 1 - value for image_id, value in unlike.items()}
    return agreed | {image_id: sum(found.values()) / len(found) for image_id, found in last.items()}


def choose(records: Sequence[ImageRecord], ranks: Mapping[str, float], limit: int) -> list[ImageRecord]:
    """Return all images, or half of the limit the worst ones and for the rest others at random.

    Args:
        records: all of them.
        ranks: image id -> how good it is; those without a rank are no worst ones.
        limit: most images.
    """
    if len(records) <= limit:
        return list(records)
    ranked = sorted((one for one in records if one.image_id in ranks), key=lambda one: ranks[one.image_id])
    worst = {one.image_id for one in ranked[: limit // 2]}
    others = [one.image_id for one in records if one.image_id not in worst]
    taken = worst | set(random.Random(0).sample(others, limit - len(worst)))
    return [one for one in records if one.image_id in taken]


def gallery_images(
    records: Sequence[ImageRecord], scores: Mapping[str, Mapping[str, float]], unlike: Mapping[str, float]
) -> tuple[GalleryImage, ...]:
    """Return what a gallery says of images.

    Args:
        records: the images.
        scores: see `scores_by_map`.
        unlike: image id -> how little its maps agree.
    """
    return tuple(
        GalleryImage(
            image_id=record.image_id,
            labels=record.labels,
            split=", ".join(record.splits),
            scores={key: own[record.image_id] for key, own in scores.items() if record.image_id in own},
            disagreement=unlike.get(record.image_id),
        )
        for record in sorted(records, key=lambda record: record.image_id)
    )


def _about(shown: int, there: int, *, is_scored: bool) -> str:
    if shown == there:
        return f"All {there} images that have maps, at every stage."
    how = "those that score least" if is_scored else "those whose label maps agree least"
    return (
        f"{shown} of {there} images: half are {how}, the others drawn at random. "
        "The setting evaluation.gallery_images says how many."
    )


def _lines(config: RunConfig, found: Results, sources: Mapping[str, PictureSource]) -> tuple[GallerySource, ...]:
    reports = {name: SystemReport(label=system_of(config, name).label) for name in found.names(config)}
    colours = data_colours(ReportData(title="", systems=reports))
    lines = []
    for name, source in sources.items():
        colour = colours[reports[name].label]
        stages: list[MapStage] = [*(["seed"] if source.cams else []), *source.folders]
        own = "ink" if colour == INK else colour
        lines.append(GallerySource(reports[name].label, own, tuple(stages), bool(source.cams)))
    return tuple(lines)


def _first(config: RunConfig, found: Results, sources: Mapping[str, PictureSource]) -> int:
    """Return the line that is shown at first: of the best system, or else of the one that `predict` takes."""
    scored = {
        name: SystemReport(label=name, is_reference=is_mask_trained(config, name), **found.of(name))
        for name in found.names(config)
    }
    best = winner(ReportData(title="", systems=scored))
    name = best or next((one for one in reversed(config.systems) if one in sources), "")
    return list(sources).index(name) if name in sources else 0


def _shards(
    config: RunConfig, manifest: Manifest, chosen: Sequence[ImageRecord], has_cams: Sequence[bool]
) -> list[PictureShard]:
    """Return the chosen images by the files of their CAMs, then those without any."""
    wanted = {record.image_id for record in chosen}
    shards: list[tuple[tuple[ImageRecord, ...], str]] = []
    for index, records in enumerate(
        shards_of(images_with_cams(manifest, config.data, with_training=config.goal != "seed"))
    ):
        own = tuple(record for record in records if record.image_id in wanted)
        wanted -= {record.image_id for record in own}
        if own:
            shards.append((own, shard_name(index)))
    others = [record for record in chosen if record.image_id in wanted]
    for start in range(0, len(others), _IMAGES_PER_TASK):
        shards.append((tuple(others[start : start + _IMAGES_PER_TASK]), ""))
    return [
        PictureShard(index, records, tuple((file,) if file and has else () for has in has_cams))
        for index, (records, file) in enumerate(shards)
    ]


def _read_lines(uri: str, num_shards: int) -> Iterator[bytes]:
    for index in range(num_shards):
        yield from storage.read_bytes(storage.join(uri, lines_name(index))).splitlines()


def _describe(meta: ArtifactMeta) -> str:
    return f"{meta.summary.get('images')} images, {file_size(int(meta.summary.get('picture_bytes', 0)))} of pictures"

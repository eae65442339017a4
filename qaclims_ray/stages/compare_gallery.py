"""The gallery of a comparison: the same images in several runs, beginning with those that gained or lost most."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from qaclims_ray.data import storage
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import places_in_shards, shard_name
from qaclims_ray.data.splits import images_with_cams
from qaclims_ray.evaluation.agreement import MapStage
from qaclims_ray.evaluation.image_scores import image_scores
from qaclims_ray.report.gallery import Gallery, GallerySource, map_key, remove_gallery, write_gallery
from qaclims_ray.report.gallery_highlights import ChangedImages, ShownImage
from qaclims_ray.report.palette import system_colours
from qaclims_ray.stages.compare_maps import common_images, manifest_of, stages_to_compare
from qaclims_ray.stages.gallery import SCORED_BY, choose, gallery_images
from qaclims_ray.stages.gallery_images import PictureShard, PictureSource, shard_pictures
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_figures import SystemFigures
from qaclims_ray.stages.run_maps import seed_border, written_folders
from qaclims_ray.systems.table import system_of

_SHOWN = 10
"""Largest gains, and as many losses."""


@dataclass(frozen=True)
class _SideLine:
    """A system of a side."""

    group: str
    letter: str
    figures: SystemFigures
    manifest: Manifest


def write_compare_gallery(
    groups: Mapping[str, Mapping[str, SystemFigures]], out: str, *, limit: int
) -> list[ChangedImages] | None:
    """Write the gallery of compared runs; None where they have no image in common, or none is wanted.

    Args:
        groups: name of the compared systems -> letter of a side -> its system.
        out: folder of the comparison.
        limit: most images.

    Returns:
        The images that gained and lost most, for each pair of sides that was scored.

    Raises:
        DamagedError: when maps are not those that were written.
        ResourceError: when the place cannot be written.
    """
    lines = [
        _SideLine(group, letter, own, manifest)
        for group, sides in groups.items()
        for letter, own in sides.items()
        if (manifest := manifest_of(own)) is not None
    ]
    records = _common_records(lines)
    if limit == 0 or not records:
        return None
    sources = [_source(line) for line in lines]
    scores = {map_key(at, stage): own for at, line in enumerate(lines) for stage, own in _scores(line.figures).items()}
    pairs = _pairs(lines, scores)
    ranks: dict[str, float] = {}
    for change in map(lambda pair: _changes(scores, pair), pairs):
        for name, value in change.items():
            ranks[name] = min(ranks.get(name, 0.0), -abs(value))
    chosen = choose(records, ranks, limit)
    gallery = Gallery(
        title="Gallery of the comparison",
        about=_about(len(chosen), len(records)),
        classes=lines[0].manifest.classes,
        sources=_gallery_sources(lines, sources),
        shown=tuple(at for at, line in enumerate(lines) if line.group == lines[-1].group),
        images=gallery_images(chosen, scores, {}),
        has_truth=any(record.mask_uri for record in chosen),
        home="../comparison.html",
        compares=tuple(pairs),
    )
    folder = storage.join(out, "gallery")
    remove_gallery(folder)  # parts of a larger one before would stay
    taken = [_largest(_changes(scores, pair), {one.image_id for one in chosen}) for pair in pairs]
    kept: dict[str, dict[str, str]] = {name: {} for both in taken for names in both for name in names}
    write_gallery(folder, gallery, _keeping(_read(lines, sources, chosen), kept))
    shown = {record.image_id: record for record in chosen}
    return [_changed(lines, scores, pair, both, kept, shown) for pair, both in zip(pairs, taken, strict=True)]


def _common_records(lines: list[_SideLine]) -> list[ImageRecord]:
    """Return the first side's images that all sides have."""
    if len({line.letter for line in lines}) < 2 or any(
        line.manifest.classes != lines[0].manifest.classes for line in lines
    ):
        return []
    names = {record.image_id for record in lines[0].manifest.records}
    for line in lines[1:]:
        if line.letter != lines[0].letter:
            names &= set(common_images(lines[0].manifest, line.manifest))
    return [record for record in lines[0].manifest.records if record.image_id in names]


def _source(line: _SideLine) -> PictureSource:
    layout, own = RunLayout(line.figures.run), line.figures
    stages = stages_to_compare(own)
    folders: dict[MapStage, str] = {
        stage: uri for stage, uri in written_folders(own.run_config, layout, own.system).items() if stage in stages
    }
    has_cams = "seed" in stages
    border = seed_border(own.run_config, layout, line.manifest.classes, own.system) if has_cams else 0.0
    return PictureSource(layout.cams(own.system) if has_cams else "", border, folders)


def _gallery_sources(lines: list[_SideLine], sources: list[PictureSource]) -> tuple[GallerySource, ...]:
    colours = system_colours(list(dict.fromkeys(line.letter for line in lines)))
    found = []
    for line, source in zip(lines, sources, strict=True):
        stages: list[MapStage] = [*(["seed"] if source.cams else []), *source.folders]
        found.append(GallerySource(_name(line), colours[line.letter], tuple(stages), bool(source.cams)))
    return tuple(found)


def _name(line: _SideLine) -> str:
    return f"{line.letter}: {system_of(line.figures.run_config, line.figures.system).label}"


def _scores(own: SystemFigures) -> dict[MapStage, dict[str, float]]:
    found: dict[MapStage, dict[str, float]] = {}
    for stage, keys in SCORED_BY.items():
        for key in keys:
            if key in own.figures:
                found.setdefault(stage, {}).update(image_scores(own.figures[key]))
    return found


def _pairs(lines: list[_SideLine], scores: Mapping[str, Mapping[str, float]]) -> list[tuple[int, int, MapStage]]:
    """Return each other side against the first one of its group, at the last stage that both were scored at."""
    pairs = []
    for at, line in reversed([*enumerate(lines)]):
        first = next(place for place, other in enumerate(lines) if other.group == line.group)
        stage = next((s for s in reversed([*SCORED_BY]) if {map_key(first, s), map_key(at, s)} <= scores.keys()), None)
        if first != at and stage is not None:
            pairs.append((first, at, stage))
    return pairs


def _changes(scores: Mapping[str, Mapping[str, float]], pair: tuple[int, int, MapStage]) -> dict[str, float]:
    first, other, stage = pair
    one, two = scores[map_key(first, stage)], scores[map_key(other, stage)]
    return {name: two[name] - value for name, value in one.items() if name in two}


def _largest(changes: Mapping[str, float], there: set[str]) -> tuple[list[str], list[str]]:
    """Return the images that gained most and those that lost most, of those that are in the gallery."""
    order = sorted((name for name in changes if name in there), key=lambda name: (changes[name], name))
    gains = [name for name in reversed(order[-_SHOWN:]) if changes[name] > 0]
    return gains, [name for name in order[:_SHOWN] if changes[name] < 0]


def _read(lines: list[_SideLine], sources: list[PictureSource], chosen: list[ImageRecord]) -> Iterator[bytes]:
    """Yield the lines of all images, by the first side's files of CAMs."""
    files = [_cam_files(line) if source.cams else {} for line, source in zip(lines, sources, strict=True)]
    by_file: dict[str, list[ImageRecord]] = {}
    for record in chosen:
        by_file.setdefault(files[0].get(record.image_id, ""), []).append(record)
    for index, records in enumerate(by_file.values()):
        wanted = tuple(
            tuple(sorted({own[record.image_id] for record in records if record.image_id in own})) for own in files
        )
        for found in shard_pictures(PictureShard(index, tuple(records), wanted), sources, lines[0].manifest.classes):
            yield found.line().encode()


def _cam_files(line: _SideLine) -> dict[str, str]:
    config = line.figures.run_config
    images = images_with_cams(line.manifest, config.data, with_training=config.goal != "seed")
    places = zip(images.records, places_in_shards(images), strict=True)
    return {record.image_id: shard_name(shard) for record, (shard, _) in places}


def _keeping(lines: Iterable[bytes], kept: dict[str, dict[str, str]]) -> Iterator[bytes]:
    """Hand lines on, and keep the pictures of some images."""
    for line in lines:
        content = json.loads(line)
        if content["id"] in kept:
            kept[content["id"]] = content["tiles"]
        yield line


def _changed(
    lines: list[_SideLine],
    scores: Mapping[str, Mapping[str, float]],
    pair: tuple[int, int, MapStage],
    both: tuple[list[str], list[str]],
    kept: Mapping[str, Mapping[str, str]],
    records: Mapping[str, ImageRecord],
) -> ChangedImages:
    first, other, stage = pair
    keys = {at: map_key(at, stage) for at in (first, other)}

    def shown(name: str) -> ShownImage:
        tiles = {key: kept[name][key] for key in ("photo", "truth", *keys.values()) if key in kept[name]}
        figures = {lines[at].letter: scores[key][name] for at, key in keys.items()}
        return ShownImage(name, records[name].labels, figures, tiles)

    return ChangedImages(
        group=lines[first].group,
        stage=stage,
        words={key: lines[at].letter for at, key in keys.items()},
        gains=[shown(name) for name in both[0]],
        losses=[shown(name) for name in both[1]],
        class_names=lines[0].manifest.class_names,
    )


def _about(shown: int, there: int) -> str:
    if shown == there:
        return f"All {there} images that the runs have in common, at every stage."
    return (
        f"{shown} of {there} images that the runs have in common: half are those whose scores differ most, the others "
        "drawn at random; --gallery says how many."
    )

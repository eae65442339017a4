"""What two runs say without masks: how far their label maps agree, and the figures of each that need no mask."""

from collections.abc import Mapping

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.agreement import (
    MAP_STAGES,
    MapSource,
    MapStage,
    PairCounts,
    counts_table,
    joint_counts,
    pair_agreement,
)
from qaclims_ray.evaluation.map_differences import LabelFreeFigure, MapsDifference, label_free_figures, maps_difference
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_figures import SystemFigures
from qaclims_ray.stages.run_maps import WRITTEN, RunMaps, add_seeds, written_folders
from qaclims_ray.stages.trust import read_trust

MOST_COMPARED = 500
"""So many images in common are looked at, evenly out of all."""
SAME_SHARE = 0.8
"""Of the images of one name in both runs this share must have the same tags and size, or they are of other data."""
_ARTEFACTS: Mapping[MapStage, str] = {"seed": "cams", **WRITTEN}


def compare_maps(group: str, sides: Mapping[str, SystemFigures]) -> tuple[list[MapsDifference], list[str]]:
    """Hold the label maps of the first side against those of the others.

    Seeds are read where nothing that follows them is in common: they are large.

    Args:
        group: the compared system, or systems.
        sides: letter of a side -> its system.

    Returns:
        The differences, and what could not be compared.
    """
    (first_letter, first), *others = sides.items()
    found, notes = [], []
    for letter, other in others:
        shared: list[MapStage] = [stage for stage in stages_to_compare(first) if stage in stages_to_compare(other)]
        later: list[MapStage] = [stage for stage in shared if stage != "seed"]
        one, two = manifest_of(first), manifest_of(other)
        if not shared or one is None or two is None:
            continue
        if one.classes != two.classes:
            notes.append(f"{group}: label maps of {first_letter} and {letter} are of other classes, and not compared")
            continue
        for stage in later or shared:
            difference = _difference(group, stage, (first_letter, first, one), (letter, other, two))
            if difference is None:
                notes.append(f"{group}: {first_letter} and {letter} have no image with a {MAP_STAGES[stage]} in common")
            else:
                found.append(difference)
    return found, notes


_Side = tuple[str, SystemFigures, Manifest]


def _difference(group: str, stage: MapStage, first: _Side, other: _Side) -> MapsDifference | None:
    """Hold the maps of one stage against each other; None where no image has both."""
    common = common_images(first[2], other[2])
    if stage != "seed":
        there = _png_names(first[1], stage) & _png_names(other[1], stage)
        common = [name for name in common if name in there]
    wanted = common[:: max(1, -(-len(common) // MOST_COMPARED))]
    one, two = (_maps(side, stage, wanted) for side in (first, other))
    tags = {record.image_id: record.labels for record in first[2].records}
    counts: dict[str, PairCounts] = {}
    for name in wanted:
        if name in one and name in two:
            if one[name].shape != two[name].shape:
                raise DataError(f"{name} has other sizes in {first[0]} and {other[0]}: they are of different images")
            counts[name] = joint_counts(one[name], two[name])
    if not counts:
        return None
    return maps_difference(
        group=group,
        stage=stage,
        letters=(first[0], other[0]),
        table=counts_table(counts.values(), first[2].classes),
        agreements={name: pair_agreement(own, tags[name]) for name, own in counts.items()},
        tagged={label for name in counts for label in tags[name]},
        classes=first[2].classes,
    )


def common_images(first: Manifest, other: Manifest) -> list[str]:
    """Return the images that both have; one that is labelled otherwise, or of another size, is another of its name."""
    known = {record.image_id: (record.labels, record.width, record.height) for record in other.records}
    own = {record.image_id: (record.labels, record.width, record.height) for record in first.records}
    same = sorted(name for name, looks in own.items() if known.get(name) == looks)
    # Two drawn worlds give their images the same names: by chance some look alike from outside.
    return same if len(same) > SAME_SHARE * len(own.keys() & known.keys()) else []


def _maps(side: _Side, stage: MapStage, wanted: list[str]) -> dict:
    """Return the label maps of one stage that a side has of some images."""
    _, own, manifest = side
    if stage != "seed":
        folder = _folder(own, stage)
        return {name: load_mask(storage.join(folder, f"{name}.png")) for name in wanted}
    found: RunMaps = {name: {} for name in wanted}
    add_seeds(found, own.run_config, RunLayout(own.run), manifest, own.system)
    source = MapSource(own.system, "seed")
    return {name: maps[source] for name, maps in found.items() if source in maps}


def _folder(side: SystemFigures, stage: MapStage) -> str:
    return written_folders(side.run_config, RunLayout(side.run), side.system)[stage]


def _png_names(side: SystemFigures, stage: MapStage) -> set[str]:
    """Return the images whose label maps a side has, by one look at their folder."""
    files = storage.list_files(_folder(side, stage), ".png")
    return {uri.rpartition("/")[2].removesuffix(".png") for uri in files}


def stages_to_compare(side: SystemFigures) -> list[MapStage]:
    """Return the stages of a side whose maps are there and belong to its settings."""
    there = {"seed", *written_folders(side.run_config, RunLayout(side.run), side.system)}
    return [s for s, name in _ARTEFACTS.items() if s in there and name in side.metas and name not in side.stale]


def manifest_of(side: SystemFigures) -> Manifest | None:
    """Return the manifest of a side, or None where there is none."""
    uri = RunLayout(side.run).manifest
    return None if artifacts.readable_meta(uri) is None else read_manifest(uri)


def compare_label_free(group: str, sides: Mapping[str, SystemFigures]) -> tuple[list[LabelFreeFigure], list[str]]:
    """Return the figures that need no mask side by side, and which sides have none that count.

    Args:
        group: the compared system, or systems.
        sides: letter of a side -> its system.
    """
    trusts, notes = {}, []
    for letter, side in sides.items():
        uri = RunLayout(side.run).trust
        meta = artifacts.readable_meta(uri)
        if meta is None:
            notes.append(f"{letter} has no figures without masks yet: `qaclims report --out {side.run}` counts them")
        elif _is_stale(side, meta.inputs):
            notes.append(
                f"figures without masks of {letter} are left out: they were counted on other label maps than are there "
                f"now. Count them again: `qaclims report --out {side.run}`"
            )
        else:
            trusts[letter] = (side.system, read_trust(uri).figures)
    return label_free_figures(group, trusts) if trusts else [], notes


def _is_stale(side: SystemFigures, inputs: Mapping[str, str]) -> bool:
    for name in _ARTEFACTS.values():
        meta = side.metas.get(name)
        if meta is not None and f"{name}/{side.system}" in inputs:
            made = meta.recipe() if name == "cams" else meta.fingerprint
            if made != inputs[f"{name}/{side.system}"]:
                return True
    return False

"""The label maps that a run has of some images: seeds out of its CAMs, pseudo masks and predictions as written."""

from collections.abc import Collection

from jaxtyping import UInt8
from torch import Tensor

from qaclims_ray.cams.label_map import label_map
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.classes import NO_BACKGROUND, Classes
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import places_in_shards, shard_name
from qaclims_ray.data.splits import images_with_cams
from qaclims_ray.evaluation.agreement import MapSource, MapStage
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.threshold import at_chosen_threshold
from qaclims_ray.systems.needs import systems_with_cams
from qaclims_ray.systems.table import system_config

RunMaps = dict[str, dict[MapSource, UInt8[Tensor, "height width"]]]
"""Image id -> what drew the map -> label values."""
WRITTEN: dict[MapStage, str] = {"mask": "masks", "final": "predictions"}
"""Stage that writes label maps -> its artefact's name, which is that of the method of `RunLayout` too."""
_GOALS: dict[MapStage, tuple[str, ...]] = {"mask": ("mask", "segmentation"), "final": ("segmentation",)}


def run_maps(config: RunConfig, layout: RunLayout, manifest: Manifest, wanted: Collection[str]) -> RunMaps:
    """Return the label maps of some images, of every system and stage that has them.

    Args:
        config: the run's.
        layout: where the run is.
        manifest: the whole manifest.
        wanted: ids of the images.
    """
    found: RunMaps = {image_id: {} for image_id in wanted}
    for system in systems_with_cams(config):
        add_seeds(found, config, layout, manifest, system)
        for stage, folder in written_folders(config, layout, system).items():
            for image_id in found:
                uri = storage.join(folder, f"{image_id}.png")
                if storage.exists(uri):
                    found[image_id][MapSource(system, stage)] = load_mask(uri)
    return found


def written_folders(config: RunConfig, layout: RunLayout, system: str) -> dict[MapStage, str]:
    """Return the stages of a system that wrote label maps, and where, as far as the run goes and has come."""
    folders: dict[MapStage, str] = {}
    for stage, name in WRITTEN.items():
        uri = getattr(layout, name)(system)
        if config.goal in _GOALS[stage] and artifacts.readable_meta(uri) is not None:
            folders[stage] = uri
    return folders


def seed_border(config: RunConfig, layout: RunLayout, classes: Classes, system: str) -> float:
    """Return the background score at which a system's seeds are cut, scored and shown.

    Raises:
        ArtifactError: when it is to be chosen without masks, and was not yet.
    """
    if not classes.has_background:
        return NO_BACKGROUND
    return at_chosen_threshold(system_config(config, system), layout, system).fixed_threshold


def add_seeds(found: RunMaps, config: RunConfig, layout: RunLayout, manifest: Manifest, system: str) -> None:
    """Add a system's seeds at its fixed threshold; only shards that hold a wanted image are read."""
    uri = layout.cams(system)
    if artifacts.readable_meta(uri) is None:
        return
    images = images_with_cams(manifest, config.data, with_training=config.goal != "seed")
    places = zip(images.records, places_in_shards(images), strict=True)
    border = seed_border(config, layout, manifest.classes, system)
    for index in sorted({shard for record, (shard, _) in places if record.image_id in found}):
        for cam in read_cam_shard(storage.join(uri, shard_name(index))):
            if cam.image_id in found and cam.full is not None:
                found[cam.image_id][MapSource(system, "seed")] = label_map(cam, border)

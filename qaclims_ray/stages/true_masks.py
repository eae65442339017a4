"""The true masks of COCO, drawn in CPU tasks on all nodes, a shard of images at a time.

A killed run repeats at most the shards in flight. Masks that were drawn from other annotations are removed.
"""

from typing import Any

from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.coco import ANNOTATIONS, CocoData
from qaclims_ray.data.coco_annotations import AnnotatedImage
from qaclims_ray.data.coco_masks import draw_label_map
from qaclims_ray.data.images import save_label_map
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import finished_shards, plan_fingerprint, shards_of
from qaclims_ray.stages.image_stage import are_label_maps, part_name, remove_parts, write_part
from qaclims_ray.stages.stage import Stage

KIND = "true_masks"
"""Kind of the artefact."""

_Task = tuple[int, list[tuple[str, AnnotatedImage]]]


def true_masks(root: str, manifest: Manifest, uri: str) -> Artifact:
    """Return the drawn masks as an artefact.

    Args:
        root: the data set.
        manifest: its images.
        uri: folder of the masks, the one that the manifest names.
    """
    return Artifact(
        uri=uri,
        kind=KIND,
        settings={"rule": "smaller on top, crowds 255"},
        inputs={
            "annotations": storage.listing_fingerprint(storage.join(root, ANNOTATIONS), home=manifest.home),
            "manifest": plan_fingerprint(manifest, manifest.truth_fingerprint()),
        },
        verb="data",
    )


def draw_true_masks(stage: Stage, data: CocoData, uri: str) -> None:
    """Draw the masks that the manifest names, those that are not there yet.

    Args:
        stage: surroundings.
        data: the checked data set.
        uri: see `true_masks`.
    """
    artifact = true_masks(stage.config.data.root, data.manifest, uri)
    if artifact.current():
        return
    artifact.begin(goes_on=True)
    shards = shards_of(data.manifest)
    run_shards(
        [
            (index, [(_place(artifact, record), data.images[record.image_id]) for record in shard])
            for index, shard in enumerate(shards)
        ],
        finished={
            index
            for index in finished_shards(artifact, len(shards), part_name)
            if are_label_maps([_place(artifact, record) for record in shards[index]])
        },
        decode=_draw,
        actor=_Publisher,
        actor_kwargs={"uri": artifact.workshop},
        num_actors=stage.room.actors(None),
        progress=stage.progress.advance,
    )
    remove_parts(artifact.workshop)
    artifact.complete({"images": len(data.manifest.records)})


def _place(artifact: Artifact, record: ImageRecord) -> str:
    """Return where a mask is while the artefact is made."""
    return storage.join(artifact.workshop, str(record.mask_uri).removeprefix(artifact.uri))


def _draw(task: _Task) -> int:
    """Write a shard's masks, each whole or not at all; return its index."""
    index, images = task
    for uri, image in images:
        save_label_map(draw_label_map(image.regions, width=image.width, height=image.height), uri)
    return index


class _Publisher:
    """Note that a shard is whole."""

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __call__(self, index: int) -> dict[str, Any]:
        write_part(self.uri, index, [], {})
        return {"shard": index}

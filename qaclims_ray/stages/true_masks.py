"""Part of stage 1: the true masks of COCO, drawn in CPU tasks on all nodes, a shard of images at a time.

A killed run repeats at most the shards in flight. Masks that were drawn from other annotations are removed.
"""

from typing import Any

from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.coco import ANNOTATIONS, CocoData
from qaclims_ray.data.coco_annotations import AnnotatedImage
from qaclims_ray.data.coco_masks import draw_label_map
from qaclims_ray.data.images import save_label_map
from qaclims_ray.stages.cams import shards_of, unfinished_shards
from qaclims_ray.stages.image_stage import finish_image_stage, part_name, write_part
from qaclims_ray.stages.stage import Stage, current

KIND = "true_masks"
"""Kind of the artefact."""

_Task = tuple[int, list[tuple[str, AnnotatedImage]]]


def draw_true_masks(stage: Stage, data: CocoData, uri: str) -> None:
    """Draw the masks that the manifest names, those that are not there yet.

    Args:
        stage: surroundings.
        data: the checked data set.
        uri: folder of the masks, the one that the manifest names.
    """
    settings = {"rule": "smaller on top, crowds 255"}
    annotations = storage.listing_fingerprint(storage.join(stage.config.data.root, ANNOTATIONS))
    inputs = {"annotations": annotations, "manifest": data.manifest.fingerprint()}
    if current(uri, KIND, settings, inputs):
        return
    fingerprint = artifacts.expected_fingerprint(KIND, settings, inputs)
    shards = shards_of(data.manifest)
    todo: list[_Task] = [
        (index, [(str(record.mask_uri), data.images[record.image_id]) for record in shard])
        for index, shard in unfinished_shards(uri, fingerprint, shards, part_name)
    ]
    run_shards(
        todo,
        decode=_draw,
        actor=_Publisher,
        actor_kwargs={"uri": uri},
        num_actors=1,
        gpus_per_actor=0,
        progress=lambda done, _: stage.progress.advance(len(shards) - len(todo) + done, len(shards)),
    )
    finish_image_stage(uri, KIND, settings, inputs, {"images": len(data.manifest.records)})


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

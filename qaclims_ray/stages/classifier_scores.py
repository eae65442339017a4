"""How well the image-level classifier tells classes on images that it did not learn from: needs no mask."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.data import whole_files
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.images import Rgb
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.average_precision import ClassifierFigures, classifier_figures
from qaclims_ray.models.devices import constant, device_of_worker, upload
from qaclims_ray.stages.cams import decode_images
from qaclims_ray.stages.stage import Stage

MOST_IMAGES = 2000
"""So many images are looked at, evenly out of all: more move the figures little."""
_IMAGES_PER_TASK = 64


class ClassifierActor:
    """Hold the classifier; tell the classes of one decoded shard."""

    def __init__(self, network_uri: str, mean: Rgb, std: Rgb, gpus_per_actor: float) -> None:
        # Here, since planning a stage needs no network.
        from qaclims_ray.models.folding import for_inference
        from qaclims_ray.models.generators.mask_generator import load_mask_generator

        torch.set_num_threads(1)
        self.device = device_of_worker(gpus_per_actor)
        with whole_files.whole_copy(network_uri) as folder:
            self.network = for_inference(load_mask_generator(folder), self.device)
        self.mean, self.std = mean, std

    def __call__(self, shard: tuple[int, list[tuple[ImageRecord, Any]]]) -> dict[str, Any]:
        """Return the probabilities of the readable images."""
        found = [
            (record.image_id, class_probabilities(self.network, image, self.mean, self.std, self.device))
            for record, image in shard[1]
            if not isinstance(image, DataError)
        ]
        return {"probabilities": found}


def class_probabilities(network: nn.Module, image: Any, mean: Rgb, std: Rgb, device: torch.device) -> list[float]:
    """Return each class's probability on one image at its own size.

    Args:
        network: a classifier on the device.
        image: RGB pixels (3, height, width).
        mean: per channel, 0-1 scale.
        std: per channel, 0-1 scale.
        device: where the network is.
    """
    centre, spread = (constant(values, device)[:, None, None] for values in (mean, std))
    pixels = ((upload(image, device).float() / 255 - centre) / spread)[None]
    with torch.inference_mode():
        return torch.sigmoid(network(pixels, want="scores")[0].float())[0].tolist()


def classifier_images(manifest: Manifest, data: DataConfig) -> tuple[str, bool, Sequence[ImageRecord]]:
    """Return the split on which a classifier is looked at, whether it learned from none of it, and its images.

    The test split, else the scored one, else any other than the one that is trained on; where all are, those.
    """
    held = [record for record in manifest.records if data.train_split not in record.splits]
    for split in (data.test_split, data.eval_split):
        if own := [record for record in held if split in record.splits]:
            return split, True, _some(own)
    if held:
        return " and ".join(sorted({split for record in held for split in record.splits})), True, _some(held)
    return data.train_split, False, _some(manifest.subset(data.train_split).records)


def _some(records: Sequence[ImageRecord]) -> Sequence[ImageRecord]:
    step = max(1, -(-len(records) // MOST_IMAGES))
    return records[::step]


def score_classifier(stage: Stage, manifest: Manifest) -> ClassifierFigures | None:
    """Look at the run's classifier; None where no image could be read."""
    config = stage.config
    split, is_held_out, records = classifier_images(manifest, config.data)
    shards = [list(records[start : start + _IMAGES_PER_TASK]) for start in range(0, len(records), _IMAGES_PER_TASK)]
    summaries = run_shards(
        list(enumerate(shards)),
        decode=decode_images,
        actor=ClassifierActor,
        actor_kwargs={
            "network_uri": stage.layout.classifier,
            "mean": config.cam_net.image_mean,
            "std": config.cam_net.image_std,
            "gpus_per_actor": config.cams.gpus_per_actor,
        },
        num_actors=stage.room.actors(config.cams.num_actors, config.cams.gpus_per_actor),
        gpus_per_actor=config.cams.gpus_per_actor,
        progress=stage.progress.advance,
    )
    found = dict(pair for summary in summaries for pair in summary["probabilities"])
    own = [record for record in records if record.image_id in found]
    if not own:
        return None
    shown = np.zeros((len(own), len(manifest.class_names)), dtype=bool)
    for row, record in enumerate(own):
        shown[row, list(record.labels)] = True
    probabilities = np.array([found[record.image_id] for record in own], dtype=np.float64)
    return classifier_figures(probabilities, shown, manifest.class_names, split=split, is_held_out=is_held_out)

"""From seeds to a final network in this process, without Ray: pseudo masks, training, mIoU on val."""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.affinity_seeds import Seeds
from benchmarks.miniature_results import LocalRun
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data.images import load_image, save_label_map
from qaclims_ray.data.label_map_dataset import LabelledImage
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.evaluation.confusion import ConfusionMatrix, iou_per_label
from qaclims_ray.models.network_folder import WEIGHTS_NAME
from qaclims_ray.models.weights import FROM_CLASSIFIER
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.refinement import Refiners, pseudo_mask, refine_cams
from qaclims_ray.refine.shares import HALF
from qaclims_ray.run_config import RunConfig
from qaclims_ray.segmentation.inference import crf_probabilities, segment_images
from qaclims_ray.segmentation.networks.network import FinalNetwork, load_segmentation_network
from qaclims_ray.segmentation.relabelling import maps_within_tags
from qaclims_ray.segmentation.task import train_segmentation
from qaclims_ray.training.context import LocalContext


def pseudo_masks(seeds: Seeds, masks: MaskConfig, folder: Path) -> list[LabelledImage]:
    """Write the masks that steps without networks make of seeds; the score that cuts seeds is `masks.threshold`."""
    folder.mkdir(parents=True, exist_ok=True)
    maps = refine_cams(
        [scene.pixels for scene in seeds.scenes],
        [scene.cam for scene in seeds.scenes],
        masks,
        Refiners(),
        seeds.classes,
    )
    found = []
    for scene, cam in zip(seeds.scenes, maps.cams, strict=True):
        place = str(folder / f"{scene.record.image_id}.png")
        save_label_map(pseudo_mask(cam, maps.border, masks.uncertain), place)
        found.append(LabelledImage(scene.record.image_id, scene.record.image_uri, place))
    return found


def true_masks(manifest: Manifest) -> list[LabelledImage]:
    """Return images with their true masks: full supervision."""
    return [LabelledImage(record.image_id, record.image_uri, record.mask_uri or "") for record in manifest.records]


def train_final(run: LocalRun, config: RunConfig, images: Sequence[LabelledImage], folder: Path) -> FinalNetwork:
    """Train a final network on label maps, from the classifier's backbone where the settings say so; keep it.

    Args:
        run: whose classifier.
        config: resolved for the system.
        images: pictures and their masks.
        folder: where the network goes; one that is there is taken.
    """
    if not folder.is_dir():
        weights = str(run.classifier() / WEIGHTS_NAME) if config.segmentation.net.weights == FROM_CLASSIFIER else None
        train_segmentation(
            images=images,
            classes=run.scored.classes,
            segmentation=config.segmentation,
            seed=config.seed,
            precision="fp32",
            loader_workers=0,
            context=LocalContext(f"{folder}.checkpoints"),
            weights=weights,
        )
        Path(f"{folder}.checkpoints/latest").rename(folder)
        shutil.rmtree(f"{folder}.checkpoints", ignore_errors=True)
    return load_segmentation_network(str(folder))


def drawn_again(
    network: FinalNetwork, config: RunConfig, manifest: Manifest, folder: Path
) -> tuple[list[LabelledImage], float]:
    """Write the masks of a further round, which a final network draws within each image's tags.

    Args:
        network: of the round before.
        config: its settings.
        manifest: the training images; their true masks score what is drawn, and nothing else.
        folder: where the masks go.

    Returns:
        Pictures and their masks, and mIoU of these, a fraction.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records, counts, found = manifest.records, ConfusionMatrix(len(manifest.classes)), []
    maps = maps_within_tags(
        network,
        [load_image(record.image_uri) for record in records],
        [record.labels for record in records],
        [record.image_id for record in records],
        config.segmentation,
        manifest.classes,
    )
    for record, cam in zip(records, maps, strict=True):
        place, border = str(folder / f"{record.image_id}.png"), manifest.classes.border(HALF)
        save_label_map(pseudo_mask(cam, border, config.masks.uncertain), place)
        counts.update(label_map(cam, border), load_mask(record.mask_uri or ""))
        found.append(LabelledImage(record.image_id, record.image_uri, place))
    return found, float(iou_per_label(counts.counts).nanmean())


def network_scores(network: torch.nn.Module, config: RunConfig, tested: Manifest) -> tuple[float, float]:
    """Return mIoU of a final network without and with CRF, fractions.

    Args:
        network: the final network.
        config: its settings.
        tested: images with masks.
    """
    segmentation, records = config.segmentation, tested.records
    images = [load_image(record.image_uri) for record in records]
    counts = [ConfusionMatrix(len(tested.classes)) for _ in range(2)]
    net = segmentation.net
    for positions, found in segment_images(network, images, segmentation.test, net.image_mean, net.image_std):
        pixels = torch.stack([images[position] for position in positions])
        smooth = crf_probabilities(pixels, found, segmentation.test.crf, tested.classes.border(HALF))
        for position, *both in zip(positions, found, smooth, strict=True):
            truth = load_mask(records[position].mask_uri or "")
            for matrix, probabilities in zip(counts, both, strict=True):
                matrix.update(probabilities.argmax(0).to(torch.uint8), truth)
    plain, crf = (float(iou_per_label(matrix.counts).nanmean()) for matrix in counts)
    return plain, crf


def with_masks(config: RunConfig, seeds: Seeds, **settings: object) -> MaskConfig:
    """Return a run's settings of masks with seeds cut where no mask chose it, and others on top."""
    return dataclasses.replace(config.masks, seed_threshold=seeds.border, **settings)

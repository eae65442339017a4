"""The form without CLIP or texts: maps come from a head on the network's own encoder that learns the tags meanwhile."""

import dataclasses
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.datasets import seed_of
from qaclims_ray.data.tagged_crops import TaggedCrops
from qaclims_ray.methods.online.config import OnlineConfig
from qaclims_ray.methods.online.labels import (
    PresentClasses,
    labels_of_maps,
    of_present,
    present_classes,
    spread_by_affinity,
    stretched,
)
from qaclims_ray.methods.online.losses import likeness
from qaclims_ray.methods.online.step import online_crops, online_result
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.models.network_folder import WEIGHTS_NAME, load_weights, save_weights
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.networks.encoder import EncoderSegmenter, build_encoder_segmenter
from qaclims_ray.segmentation.networks.network import save_segmentation_network
from qaclims_ray.training.loop import Task, images_per_step, seeded
from qaclims_ray.training.meter import StepResult

TAGS_DIR = "tags"
"""Where a checkpoint keeps the head that learns the tags; the finished network does without it."""
_SHARPNESS = 10.0
"""What cosines of cells are multiplied by before the softmax that makes affinity of them."""


class TaggingSegmenter(nn.Module):
    """A final network and a head for tags on the coarsest stage of its encoder."""

    def __init__(self, segmenter: EncoderSegmenter, num_classes: int) -> None:
        """Make a fresh head.

        Args:
            segmenter: encoder and decoder.
            num_classes: K.
        """
        super().__init__()
        self.segmenter = segmenter
        self.tags = nn.Conv2d(segmenter.widths[-1], num_classes, 1, bias=False)

    def forward(
        self, image: Float[Tensor, "batch 3 height width"]
    ) -> tuple[
        Float[Tensor, "batch label fine_rows fine_columns"],
        Float[Tensor, "batch decoder_dim rows columns"],
        Float[Tensor, "batch class rows columns"],
        Float[Tensor, "batch encoder_dim rows columns"],
    ]:
        """Return logits, then the decoder's features, the maps of the tags and the encoder's on the coarsest grid."""
        stages = self.segmenter.encoder(image)
        decoded = self.segmenter.decoder(stages)
        features = F.adaptive_avg_pool2d(decoded, stages[-1].shape[2:])
        return self.segmenter.classifier(decoded), features, self.tags(stages[-1]), stages[-1]


def train_on_classifier(bench: Workbench, segmentation: SegmentationConfig) -> dict[str, float]:
    """Train an encoder, its decoder and a head for tags together; runs on every worker.

    Checkpoints hold ``network.json`` and ``network.safetensors`` of the final network, and the head beside them.

    Args:
        bench: settings, images, worker.
        segmentation: the network, its initial weights and normalisation.

    Returns:
        Metrics of the last epoch, those of the form on CLIP and loss/tags.

    Raises:
        ConfigError, DataError, ModelError: for settings, images or weights that cannot be used.
    """
    setup = bench.setup
    own: OnlineConfig = bench.recipe.own
    net, classes = segmentation.net, setup.manifest.classes
    with seeded(seed_of("network", setup.seed), torch.device("cpu")):
        segmenter = build_encoder_segmenter(net, classes.num_labels)
        network = TaggingSegmenter(segmenter, len(classes))
    crops = online_crops(setup, net, own)
    return setup.fit(classifier_task(network, crops, own, classes, freeze_batch_norm=segmentation.freeze_batch_norm))


def classifier_task(
    network: TaggingSegmenter, crops: TaggedCrops, own: OnlineConfig, classes: Classes, *, freeze_batch_norm: bool
) -> Task:
    """Make the training of a network and its head, which are trained in place.

    Args:
        network: final network and head.
        crops: training images.
        own: settings.
        classes: of the data set.
        freeze_batch_norm: keep batch norm statistics fixed.
    """
    segmenter = network.segmenter
    num_images = images_per_step(own.optim, len(crops))
    deaf = tuple(segmenter.head_parameters())

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        image = batch["image"]
        logits, features, maps, stage = wrapped(image)
        grid = (int(maps.shape[2]), int(maps.shape[3]))
        cells = features.flatten(2).transpose(1, 2)
        tags = batch["tags"].to(image.device, non_blocking=True)
        scores = maps.float().mean((2, 3))
        missed = F.multilabel_soft_margin_loss(scores, tags, reduction="none").sum() / num_images
        if crops.epoch < own.tag_epochs:
            # Everything is part of the loss, if by nothing: workers wait for the gradients of all that learns.
            idle = 0.0 * (logits.float().sum() + features.float().sum())
            return StepResult(loss=missed + idle, means={"loss/tags": missed.detach()}, untaught=deaf)
        present = present_classes(batch["tags"], image.device)
        own_maps = tag_maps(maps.detach(), stage.detach(), cells.detach(), present, steps=own.spread_steps)
        labels = labels_of_maps(own_maps.unflatten(2, grid), image, crops.normalisation, present, batch["outside"], own)
        result = online_result(logits, cells, labels, grid, affinity_weight=own.affinity_weight)
        return StepResult(loss=result.loss + missed, means={**result.means, "loss/tags": missed.detach()})

    return Task(
        network=network,
        groups=(
            (tuple(segmenter.backbone_parameters()), 1.0),
            ((*segmenter.head_parameters(), *network.tags.parameters()), own.optim.head_lr_factor),
        ),
        save=lambda folder: _save(network, folder, classes),
        load=lambda folder: _load(network, folder),
        step=step,
        dataset=crops,
        on_device=("image", "outside"),
        optim=own.optim,
        freeze_batch_norm=freeze_batch_norm,
        identity={"net": dataclasses.asdict(segmenter.config), "online": dataclasses.asdict(own)},
    )


@torch.no_grad()
def tag_maps(
    maps: Float[Tensor, "batch class rows columns"],
    stage: Float[Tensor, "batch encoder_dim rows columns"],
    features: Float[Tensor, "batch cell decoder_dim"],
    present: PresentClasses,
    *,
    steps: int,
) -> Float[Tensor, "batch slot cell"]:
    """Return the maps of the tagged classes: what is positive, spread over cells that belong together, from 0 to 1.

    The encoder says that two cells belong together by the cosine of its features there: their softmax over cells is
    the affinity of `spread_by_affinity`.

    Args:
        maps: logits of the tags.
        stage: the encoder's features.
        features: the decoder's.
        present: the tagged classes.
        steps: how often maps are spread.
    """
    unit = F.normalize(stage.float().flatten(2), dim=1)
    affinity = (_SHARPNESS * unit.transpose(1, 2) @ unit).softmax(2)
    positive = of_present(maps.float().flatten(2), present).clamp_min(0)
    return stretched(spread_by_affinity(stretched(positive), affinity, likeness(features), steps=steps))


def _save(network: TaggingSegmenter, folder: str, classes: Classes) -> None:
    save_segmentation_network(network.segmenter, folder, classes)
    place = Path(folder, TAGS_DIR)
    place.mkdir(exist_ok=True)
    save_weights(network.tags, place / WEIGHTS_NAME)


def _load(network: TaggingSegmenter, folder: str) -> None:
    load_weights(network.segmenter, folder)
    load_weights(network.tags, str(Path(folder, TAGS_DIR)))

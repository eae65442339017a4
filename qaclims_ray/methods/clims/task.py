"""CLIMS training: regions against class names and fixed background texts (rows C1-C7)."""

import dataclasses

import torch
from torch import Tensor, nn

from qaclims_ray.methods.area import activated_area
from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.clims.losses import background_suppression, background_text_matching, object_text_matching
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.methods.qa_clims.task import TextSource, check_texts
from qaclims_ray.methods.region_features import (
    RegionEncoder,
    RegionOptions,
    area_share,
    no_regions,
    probabilities,
    region_features,
)
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.training.context import all_reduce_sum
from qaclims_ray.training.loop import images_per_step
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.selection import Rate
from qaclims_ray.training.setup import TrainingSetup


def train_clims(
    *,
    setup: TrainingSetup,
    bank: TextSource,
    clip: RegionEncoder,
    clims: ClimsConfig,
    init_dir: str,
    rate: Rate | None = None,
) -> dict[str, float]:
    """Train CAMs with the losses of CLIMS; runs on every worker. Arguments and errors as in `train_ritc`.

    Returns:
        Metrics of the last epoch: loss, loss/matching, loss/background, loss/suppression, loss/area (before
        weighting), pairs (sum over the epoch), lr, images_per_s.
    """
    network = setup.generator(init_dir)
    check_texts(bank, clip, setup.manifest, setup.context.device)
    dataset = setup.images()
    image_ids = [record.image_id for record in setup.manifest.records]
    num_images = images_per_step(clims.optim, len(dataset))

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        ids = [image_ids[index] for index in batch["index"].tolist()]
        return clims_step(
            wrapped, batch, ids, bank=bank, clip=clip, clims=clims, cam_net=setup.cam_net, images_per_step=num_images
        )

    task = generator_task(
        network,
        step,
        dataset,
        clims.optim,
        freeze_batch_norm=clims.freeze_batch_norm,
        identity=dataclasses.asdict(clims),
        rate=rate,
    )
    return setup.fit(task)


def clims_step(
    network: nn.Module,
    batch: dict[str, Tensor],
    image_ids: list[str],
    *,
    bank: TextSource,
    clip: RegionEncoder,
    clims: ClimsConfig,
    cam_net: CamNetConfig,
    images_per_step: int,
) -> StepResult:
    """Compute one step of CLIMS; the loss is this worker's share, as in `ritc_step`.

    A pair without background texts (most classes of the camera-ready lists, C4) still takes part in the matching.
    """
    maps = network(batch["image"])
    present = batch["labels"].nonzero()  # (pair, 2)
    num_pairs = all_reduce_sum(torch.tensor(len(present), device=maps.device)).clamp(min=1)
    matching, background, suppression = _pair_terms(
        maps, batch["image"], present, image_ids, bank, clip, clims, cam_net
    )
    areas = activated_area(probabilities(maps))  # (batch, class)
    area = area_share(areas, present, over=clims.area_over, num_present=num_pairs, images_per_step=images_per_step)
    suppressed = suppression.sum() if clims.pair_reduction == "official" else suppression.sum() / num_pairs
    terms = {
        "loss/matching": (clims.matching_weight, matching.sum() / num_pairs),
        "loss/background": (clims.background_weight, background.sum() / num_pairs),
        "loss/suppression": (clims.suppression_weight, suppressed),
        "loss/area": (clims.area_weight, area),
    }
    loss = torch.stack([weight * value for weight, value in terms.values()]).sum()
    return StepResult(
        loss=loss,
        means={name: value.detach() for name, (_, value) in terms.items()},
        counts={"pairs": len(present)},
    )


def clims_regions(clims: ClimsConfig) -> RegionOptions:
    """Return how CLIMS makes regions of maps: soft masks, no threshold."""
    return RegionOptions(normalisation=clims.clip_normalisation, antialias=clims.antialias)


def _pair_terms(
    maps: Tensor,
    image: Tensor,
    present: Tensor,
    image_ids: list[str],
    bank: TextSource,
    clip: RegionEncoder,
    clims: ClimsConfig,
    cam_net: CamNetConfig,
) -> tuple[Tensor, Tensor, Tensor]:
    positions, classes = present.unbind(dim=1)
    texts = bank.lookup([image_ids[position] for position in positions.tolist()], classes.tolist())
    class_texts = texts.foreground.to(maps.device)
    if len(present):
        options = clims_regions(clims)
        rows = (positions.to(maps.device), classes.to(maps.device))
        regions = region_features(maps, image, *rows, clip=clip, options=options, cam_net=cam_net)
    else:
        regions = no_regions(maps, dim=class_texts.shape[1])
    return (
        object_text_matching(regions.foreground, class_texts),
        background_text_matching(regions.background, class_texts),
        background_suppression(
            regions.foreground,
            texts.background.to(maps.device),
            texts.is_background.to(maps.device),
            threshold=clims.suppression_threshold,
        ),
    )

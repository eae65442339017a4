"""CLIMS training: regions against class names and fixed background texts (rows C1-C8)."""

import dataclasses
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.data.classes import require_classes
from qaclims_ray.methods.area import activated_area, area_share
from qaclims_ray.methods.clims.config import ClimsConfig
from qaclims_ray.methods.clims.losses import background_suppression, background_text_matching, object_text_matching
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.methods.region_features import RegionEncoder, RegionOptions, Regions, probabilities
from qaclims_ray.methods.texts import TextSource, check_texts
from qaclims_ray.models.devices import upload
from qaclims_ray.text.bank import PairTexts
from qaclims_ray.training.context import all_reduce_sum
from qaclims_ray.training.divergence import DivergedError
from qaclims_ray.training.loop import images_per_step
from qaclims_ray.training.meter import StepResult, weighted
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
        weighting, but by `clims.class_weights`), pairs (sum over the epoch), lr, images_per_s.
    """
    network = setup.generator(init_dir)
    check_texts(bank, clip, setup.manifest, setup.context.device)
    dataset = setup.images()
    image_ids = [record.image_id for record in setup.manifest.records]
    num_images = images_per_step(clims.optim, len(dataset))
    net = setup.cam_net
    regions = Regions(clip=clip, options=clims_regions(clims), image_mean=net.image_mean, image_std=net.image_std)

    weights = class_weights(setup.manifest.class_names, clims).to(setup.context.device)

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        return clims_step(
            wrapped,
            batch,
            [image_ids[index] for index in batch["index"].tolist()],
            bank=bank,
            regions=regions,
            clims=clims,
            images_per_step=num_images,
            class_weight=weights,
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
    try:
        return setup.fit(task)
    except DivergedError as error:
        if clims.clamp:
            raise
        # On photographs the cosines of OpenAI's CLIP are positive; those of another CLIP need not be.
        raise error.adding(
            "Or set clims.clamp to true: without it a region whose cosine with its class text is not positive has no "
            "finite loss"
        ) from None


def clims_step(
    network: nn.Module,
    batch: dict[str, Tensor],
    image_ids: list[str],
    *,
    bank: TextSource,
    regions: Regions,
    clims: ClimsConfig,
    images_per_step: int,
    class_weight: Float[Tensor, " class"] | None = None,
) -> StepResult:
    """Compute one step of CLIMS; the loss is this worker's share, as in `ritc_step`.

    A pair without background texts (most classes of the camera-ready lists, C4) still takes part in the matching.

    Args:
        network: wrapped network.
        batch: image (on the device), labels (on the CPU).
        image_ids: of the batch.
        bank: texts.
        regions: `clims_regions` of the images.
        clims: losses.
        images_per_step: images of the step over all workers.
        class_weight: `class_weights`, which the figures of the matching terms hold too; None weighs all alike.
    """
    device = batch["image"].device
    present = batch["labels"].nonzero()  # (pair, 2)
    # Before the network: a GPU would have nothing to do while texts are looked up.
    pairs, texts = upload(present, device), _texts_of(present, image_ids, bank, device)
    num_pairs = all_reduce_sum(upload(torch.tensor(len(present)), device)).clamp(min=1)
    maps = network(batch["image"])
    matching, background, suppression = _pair_terms(maps, batch["image"], pairs, texts, regions, clims)
    weight = 1.0 if class_weight is None else class_weight[pairs[:, 1]]  # (pair,)
    is_sum = clims.pair_reduction == "official"
    areas = activated_area(probabilities(maps))  # (batch, class)
    return weighted(
        {
            "matching": (weight * matching).sum() / num_pairs,
            "background": (weight * background).sum() / num_pairs,
            # As released, a sum beside the two means: its weight grows with the batch (C3).
            "suppression": suppression.sum() / (clims.published_ranks if is_sum else num_pairs),
            "area": area_share(
                areas, pairs, over=clims.area_over, num_present=num_pairs, images_per_step=images_per_step
            ),
        },
        {
            "matching": clims.matching_weight,
            "background": clims.background_weight,
            "suppression": clims.suppression_weight,
            "area": clims.area_weight,
        },
        {"pairs": len(present)},
    )


def class_weights(class_names: Sequence[str], clims: ClimsConfig) -> Float[Tensor, " class"]:
    """Return what the matching terms of every class weigh (C6).

    Raises:
        ConfigError: when `clims.class_weights` names something that is no class.
    """
    require_classes("clims.class_weights", (name for name, _ in clims.class_weights), class_names)
    weights = dict(clims.class_weights)
    return torch.tensor([weights.get(name, 1.0) for name in class_names])


def clims_regions(clims: ClimsConfig) -> RegionOptions:
    """Return how CLIMS makes regions of maps: soft masks, no threshold."""
    return RegionOptions(normalisation=clims.clip_normalisation, antialias=clims.antialias)


def _texts_of(present: Tensor, image_ids: list[str], bank: TextSource, device: torch.device) -> PairTexts:
    """Look up the texts of a batch's pairs, and bring them to the device."""
    positions, classes = present.unbind(dim=1)
    texts = bank.lookup([image_ids[position] for position in positions.tolist()], classes.tolist())
    return PairTexts(**{name: upload(value, device) for name, value in vars(texts).items()})


def _pair_terms(
    maps: Tensor, image: Tensor, pairs: Tensor, texts: PairTexts, regions: Regions, clims: ClimsConfig
) -> tuple[Tensor, Tensor, Tensor]:
    positions, classes = pairs.unbind(dim=1)
    found = regions(maps, image, positions, classes)
    return (
        object_text_matching(found.foreground, texts.foreground, clamp=clims.clamp),
        background_text_matching(found.background, texts.foreground, clamp=clims.clamp),
        background_suppression(
            found.foreground,
            texts.background,
            texts.is_background,
            threshold=clims.suppression_threshold,
            clamp=clims.clamp,
            over_texts=clims.text_reduction,
        ),
    )

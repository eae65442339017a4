"""Region image-text contrastive training, RITC (QA-CLIMS 3.3): CAMs learn from a frozen CLIP.

One row of everything below is a pair, an image and a class that it shows; absent classes are never computed. What
CLIP makes of a pair's regions is in ``region_features.py``.
"""

import dataclasses
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.area import activated_area, area_share
from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.methods.qa_clims.config import RitcConfig
from qaclims_ray.methods.qa_clims.losses import background_contrast, foreground_contrast, total_loss
from qaclims_ray.methods.region_features import RegionEncoder, RegionOptions, Regions, probabilities
from qaclims_ray.methods.similarity import repulsion
from qaclims_ray.methods.texts import TextSource, check_texts
from qaclims_ray.models.devices import upload
from qaclims_ray.training.context import all_reduce_sum
from qaclims_ray.training.loop import images_per_step
from qaclims_ray.training.meter import StepResult
from qaclims_ray.training.selection import Rate
from qaclims_ray.training.setup import TrainingSetup

PUBLISHED_RANKS = 2
"""Workers of the published runs: each summed its own pairs, then gradients were averaged (R12)."""


@dataclass(frozen=True)
class TextPairs:
    """TextPairs of a batch that have background texts, with their texts; all on the training device."""

    image: Int[Tensor, " pair"]
    """Position of the image in the batch."""
    class_id: Int[Tensor, " pair"]
    """Class."""
    foreground: Float[Tensor, "pair dim"]
    """Mean foreground text."""
    background: Float[Tensor, "pair answer dim"]
    """Background texts, padded."""
    is_background: Bool[Tensor, "pair answer"]
    """Which rows of `background` are texts."""


def train_ritc(
    *,
    setup: TrainingSetup,
    bank: TextSource,
    clip: RegionEncoder,
    ritc: RitcConfig,
    init_dir: str,
    prompts: Float[Tensor, "class dim"] | None = None,
    rate: Rate | None = None,
) -> dict[str, float]:
    """Train CAMs by contrasting their regions with texts; runs on every worker.

    Args:
        setup: images, architecture, worker.
        bank: texts of every pair of the manifest.
        clip: frozen CLIP on the worker's device.
        ritc: losses, regions, optimiser.
        init_dir: folder of the network to start from: the classifier, or its calibrated form.
        prompts: encoded learned prompts of every class, for `ritc.prompt_text` and `ritc.prompt_weight`.
        rate: see `generator_task`.

    Returns:
        Metrics of the last epoch: loss, loss/foreground, loss/background, loss/area (before weighting), pairs,
        pairs_skipped (sums over the epoch), lr, images_per_s.

    Raises:
        ConfigError: when a region mode needs mask tokens that the CLIP lacks.
        ArtifactError: when the network to start from or the texts do not belong to this training.
    """
    _require_mask_tokens(clip, ritc)
    network = setup.generator(init_dir)
    check_texts(bank, clip, setup.manifest, setup.context.device)
    dataset = setup.images()
    image_ids = [record.image_id for record in setup.manifest.records]
    num_images = images_per_step(ritc.optim, len(dataset))
    net = setup.cam_net
    regions = Regions(clip=clip, options=ritc_regions(ritc), image_mean=net.image_mean, image_std=net.image_std)

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        ids = [image_ids[index] for index in batch["index"].tolist()]
        return ritc_step(
            wrapped, batch, ids, bank=bank, regions=regions, ritc=ritc, images_per_step=num_images, prompts=prompts
        )

    task = generator_task(
        network,
        step,
        dataset,
        ritc.optim,
        freeze_batch_norm=ritc.freeze_batch_norm,
        identity=dataclasses.asdict(ritc),
        rate=rate,
    )
    return setup.fit(task)


def ritc_step(
    network: nn.Module,
    batch: dict[str, Tensor],
    image_ids: list[str],
    *,
    bank: TextSource,
    regions: Regions,
    ritc: RitcConfig,
    images_per_step: int,
    prompts: Float[Tensor, "class dim"] | None = None,
) -> StepResult:
    """Compute one step of Eq. 1.

    The loss is a share: over all workers it adds up to the loss of the global batch, whatever their number. It
    depends on the network even where the batch shows no class at all (R20, R21).

    Args:
        network: wrapped network.
        batch: image (on the device), labels (on the CPU).
        image_ids: of the batch.
        bank: texts.
        regions: `ritc_regions` of the images.
        ritc: losses.
        images_per_step: images of the step over all workers.
        prompts: encoded learned prompts of every class, for `ritc.prompt_text` and `ritc.prompt_weight`.
    """
    present = batch["labels"].nonzero()  # (pair, 2); on the CPU, so that no count waits for the device
    # Before the network: a GPU would have nothing to do while texts are looked up.
    pairs = pairs_with_texts(present, image_ids, bank, batch["image"].device)
    counts = upload(torch.tensor([len(pairs.image), len(present)]), pairs.image.device)
    logits = network(batch["image"])
    if prompts is not None and ritc.prompt_text:
        pairs = with_prompts(pairs, prompts)
    refining = prompts if ritc.prompt_weight > 0 else None
    foreground, background, refinement = pair_contrast(
        logits, batch["image"], pairs, regions=regions, ritc=ritc, prompts=refining
    )
    areas = activated_area(probabilities(logits))  # (batch, class)
    total_pairs, total_present = all_reduce_sum(counts).clamp(min=1).unbind()
    # Official: half the sum over pairs, so a step with more pairs goes further (R12); the area is a mean either way.
    per_pair = PUBLISHED_RANKS if ritc.pair_reduction == "official" else total_pairs
    area = area_share(areas, present, over=ritc.area_over, num_present=total_present, images_per_step=images_per_step)
    result = total_loss(
        foreground.sum() / per_pair,
        background.sum() / per_pair,
        area,
        foreground_weight=ritc.foreground_weight,
        background_weight=ritc.background_weight,
        area_weight=ritc.area_weight,
        counts={"pairs": len(pairs.image), "pairs_skipped": len(present) - len(pairs.image)},
    )
    if refining is None:
        return result
    # Added here, and not as one more term of Eq. 1: its weight goes in before the division. That rounds differently,
    # and recorded figures were made so.
    return replace(
        result,
        loss=result.loss + ritc.prompt_weight * refinement.sum() / per_pair,
        means={**result.means, "loss/prompts": refinement.detach().sum() / per_pair},
    )


def pairs_with_texts(
    present: Int[Tensor, "present 2"], image_ids: list[str], bank: TextSource, device: torch.device
) -> TextPairs:
    """Look up the texts of a batch's pairs; pairs without background text are left out (Q10).

    Args:
        present: position in the batch and class of every pair.
        image_ids: of the batch.
        bank: texts.
        device: where the result goes.
    """
    positions, classes = present.unbind(dim=1)
    texts = bank.lookup([image_ids[position] for position in positions.tolist()], classes.tolist())
    kept = texts.has_background

    def moved(rows: Tensor) -> Tensor:
        return upload(rows[kept.to(rows.device)], device)

    return TextPairs(
        image=moved(positions),
        class_id=moved(classes),
        foreground=moved(texts.foreground),
        background=moved(texts.background),
        is_background=moved(texts.is_background),
    )


def with_prompts(pairs: TextPairs, prompts: Float[Tensor, "class dim"]) -> TextPairs:
    """Give each pair its class's learned prompt as one more background text.

    Args:
        pairs: with their texts.
        prompts: encoded prompts of every class, unit length.
    """
    learned = prompts[pairs.class_id].unsqueeze(1)  # (pair, 1, dim)
    is_learned = torch.ones_like(pairs.class_id, dtype=torch.bool).unsqueeze(1)
    return replace(
        pairs,
        # It comes behind the padding, which does no harm: `is_background` says which rows are texts, not their place.
        background=torch.cat([pairs.background, learned.to(pairs.background.dtype)], dim=1),
        is_background=torch.cat([pairs.is_background, is_learned], dim=1),
    )


def pair_contrast(
    logits: Float[Tensor, "batch class cam_height cam_width"],
    image: Float[Tensor, "batch 3 height width"],
    pairs: TextPairs,
    *,
    regions: Regions,
    ritc: RitcConfig,
    prompts: Float[Tensor, "class dim"] | None = None,
) -> tuple[Float[Tensor, " pair"], Float[Tensor, " pair"], Float[Tensor, " pair"]]:
    """Return FRC, BRC and the refinement by learned prompts (zero without them) of every pair, not reduced.

    Args:
        logits: of the network.
        image: normalised training crops.
        pairs: which maps to look at, and their texts.
        regions: from maps to CLIP features.
        ritc: temperature, pool.
        prompts: encoded learned prompts of every class; SemPLeS Eq. 3 pushes foreground regions away from them.
    """
    found = regions(logits, image, pairs.image, pairs.class_id)
    texts = (pairs.foreground, pairs.background, pairs.is_background)
    return (
        foreground_contrast(found.foreground, *texts, temperature=ritc.temperature),
        background_contrast(found.background, *texts, temperature=ritc.temperature, pool=ritc.background_pool),
        torch.zeros_like(found.area) if prompts is None else repulsion(found.foreground, prompts[pairs.class_id]),
    )


def ritc_regions(ritc: RitcConfig) -> RegionOptions:
    """Return how RITC makes regions of maps."""
    return RegionOptions(
        omega=ritc.omega,
        mode=ritc.region_mode,
        max_at=ritc.max_at,
        crop=ritc.region_crop,
        normalisation=ritc.clip_normalisation,
        antialias=ritc.antialias,
    )


def _require_mask_tokens(clip: RegionEncoder, ritc: RitcConfig) -> None:
    if ritc.region_mode in ("token_mask", "both") and not clip.is_mask_adapted:
        raise ConfigError(
            f"ritc.region_mode is {ritc.region_mode}, but this CLIP has no mask tokens: set ritc.region_mode to "
            "pixel_mask, or use mask-adapted weights (OVSeg) with clip.mask_adapted"
        )

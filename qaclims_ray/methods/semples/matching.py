"""The training phases of SemPLeS that change the mask generator (SemPLeS 3.2; rows S2-S11).

Segment-label matching (Eq. 1) and prompt-guided refinement (Eq. 3) differ in whether there are prompts; joint training
(Table 6) also learns the prompts, each loss reaching only its own side. Prompt learning proper is in
``prompts.py``.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.methods.generator_task import generator_task
from qaclims_ray.methods.region_features import RegionEncoder, RegionFeatures, RegionOptions, Regions
from qaclims_ray.methods.semples.config import PROMPTS_DIR, SemplesConfig
from qaclims_ray.methods.semples.losses import prompt_contrast, prompt_refinement, segment_label_matching
from qaclims_ray.methods.semples.prompts import load_vectors, start_of_prompts
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.prompts import LearnedPrompts, PromptTemplate, encode_prompts, save_prompts
from qaclims_ray.models.devices import upload
from qaclims_ray.models.generators.mask_generator import MaskNetwork, save_mask_generator
from qaclims_ray.models.network_folder import load_weights
from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.context import all_reduce_sum
from qaclims_ray.training.loop import Task
from qaclims_ray.training.meter import StepResult, weighted
from qaclims_ray.training.selection import Rate
from qaclims_ray.training.setup import TrainingSetup


def train_matching(
    *,
    setup: TrainingSetup,
    clip: RegionEncoder,
    class_texts: Float[Tensor, "class dim"],
    prompts: Float[Tensor, "class dim"] | None,
    semples: SemplesConfig,
    optim: OptimConfig,
    init_dir: str,
    rate: Rate | None = None,
) -> dict[str, float]:
    """Train the mask generator by matching, and by refinement where there are prompts; runs on every worker.

    Args:
        setup: images, architecture, worker.
        clip: frozen CLIP on the worker's device.
        class_texts: u_f, text of every class.
        prompts: u_b, encoded prompts of every class for Eq. 3; None for Eq. 1.
        semples: masks, weights, what learns.
        optim: optimiser and schedule of this phase.
        init_dir: folder of the network to start from.
        rate: see `generator_task`.

    Returns:
        Metrics of the last epoch: loss, loss/foreground, loss/background, loss/area and, with prompts, loss/prompts
        (before weighting), pairs (sum over the epoch), lr, images_per_s.

    Raises:
        ArtifactError: when the network to start from does not belong to this training.
    """
    network = setup.generator(init_dir)
    dataset, regions = setup.images(), _regions(setup, clip, semples)

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        return matching_step(wrapped, batch, regions=regions, class_texts=class_texts, prompts=prompts, semples=semples)

    task = generator_task(
        network,
        step,
        dataset,
        optim,
        freeze_batch_norm=semples.freeze_batch_norm,
        scope=semples.train_scope,
        rate=rate,
        identity=_identity(semples, with_prompts=prompts is not None),
    )
    return setup.fit(task)


def region_options(semples: SemplesConfig, *, epsilon: float) -> RegionOptions:
    """Return how SemPLeS makes regions of maps; epsilon differs between phases (S4)."""
    return RegionOptions(
        mask=semples.mask,
        epsilon=epsilon,
        omega=semples.omega,
        # SemPLeS itself has no threshold. Where one is set, the binary map cuts pixels as in QA-CLIMS's printed
        # formula.
        mode="pixel_mask" if semples.omega > 0 else "none",
        normalisation=semples.clip_normalisation,
        antialias=semples.antialias,
    )


def _regions(setup: TrainingSetup, clip: RegionEncoder, semples: SemplesConfig) -> Regions:
    net, options = setup.cam_net, region_options(semples, epsilon=semples.mask_epsilon)
    return Regions(clip=clip, options=options, image_mean=net.image_mean, image_std=net.image_std)


def matching_step(
    network: nn.Module,
    batch: dict[str, Tensor],
    *,
    regions: Regions,
    class_texts: Float[Tensor, "class dim"],
    prompts: Float[Tensor, "class dim"] | None,
    semples: SemplesConfig,
) -> StepResult:
    """Compute one step of Eq. 1, or of Eq. 3 where there are prompts; the loss is this worker's share of the mean.

    It depends on the network even where the batch shows no class (R21).

    Args:
        network: wrapped mask generator.
        batch: image (on the device), labels (on the CPU).
        regions: from maps to CLIP features.
        class_texts: u_f, text of every class.
        prompts: u_b, encoded prompts of every class.
        semples: weights.
    """
    pairs = _pairs_of(network(batch["image"]), batch, class_texts, regions)
    return _result(_matching_terms(pairs, prompts), pairs, semples)


def joint_step(
    network: nn.Module,
    batch: dict[str, Tensor],
    *,
    clip: FrozenClip,
    regions: Regions,
    template: PromptTemplate,
    class_texts: Float[Tensor, "class dim"],
    semples: SemplesConfig,
) -> StepResult:
    """Compute one step of joint training: Eq. 1 and 3 for the masks, Eq. 2 for the prompts.

    Args:
        network: wrapped `_Joint`.
        batch: image (on the device), labels (on the CPU).
        clip: frozen CLIP, which encodes the prompts.
        regions: from maps to CLIP features.
        template: sentence of the prompts.
        class_texts: u_f, text of every class.
        semples: weights, prompts.
    """
    maps, vectors = network(batch["image"])
    prompts = encode_prompts(clip, vectors, template)
    pairs = _pairs_of(maps, batch, class_texts, regions)
    # Each loss reaches only its own side.
    image, text = prompt_contrast(
        prompts[pairs.class_id], pairs.regions.background.detach(), pairs.texts, similarity=semples.prompt.similarity
    )
    terms = _matching_terms(pairs, prompts.detach()) | {"image": image, "text": text}
    return _result(terms, pairs, semples)


@dataclass(frozen=True)
class _MatchedPairs:
    """The pairs of a batch."""

    class_id: Tensor
    """Class of each, (pair)."""
    regions: RegionFeatures
    """What CLIP says of them."""
    texts: Tensor
    """u_f, (pair, dim)."""
    total: Tensor
    """Pairs of the step over all workers, at least 1."""


def _pairs_of(maps: Tensor, batch: dict[str, Tensor], class_texts: Tensor, regions: Regions) -> _MatchedPairs:
    present = batch["labels"].nonzero()  # (pair, 2); on the CPU, so that no count waits for the device
    # Of no pair at all: the sums are zero then, and so is the loss.
    total = all_reduce_sum(upload(torch.tensor(len(present)), maps.device)).clamp(min=1)
    image, class_id = upload(present, maps.device).unbind(dim=1)
    return _MatchedPairs(class_id, regions(maps, batch["image"], image, class_id), class_texts[class_id], total)


def _matching_terms(pairs: _MatchedPairs, prompts: Tensor | None) -> dict[str, Tensor]:
    """Return the terms of Eq. 1, and of Eq. 3 where there are prompts, of every pair."""
    regions = pairs.regions
    foreground, background = segment_label_matching(regions.foreground, regions.background, pairs.texts)
    terms = {"foreground": foreground, "background": background, "area": regions.area}
    if prompts is not None:
        terms["prompts"] = prompt_refinement(regions.foreground, prompts[pairs.class_id])
    return terms


def _result(terms: dict[str, Tensor], pairs: _MatchedPairs, semples: SemplesConfig) -> StepResult:
    # Every term is there even without pairs, because workers add up their figures by position. The order of the weights
    # is that in which recorded joint trainings added the terms; another one would round differently.
    weights = {
        "foreground": 1.0,
        "image": semples.prompt.image_weight,
        "text": semples.prompt.text_weight,
        "background": semples.background_weight,
        "area": semples.area_weight,
        "prompts": semples.refine_weight,
    }
    shares = {name: value.sum() / pairs.total for name, value in terms.items()}
    return weighted(shares, weights, {"pairs": len(pairs.class_id)})


def _identity(semples: SemplesConfig, *, with_prompts: bool) -> list[Any]:
    """Return what a checkpoint depends on, and nothing else: systems go on from what they share."""
    regions = dataclasses.asdict(region_options(semples, epsilon=semples.mask_epsilon))
    weights = [semples.background_weight, semples.area_weight, semples.refine_weight if with_prompts else None]
    return [regions, weights, semples.train_scope]


class _Joint(nn.Module):
    """Mask generator and prompts in one module, so that one optimiser and one DDP see both."""

    def __init__(self, generator: MaskNetwork, prompts: LearnedPrompts) -> None:
        super().__init__()
        self.generator = generator
        self.prompts = prompts

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.generator(image), self.prompts()


def train_jointly(
    *,
    setup: TrainingSetup,
    clip: FrozenClip,
    class_texts: Float[Tensor, "class dim"],
    semples: SemplesConfig,
    optim: OptimConfig,
    init_dir: str,
    rate: Rate | None = None,
) -> dict[str, float]:
    """Train masks and prompts together (Table 6, joint): masks by Eq. 1 and 3, prompts by Eq. 2; on every worker.

    Masks see the prompts as they are, and prompts the regions: each loss reaches only its own side. The checkpoint
    holds the generator and, in `PROMPTS_DIR`, the prompts. Arguments and errors as in `train_matching`; the metrics
    have loss/image and loss/text, the terms of Eq. 2, besides.
    """
    generator = setup.generator(init_dir)
    vectors, template = start_of_prompts(clip, semples.prompt, setup.num_classes, setup.seed)
    network = _Joint(generator, LearnedPrompts(vectors))
    dataset, regions = setup.images(), _regions(setup, clip, semples)

    def step(wrapped: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        return joint_step(
            wrapped, batch, clip=clip, regions=regions, template=template, class_texts=class_texts, semples=semples
        )

    base = generator_task(
        generator,
        step,
        dataset,
        optim,
        freeze_batch_norm=semples.freeze_batch_norm,
        scope=semples.train_scope,
        rate=rate,
        identity=[_identity(semples, with_prompts=True), dataclasses.asdict(semples.prompt)],
    )
    names = setup.manifest.class_names
    # One optimiser for both sides: prompts learn at their own rate, given as a multiple of the masks'.
    task = _with_prompts(base, network, template, names, clip.fingerprint(), semples.prompt.optim.lr / optim.lr)
    return setup.fit(task)


def _with_prompts(
    base: Task,
    network: _Joint,
    template: PromptTemplate,
    class_names: tuple[str, ...],
    clip_fingerprint: str,
    rate_factor: float,
) -> Task:
    """Turn a generator's task into one that trains and keeps the prompts too, at their own rate."""

    def save(folder: str) -> None:
        save_mask_generator(network.generator, folder)
        save_prompts(
            str(Path(folder, PROMPTS_DIR)),
            network.prompts.vectors,
            template=template,
            class_names=class_names,
            clip_fingerprint=clip_fingerprint,
        )

    def load(folder: str) -> None:
        load_weights(network.generator, folder)
        load_vectors(network.prompts, str(Path(folder, PROMPTS_DIR)))

    groups = (*base.groups, (network.prompts.parameters(), rate_factor))
    return dataclasses.replace(base, network=network, groups=groups, save=save, load=load)

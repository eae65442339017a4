"""The form on a frozen CLIP: maps are its patches against texts, and a decoder on its blocks is all that learns."""

import dataclasses
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from qaclims_ray.data.classes import Classes
from qaclims_ray.data.datasets import seed_of
from qaclims_ray.data.images import Rgb
from qaclims_ray.data.tagged_crops import TaggedCrops
from qaclims_ray.errors import ConfigError
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
from qaclims_ray.methods.patch_text.config import PatchTextConfig
from qaclims_ray.methods.patch_text.network import class_directions
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.clip.patch_features import PatchLook, look_at_patches
from qaclims_ray.models.devices import autocast
from qaclims_ray.models.network_folder import WEIGHTS_NAME, load_weights, save_weights
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.segmentation.networks.clip_decoder import ClipDecoder
from qaclims_ray.segmentation.networks.network import save_segmentation_network
from qaclims_ray.training.loop import Task, seeded
from qaclims_ray.training.meter import StepResult

DECODER_DIR = "decoder"
"""Where a checkpoint keeps what learns; the tower comes from the run's CLIP, and is added at the end."""


def train_on_clip(bench: Workbench, segmentation: SegmentationConfig) -> dict[str, float]:
    """Train a decoder on the run's frozen CLIP; runs on every worker.

    Checkpoints hold the decoder alone; the last one also holds the whole network, ``network.json`` and
    ``network.safetensors``.

    Args:
        bench: settings, images, texts, worker.
        segmentation: the network and its normalisation.

    Returns:
        Metrics of the last epoch: loss, accuracy (share of labelled pixels that the network gives the label it has
        made), loss/affinity, labelled (share of pixels with a label), lr, images_per_s.

    Raises:
        ArtifactError, ConfigError, DataError, ModelError: for texts, settings, images or a CLIP that cannot be used.
    """
    recipe, setup = bench.recipe, bench.setup
    own: OnlineConfig = recipe.own
    patch_text: PatchTextConfig = recipe.borrowed["patch_text"]
    model, weights = recipe.clip_files
    device = setup.context.device
    clip = load_clip(model, weights, device=device, mask_adapted=False)
    _check_crops(own.crop.crop_px, int(clip.model.visual.conv1.kernel_size[0]))
    with seeded(seed_of("network", setup.seed), torch.device("cpu")):
        network = ClipDecoder(
            clip.model.visual, segmentation.net, setup.manifest.classes.num_labels, mean=clip.mean, std=clip.std
        )
    directions = class_directions(bench.texts(), patch_text.background_weight)
    task = clip_task(
        network.to(device),
        directions.to(device),
        online_crops(setup, segmentation.net, own),
        own,
        num_blocks=patch_text.num_blocks,
        precision=recipe.precision,
        classes=setup.manifest.classes,
    )
    return setup.fit(task)


def _check_crops(crop_px: int, patch_px: int) -> None:
    if rest := crop_px % patch_px:
        raise ConfigError(
            f"online.crop.crop_px is {crop_px}, which is no whole number of the CLIP's patches of {patch_px} pixels: "
            f"labels would lie beside what they label; set {crop_px - rest} or {crop_px - rest + patch_px}"
        )


def clip_task(
    network: ClipDecoder,
    directions: Float[Tensor, "class dim"],
    crops: TaggedCrops,
    own: OnlineConfig,
    *,
    num_blocks: int,
    precision: Arithmetic,
    classes: Classes,
) -> Task:
    """Make the training of a decoder, which is trained in place.

    Args:
        network: on its device, as everything else.
        directions: of every class, see `class_directions`.
        crops: training images.
        own: settings.
        num_blocks: of CLIP's self-correlations, see `patch_features`.
        precision: what the frozen tower computes in.
        classes: of the data set.
    """

    def step(decoder: nn.Module, batch: dict[str, Tensor]) -> StepResult:
        return clip_step(
            decoder,
            batch,
            network=network,
            directions=directions,
            normalisation=crops.normalisation,
            own=own,
            num_blocks=num_blocks,
            precision=precision,
        )

    def finish(folder: str | None) -> None:
        if folder is not None:
            save_segmentation_network(network, folder, classes)

    return Task(
        network=network.decoder,
        groups=((tuple(network.decoder.parameters()), own.optim.head_lr_factor),),
        save=lambda folder: _save_decoder(network, folder),
        load=lambda folder: load_weights(network.decoder, str(Path(folder, DECODER_DIR))),
        step=step,
        dataset=crops,
        on_device=("image", "outside"),
        optim=own.optim,
        freeze_batch_norm=False,
        identity={"net": dataclasses.asdict(network.config), "online": dataclasses.asdict(own)},
        finish=finish,
    )


def clip_step(
    decoder: nn.Module,
    batch: dict[str, Tensor],
    *,
    network: ClipDecoder,
    directions: Float[Tensor, "class dim"],
    normalisation: tuple[Rgb, Rgb],
    own: OnlineConfig,
    num_blocks: int,
    precision: Arithmetic = "fp32",
) -> StepResult:
    """Compute one step: the frozen tower's maps, refined, become the labels that the decoder learns.

    Args:
        decoder: the wrapped decoder of the network.
        batch: image and what lies outside of it on the network's device, tags on the CPU.
        network: see `clip_task`.
        directions: see `clip_task`.
        normalisation: mean and deviation of the images, on the 0-1 scale.
        own: see `clip_task`.
        num_blocks: see `clip_task`.
        precision: see `clip_task`.
    """
    image = batch["image"]
    present = present_classes(batch["tags"], image.device)
    with torch.no_grad(), autocast(precision, image.device):
        look = look_at_patches(network.tower, network.tower_pixels(image), num_blocks=num_blocks)
    logits, joined = decoder(look.tokens)
    grid = (int(look.features.shape[2]), int(look.features.shape[3]))
    maps = patch_maps(look, directions, present, joined.detach(), steps=own.spread_steps)
    labels = labels_of_maps(maps.unflatten(2, grid), image, normalisation, present, batch["outside"], own)
    cells = logits.transpose(1, 2).unflatten(2, grid)
    return online_result(cells, joined, labels, grid, affinity_weight=own.affinity_weight)


@torch.no_grad()
def patch_maps(
    look: PatchLook,
    directions: Float[Tensor, "class dim"],
    present: PresentClasses,
    features: Float[Tensor, "batch cell decoder_dim"],
    *,
    steps: int,
) -> Float[Tensor, "batch slot cell"]:
    """Return the maps of the tagged classes: patches' cosines to them, spread over patches that belong together.

    Each takes its whole range, before and after it is spread: cosines have no zero that parts an object from the rest.

    Args:
        look: what the frozen CLIP says of the patches.
        directions: of every class, see `class_directions`.
        present: the tagged classes.
        features: the decoder's.
        steps: how often maps are spread.
    """
    cosines = torch.einsum("bdrc,kd->bkrc", look.features, directions.to(look.features.dtype))
    maps = stretched(of_present(cosines.flatten(2).float(), present))
    return stretched(spread_by_affinity(maps, look.affinity, likeness(features), steps=steps))


def _save_decoder(network: ClipDecoder, folder: str) -> None:
    place = Path(folder, DECODER_DIR)
    place.mkdir(parents=True, exist_ok=True)
    save_weights(network.decoder, place / WEIGHTS_NAME)

"""Contrastive prompt learning (SemPLeS Eq. 2): the mask generator is fixed, so its background features are kept.

The features of a few random views of every image are computed once, shared out among the workers; every step then
only runs the text tower on one prompt per class. Steps cost the same however large the images and the generator are.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from qaclims_ray.data.datasets import ImageLabelDataset, seed_of
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.methods.region_features import RegionOptions, Regions
from qaclims_ray.methods.semples.config import PromptConfig, SemplesConfig
from qaclims_ray.methods.semples.given_maps import MAX_VIEWS, MapsOf, WholeImages
from qaclims_ray.methods.semples.losses import prompt_contrast
from qaclims_ray.models import graphs
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.prompts import (
    LearnedPrompts,
    PromptTemplate,
    encode_prompts,
    initial_prompts,
    load_prompts,
    prompt_template,
    save_prompts,
)
from qaclims_ray.models.generators.mask_generator import MaskNetwork
from qaclims_ray.training.checkpoint import new_checkpoint_folder
from qaclims_ray.training.context import WorkerContext, gather_rows
from qaclims_ray.training.loop import Task
from qaclims_ray.training.meter import StepResult, weighted
from qaclims_ray.training.setup import TrainingSetup

_IMAGES_PER_PASS = 16


@dataclasses.dataclass(frozen=True)
class BackgroundFeatures:
    """What CLIP says of the background regions of all pairs and views, equal on all workers."""

    features: Float[Tensor, "row dim"]
    """v_b, unit length, on the CPU."""
    class_ids: Int[Tensor, " row"]
    """Class of each pair."""
    positions: Int[Tensor, " row"]
    """Where its image stands in the manifest."""


def train_prompts(
    *,
    setup: TrainingSetup,
    clip: FrozenClip,
    class_texts: Float[Tensor, "class dim"],
    semples: SemplesConfig,
    options: RegionOptions,
    init_dir: str,
    given: MapsOf | None = None,
) -> dict[str, float]:
    """Learn the prompts of a fixed mask generator; runs on every worker.

    Args:
        setup: images, architecture, worker.
        clip: frozen CLIP on the worker's device.
        class_texts: u_f, text of every class.
        semples: prompt settings.
        options: how maps become regions.
        init_dir: folder of the mask generator; not read where maps are given.
        given: maps made elsewhere, in place of a mask generator's. Their views are the whole image and, with
            `num_views` above 1, its mirror image.

    Returns:
        Metrics of the last epoch: loss, loss/image, loss/text (before weighting), lr, images_per_s (features a
        second); without `learn` a loss of 0, the prompts being random.

    Raises:
        ArtifactError: when the mask generator does not belong to this training.
        DataError: when no image of the manifest shows a class.
    """
    settings = semples.prompt
    vectors, template = start_of_prompts(clip, settings, setup.num_classes, setup.seed)
    prompts = LearnedPrompts(vectors)

    def save(folder: str) -> None:
        names = setup.manifest.class_names
        save_prompts(folder, prompts.vectors, template=template, class_names=names, clip_fingerprint=clip.fingerprint())

    # The control with random prompts. Its artefact is made like any other, so that refinement finds one.
    if not settings.learn:
        return _report_start(save, setup.context)
    cached = _cached_features(setup, clip, settings, options, init_dir, given)
    num_draws = settings.steps_per_epoch * settings.optim.batch_size
    contrast = PromptContrast(clip=clip, template=template, class_texts=class_texts, settings=settings)
    task = Task(
        network=prompts,
        groups=((prompts.parameters(), 1.0),),
        save=save,
        load=lambda folder: load_vectors(prompts, folder),
        step=functools.partial(prompt_step, contrast=contrast),
        dataset=FeatureDraws(cached, setup.manifest, num_draws=num_draws, seed=setup.seed),
        on_device=("feature",),
        optim=settings.optim,
        freeze_batch_norm=True,
        is_captured=False,  # it only hands its vectors on
        identity=[dataclasses.asdict(settings), dataclasses.asdict(options)],
    )
    # The features lie in memory, and loading processes would only copy them.
    return setup.fit(task, loader_workers=0)


def _cached_features(
    setup: TrainingSetup,
    clip: FrozenClip,
    settings: PromptConfig,
    options: RegionOptions,
    init_dir: str,
    given: MapsOf | None,
) -> BackgroundFeatures:
    """Compute the background features of the fixed mask generator, or of given maps."""
    if given is None:
        network, num_views = setup.generator(init_dir).to(setup.context.device), settings.num_views
        dataset = setup.images(setup.augment.light())
    else:
        network, num_views = None, min(settings.num_views, MAX_VIEWS)
        dataset = WholeImages(setup.manifest, given, setup.cam_net, size=clip.image_size, antialias=options.antialias)
    net = setup.cam_net
    return background_features(
        network,
        dataset,
        regions=Regions(clip=clip, options=options, image_mean=net.image_mean, image_std=net.image_std),
        num_views=num_views,
        loader_workers=setup.loader_workers,
        context=setup.context,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptContrast:
    """Eq. 2 of a batch of background features; built once, called every step."""

    clip: FrozenClip
    """Frozen CLIP; its text tower runs once for every class of the batch."""
    template: PromptTemplate
    """Sentence of the prompts."""
    class_texts: Float[Tensor, "class dim"]
    """u_f, text of every class."""
    settings: PromptConfig
    """Similarity, batch size."""

    def __call__(
        self,
        vectors: Float[Tensor, "class token width"],
        feature: Float[Tensor, "pair dim"],
        class_id: Int[Tensor, " pair"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return this worker's shares of the two terms' means over the global batch.

        Args:
            vectors: of all prompts.
            feature: v_b, on the device.
            class_id: class of each, on the CPU.
        """
        # On the CPU, so that the number of classes does not wait for the device.
        classes, row = class_id.unique(return_inverse=True)
        if graphs.are_used(feature.device):  # few numbers of classes; no row is of those that are added
            classes = F.pad(classes, (0, graphs.bucket(len(classes)) - len(classes)))
        classes, row, class_id = (index.to(feature.device, non_blocking=True) for index in (classes, row, class_id))
        return self._captured(vectors, feature, classes, row, class_id)

    @functools.cached_property
    def _captured(self) -> graphs.Captured:
        return graphs.Captured(self._terms, "SemPLeS's prompt step")

    def _terms(
        self, vectors: Tensor, feature: Tensor, classes: Tensor, row: Tensor, class_id: Tensor
    ) -> tuple[Tensor, Tensor]:
        encoded = encode_prompts(self.clip, vectors[classes], self.template)[row]  # (pair, dim)
        texts, similarity = self.class_texts[class_id], self.settings.similarity
        image, text = prompt_contrast(encoded, feature, texts, similarity=similarity)
        num_features = self.settings.optim.batch_size
        return image.sum() / num_features, text.sum() / num_features


def prompt_step(network: nn.Module, batch: dict[str, Tensor], *, contrast: PromptContrast) -> StepResult:
    """Compute one step of Eq. 2; the loss is this worker's share of the mean over the global batch.

    Args:
        network: wrapped prompts.
        batch: feature (pair, dim), on the device, and class_id (pair), on the CPU.
        contrast: from prompts and features to the two terms.
    """
    image, text = contrast(network(), batch["feature"], batch["class_id"])
    settings = contrast.settings
    return weighted({"image": image, "text": text}, {"image": settings.image_weight, "text": settings.text_weight})


class FeatureDraws:
    """Cached features, drawn with replacement; the draws of an epoch depend on (seed, epoch) alone."""

    def __init__(self, cached: BackgroundFeatures, manifest: Manifest, *, num_draws: int, seed: int) -> None:
        self._cached, self._manifest, self._num_draws, self._seed = cached, manifest, num_draws, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch."""
        generator = torch.Generator().manual_seed(seed_of("features", self._seed, epoch))
        self._rows = torch.randint(len(self._cached.class_ids), (self._num_draws,), generator=generator)

    def __len__(self) -> int:
        return self._num_draws

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return one feature, its class, and as `index` where its image stands in the manifest."""
        row, cached = self._rows[index], self._cached
        return {"feature": cached.features[row], "class_id": cached.class_ids[row], "index": cached.positions[row]}

    def image_id(self, index: int) -> str:
        """Return the identifier of the image of an item, by the item's `index`."""
        return self._manifest.records[index].image_id


def background_features(
    network: MaskNetwork | None,
    dataset: ImageLabelDataset | WholeImages,
    *,
    regions: Regions,
    num_views: int,
    loader_workers: int,
    context: WorkerContext,
) -> BackgroundFeatures:
    """Compute v_b for every pair of every view; view v of an image is its crop of epoch v.

    Args:
        network: fixed mask generator on the worker's device; None takes the maps that the data set brings.
        dataset: training images.
        regions: from maps to CLIP features.
        num_views: crops of every image.
        loader_workers: image loading processes.
        context: this worker; each computes a share of the images, and all get everything.

    Raises:
        DataError: when no image shows a class.
    """
    share = Subset(dataset, range(context.rank, len(dataset), context.world_size))
    # A worker whose images show no class still takes part in the exchange below, with an empty table.
    rows = [torch.zeros(0, 0)]
    with torch.no_grad(), _evaluating(network):
        for view in range(num_views):
            dataset.set_epoch(view)
            for batch in DataLoader(share, batch_size=_IMAGES_PER_PASS, num_workers=loader_workers):
                present = batch["labels"].nonzero()  # (pair, 2)
                image = batch["image"].to(context.device)
                position, class_id = present.to(context.device).unbind(dim=1)
                maps = batch["maps"].to(context.device) if network is None else network(image)
                found = regions(maps, image, position, class_id)
                index, class_ids = batch["index"][present[:, 0]], present[:, 1]
                # Beside the features, so as float32: exact up to 2^24 images.
                keys = torch.stack([torch.full_like(index, view), index, class_ids], dim=1).float()
                rows.append(torch.cat([keys, found.background.float().cpu()], dim=1))
    mine = torch.cat(rows[1:]) if len(rows) > 1 else rows[0]
    table = gather_rows(mine, context)
    if not len(table):
        raise DataError("no training image shows a class, so there is no background to learn prompts from")
    # By view, image and class: the order must not depend on how images were shared out among the workers.
    keys = table[:, :3].tolist()
    table = table[sorted(range(len(keys)), key=keys.__getitem__)]
    _, positions, class_ids = table[:, :3].long().unbind(dim=1)
    return BackgroundFeatures(features=table[:, 3:].contiguous(), class_ids=class_ids, positions=positions)


def start_of_prompts(
    clip: FrozenClip, settings: PromptConfig, num_classes: int, seed: int
) -> tuple[Float[Tensor, "class token width"], PromptTemplate]:
    """Return random prompts and the sentence around them.

    Raises:
        ConfigError, ModelError: when they do not fit the text tower.
    """
    template = prompt_template(clip, prefix=settings.prefix, length=settings.length, full_stop=settings.full_stop)
    generator = torch.Generator().manual_seed(seed_of("prompts", seed))
    return initial_prompts(clip, num_classes, settings.length, init=settings.init, generator=generator), template


def load_vectors(prompts: LearnedPrompts, folder: str) -> None:
    """Bring prompts to what a folder holds.

    Raises:
        ArtifactError: when it holds none, or prompts of another shape.
    """
    try:
        prompts.load_state_dict({"vectors": load_prompts(folder).vectors})
    except RuntimeError as error:
        raise ArtifactError(f"the prompts at {folder} do not fit this training: {error}") from None


def _report_start(save: Callable[[str], None], context: WorkerContext) -> dict[str, float]:
    folder = new_checkpoint_folder() if context.rank == 0 else None
    if folder is not None:
        save(folder)
    metrics = {"loss": 0.0}
    context.report(metrics, folder)
    return metrics


@contextlib.contextmanager
def _evaluating(network: nn.Module | None) -> Iterator[None]:
    if network is None:
        yield
        return
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)

"""What is checked before any long work starts: settings, places, and that weights are there, without a network."""

from pathlib import Path

from qaclims_ray.corpus.questions import question_set
from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError, DataError, ModelError
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.weights import FROM_CLASSIFIER, FROM_CLIP, weights_fingerprint
from qaclims_ray.presets.table import check_run
from qaclims_ray.refine.irn.config import GRID_STRIDE, IrnConfig
from qaclims_ray.refine.sam_kinds import check_model, require_promptable
from qaclims_ray.run_config import RunConfig
from qaclims_ray.segmentation.config import SegmentationConfig
from qaclims_ray.stages.evaluate import check_stores_full
from qaclims_ray.systems.licences import check_licences
from qaclims_ray.systems.needs import (
    needs_backbone,
    needs_classifier,
    needs_clip,
    needs_corpus,
    refinements,
    source_of_cams,
    systems_with_given_masks,
    systems_with_networks,
)
from qaclims_ray.systems.planning import planned_phases
from qaclims_ray.systems.recipe import backbone_weights, clip_files, recipe_of, vqa_model
from qaclims_ray.systems.table import system_config, system_of, training_order


def preflight(config: RunConfig, out: str) -> None:
    """Check everything that can be known without building a network: settings, places, that named files are there.

    Raises:
        QaclimsError: the first fault, saying what was found, what was expected and what to do.
    """
    check_run(config)
    check_licences(config)
    _check_batches(config)
    if storage.is_remote(out) and config.cluster.num_workers == 0:
        raise ConfigError("cluster.num_workers 0 trains in this process and needs a local --out")
    storage.check_writable(out)
    weights = backbone_weights(config)
    if weights not in ("", "timm") and needs_backbone(config) and not storage.exists(weights):
        raise ModelError(f"cam_net.weights: there is no file {weights}; give a file, or timm for its own weights")
    if config.goal != "seed":
        _check_masks(config)
    for net in {final.net for final in final_networks(config)}:
        if net.weights not in (FROM_CLASSIFIER, FROM_CLIP):
            weights_fingerprint(net.weights)
    if needs_clip(config):
        model, clip_weights = clip_files(config)
        weights_fingerprint(model, clip_weights if clip_weights and _is_path(clip_weights) else None)
    for name in config.systems:
        brings = source_of_cams(config, name) or method_of(system_of(config, name).method)
        if brings.find_source is not None:
            brings.find_source(recipe_of(system_config(config, name), brings))
    for name in systems_with_given_masks(config):
        place = system_config(config, name).masks.given
        if not storage.exists(place):
            raise DataError(
                f"masks.given: there is no file or folder {place}; give the place of the masks made elsewhere"
            )
    if needs_corpus(config):
        question_set(config.corpus.questions)
        weights_fingerprint(vqa_model(config))


def final_networks(config: RunConfig) -> set[SegmentationConfig]:
    """Return the settings of all final networks that a run trains."""
    return {system_config(config, name).segmentation for name in systems_with_networks(config)}


def affinity_networks(config: RunConfig) -> set[IrnConfig]:
    """Return the settings of all affinity networks that a run trains."""
    return {masks.irn for masks in refinements(config) if "irn" in masks.steps}


def _check_batches(config: RunConfig) -> None:
    """Refuse more workers than the smallest batch of any training has images."""
    sizes = batch_sizes(config)
    smallest = min(sizes, key=sizes.__getitem__, default="")
    if smallest and config.cluster.least_workers > sizes[smallest]:
        raise ConfigError(
            f"cluster.num_workers is {config.cluster.least_workers}, more than a batch has images: {smallest} is "
            f"{sizes[smallest]}; lower the one or raise the other"
        )


def batch_sizes(config: RunConfig) -> dict[str, int]:
    """Return the images of a batch of every training of a run, by what says it."""
    sizes = {"classifier.optim.batch_size": config.classifier.optim.batch_size} if needs_classifier(config) else {}
    for name in training_order(config):
        for phase in planned_phases(config, name):
            sizes[f"the batch size of {name}'s {phase.name or 'training'}"] = phase.optim.batch_size
    # Systems may have settings of their own; the smallest is what counts.
    owns = [name for name in systems_with_networks(config) if method_of(system_of(config, name).method).own_network]
    others = [name for name in systems_with_networks(config) if name not in owns]
    for setting, networks in (
        ("masks.irn", affinity_networks(config)),
        ("online", {system_config(config, name).segmentation for name in owns}),
        ("segmentation", {system_config(config, name).segmentation for name in others}),
    ):
        if networks:
            sizes[f"{setting}.optim.batch_size"] = min(one.optim.batch_size for one in networks)
    return sizes


def _check_masks(config: RunConfig) -> None:
    """Check what the refinement steps need of CAMs and weights."""
    check_stores_full(config.cams)
    for masks in refinements(config):
        if "sam" in masks.steps:
            check_model("masks.sam.model", masks.sam.model, require_promptable)
            weights_fingerprint(masks.sam.model)
        if "feature_affinity" in masks.steps:
            weights_fingerprint(masks.feature_affinity.weights)
    for irn in affinity_networks(config):
        if (config.cams.store, config.cams.grid_stride) != ("both", GRID_STRIDE):
            raise ConfigError(
                f"masks.steps has irn, which walks on CAMs of one cell for every {GRID_STRIDE} pixels, but cams.store "
                f"is {config.cams.store} and cams.grid_stride {config.cams.grid_stride}; set them to both and "
                f"{GRID_STRIDE}"
            )
        if irn.weights != FROM_CLASSIFIER:
            weights_fingerprint(irn.weights)


def check_starts(config: RunConfig) -> None:
    """Check that networks which start from the classifier's backbone have it, and its normalisation.

    Raises:
        ConfigError: when one has another.
    """
    for irn in affinity_networks(config):
        if irn.weights == FROM_CLASSIFIER:
            _check_backbone(config, "masks.irn", irn.backbone)
    for net in {final.net for final in final_networks(config)}:
        if net.weights != FROM_CLASSIFIER:
            continue
        _check_backbone(config, "segmentation.net", net.backbone)
        for name in ("image_mean", "image_std", "pad_same"):
            if getattr(net, name) != getattr(config.cam_net, name):
                raise ConfigError(
                    f"segmentation.net.{name} is {getattr(net, name)}, but the classifier it starts from has "
                    f"{getattr(config.cam_net, name)} (cam_net.{name}); set both alike"
                )


def _check_backbone(config: RunConfig, section: str, backbone: str) -> None:
    own = (config.cam_net.generator, config.cam_net.backbone)
    if own != ("cnn", backbone):
        raise ConfigError(
            f"{section} starts from the classifier's backbone, but the classifier is {' '.join(own)} and "
            f"{section}.backbone is {backbone}; name the same convolutional one, or other weights"
        )


def _is_path(name: str) -> bool:
    return "/" in name or Path(name).suffix != ""

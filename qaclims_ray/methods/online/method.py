"""Final networks that make their own masks while they learn: what a run needs for them, and what they depend on.

Two methods, since they need other things: `online` learns on a frozen CLIP and reads texts, `online_classifier` has
neither. Both train the final network itself: there are no CAMs, no pseudo masks and no other training.
"""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from qaclims_ray.data.artifacts import plain
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.method import Method, OwnNetwork, Phase, Recipe, Sources
from qaclims_ray.methods.online.config import OnlineConfig
from qaclims_ray.methods.workbench import Workbench
from qaclims_ray.models.weights import FROM_CLIP, weights_fingerprint
from qaclims_ray.segmentation.config import SegmentationConfig, SegmentationNetConfig


def _on_clip(recipe: Recipe, run: SegmentationConfig) -> SegmentationConfig:
    own: OnlineConfig = recipe.own
    net = replace(run.net, architecture="clip_decoder", backbone=recipe.clip.model, weights=FROM_CLIP, width=own.width)
    return _own_training(own, net, run)


def _on_classifier(recipe: Recipe, run: SegmentationConfig) -> SegmentationConfig:
    own, cam_net = recipe.own, recipe.cam_net
    is_frozen = recipe.borrowed["classifier"].freeze_batch_norm
    net = replace(
        run.net,
        architecture="encoder",
        backbone=cam_net.backbone,
        weights=cam_net.weights or "random",
        image_mean=cam_net.image_mean,
        image_std=cam_net.image_std,
        pad_same=cam_net.pad_same,
        decoder_norm="group" if is_frozen else run.net.decoder_norm,
    )
    return replace(_own_training(own, net, run), freeze_batch_norm=is_frozen)


def _own_training(own: OnlineConfig, net: SegmentationNetConfig, run: SegmentationConfig) -> SegmentationConfig:
    """Return the run's settings with this network, and with what this training has instead; test time stays."""
    return replace(
        run,
        net=net,
        crop=own.crop,
        loss="balanced",
        optim=own.optim,
        steps_per_epoch=own.steps_per_epoch,
        accumulation=1,
        freeze_batch_norm=False,
    )


def _clip_phase(recipe: Recipe, sources: Sources, final: SegmentationConfig) -> Phase:
    assert sources.texts is not None, "the method has texts"
    inputs = {"manifest": sources.manifest, "clip": sources.clip, "texts": sources.texts.fingerprint}
    train = functools.partial(_train_on_clip, final=final)
    return replace(_phase(recipe, final, inputs, train, patch_text=recipe.borrowed["patch_text"]), texts=sources.texts)


def _classifier_phase(recipe: Recipe, sources: Sources, final: SegmentationConfig) -> Phase:
    inputs = {"manifest": sources.manifest, "weights": weights_fingerprint(final.net.weights)}
    return _phase(recipe, final, inputs, functools.partial(_train_on_classifier, final=final))


def _phase(
    recipe: Recipe,
    final: SegmentationConfig,
    inputs: dict[str, str],
    train: Callable[[Workbench], dict[str, float]],
    **borrowed: Any,
) -> Phase:
    learned = {name: value for name, value in plain(final).items() if name not in ("test", "rounds")}
    return Phase(
        kind="segmentation",
        settings={**plain({"online": recipe.own, **borrowed}), "segmentation": learned, **recipe.numerics()},
        inputs=inputs,
        optim=recipe.own.optim,
        steps_per_epoch=recipe.own.steps_per_epoch,
        is_rated=False,
        is_last=True,
        train=train,
    )


def _train_on_clip(bench: Workbench, final: SegmentationConfig) -> dict[str, float]:
    from qaclims_ray.methods.online.clip_task import train_on_clip

    return train_on_clip(bench, final)


def _train_on_classifier(bench: Workbench, final: SegmentationConfig) -> dict[str, float]:
    from qaclims_ray.methods.online.classifier_task import train_on_classifier

    return train_on_classifier(bench, final)


def check_tags_first(system: str, recipe: Recipe, base: str) -> None:
    """Refuse an encoder without stages, and a training that ends before it has learned from a mask.

    Raises:
        ConfigError: where the mask generator is WeakTr, or all epochs are for the tags.
    """
    own: OnlineConfig = recipe.own
    if own.tag_epochs >= own.optim.epochs:
        raise ConfigError(
            f"system {system} learns tags alone in the first {own.tag_epochs} of {own.optim.epochs} epochs, which "
            "leaves none for masks; set online.tag_epochs below online.optim.epochs"
        )
    if recipe.cam_net.generator != "cnn":
        raise ConfigError(
            f"system {system} decodes the stages of cam_net.backbone, but cam_net.generator is "
            f"{recipe.cam_net.generator}, a plain transformer; set it to cnn, or take the system online"
        )


ONLINE = Method(
    name="online",
    kind="online",
    section="online",
    borrows=("patch_text",),
    uses_classifier=False,
    uses_texts=True,
    uses_clip=True,
    has_cams=False,
    own_network=OwnNetwork(settings=_on_clip, phase=_clip_phase),
)
ONLINE_CLASSIFIER = Method(
    name="online_classifier",
    kind="online_classifier",
    section="online",
    borrows=("classifier",),
    uses_classifier=False,
    has_cams=False,
    own_network=OwnNetwork(settings=_on_classifier, phase=_classifier_phase),
    check=check_tags_first,
)

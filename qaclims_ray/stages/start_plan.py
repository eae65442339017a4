"""Which run `qaclims start` chooses for a folder of photographs and a machine, and why."""

import math
from dataclasses import replace
from typing import NamedTuple

from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.presets.small import SMALL_BACKBONES
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.local_weights import LocalBackbone, LocalClip, backbone_of_file, from_scratch
from qaclims_ray.stages.start_machine import Machine
from qaclims_ray.stages.start_survey import Survey
from qaclims_ray.systems.needs import needs_classifier

PRESET = "folder-no-download"
"""The preset that a chosen run starts from."""
_CROP_PX, _GPU_CROP_PX = 320, 448
_LEAST_CROP_PX = 64
_MANY_PER_CORE = 400
"""From so many photographs for each core on, the faster of two networks is chosen."""
_CLASSIFIER_STEPS, _IRN_STEPS, _FINAL_STEPS = 120, 60, 450
"""Steps of 8 that the recipe takes on 120 photographs (docs/results/voc_sample.md); fewer photographs take more
passes."""
_QUICK_FINAL_STEPS = 216
"""Of the final network in a quick look, on smaller crops and at twice the learning rate; half of them learn to show
nothing (docs/results/voc_sample.md)."""
_QUICK_HEAD_RATE = 0.01
"""Learning rate of a classifier's head alone."""
_QUICK_SCALES = (1.0, 0.5)


class ChosenRun(NamedTuple):
    """A run, and why it is so."""

    config: RunConfig
    reasons: list[str]


def choose_run(survey: Survey, machine: Machine, *, weights: str = "", is_quick: bool = False) -> ChosenRun:
    """Choose network, image size, passes and masks.

    Args:
        survey: the folder.
        machine: where it will run.
        weights: a file of weights that the user names; empty takes what is there.
        is_quick: whether a first look is wanted: a classifier on a backbone that stays as it is, maps at fewer scales,
            masks by the CRF alone, a final network with fewer passes over smaller crops.

    Raises:
        ConfigError: for a file of weights that is of no known small network.
        DataError: where there is no such file.
    """
    config = replace(preset(PRESET), data=survey.data)
    chosen, why = _network(config, survey, machine, weights)
    overrides, reasons = _sizes(chosen, survey, machine)
    passes, counted = _passes(chosen, survey, is_quick)
    masks = ("crf",) if is_quick else chosen.masks.steps
    said = {"irn": "pixels that belong together (IRN)", "crf": "edges of colour (CRF)"}
    reasons = [why, *reasons, counted, f"masks: the maps, carried on by {' and by '.join(said[one] for one in masks)}"]
    if not survey.held_out or survey.data.test_split == survey.data.eval_split:
        reasons.append("too few photographs to hold any out: nothing can judge the networks on new ones")
    chosen = with_overrides(chosen, {**overrides, **passes, "masks.steps": list(masks)})
    return ChosenRun(with_overrides(chosen, _quick(chosen)) if is_quick else chosen, reasons)


def _learns_head_alone(config: RunConfig) -> bool:
    """Whether a quick look leaves the classifier's backbone as it is: it came with weights."""
    return needs_classifier(config) and bool(config.cam_net.weights)


def _quick(config: RunConfig) -> dict[str, object]:
    """Return what a quick look does otherwise, beside passes and masks."""
    optim, final = config.classifier.optim, config.segmentation
    own: dict[str, object] = {
        "cams.scales": list(_QUICK_SCALES) if needs_classifier(config) else list(config.cams.scales),
        "segmentation.crop.crop_px": max(_LEAST_CROP_PX, int(0.6 * config.augment.crop_px) // 32 * 32),
        "segmentation.optim.lr": 2 * final.optim.lr,
    }
    if _learns_head_alone(config):
        own |= {
            "classifier.train_scope": "head",
            "classifier.optim.head_lr_factor": _QUICK_HEAD_RATE / optim.lr,
        }
    return own


def _network(config: RunConfig, survey: Survey, machine: Machine, weights: str) -> tuple[RunConfig, str]:
    if weights:
        return _named_weights(config, weights)
    if not machine.backbones and machine.clip is not None:
        return _without_training(config, machine.clip)
    if not machine.backbones:
        scratch = from_scratch(config)
        return scratch, f"network: {scratch.cam_net.backbone} from random weights, since none are here: a poor result"
    one, why = machine.backbones[0], "the best network whose weights are here"
    faster = next((each for each in machine.backbones if each.small.backbone != one.small.backbone), None)
    if faster is not None and not machine.gpus and survey.trained > _MANY_PER_CORE * machine.cores:
        one, why = faster, f"the fastest network whose weights are here, for {survey.trained} photographs without a GPU"
    return _with_backbone(config, one), f"network: {one.small.backbone}, {why}"


def _without_training(config: RunConfig, clip: LocalClip) -> tuple[RunConfig, str]:
    """Take maps that need no training, where there is no pretrained network to train."""
    own = {
        "systems": ["patch_text"],
        "cams.scales": [1.0],
        "masks.steps": ["crf"],
        "segmentation.net.weights": "random",
    }
    chosen = with_overrides(from_scratch(config), {**clip.settings(), **own})
    why = (
        f"maps: without training, from patches of {clip.model} and the names of your classes, since no weights of a "
        f"small network are here; the final network, a {chosen.segmentation.net.backbone}, starts from random weights "
        "and will be poor: trust the masks"
    )
    return chosen, why


def _with_backbone(config: RunConfig, one: LocalBackbone) -> RunConfig:
    return with_overrides(config, one.small.settings(weights=str(one.path)))


def _named_weights(config: RunConfig, weights: str) -> tuple[RunConfig, str]:
    path = storage.absolute(weights)
    if not storage.exists(path):
        raise DataError(f"there is no file of weights {path} (--cam-net.weights)")
    if (small := backbone_of_file(path)) is None:
        known = ", ".join(f"{one.backbone} ({name})" for one in SMALL_BACKBONES for name in one.weights)
        raise ConfigError(
            f"{path} is no file of weights that is known: expected one of {known}. For another network leave it out, "
            "and set cam_net.weights and cam_net.backbone in the preset file that --dry-run writes"
        )
    return with_overrides(config, small.settings(weights=path)), f"network: {small.backbone}, for {weights}"


def _sizes(config: RunConfig, survey: Survey, machine: Machine) -> tuple[dict[str, object], list[str]]:
    usual = _GPU_CROP_PX if machine.gpus else _CROP_PX
    crop = min(usual, max(_LEAST_CROP_PX, survey.median_side_px // 32 * 32))
    small = max(_LEAST_CROP_PX, int(0.8 * crop) // 32 * 32)
    overrides: dict[str, object] = {
        "augment.crop_px": crop,
        "augment.min_long_side_px": int(0.8 * crop),
        "augment.max_long_side_px": int(1.3 * crop),
        "masks.irn.crop_px": small,
        "segmentation.crop.crop_px": small,
    }
    batch = min(config.classifier.optim.batch_size, survey.trained)
    for section in ("classifier", "masks.irn", "segmentation"):
        overrides[f"{section}.optim.batch_size"] = batch
    if machine.gpus:
        overrides |= {"cluster.use_gpu": True, "cams.gpus_per_actor": 1.0, "masks.gpus_per_actor": 1.0}
    why = (
        "the photographs are no larger" if crop < usual else "on a GPU" if machine.gpus else "what a CPU can learn from"
    )
    return overrides, [f"image size: crops of {crop} pixels to learn from ({why}); maps and masks at full size"]


def _passes(config: RunConfig, survey: Survey, is_quick: bool) -> tuple[dict[str, object], str]:
    batch = min(config.classifier.optim.batch_size, survey.trained)
    steps = max(1, math.ceil(survey.trained / batch))

    def passes(least: int, wanted_steps: int, most: int) -> int:
        return max(least, min(most, math.ceil(wanted_steps / steps)))

    is_head_alone = is_quick and _learns_head_alone(config)
    # A pass of the head alone takes a third of the time.
    classifier = passes(2 if is_head_alone else config.classifier.optim.epochs, _CLASSIFIER_STEPS, 60)
    if is_quick and not is_head_alone:
        classifier = max(2, classifier // 4)
    final = passes(5, _QUICK_FINAL_STEPS, 60) if is_quick else passes(10, _FINAL_STEPS, 120)
    irn = passes(config.masks.irn.optim.epochs, _IRN_STEPS, 12)
    overrides: dict[str, object] = {
        "classifier.optim.epochs": classifier,
        "masks.irn.optim.epochs": irn,
        "segmentation.optim.epochs": final,
    }
    alone = " (its last layer alone)" if is_head_alone else ""
    learned = [f"classifier {classifier}{alone}"] if needs_classifier(config) else []
    affinity = [f"IRN {irn}"] if "irn" in config.masks.steps and not is_quick else []
    parts = [*learned, *affinity, f"final network {final}"]
    why = "a quick look" if is_quick else "few photographs take more passes"
    return overrides, f"passes over {survey.trained} photographs, {batch} at a time: {', '.join(parts)} ({why})"

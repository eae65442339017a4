"""How long a run on a folder of photographs will take here: a rough estimate from a few seconds of its real work."""

import copy
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from qaclims_ray.data.images import load_image
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.folding import for_inference
from qaclims_ray.models.generators.mask_generator import build_mask_generator
from qaclims_ray.refine.crf import dense_crf, label_energy
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.start_machine import Machine
from qaclims_ray.stages.start_survey import Survey
from qaclims_ray.systems.needs import needs_classifier
from qaclims_ray.systems.recipe import clip_files

MEASURED_S = 2.0
"""Seconds of training that are measured; others are measured for less."""
_BATCH = 2
_SHARED_WELL = 0.8
"""Share of each further core that work gains."""
_BUSY = 0.75
"""Load for each core from which on the machine is called busy."""
_DECODER = 1.6
"""Work of a final network, or of IRN's, beside that of its backbone alone."""
_HEAD_ALONE = 0.4
"""Work of a training whose backbone stays as it is, beside that of all: forward, and nothing back through it."""
_WALK_S = 0.6
"""Seconds of IRN's random walk on a photograph, on a core."""
_BESIDE_S = 15.0
"""Seconds of a stage beside its work: processes start, libraries are loaded, files written."""
_STAGES = 7


@dataclass(frozen=True)
class Pace:
    """Measured seconds."""

    train_s: float
    """Of a million pixels through the network and back."""
    forward_s: float
    """Of a million pixels through the network."""
    crf_s: float
    """Of a photograph's CRF."""
    clip_s: float = 0.0
    """Of a million pixels through the CLIP, where its patches make the maps."""


def measure_pace(config: RunConfig, survey: Survey, machine: Machine, *, seconds: float = MEASURED_S) -> Pace:
    """Time the run's network on its crops, and the CRF on one of the photographs.

    On CPUs one thread is timed, by the time that it computes, and shared out among the cores: so it is what free cores
    take, however busy they are now.

    Args:
        config: the chosen run.
        survey: the folder.
        machine: its cores, and whether it has a GPU.
        seconds: for the training; a quarter of it for the network alone.
    """
    device = torch.device("cuda" if config.cluster.use_gpu else "cpu")
    with torch.random.fork_rng(devices=[]):
        net = build_mask_generator(replace(config.cam_net, weights=""), num_classes=len(survey.gathered.class_names))
    inferring = for_inference(copy.deepcopy(net), device)
    net = net.to(device).eval().to(memory_format=torch.channels_last)
    batch = torch.zeros(_BATCH, 3, config.augment.crop_px, config.augment.crop_px, device=device)
    batch = batch.to(memory_format=torch.channels_last)
    # Whole photographs leave the caches of a CPU, which crops may not.
    side = math.isqrt(survey.median_pixels)
    photographs = torch.zeros(_BATCH, 3, side, side, device=device)

    def back() -> None:
        net.zero_grad()
        net(batch).float().mean().backward()

    def forward() -> None:
        with torch.no_grad():
            inferring(photographs)

    threads, shared = torch.get_num_threads(), max(1.0, _SHARED_WELL * machine.cores)
    network = 1.0 if device.type == "cuda" else shared
    torch.set_num_threads(1)
    try:
        return Pace(
            train_s=_seconds_of(back, device, seconds) / _megapixels(batch) / network,
            forward_s=_seconds_of(forward, device, seconds / 4) / _megapixels(photographs) / network,
            crf_s=_seconds_of(lambda: _one_crf(config, survey), torch.device("cpu"), 0.0) / shared,
            clip_s=0.0 if needs_classifier(config) else _clip_s(config, device) / network,
        )
    finally:
        torch.set_num_threads(threads)


def _megapixels(images: torch.Tensor) -> float:
    return images.shape[0] * images.shape[2] * images.shape[3] / 1e6


def _clip_s(config: RunConfig, device: torch.device) -> float:
    clip = load_clip(*clip_files(config), device=device, mask_adapted=False)
    pixels = torch.zeros(1, 3, clip.image_size, clip.image_size, device=device)

    @torch.no_grad()
    def look() -> None:
        clip.encode_regions(pixels)

    return _seconds_of(look, device, 0.0) / (clip.image_size**2 / 1e6)


def _one_crf(config: RunConfig, survey: Survey) -> None:
    image = load_image(survey.gathered.images[0].image_uri)
    labels = torch.zeros(image.shape[1:], dtype=torch.int64)
    labels[: image.shape[1] // 2] = 1
    dense_crf(image[None], label_energy(labels[None], 3, 0.7), config.masks.crf)


def _seconds_of(work: Callable[[], None], device: torch.device, at_least: float) -> float:
    """Return the shortest time of a piece of work, repeated for so long."""
    clock = time.perf_counter if device.type == "cuda" else time.thread_time
    begun, found = time.perf_counter(), []
    while len(found) < 2 or time.perf_counter() - begun < at_least:
        started = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        found.append(clock() - started)
    return min(found)


def busy_note(cores: int) -> str:
    """Return a sentence where other programs keep the cores busy; empty where not."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load <= _BUSY * cores:
        return ""
    return f"other programs are at work (load {load:.0f} on {cores} cores): it takes longer while they are"


def estimated_seconds(config: RunConfig, survey: Survey, pace: Pace, machine: Machine) -> dict[str, float]:
    """Return the seconds of each part of a run, roughly.

    Args:
        config: the run.
        survey: the folder.
        pace: see `measure_pace`.
        machine: its cores, which the work on single photographs is shared among.
    """
    everyone, trained = len(survey.gathered.images), survey.trained
    whole = survey.median_pixels / 1e6

    def training(crop_px: int, epochs: int, work: float) -> float:
        return trained * epochs * crop_px**2 / 1e6 * pace.train_s * work

    views = 2 * sum(scale**2 for scale in config.cams.scales)
    final = config.segmentation
    masks = everyone * pace.crf_s
    if "irn" in config.masks.steps:
        irn = config.masks.irn
        masks += training(irn.crop_px, irn.optim.epochs, _DECODER) + trained * pace.crf_s
        masks += everyone * (_WALK_S / machine.cores + 2 * whole * pace.forward_s * _DECODER)
    tested = everyone * (2 * whole * pace.forward_s * _DECODER + pace.crf_s)
    learned = needs_classifier(config)
    work = _HEAD_ALONE if config.classifier.train_scope == "head" else 1.0
    return {
        "classifier": training(config.augment.crop_px, config.classifier.optim.epochs, work) if learned else 0.0,
        "maps": everyone * views * whole * (pace.forward_s if learned else pace.clip_s),
        "masks": masks,
        "final network": final.rounds * (training(final.crop.crop_px, final.optim.epochs, _DECODER) + tested),
        "the rest": _STAGES * _BESIDE_S,
    }

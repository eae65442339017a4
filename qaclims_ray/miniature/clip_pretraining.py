"""Pretraining of the tiny CLIP on captioned, masked scenes of the miniature world.

A soft-target contrastive loss: every masked picture against about 75 captions a step, the targets being how well each
caption matches what is visible. Pictures are normalised, then masked (so a hidden pixel is grey), and half of them
carry a token mask as well; the code of the token mask is that of the real model. Every step draws from generators
seeded by (seed, step), so a run that was cut resumes where it stopped and equals an uncut one.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import open_clip
import torch
from jaxtyping import Float, Int, UInt8
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from qaclims_ray.miniature.captions import Caption, MatchSettings, draw_captions, match_degrees
from qaclims_ray.miniature.clip_folder import (
    PIXEL_MEAN,
    PIXEL_STD,
    ClipShape,
    build_clip,
    write_skeleton,
    write_weights,
)
from qaclims_ray.miniature.regions import RegionSettings, random_regions, random_token_mask, visible_area
from qaclims_ray.miniature.scenes import CLIP_SET, Scene, scenes
from qaclims_ray.miniature.vocabulary import NUM_CLASSES, NUM_STUFF
from qaclims_ray.models.clip.mask_tokens import encode_masked_image, patches_on
from qaclims_ray.models.weight_files import read_stored

logger = logging.getLogger(__name__)

CLIP_STREAM = 1
"""Stream of scenes that only this training sees."""

TRAINING_FILE = "training.json"
"""What was measured while training, next to the weights."""

_STATE_FILE = "training_state.pt"
_MIN_COLUMN_MASS = 0.3


@dataclass(frozen=True, kw_only=True)
class ClipPretrainingSettings:
    """How the tiny CLIP is trained; the defaults are the measured recipe."""

    num_images: int = 8000
    steps: int = 2200
    batch_size: int = 256
    """Masked pictures a step."""
    learning_rate: float = 2e-3
    warmup_steps: int = 150
    weight_decay: float = 0.05
    max_gradient_norm: float = 1.0
    max_logit_scale: float = 30.0
    """Ceiling of the learned inverse temperature."""
    caption_weight: float = 0.5
    """Weight of the caption-to-picture half of the loss; the other half has weight 1."""
    use_bfloat16: bool = False
    """Run the image tower in bfloat16 autocast."""
    match: MatchSettings = field(default_factory=MatchSettings)
    regions: RegionSettings = field(default_factory=RegionSettings)
    shape: ClipShape = field(default_factory=ClipShape)


@dataclass(frozen=True, kw_only=True)
class SceneTensors:
    """A set of scenes as tensors."""

    images: UInt8[Tensor, "image 3 height width"]
    things: UInt8[Tensor, "image height width"]
    """What each pixel shows: stuffs and props, then NUM_STUFF + class_id."""
    colors: Int[Tensor, "image class"]
    """Colour of the object of each class, -1 where there is none."""
    patterns: Int[Tensor, "image class"]


def scene_tensors(drawn: list[Scene]) -> SceneTensors:
    """Stack scenes into tensors."""
    images = torch.from_numpy(np.stack([item.image for item in drawn])).permute(0, 3, 1, 2).contiguous()
    things = np.stack([np.where(item.label_map > 0, NUM_STUFF + item.label_map - 1, item.stuff_map) for item in drawn])
    looks = torch.full((2, len(drawn), NUM_CLASSES), -1)
    for index, item in enumerate(drawn):
        for thing in item.objects:
            looks[0, index, thing.class_id] = thing.color
            looks[1, index, thing.class_id] = thing.pattern
    return SceneTensors(
        images=images, things=torch.from_numpy(things.astype(np.uint8)), colors=looks[0], patterns=looks[1]
    )


def normalise(images: UInt8[Tensor, "image 3 height width"]) -> Float[Tensor, "image 3 height width"]:
    """Turn 8-bit pixels into the input of the tiny CLIP."""
    return (images.float() / 255 - PIXEL_MEAN) / PIXEL_STD


@dataclass(frozen=True, kw_only=True)
class ClipBatch:
    """One step's masked pictures, captions and targets."""

    pixels: Float[Tensor, "region 3 height width"]
    token_mask: Float[Tensor, "region 1 height width"]
    captions: list[Caption]
    degrees: Float[Tensor, "region caption"]
    """How well each caption matches, 0 or more."""


def draw_batch(data: SceneTensors, settings: ClipPretrainingSettings, *, seed: int, step: int) -> ClipBatch:
    """Draw the batch of one step; it depends on the data, the settings, the seed and the step only."""
    # A factor beyond all steps, so that no two seeds share a generator.
    generator = torch.Generator().manual_seed(1_000_003 * seed + step)
    index = torch.randint(len(data.images), (settings.batch_size,), generator=generator)
    pixels, things = normalise(data.images[index]), data.things[index].long()
    if torch.rand(1, generator=generator).item() < 0.5:
        pixels, things = pixels.flip(3), things.flip(2)
    mask = random_regions(things, settings.regions, generator)
    token_mask = random_token_mask(mask, settings.regions, generator)
    patch_px = settings.shape.patch_size
    side = things.shape[-1] // patch_px
    is_on = patches_on(token_mask, (patch_px, patch_px)).view(-1, 1, side, side)
    # The token mask hides whole patches, so the visible area is counted by patches too.
    is_on = is_on.repeat_interleave(patch_px, 2).repeat_interleave(patch_px, 3)  # (region, 1, height, width)
    visible = visible_area(things, mask * is_on, NUM_STUFF + NUM_CLASSES)
    captions = draw_captions(np.random.default_rng((CLIP_STREAM, seed, step)))
    degrees = match_degrees(visible, data.colors[index], data.patterns[index], captions, settings.match)
    return ClipBatch(pixels=pixels * mask, token_mask=token_mask, captions=captions, degrees=degrees)


def soft_contrast(
    logits: Float[Tensor, "region caption"], degrees: Float[Tensor, "region caption"], *, caption_weight: float
) -> Float[Tensor, ""]:
    """Cross entropy of pictures over captions, plus that of captions over pictures; soft targets, means.

    Captions that match next to nothing in the batch are left out of the second half.
    """
    over_captions = degrees / (degrees.sum(1, keepdim=True) + 1e-6)
    mass = degrees.sum(0)
    over_regions = degrees / (mass + 1e-6)
    counts = (mass > _MIN_COLUMN_MASS).float()
    picture_loss = -(over_captions * logits.log_softmax(1)).sum(1).mean()
    caption_losses = -(over_regions * logits.log_softmax(0)).sum(0)
    return picture_loss + caption_weight * (caption_losses * counts).sum() / counts.sum().clamp(min=1)


def warmup_cosine(step: int, settings: ClipPretrainingSettings) -> float:
    """Linear warm-up, then half a cosine to zero."""
    warmup = min(1.0, (step + 1) / settings.warmup_steps)
    return warmup * (0.5 + 0.5 * math.cos(math.pi * min(1.0, step / settings.steps)))


@dataclass(kw_only=True)
class _ClipTraining:
    """What changes while training."""

    model: open_clip.CLIP
    visual: VisionTransformer
    """Its image tower."""
    mask_embedding: nn.Parameter
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0


def _start(settings: ClipPretrainingSettings, seed: int, state_path: Path) -> _ClipTraining:
    """Build the model, and take up a run that was cut."""
    model, mask_embedding = build_clip(settings.shape, seed=seed)
    parameters = [*model.parameters(), mask_embedding]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    assert isinstance(model.visual, VisionTransformer)
    run = _ClipTraining(model=model, visual=model.visual, mask_embedding=mask_embedding, optimizer=optimizer)
    if state_path.exists():
        state = read_stored(state_path)
        if state["settings"] != asdict(settings) or state["seed"] != seed:
            logger.warning("%s is of another run and is ignored", state_path)
            return run
        model.load_state_dict(state["model"])
        mask_embedding.data.copy_(state["mask_embedding"])
        optimizer.load_state_dict(state["optimizer"])
        run.step, run.seconds = state["step"], state["seconds"]
        logger.info("resumed at step %d", run.step)
    return run


def _save(run: _ClipTraining, settings: ClipPretrainingSettings, seed: int, out_dir: Path) -> None:
    """Write usable weights and the state to resume from."""
    write_weights(out_dir, run.model, run.mask_embedding)
    state = {
        "settings": asdict(settings),
        "seed": seed,
        "step": run.step,
        "seconds": run.seconds,
        "model": run.model.state_dict(),
        "mask_embedding": run.mask_embedding.data,
        "optimizer": run.optimizer.state_dict(),
    }
    torch.save(state, out_dir / _STATE_FILE)


def _is_finished(settings: ClipPretrainingSettings, seed: int, out_dir: Path) -> bool:
    """Whether the folder holds the finished run of these settings and this seed."""
    path = out_dir / TRAINING_FILE
    if not path.is_file():
        return False
    record = json.loads(path.read_text(encoding="ascii"))
    return record["seed"] == seed and record["settings"] == asdict(settings)


def training_step(
    run: _ClipTraining, batch: ClipBatch, tokenize: Callable[[list[str]], Tensor], settings: ClipPretrainingSettings
) -> float:
    """Take one optimiser step and return the loss."""
    for group in run.optimizer.param_groups:
        group["lr"] = settings.learning_rate * warmup_cosine(run.step, settings)
    with torch.autocast("cpu", torch.bfloat16, enabled=settings.use_bfloat16):
        regions = encode_masked_image(run.visual, run.mask_embedding, batch.pixels, batch.token_mask)
    regions = nn.functional.normalize(regions.float(), dim=-1)
    texts = run.model.encode_text(tokenize([caption.text for caption in batch.captions]), normalize=True)
    scale = run.model.logit_scale.exp().clamp(max=settings.max_logit_scale)
    loss = soft_contrast(scale * regions @ texts.T, batch.degrees, caption_weight=settings.caption_weight)
    run.optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_([*run.model.parameters(), run.mask_embedding], settings.max_gradient_norm)
    run.optimizer.step()
    run.step += 1
    return loss.item()


def train_clip(
    settings: ClipPretrainingSettings,
    *,
    seed: int,
    out_dir: Path,
    stop_after: int | None = None,
    log_every: int = 100,
    save_every: int = 250,
) -> list[float]:
    """Train the tiny CLIP and write it as a folder for open_clip, with its mask tokens.

    Args:
        settings: the recipe.
        seed: fixes pictures, captions, masks and initial weights; with the number of threads, every number.
        out_dir: folder to write; a run that was cut there is taken up.
        stop_after: stop at this step without finishing (for tests and trials).
        log_every: steps between log lines.
        save_every: steps between usable weights with a state to resume from.

    Returns:
        The loss of every step run in this call; none if the folder holds this very run, finished.
    """
    if _is_finished(settings, seed, out_dir):
        logger.info("%s holds this run, finished", out_dir)
        return []
    write_skeleton(out_dir, settings.shape)
    tokenize = open_clip.get_tokenizer(f"local-dir:{out_dir}")
    run = _start(settings, seed, out_dir / _STATE_FILE)
    data = scene_tensors(scenes(settings.num_images, stream=CLIP_STREAM, seed=seed, settings=CLIP_SET))
    losses: list[float] = []
    last_step = min(settings.steps, stop_after or settings.steps)
    began = time.perf_counter() - run.seconds
    while run.step < last_step:
        batch = draw_batch(data, settings, seed=seed, step=run.step)
        losses.append(training_step(run, batch, tokenize, settings))
        run.seconds = time.perf_counter() - began
        if run.step % log_every == 0 or run.step == last_step:
            _log_progress(run, settings, losses[-log_every:])
        if run.step % save_every == 0:
            _save(run, settings, seed, out_dir)
    if run.step == settings.steps:
        write_weights(out_dir, run.model, run.mask_embedding)
        record = {"seed": seed, "seconds": round(run.seconds, 1), "threads": torch.get_num_threads()}
        record |= {"final_loss": float(np.mean(losses[-50:])) if losses else None, "settings": asdict(settings)}
        (out_dir / TRAINING_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="ascii")
        (out_dir / _STATE_FILE).unlink(missing_ok=True)
    return losses


def _log_progress(run: _ClipTraining, settings: ClipPretrainingSettings, recent: list[float]) -> None:
    seconds_left = (settings.steps - run.step) * run.seconds / run.step
    logger.info(
        "clip step %d/%d loss %.4f scale %.1f %.0f s gone %.0f s left",
        run.step,
        settings.steps,
        float(np.mean(recent)),
        min(run.model.logit_scale.exp().item(), settings.max_logit_scale),
        run.seconds,
        seconds_left,
    )

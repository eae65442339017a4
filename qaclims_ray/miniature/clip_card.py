"""Probe the tiny CLIP and write its model card from what was measured."""

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, astuple, fields
from pathlib import Path

import open_clip
import torch

from qaclims_ray.miniature.captions import MatchSettings
from qaclims_ray.miniature.clip_pretraining import TRAINING_FILE
from qaclims_ray.miniature.clip_probe import ProbeRow, probe
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.settings import dotted

CARD_FILE = "MODEL_CARD.md"

_NUM_IMAGES = 400


def write_clip_card(folder: Path) -> dict[str, ProbeRow]:
    """Probe the CLIP of a folder, write the folder's card, and return what was measured.

    Args:
        folder: trained by `clip_pretraining.train_clip`, with its record of the training.
    """
    record = json.loads((folder / TRAINING_FILE).read_text(encoding="ascii"))
    clip = load_clip(str(folder), None, device="cpu", mask_adapted=True)
    rows = probe(clip, num_images=_NUM_IMAGES)
    (folder / CARD_FILE).write_text(_card(clip, rows, record), encoding="ascii")
    return rows


def _card(clip: FrozenClip, rows: Mapping[str, ProbeRow], record: Mapping) -> str:
    columns = [field.name.replace("_", " ") for field in fields(ProbeRow)]
    depth = 0 if clip.mask_embedding is None else len(clip.mask_embedding)
    match = record["settings"]["match"]
    stage = "clip" if match == asdict(MatchSettings()) else "clip_context"
    num_parameters = sum(parameter.numel() for parameter in clip.parameters())
    lines = [
        "# Tiny CLIP of the miniature world",
        "",
        f"A CLIP of open_clip's own code with {num_parameters / 1e6:.2f} M parameters, and mask tokens of depth",
        f"{depth} for regions with a token mask. It knows the 64 x 64 scenes of the miniature",
        f"world, and nothing else. It is made by `python -m qaclims_ray.miniature.pretraining --stage {stage}`.",
        "Weights are stored in half precision and used in float32. On purpose a class name also matches the class's",
        f"own stuff: by {match['stuff_bias']:g} x its visible area, where the object itself counts",
        f"{match['object_gain']:g} x min(area / {match['object_saturation']:g}, 1). A CLIP trained on photographs has",
        "such a co-occurrence bias too; it is what the methods of this package have to cure.",
        "",
        "## Measured",
        "",
        f"{_NUM_IMAGES} held-out scenes drawn like the weakly labelled set (strong co-occurrence of class and stuff).",
        "A region is shown with a pixel mask, or with a weak pixel mask and a token mask. Accuracy: the nearest of the",
        "eight texts `a photo of CLASS` is the right one. All other columns are mean cosines.",
        "",
        "| Region | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *[f"| {name} | " + " | ".join(f"{value:.2f}" for value in astuple(row)) + " |" for name, row in rows.items()],
        "",
        "## Training",
        "",
        f"Seed {record['seed']}, {record['seconds']:.0f} s on {record['threads']} CPU thread(s) of a shared machine,",
        f"{platform.machine()}, torch {torch.__version__}, open_clip {open_clip.__version__}. Mean loss of the last",
        f"steps {record['final_loss']:.3f}. Fingerprint `{clip.fingerprint()}`.",
        "",
        "| Setting | Value |",
        "|---|---|",
        *[f"| {name} | {value} |" for name, value in dotted(record["settings"]).items()],
        "",
    ]
    return "\n".join(lines)

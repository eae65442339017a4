"""COCO 2014 from its true layout to scored CAMs, the masks drawn by Ray's tasks and kept when a run goes on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from qaclims_ray.data.artifacts import read_meta, workshop_of
from qaclims_ray.data.classes import COCO_CLASSES
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.pipeline import run_pipeline
from tests.tiny_coco import name_of, write_coco

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("shared_ray")]

NUM_TRAIN = 70
"""More than one shard."""
TINY: dict[str, Any] = {
    "goal": "seed",
    "systems": ["baseline"],
    "corpus.gpus_per_actor": 0.0,
    "cam_net.backbone": "miniature",
    "cam_net.weights": "",
    "cam_net.output_stride": 4,
    "augment.crop_px": 32,
    "augment.min_long_side_px": 0,
    "augment.max_long_side_px": 0,
    "classifier.optim.epochs": 1,
    "classifier.optim.lr": 3e-3,
    "classifier.freeze_batch_norm": False,
    "cams.scales": [1.0],
    "cams.gpus_per_actor": 0.0,
    "masks.gpus_per_actor": 0.0,
    "evaluation.contact_sheet_images": 2,
    "cluster.num_workers": 0,
    "cluster.cpus_per_worker": 1.0,
    "cluster.use_gpu": False,
    "cluster.precision": "fp32",
    "cluster.loader_workers": 0,
    "tracking.enabled": False,
}


def _values(path: Path) -> set[int]:
    return {int(value) for value in np.unique(np.array(Image.open(path)))}


def test_coco_goes_to_scored_cams_and_its_masks_are_drawn_once(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco", num_train=NUM_TRAIN, num_val=2, side=24)
    config = with_overrides(preset("coco14_plain_clip"), {**TINY, "data.root": str(root)})
    out, console = tmp_path / "run", Console(record=True, width=100)
    masks = out / "data" / "masks"
    run_pipeline(config, str(out), until="data", console=console)
    assert len(list((masks / "train").iterdir())) == NUM_TRAIN and len(list((masks / "val").iterdir())) == 2
    # COCO's categories 1, 13 and 90 are label values 1, 12 and 80.
    assert [_values(masks / "train" / f"{name_of(n)}.png") for n in (9, 10, 11)] == [{0, 1}, {0, 12}, {0, 80}]

    # A run that was stopped after the first shard: the manifest is not there yet, nor is the second shard.
    # The first mask is in a whole shard: it is not drawn again, and emptied to show that.
    first, last = masks / "train" / f"{name_of(9)}.png", masks / "train" / f"{name_of(9 + NUM_TRAIN - 1)}.png"
    meta = read_meta(str(masks))
    assert meta is not None
    Image.fromarray(np.zeros((24, 24), np.uint8)).save(first)
    last.unlink()
    for stale in ("meta.json", "files.json"):
        (masks / stale).unlink()
    (masks / "parts").mkdir()
    (masks / "parts" / "part-00000.npz").touch()
    masks.rename(workshop_of(str(masks), meta.fingerprint))
    (out / "manifest" / "meta.json").unlink()
    run_pipeline(config, str(out), until="evaluate", console=console)
    assert last.exists() and _values(first) == {0} and not (masks / "parts").exists()
    scores = json.loads((out / "evaluations" / "baseline" / "scores.json").read_text())["seed"]
    assert list(scores["iou"]) == ["background", *COCO_CLASSES]
    shown = [name for name, value in scores["iou"].items() if value is not None and value == value]
    assert set(shown) == {"background", "person", "stop sign", "toothbrush"}

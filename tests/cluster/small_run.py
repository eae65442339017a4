"""A run small enough for tests: two dozen scenes, the real tiny models, one epoch, trained in the run's own process.

A group of Ray Train's workers takes some twenty-five CPU seconds: tests that are about one ask for it.
"""

from typing import Any

from qaclims_ray.miniature import vocabulary
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.run_config import RunConfig, with_overrides

SMALL: dict[str, Any] = {
    "goal": "seed",
    "data.num_images": 24,
    "systems": ["baseline", "qa_clims"],
    "corpus.images_per_shard": 4,
    "corpus.num_beams": 1,
    "classifier.optim.epochs": 1,
    "classifier.optim.batch_size": 8,
    "ritc.optim.epochs": 1,
    "ritc.optim.batch_size": 8,
    "ritc.optim.warmup_steps": 0,
    "evaluation.sweep_step": 0.05,
    "evaluation.sweep_min": 0.05,
    "evaluation.fixed_threshold": 0.5,
    "evaluation.contact_sheet_images": 2,
    "cluster.num_workers": 0,
    "tracking.enabled": False,
}

AS_VOC: dict[str, Any] = {
    "data.dataset": "voc12",
    "data.mask_values": [f"{value}={name}" for value, name in enumerate(vocabulary.CLASSES, start=1)],
}
"""Read a drawn world as VOC: its classes are VOC's, which numbers them otherwise."""


def small_config(**overrides: Any) -> RunConfig:
    """Return the small run with further overrides; dots are written as double underscores."""
    return with_overrides(miniature(), {**SMALL, **{k.replace("__", "."): v for k, v in overrides.items()}})


def as_flags(overrides: dict[str, Any]) -> list[str]:
    """Return overrides as command line arguments."""
    flags = []
    for name, value in overrides.items():
        flags.append("--" + name.replace("_", "-"))
        flags.extend(str(v) for v in value) if isinstance(value, list) else flags.append(str(value))
    return flags

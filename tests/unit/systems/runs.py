"""A run of a few systems, for tests that start no stage."""

from typing import Any

from qaclims_ray.data.config import DataConfig
from qaclims_ray.run_config import RunConfig, System, with_overrides

FINAL = {"goal": "segmentation", "segmentation.net.weights": "random"}
"""What takes a run up to the final network."""


def run_of(*systems: str, variants: tuple[System, ...] = (), **overrides: Any) -> RunConfig:
    """Return a run of systems on VOC with a mask-adapted CLIP."""
    config = RunConfig(name="test", systems=systems, variants=variants, data=DataConfig(dataset="voc12", root="/data"))
    return with_overrides(config, {"clip.mask_adapted": True, **overrides})


def adjusted_run(*systems: str, entries: dict[str, dict[str, Any]], variants: tuple[System, ...] = ()) -> RunConfig:
    """Return a run with settings of its own for known systems."""
    own = tuple(System(name=name, like=name, overrides=overrides) for name, overrides in entries.items())
    return run_of(*systems, variants=(*variants, *own))

"""Complete named runs: a preset is a function that returns a ``RunConfig``; ``systems.py`` has what a run compares."""

from collections.abc import Callable

from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.coco import coco14, coco14_paper, coco14_plain_clip, coco14_weaktr
from qaclims_ray.presets.miniature import miniature, miniature_combined, miniature_semples, miniature_weaktr
from qaclims_ray.presets.stored import read_run
from qaclims_ray.presets.tissue import bcss_wsss, luad_histoseg
from qaclims_ray.presets.voc import (
    voc12,
    voc12_clims,
    voc12_combined,
    voc12_deeplab_v1,
    voc12_from_coco,
    voc12_mask2former,
    voc12_mobilenet,
    voc12_paper,
    voc12_plain_clip,
    voc12_weaktr,
    voc12_weaktr_paper,
)
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.checks import check_systems

PRESETS: dict[str, Callable[[], RunConfig]] = {
    "miniature": miniature,
    "miniature_semples": miniature_semples,
    "miniature_combined": miniature_combined,
    "miniature_weaktr": miniature_weaktr,
    "voc12": voc12,
    "voc12_deeplab_v1": voc12_deeplab_v1,
    "voc12_from_coco": voc12_from_coco,
    "voc12_paper": voc12_paper,
    "voc12_plain_clip": voc12_plain_clip,
    "voc12_clims": voc12_clims,
    "voc12_combined": voc12_combined,
    "voc12_weaktr": voc12_weaktr,
    "voc12_mask2former": voc12_mask2former,
    "voc12_weaktr_paper": voc12_weaktr_paper,
    "voc12_mobilenet": voc12_mobilenet,
    "coco14": coco14,
    "coco14_paper": coco14_paper,
    "coco14_plain_clip": coco14_plain_clip,
    "coco14_weaktr": coco14_weaktr,
    "bcss_wsss": bcss_wsss,
    "luad_histoseg": luad_histoseg,
}
"""All presets by name."""


def preset(name: str) -> RunConfig:
    """Return a preset by name, or the run that a file ending in .json holds.

    Raises:
        ConfigError: for a name that is not in `PRESETS`, or a file that holds no run.
    """
    if name.endswith(".json"):
        return _from_file(name)
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; known: {', '.join(PRESETS)}")
    return PRESETS[name]()


def _from_file(uri: str) -> RunConfig:
    if not storage.exists(uri):
        raise ConfigError(f"there is no preset file {uri}; presets by name: {', '.join(PRESETS)}")
    try:
        return read_run(uri)
    except ValueError as error:
        raise ConfigError(f"{uri} is no JSON: {error}") from None


def check_run(config: RunConfig) -> None:
    """Check what can be checked of a run before any work starts.

    Raises:
        ConfigError: naming the setting or system that cannot be used and why.
    """
    if config.data.dataset != "miniature" and not config.data.root:
        raise ConfigError("data.root is empty: give the folder of the data set with --data-root")
    check_systems(config)

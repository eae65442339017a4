"""A run's folder as users name it: absolute places, and the configuration that is stored in it."""

import os
from pathlib import Path

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import refuse_credentials
from qaclims_ray.errors import ConfigError, DataError, ResourceError, did_you_mean
from qaclims_ray.models.known_weights import find
from qaclims_ray.presets.stored import read_run
from qaclims_ray.run_config import RunConfig, flat, with_overrides
from qaclims_ray.stages.layout import RunLayout

_SHOWN_RUNS = 8
PATH_FIELDS = (
    "data.root",
    "data.label_file",
    "corpus.model",
    "corpus.questions",
    "clip.model",
    "clip.weights",
    "cam_net.weights",
    "classifier.network",
    "given.cams",
    "masks.given",
    "masks.irn.weights",
    "masks.sam.model",
    "masks.feature_affinity.weights",
    "segmentation.net.weights",
    "sam3_names.model",
)
"""Settings that are paths, or names that may also be paths."""

_OF_FILES = (
    "clip.weights",
    "cam_net.weights",
    "classifier.network",
    "masks.irn.weights",
    "masks.feature_affinity.weights",
    "segmentation.net.weights",
)
"""Settings that name a file of weights, which may lie in the folder of weights or a library's cache."""

SHIPPED_NAMES = ("miniature", "miniature_context")
"""Models of the package, whatever folder of that name lies where the user stands: his last run may be called so."""


def load_config(out: str, *, can_begin: bool = True) -> RunConfig:
    """Return the configuration stored with a run.

    Args:
        out: the run's folder.
        can_begin: whether who asks could as well begin a run there.

    Raises:
        ConfigError: when the folder holds no run, or one that cannot be read.
    """
    uri = RunLayout(out).config
    if not storage.exists(uri):
        begin = "; or begin one with a preset: `qaclims run --help` lists them" if can_begin else ""
        raise ConfigError(f"there is no run at {out} (no config.json); {_runs_near(out)}{begin}")
    return read_run(
        uri,
        remedy=f"Begin the run again with its preset, its settings and --out {out}: that writes the file anew, and "
        "keeps what is finished",
    )


def _runs_near(out: str) -> str:
    """Say which folders in or beside one that holds no run hold some, or those in `runs` beside it."""
    if storage.is_remote(out):
        return "give the output folder of a run"
    place = Path(out)
    for folder in (place, place.parent, place.parent / "runs"):
        found = sorted(path.parent for path in folder.glob("*/config.json") if is_run(str(path.parent)))
        if found:
            hint = did_you_mean(place.name, [path.name for path in found])
            shown = ", ".join(map(str, found[:_SHOWN_RUNS])) + (", ..." if len(found) > _SHOWN_RUNS else "")
            return f"give the output folder of a run; {hint}there {'are' if len(found) > 1 else 'is'} {shown}"
    return "give the output folder of a run"


def is_run(folder: str) -> bool:
    """Whether a folder holds a run's configuration, as far as its name and first letters say."""
    try:
        content = storage.read_bytes(RunLayout(folder).config)
    except (DataError, ResourceError):
        return False
    return b'"systems"' in content and b'"data"' in content


def config_of_run(word: str) -> str:
    """Return the file of the configuration where a word of a command line is the folder of a run, empty otherwise.

    Raises:
        ConfigError: for a folder that holds no run.
    """
    if word.endswith(".json"):
        return ""
    out = storage.absolute(word)
    if storage.exists(RunLayout(out).config):
        return RunLayout(out).config
    if storage.is_remote(word) or "/" in word:
        raise ConfigError(f"there is no run at {out} (no config.json); {_runs_near(out)}, or name a preset")
    return ""


def absolute_out(out: str) -> str:
    """Return an output folder as an absolute path or URI.

    Raises:
        ConfigError: for a relative path in a submitted job, which works in a copy of the working directory, and for a
            URI with a password in it.
    """
    refuse_credentials(out, "--out")
    is_relative = not storage.is_remote(out) and not Path(out).expanduser().is_absolute()
    if is_relative and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ConfigError(
            f"--out is {out!r}: a submitted job runs in Ray's temporary copy of the working directory, where it would "
            "be lost; give an absolute path that all nodes see, or a URI (s3://, gs://)"
        )
    return storage.absolute(out)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Make every local path mean the same in worker processes, which run in folders of their own.

    Weights that are named by their bare name and do not lie where the user stands are looked for on this machine.

    Raises:
        ConfigError: for a URI with a password in it.
    """
    values = flat(config)
    overrides = {}
    for name in PATH_FIELDS:
        value = values[name]
        is_shipped = value in SHIPPED_NAMES and name.endswith((".model", ".weights"))
        if not value or is_shipped:
            continue
        if storage.is_remote(value):
            refuse_credentials(value, name)
            continue
        if name == "data.root" or Path(value).expanduser().exists():
            overrides[name] = storage.absolute(value)
        elif name in _OF_FILES and "/" not in value and (place := find(value)) is not None:
            overrides[name] = str(place)
    return with_overrides(config, overrides)

"""The arguments that every verb and every job shares: a preset, an output folder, overrides."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.option import first_line
from qaclims_ray.presets.stored import read_run
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import RunConfig, flat, with_overrides
from qaclims_ray.stages.layout import RunLayout

PATH_FIELDS = (
    "data.root",
    "data.label_file",
    "corpus.model",
    "corpus.questions",
    "clip.model",
    "clip.weights",
    "cam_net.weights",
    "classifier.network",
    "cams.given",
    "masks.irn.weights",
    "masks.sam.model",
    "segmentation.net.weights",
)
"""Settings that are paths, or names that may also be paths."""


@dataclass(frozen=True)
class RunArguments:
    """A run's output folder, its data, and every setting of the preset."""

    out: str
    """Output folder: a path or an fsspec URI (s3://, gs://)."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """Settings of the preset; each can be overridden."""
    data_root: str = ""
    """Folder of the data set; short for --data.root."""


def parse_run(argv: Sequence[str], *, prog: str, description: str, default_preset: str = "") -> tuple[RunConfig, str]:
    """Read ``PRESET --out DIR [--data-root DIR] [overrides]`` (also ``--preset NAME``).

    Without a preset, the configuration stored in the output folder is taken.

    Args:
        argv: arguments after the program or verb.
        prog: name for the usage line.
        description: first lines of the help text.
        default_preset: preset when none is named.

    Returns:
        The resolved configuration and the absolute output folder.

    Raises:
        ConfigError: for an unknown preset or a setting that cannot be used.
    """
    name, rest = _take_preset(list(argv))
    if not name and {"-h", "--help"} & set(rest) and not default_preset:
        _print_presets(prog, description)
        sys.exit(0)
    default = preset(name or default_preset) if name or default_preset else _stored_config(rest)
    arguments = tyro.cli(
        RunArguments,
        args=rest,
        prog=f"{prog} {name}".strip(),
        description=description,
        default=RunArguments(out=tyro.MISSING, config=default),
        config=(tyro.conf.FlagConversionOff,),
    )
    config = arguments.config
    if arguments.data_root:
        config = with_overrides(config, {"data.root": arguments.data_root})
    return with_absolute_paths(config), absolute_out(arguments.out)


def absolute_out(out: str) -> str:
    """Return an output folder as an absolute path or URI.

    Raises:
        ConfigError: for a relative path in a submitted job, which works in a copy of the working directory.
    """
    is_relative = not storage.is_remote(out) and not Path(out).expanduser().is_absolute()
    if is_relative and "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        raise ConfigError(
            f"--out is {out!r}: a submitted job runs in Ray's temporary copy of the working directory, where it would "
            "be lost; give an absolute path that all nodes see, or a URI (s3://, gs://)"
        )
    return storage.absolute(out)


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """Make every local path mean the same in worker processes, which run in folders of their own."""
    values = flat(config)
    overrides = {}
    for name in PATH_FIELDS:
        value = values[name]
        if value and not storage.is_remote(value) and (name == "data.root" or Path(value).expanduser().exists()):
            overrides[name] = storage.absolute(value)
    return with_overrides(config, overrides)


def _take_preset(argv: list[str]) -> tuple[str, list[str]]:
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    for position, argument in enumerate(argv):
        if argument == "--preset" and position + 1 < len(argv):
            return argv[position + 1], argv[:position] + argv[position + 2 :]
        if argument.startswith("--preset="):
            return argument.removeprefix("--preset="), argv[:position] + argv[position + 1 :]
    return "", argv


def _stored_config(argv: list[str]) -> RunConfig:
    for position, argument in enumerate(argv):
        out = argv[position + 1] if argument == "--out" and position + 1 < len(argv) else ""
        out = argument.removeprefix("--out=") if argument.startswith("--out=") else out
        if out:
            return load_config(storage.absolute(out))
    raise ConfigError(f"name a preset ({', '.join(PRESETS)}), or give --out with the folder of an earlier run")


def load_config(out: str) -> RunConfig:
    """Return the configuration stored with a run.

    Raises:
        ConfigError: when the folder holds no run, or one that cannot be read.
    """
    uri = RunLayout(out).config
    if not storage.exists(uri):
        raise ConfigError(f"there is no run at {out} (no config.json); name a preset: {', '.join(PRESETS)}")
    try:
        return read_run(uri)
    except ValueError as error:
        raise ConfigError(f"{uri} is broken: {error}") from None


def _print_presets(prog: str, description: str) -> None:
    print(f"usage: {prog} PRESET --out DIR [--data-root DIR] [settings]\n\n{description}\n\npresets:")
    for name, build in PRESETS.items():
        print(f"  {name:<18} {first_line(build.about)}")
    print(f"\n`{prog} PRESET --help` lists the settings of a preset and their values.")

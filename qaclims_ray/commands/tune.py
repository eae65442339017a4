"""The arguments of the search command: a preset, what is searched and how, overrides."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import TypeAdapter, ValidationError

from qaclims_ray.commands.arguments import absolute_out, with_absolute_paths
from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.settings import Parameter
from qaclims_ray.stages.tune import Search
from qaclims_ray.systems.search import SearchConfig, default_space

FIXED = {
    "variants": "every trial is a variant",
    "selection": "--objective says what rates epochs",
}
"""Settings of a run that the command decides itself, and why."""


@dataclass(frozen=True)
class TuneArguments:
    """A search's output folder, the search, and every setting of the preset, from which it starts."""

    out: str
    """Output folder: a path or an fsspec URI (s3://, gs://); trials share it."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """Settings of the preset; each can be overridden."""
    tune: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    """The search."""
    vary: tuple[str, ...] = ()
    """Settings to search, by dotted name, out of the system's default space; empty takes all of it."""
    space_file: str = ""
    """JSON file with a list of settings to search instead: name, kind (uniform, log, int, choice), low, high or
    choices."""
    data_root: str = ""
    """Folder of the data set; short for --data.root."""


def parse_search(argv: Sequence[str], *, prog: str, default_preset: str = "") -> Search:
    """Read ``PRESET --out DIR [--system NAME] [--trials N] ... [overrides]``.

    Raises:
        ConfigError: for an unknown preset, or a setting or space that cannot be used.
    """
    named = bool(argv) and not argv[0].startswith("-")
    name, rest = (argv[0], argv[1:]) if named else (default_preset, argv)
    if not name and (not argv or {"-h", "--help"} & set(argv)):
        print(
            f"usage: {prog} PRESET --out DIR [--system NAME] [--trials N] [settings]\n\npresets: {', '.join(PRESETS)}"
        )
        sys.exit(0)
    if not name:
        raise ConfigError(f"name a preset: {', '.join(PRESETS)}")
    default = preset(name)
    arguments = tyro.cli(
        TuneArguments,
        args=list(rest),
        prog=f"{prog} {name}",
        description="Search settings of one system by Ray Tune. The same command again goes on.",
        default=TuneArguments(out=tyro.MISSING, config=default),
        config=(tyro.conf.FlagConversionOff,),
    )
    config = arguments.config
    for setting, reason in FIXED.items():
        if getattr(config, setting) != getattr(default, setting):
            raise ConfigError(f"--{setting} has no meaning here: {reason}")
    if arguments.data_root:
        config = with_overrides(config, {"data.root": arguments.data_root})
    search = SearchConfig(**{**vars(arguments.tune), "space": _space(arguments)})
    return Search(preset=name, config=with_absolute_paths(config), search=search, out=absolute_out(arguments.out))


def _space(arguments: TuneArguments) -> tuple[Parameter, ...]:
    if arguments.space_file and arguments.vary:
        raise ConfigError("--vary picks from the default space and --space-file brings another: give one of them")
    if arguments.space_file:
        return read_space(arguments.space_file)
    space = arguments.tune.space or default_space(arguments.tune.system)
    if unknown := set(arguments.vary) - {parameter.name for parameter in space}:
        raise ConfigError(
            f"--vary {', '.join(sorted(unknown))} is not in the space of {arguments.tune.system}; it has "
            f"{', '.join(parameter.name for parameter in space)}. Bring others with --space-file"
        )
    return tuple(parameter for parameter in space if not arguments.vary or parameter.name in arguments.vary)


def read_space(uri: str) -> tuple[Parameter, ...]:
    """Read a space from a JSON file.

    Raises:
        ConfigError: when it is not there, or naming the field that cannot be used.
    """
    if not storage.exists(uri):
        raise ConfigError(f"there is no space file {uri}")
    try:
        return TypeAdapter(tuple[Parameter, ...]).validate_python(json.loads(storage.read_bytes(uri)))
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"the space file {uri} cannot be used:\n  " + "\n  ".join(faults)) from None
    except ValueError as error:
        raise ConfigError(f"{uri} is no JSON: {error}") from None

"""The line of the search command: a preset with options, what is searched and how, settings."""

from dataclasses import dataclass, field, replace
from typing import Annotated

import tyro
from pydantic import TypeAdapter, ValidationError

from qaclims_ray.commands.arguments import RunArguments, parse_settings, preset_help, take_preset
from qaclims_ray.commands.line import Line
from qaclims_ray.data import storage
from qaclims_ray.data.json_files import parse_json_file
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import PRESETS
from qaclims_ray.settings import Parameter
from qaclims_ray.stages.requests import Search
from qaclims_ray.systems.search import SearchConfig, default_space

_DECIDED = {
    "variants": "every trial is a variant",
    "selection": "--objective says what rates epochs",
}
"""Settings of a run that the command decides itself, and why."""


@dataclass(frozen=True, kw_only=True)
class TuneArguments(RunArguments):  # inherits because one parser reads the fields that all presets share
    """A search's output folder, which its trials share, the search, and every setting from which it starts."""

    tune: Annotated[SearchConfig, tyro.conf.arg(name="")] = field(default_factory=SearchConfig)
    """The search."""
    vary: tuple[str, ...] = ()
    """Settings to search, by dotted name, out of the system's default space; empty takes all of it."""
    space_file: str = ""
    """JSON file with a list of settings to search instead: name, kind (uniform, log, int, choice), low, high or
    choices."""


def parse_search(line: Line) -> Search:
    """Read ``PRESET OPTIONS... --out DIR [--system NAME] [--trials N] ... [settings]``.

    Raises:
        ConfigError: for an unknown preset, or a setting or space that cannot be used.
        SystemExit: once the help is printed.
    """
    words, rest = take_preset(line)
    if not words and (not line.arguments or line.asks_help()):
        print(f"usage: {line.prog} PRESET OPTIONS... --out DIR [--system NAME] [--trials N] [settings]\n")
        print(preset_help())
        raise SystemExit(0)
    if not words:
        raise ConfigError(f"name a preset: {', '.join(PRESETS)}")
    about = "Search settings of one system by Ray Tune. The same command again goes on."
    arguments = parse_settings(replace(line, about=about), TuneArguments, words, rest, _DECIDED)
    search = replace(arguments.tune, space=_space(arguments))
    return Search(preset=" ".join(words), config=arguments.config, search=search, out=arguments.out)


def _space(arguments: TuneArguments) -> tuple[Parameter, ...]:
    if arguments.space_file and arguments.vary:
        raise ConfigError("--vary picks from the default space and --space-file brings another: give one of them")
    if arguments.space_file:
        return read_space(arguments.space_file)
    space = arguments.tune.space or default_space(arguments.config, arguments.tune.system)
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
        return TypeAdapter(tuple[Parameter, ...]).validate_python(
            parse_json_file(uri, remedy="Give a JSON list of settings to search", error=ConfigError)
        )
    except ValidationError as error:
        faults = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"the space file {uri} cannot be used:\n  " + "\n  ".join(faults)) from None

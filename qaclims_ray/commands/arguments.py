"""Reading a command line: the preset and its options, an output folder, and every setting by its dotted name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

import tyro

from qaclims_ray.commands.line import HELP_ALL, Line
from qaclims_ray.commands.parsing import read_options
from qaclims_ray.commands.settings_help import settings_help
from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.option import summary_line
from qaclims_ray.presets.table import BASES, PRESETS, preset
from qaclims_ray.run_config import RunConfig, flat, with_overrides
from qaclims_ray.stages.local_weights import with_local_weights
from qaclims_ray.stages.run_folder import absolute_out, config_of_run, load_config, with_absolute_paths

_RECORDS = {"profile": "it records what the preset's options chose; name or leave out the option paper instead"}
"""Settings that no command line sets, and why."""


@dataclass(frozen=True, kw_only=True)
class RunArguments:
    """A run's output folder, its data, and every setting of the preset."""

    out: str
    """Output folder: a path or an fsspec URI (s3://, gs://)."""
    config: Annotated[RunConfig, tyro.conf.arg(name="")]
    """Settings of the preset; each can be overridden."""
    data_root: str = ""
    """Folder of the data set; short for --data.root."""


_Arguments = TypeVar("_Arguments", bound=RunArguments)


def parse_run(line: Line) -> RunArguments:
    """Read ``PRESET OPTIONS... --out DIR [--data-root DIR] [settings]`` (also ``--preset "PRESET OPTIONS..."``).

    Without a preset, the configuration stored in the output folder is taken, which may be the first word too.

    Raises:
        ConfigError: for a preset, option or setting that cannot be used.
        SystemExit: once the help is printed.
    """
    words, rest = take_preset(line)
    if words and words[0] == config_of_run(line.arguments[0]) and not _out_in(rest):
        words, rest = [], ["--out", line.arguments[0], *rest]
    if not words and not _out_in(rest) and line.asks_help():
        print(f"usage: {line.prog} PRESET OPTIONS... --out DIR [--data-root DIR] [settings]\n\n{line.about}\n")
        print(f"{preset_help()}\n\n`{line.prog} PRESET OPTIONS... --help` lists the settings and their values.")
        raise SystemExit(0)
    return parse_settings(line, RunArguments, words, rest)


def take_preset(line: Line) -> tuple[list[str], list[str]]:
    """Part a line into the words that name its preset, and the rest.

    The folder of an earlier run stands for the configuration in it.

    Raises:
        ConfigError: for a folder that holds no run.
    """
    start, end = _leading_words(line.arguments)
    words, rest = [*start], [*end]
    if words and words[0] not in PRESETS and (stored := config_of_run(words[0])):
        words[0] = stored
    for position, argument in enumerate(rest if not words else ()):
        name, has_value, value = argument.partition("=")
        if name == "--preset":
            named, after = ([value], rest[position + 1 :]) if has_value else _leading_words(rest[position + 1 :])
            words, rest = [*named], [*rest[:position], *after]
            break
    return words or line.default_preset.split(), rest


def _leading_words(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    flag = next((at for at, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    return arguments[:flag], arguments[flag:]


def parse_settings(
    line: Line,
    kind: type[_Arguments],
    words: Sequence[str],
    rest: Sequence[str],
    decided: Mapping[str, str] | None = None,
) -> _Arguments:
    """Read output folder and settings on top of a preset, or of the run that is stored in the folder.

    Args:
        line: the whole line.
        kind: what else is read.
        words: the preset and its options; none takes the stored run.
        rest: the line without them.
        decided: settings that the verb decides itself, and why.

    Raises:
        ConfigError: for a preset, option or setting that cannot be used.
    """
    default = preset(*words) if words else _stored_config(rest)
    own = replace(line, prog=" ".join([line.prog, *words]))
    if {"-h", "--help", HELP_ALL} & set(rest):
        about = PRESETS[words[0]].about if words and words[0] in PRESETS else ""
        every = HELP_ALL in rest
        print(settings_help(own.prog, line.about, about, kind, default, {*(decided or ())}, every=every))
        raise SystemExit(0)
    arguments = read_options(
        kind,
        own,
        rest,
        flat(default),
        default=kind(out=tyro.MISSING, config=default),
        config=(tyro.conf.FlagConversionOff,),
    )
    config = arguments.config
    for name, reason in {**_RECORDS, **(decided or {})}.items():
        if _said(config, name) != _said(default, name):
            raise ConfigError(f"--{name} has no meaning here: {reason}")
    if arguments.data_root:
        config = with_overrides(config, {"data.root": arguments.data_root})
    return replace(arguments, config=with_local_weights(with_absolute_paths(config)), out=absolute_out(arguments.out))


def _said(config: RunConfig, name: str) -> Any:
    if name == "variants":  # settings for known systems go with any systems
        return [variant for variant in config.variants if not variant.adjusts]
    return getattr(config, name)


def _stored_config(arguments: Sequence[str]) -> RunConfig:
    if out := _out_in(arguments):
        return load_config(storage.absolute(out))
    raise ConfigError(f"name a preset ({', '.join(PRESETS)}), or give the folder of an earlier run")


def _out_in(arguments: Sequence[str]) -> str:
    """Return the output folder that a line gives, empty where it gives none."""
    for position, argument in enumerate(arguments):
        if argument == "--out" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--out="):
            return argument.removeprefix("--out=")
    return ""


def preset_help() -> str:
    """Return the lines that list the bases, the options each takes, and the published combinations."""
    lines = ["presets, each with its options (at most one of each kind, in any order):"]
    for name, base in BASES.items():
        lines.append(f"  {name:<30} {summary_line(PRESETS[name].about)}")
        lines += [f"    {option.name:<14}{option.axis:<14} {option.about}" for option in base.options]
    lines.append("\npublished combinations, by a name of their own, or a .json file of a run:")
    for one in PRESETS.values():
        if one.name not in BASES:
            lines.append(f"  {one.name:<20} = {' '.join(one.words):<26} {summary_line(one.about)}")
    return "\n".join(lines)

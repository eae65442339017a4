"""Complete runs by name: a base and options on top of it, e.g. ``voc12 plain-clip paper``.

What a run compares is in ``systems/``. Published combinations have names of their own, e.g. ``voc12_weaktr``.
"""

from collections.abc import Sequence

from qaclims_ray.data import storage
from qaclims_ray.errors import ConfigError, did_you_mean
from qaclims_ray.presets.coco import COCO14
from qaclims_ray.presets.folder import FOLDER
from qaclims_ray.presets.miniature import MINIATURE_BASE
from qaclims_ray.presets.option import AXES, Base, Option, Preset
from qaclims_ray.presets.stored import read_run
from qaclims_ray.presets.tissue import BCSS_WSSS, LUAD_HISTOSEG
from qaclims_ray.presets.voc import VOC12
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.systems.checks import check_systems

BASES: dict[str, Base] = {base.name: base for base in (MINIATURE_BASE, FOLDER, VOC12, COCO14, BCSS_WSSS, LUAD_HISTOSEG)}
"""All bases by name."""
PRESETS: dict[str, Preset] = {one.name: one for base in BASES.values() for one in base.presets()}
"""All names of presets: the bases and the published combinations."""


def preset(*words: str) -> RunConfig:
    """Return the run that a preset's name and options say, or the one that a file ending in .json holds.

    Args:
        words: a name out of `PRESETS` and options of its base, each alone or several in one string; or a file.

    Raises:
        ConfigError: for a name or option that does not exist, options that contradict each other, or a file that holds
            no run.
    """
    if words and words[0].endswith(".json"):
        return _from_file(*words)
    first, *rest = " ".join(words).split() or [""]
    if first not in PRESETS:
        raise _no_preset(first)
    name, *before = PRESETS[first].words
    base = BASES[name]
    options = _checked([_option(base, word) for word in (*before, *rest)])
    config = base.build()
    for option in options:
        config = option.apply(config)
    return with_overrides(config, {"name": _name((name, *(option.name for option in options)))})


def started_from(config: RunConfig) -> RunConfig | None:
    """Return the preset that a run started from; None where its name is none."""
    try:
        return None if config.name.endswith(".json") else preset(config.name)
    except ConfigError:  # a name of the user's own
        return None


def _no_preset(word: str) -> ConfigError:
    bases = [base.name for base in BASES.values() if word in [option.name for option in base.options]]
    if bases:
        return ConfigError(f"{word!r} is an option: name what it is an option of before it, e.g. {bases[0]} {word}")
    return ConfigError(f"there is no preset {word!r}; {did_you_mean(word, PRESETS)}known: {', '.join(PRESETS)}")


def _option(base: Base, word: str) -> Option:
    known = {option.name: option for option in base.options}
    if word in known:
        return known[word]
    if word in PRESETS:
        raise ConfigError(f"{word!r} is a preset, and {base.name} is one already: name one of them, then options")
    others = [other.name for other in BASES.values() if word in [option.name for option in other.options]]
    elsewhere = f" ({', '.join(others)} has it)" if others else ""
    hint = did_you_mean(word, known)
    raise ConfigError(f"{base.name} has no option {word!r}{elsewhere}; {hint}it takes: {', '.join(known) or 'none'}")


def _checked(options: Sequence[Option]) -> list[Option]:
    """Return options in the order in which they are applied, once no two of them contradict each other."""
    for position, one in enumerate(options):
        for other in options[:position]:
            if one.name == other.name:
                raise ConfigError(f"option {one.name!r} is given twice; leave one out")
            if one.axis == other.axis:
                raise ConfigError(
                    f"{other.name!r} and {one.name!r} both choose the {one.axis}; leave one of the two out"
                )
            if reason := one.excludes.get(other.name) or other.excludes.get(one.name):
                raise ConfigError(f"{other.name!r} and {one.name!r} contradict each other: {reason}; leave one out")
    return sorted(options, key=lambda option: AXES.index(option.axis))


def _name(words: tuple[str, ...]) -> str:
    """Return the published name of a combination, or its words, which `preset` takes as well."""
    return next((one.name for one in PRESETS.values() if one.words == words), " ".join(words))


def _from_file(uri: str, *options: str) -> RunConfig:
    if options:
        raise ConfigError(f"{uri} holds a whole run, which takes no options; leave out: {' '.join(options)}")
    if not storage.exists(uri):
        raise ConfigError(f"there is no preset file {uri}; presets by name: {', '.join(PRESETS)}")
    return read_run(uri)


def check_run(config: RunConfig) -> None:
    """Check what can be checked of a run before any work starts.

    Raises:
        ConfigError: naming the setting or system that cannot be used and why.
    """
    if config.data.dataset != "miniature" and not config.data.root:
        raise ConfigError("data.root is empty: give the folder of the data set with --data-root")
    check_systems(config)

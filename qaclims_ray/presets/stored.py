"""Reading a stored run: the ``config.json`` of a run folder, or a preset file; also those of earlier versions."""

import contextlib
import functools
import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter

from qaclims_ray.data import places, storage
from qaclims_ray.data.artifacts import plain
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.errors import ConfigError
from qaclims_ray.methods.semples.config import PromptConfig
from qaclims_ray.run_config import RunConfig, flat, from_dict

_OPTIMISER = ("lr", "head_lr_factor", "momentum", "weight_decay", "schedule", "poly_power", "schedule_every",
              "warmup_steps", "clip_grad_norm", "batch_size")  # fmt: skip
_OF_PROMPTS = ("lr", "weight_decay", "schedule", "batch_size", "epochs")
RENAMED = {
    "cams.given": "given.cams",
    "segmentation.optimizer": "segmentation.optim.name",
    **{f"segmentation.{name}": f"segmentation.optim.{name}" for name in _OPTIMISER},
    **{f"semples.prompt.{name}": f"semples.prompt.optim.{name}" for name in _OF_PROMPTS},
}
"""Earlier dotted name -> today's; a name that is not there today is left as it is."""


_ANOTHER_FILE = "Give the config.json of a run folder, the best.json of a search, or the name of a preset"


def read_run(uri: str, *, remedy: str = _ANOTHER_FILE) -> RunConfig:
    """Return the run that a JSON file holds; places in the file's own folder are where that is now.

    Args:
        uri: the file.
        remedy: what to do where it holds none.

    Raises:
        ConfigError: when it holds something else, or is damaged.
    """
    values = read_json_file(uri, TypeAdapter(dict[str, Any]).validate_python, remedy=remedy, error=ConfigError)
    values = places.resolved(values, storage.absolute(uri).rpartition("/")[0])
    # What no version ever wrote is left as it is: the check says what is wrong with it.
    with contextlib.suppress(AttributeError, KeyError, TypeError, ArithmeticError):
        values = upgraded(values)
    try:
        return from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{uri} holds no run: {error}\n{remedy}") from None


def upgraded(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings as they are written today; what is of today already stays."""
    adjusted = [{"name": entry["system"], **entry} for entry in values.get("per_system", ())]
    found = {name: value for name, value in json.loads(json.dumps(values)).items() if name != "per_system"}
    if entries := [*adjusted, *values.get("variants", ())]:
        found["variants"] = [_system(entry) for entry in entries]
    _write_lengths_anew(found)
    _name_decoder_norm(found)
    _name_precision(found)
    return renamed(found, RENAMED, _names_today())


def _write_lengths_anew(values: dict[str, Any]) -> None:
    """Say in epochs what was said in steps, in place, and by a switch that nothing is learned."""
    final, prompt = values.get("segmentation", {}), values.get("semples", {}).get("prompt", {})
    if "iterations" in final:
        steps = final.pop("iterations")
        final["steps_per_epoch"] = min(final.pop("iterations_per_checkpoint", steps), steps)
        final["optim"] = {"epochs": steps // final["steps_per_epoch"]}
    if "epochs" in prompt:
        prompt["optim"] = plain(PromptConfig().optim)  # it had the fields that differ from these alone
        prompt["learn"] = prompt["epochs"] > 0
        if not prompt["learn"]:
            del prompt["epochs"]


def _name_decoder_norm(values: dict[str, Any]) -> None:
    """Say in place that a decoder has the batch norms that all once had, unless they could not normalise."""
    final = values.get("segmentation", {})
    net = final.get("net", {})
    was_written_out = "width" in net and "decoder_norm" not in net
    if was_written_out and net.get("architecture") == "encoder" and not final.get("freeze_batch_norm"):
        net["decoder_norm"] = "batch"


def _name_precision(values: dict[str, Any]) -> None:
    """Say in place that stages without a setting for it computed in float32, where all settings were written out."""
    if "precision" not in values.get("corpus", {}):
        return
    for *parents, last in (("text",), ("cams",), ("masks",), ("segmentation", "test")):
        node = functools.reduce(lambda at, part: at.get(part, {}), parents, values)
        if last in node:
            node[last].setdefault("precision", "fp32")


def _overrides_today(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return overrides by their dotted names of today."""
    found = {RENAMED[n] if RENAMED.get(n) in _names_today() else n: value for n, value in overrides.items()}
    if (epochs := overrides.get("semples.prompt.epochs")) is not None:
        found["semples.prompt.learn"] = epochs > 0
        if epochs == 0:
            del found["semples.prompt.optim.epochs"]
    steps, apart = (found.pop(f"segmentation.{n}", None) for n in ("iterations", "iterations_per_checkpoint"))
    if steps is not None:
        found["segmentation.steps_per_epoch"] = min(apart or steps, steps)
        found["segmentation.optim.epochs"] = steps // found["segmentation.steps_per_epoch"]
    elif apart is not None:
        found["segmentation.steps_per_epoch"] = apart
    return found


def _system(entry: Mapping[str, Any]) -> dict[str, Any]:
    """A variant once said its `system`, and settings of a known system stood in `per_system`."""
    system = {("like" if name == "system" else name): value for name, value in entry.items()}
    if overrides := system.get("overrides"):
        system["overrides"] = _overrides_today(overrides)
    return system


def renamed(values: Mapping[str, Any], names: Mapping[str, str], today: Iterable[str]) -> dict[str, Any]:
    """Move settings to their new places.

    Args:
        values: nested settings.
        names: earlier dotted name -> new one.
        today: dotted names that exist today; only moves to one of them are made.
    """
    found, known = json.loads(json.dumps(values)), set(today)
    for old, new in names.items():
        *parents, last = old.split(".")
        node = functools.reduce(lambda at, part: at.get(part, {}) if isinstance(at, dict) else {}, parents, found)
        if new not in known or last not in node:
            continue
        value = node.pop(last)
        *parents, last = new.split(".")
        node = functools.reduce(lambda at, part: at.setdefault(part, {}), parents, found)
        node[last] = value
    return found


@functools.cache
def _names_today() -> frozenset[str]:
    return frozenset(flat(RunConfig(name="any", data=DataConfig(dataset="miniature"))))

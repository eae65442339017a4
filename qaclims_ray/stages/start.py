"""From a folder of photographs to a run that suits them: look, choose, say why and how long, write it down."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from rich.console import Console

from qaclims_ray.data import storage
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.picture_files import file_name
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.presets.stored import read_run
from qaclims_ray.presets.table import preset
from qaclims_ray.report.console_text import print_line
from qaclims_ray.run_config import RunConfig, to_dict
from qaclims_ray.stages.local_weights import random_start_remarks
from qaclims_ray.stages.requests import StartArguments
from qaclims_ray.stages.run_folder import absolute_out
from qaclims_ray.stages.start_plan import PRESET, choose_run
from qaclims_ray.stages.start_survey import survey_folder


@dataclass(frozen=True)
class ReadyRun:
    """A run that is chosen and written down."""

    config: RunConfig
    """What is run."""
    out: str
    """Its folder."""
    preset_file: str
    """Where it is written down."""
    said: frozenset[str]
    """What was printed, and the run would say again."""


def prepare_start(asked: StartArguments, console: Console) -> ReadyRun:
    """Look at a folder, choose a run, and write its file; what is found and chosen is printed.

    Raises:
        QaclimsError: what is wrong with the folder, or with what was asked for.
    """
    out = absolute_out(asked.out or _default_out(asked.folder))
    _require_folder(asked.folder)
    survey = survey_folder(_data_of(asked))
    _print_part(console, f"found in {survey.gathered.root}", survey.lines())
    # Not at the top: a wrong folder is told before PyTorch is there.
    from qaclims_ray.stages.start_clock import busy_note, estimated_seconds, measure_pace
    from qaclims_ray.stages.start_machine import this_machine

    machine = this_machine()
    _print_part(console, "this machine", machine.lines(with_weights=not asked.weights))
    config, reasons = choose_run(survey, machine, weights=asked.weights, is_quick=asked.quick)
    preset_file = f"{out.rstrip('/')}.json"
    config, remarks = _kept(preset_file, config)
    from_nothing = random_start_remarks(config)
    _print_part(console, "chosen", [*reasons, *remarks, *from_nothing])
    seconds = estimated_seconds(config, survey, measure_pace(config, survey, machine), machine)
    parts = ", ".join(f"{name} {_roughly(found)}" for name, found in seconds.items() if found)
    print_line(console, f"takes roughly {_roughly(sum(seconds.values()))}: {parts}")
    if busy := busy_note(machine.cores):
        print_line(console, busy)
    print_line(console, f"written  {preset_file}: change it as you like, then `qaclims run {preset_file} --out {out}`")
    return ReadyRun(config, out, preset_file, frozenset([*survey.gathered.notes, *from_nothing]))


def _require_folder(folder: str) -> None:
    root = storage.absolute(folder).rstrip("/")
    if storage.exists(root):
        return
    above, _, name = root.rpartition("/")
    near = difflib.get_close_matches(name, [file_name(uri) for uri in storage.list_folders(above)], n=1)
    hint = f"; did you mean {above}/{near[0]}?" if near else ""
    raise DataError(f"there is no folder {root}: give that of your photographs, `qaclims start DIR`{hint}")


def _roughly(seconds: float) -> str:
    if seconds < 60:
        return "under 1 min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def _default_out(folder: str) -> str:
    return storage.join("runs", storage.absolute(folder).rstrip("/").rpartition("/")[2])


def _data_of(asked: StartArguments) -> DataConfig:
    named = storage.absolute(asked.label_file) if asked.label_file and storage.exists(asked.label_file) else ""
    return replace(
        preset(PRESET).data,
        root=storage.absolute(asked.folder),
        label_file=named or asked.label_file,
        labels=asked.labels,
    )


def _print_part(console: Console, head: str, lines: list[str]) -> None:
    print_line(console, head, bold=len(head))
    for line in lines:
        print_line(console, f"  {line}")


def _kept(uri: str, config: RunConfig) -> tuple[RunConfig, list[str]]:
    """Write a run's file, or take the one that is there: its owner may have changed it."""
    if storage.exists(uri):
        there = read_run(uri)
        if there.data.root != config.data.root:
            raise ConfigError(f"{uri} is the file of a run on {there.data.root}: give another folder with --out")
        if there != config:
            return there, [f"{uri} is there already and says otherwise: it is taken as it is; remove it to choose anew"]
    storage.write_bytes(uri, json.dumps(changed_from_defaults(config), indent=2).encode() + b"\n")
    return config, []


def changed_from_defaults(config: RunConfig) -> dict[str, Any]:
    """Return the settings that differ from the package's defaults, nested: a file that a person can look through."""
    usual = RunConfig(name=config.name, data=DataConfig(dataset=config.data.dataset))
    found = _changed(config, usual, to_dict(config))
    return {"name": config.name, **found, "data": {"dataset": config.data.dataset, **found.get("data", {})}}


def _changed(own: Any, usual: Any, plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs of a section; a section that is written takes its own class's defaults where it is silent."""
    found: dict[str, Any] = {}
    for name in (each.name for each in fields(own)):
        value = getattr(own, name)
        if value == getattr(usual, name):
            continue
        if is_dataclass(value):
            fresh = DataConfig(dataset=value.dataset) if isinstance(value, DataConfig) else type(value)()
            found[name] = _changed(value, fresh, plain[name])
        else:
            found[name] = plain[name]
    return found

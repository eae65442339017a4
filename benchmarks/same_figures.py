"""Prove that two runs have the same figures: compare their ``report.json``, leaf by leaf.

    python benchmarks/same_figures.py BEFORE AFTER [--tolerance 0]

BEFORE and AFTER are report files or run folders. Every leaf of the report is compared (figures, curves, counts, words,
settings), except those of `IGNORED`, which say when, where and how fast. Settings that moved are compared under their
new names (`RENAMED`). The exit code is 1 when a figure differs, 2 when a report cannot be read. Only the standard
library is used, so that any checkout can run it.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

IGNORED = {
    r"created": "the time of the run",
    r"title": "holds the name of the run's folder",
    r"timings(\..*)?": "seconds, other in every run",
    r"systems\.[^.]+\.curves\.(.*/)?images_per_s(\[.*)?": "speed, other in every run",
    r"environment\.(python|machine|system|cores|memory_gib|gpus)(\[.*)?": "the machine, and no result",
    r"environment\.(qaclims_ray|source_hash|packages)(\..*)?": "versions: that the code differs is why we compare",
    r"dataset\.(fingerprint|content)": "hash that holds the images' paths; the counts beside it are compared",
    r"config\.data\.(root|label_file)": "a path",
    r"dataset\.notes(\[.*)?": "name the folders that were read",
    r"config\.(cams\.given|given\.cams)": "a path",
    r"config\.classifier\.network": "a path",
    r"config\.tracking\.uri": "a path",
    r"config\.segmentation\.(iterations(_per_checkpoint)?|steps_per_epoch|optim\.epochs)": "one length in other words; "
    "the curves are compared, and have its steps",
    r"config\.semples\.prompt\.(learn|optim\.(name|head_lr_factor|momentum|poly_power|schedule_every|warmup_steps"
    r"|clip_grad_norm))": "was no setting of its own before",
}
"""Pattern of a whole leaf's name -> why it is not compared."""

RENAMED = {
    r"config\.segmentation\.optimizer": "config.segmentation.optim.name",
    r"config\.segmentation\.(lr|head_lr_factor|momentum|weight_decay|schedule|poly_power|schedule_every|warmup_steps"
    r"|batch_size|clip_grad_norm)": r"config.segmentation.optim.\1",
    r"config\.semples\.prompt\.(epochs|batch_size|lr|weight_decay|schedule)": r"config.semples.prompt.optim.\1",
}
"""Pattern of an earlier setting's whole name -> its name today. Either report may have either name."""

ABSENT = "(absent)"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name, value) of all leaves; an empty list or mapping is a leaf too."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from leaves(item, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{name}[{index}]")
    else:
        yield name, value


def figures(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the leaves that are compared, by today's names."""
    found = {}
    said_alike = {"config": _with_overrides_by_system(report["config"])} if "config" in report else {}
    for name, value in leaves({**report, **said_alike}):
        if not any(re.fullmatch(pattern, name) for pattern in IGNORED):
            found[_todays(name)] = value
    return found


def _with_overrides_by_system(config: Mapping[str, Any]) -> dict[str, Any]:
    """Say what a run sets for single systems in one way: `per_system` became entries of `variants`."""
    entries = [{"name": entry["system"], **entry} for entry in config.get("per_system", ())]
    overrides = {entry["name"]: entry["overrides"] for entry in (*entries, *config.get("variants", ()))}
    kept = {name: value for name, value in config.items() if name not in ("per_system", "variants")}
    return {**kept, **({"overrides by system": overrides} if overrides else {})}


def _todays(name: str) -> str:
    for pattern, today in RENAMED.items():
        if match := re.fullmatch(pattern, name):
            return match.expand(today)
    return name


def differences(before: Mapping[str, Any], after: Mapping[str, Any], tolerance: float = 0.0) -> list[str]:
    """Return one line for every leaf that differs, is gone or is new."""
    lines = []
    for name in sorted({**before, **after}):
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if not _same(old, new, tolerance):
            lines.append(f"{name}: {_shown(old)} -> {_shown(new)}")
    return lines


def _same(old: Any, new: Any, tolerance: float) -> bool:
    if _is_number(old) and _is_number(new):
        return abs(old - new) <= tolerance
    return type(old) is type(new) and old == new


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    return ABSENT if value is ABSENT else json.dumps(value)


def read_report(place: Path) -> dict[str, Any]:
    """Return the report of a file or of a run folder.

    Raises:
        ValueError: when there is none, or it is not one.
    """
    path = place / "report" / "report.json" if place.is_dir() else place
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path} ({error}); expected a report.json or a run folder that has one") from None
    if not isinstance(report, dict) or not report.get("systems"):
        raise ValueError(f"{path} has no systems; expected the report.json of a run")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what differs and return the exit code."""
    parser = argparse.ArgumentParser(description="Compare the figures of two runs.")
    parser.add_argument("before", type=Path, help="report.json or run folder")
    parser.add_argument("after", type=Path, help="report.json or run folder")
    parser.add_argument("--tolerance", type=float, default=0.0, help="greatest difference of two numbers that is none")
    options = parser.parse_args(arguments)
    try:
        before, after = (figures(read_report(place)) for place in (options.before, options.after))
    except ValueError as error:
        print(f"same_figures: {error}", file=sys.stderr)
        return 2
    found = differences(before, after, options.tolerance)
    if found:
        print("\n".join(found))
        print(f"{len(found)} of {len({**before, **after})} figures differ")
        return 1
    print(f"{len(before)} figures, all the same")
    return 0


if __name__ == "__main__":
    sys.exit(main())

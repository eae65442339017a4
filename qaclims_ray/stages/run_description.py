"""Tags that make two runs in the MLflow UI comparable at a glance: what ran, on which data, with which code."""

import functools
import getpass
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.data.artifacts import package_version, source_hash
from qaclims_ray.run_config import RunConfig, to_dict
from qaclims_ray.settings import dotted
from qaclims_ray.tracking.tracker import FAILURE_TAG

_FAILURE_CHARS = 500
"""Of a tag; stores refuse very long ones."""
_PACKAGES = ("ray", "torch", "transformers", "open_clip_torch", "timm", "mlflow")


def run_tags(config: RunConfig, *, data_fingerprint: str = "", system: str = "", stage: str = "") -> dict[str, str]:
    """Return the tags of a run; empty ones are left out.

    Args:
        config: the resolved configuration.
        data_fingerprint: fingerprint of the manifest, where it is known.
        system: system that the run trained or scored; empty for the parent.
        stage: stage of a child run; empty for the parent.
    """
    tags = {
        "preset": config.name,
        "profile": config.profile,
        "dataset": config.data.dataset,
        "seed": str(config.seed),
        "systems": system or ", ".join(config.systems),
        "system": system,
        "stage": stage,
        "data_fingerprint": data_fingerprint,
        "source_hash": source_hash(),
        "version.qaclims_ray": package_version(),
        "version.python": platform.python_version(),
        "mlflow.user": _user(),
        "mlflow.source.name": Path(sys.argv[0]).name or "python",
        "mlflow.source.type": "LOCAL",
    }
    tags |= {f"version.{name}": _installed(name) for name in _PACKAGES}
    return {name: value for name, value in tags.items() if value}


def changed_settings(config: RunConfig, default: RunConfig) -> dict[str, Any]:
    """Return the settings, by dotted name, in which a run differs from the preset it started from."""
    ours, theirs = dotted(without_password(to_dict(config))), dotted(to_dict(default))
    return {name: value for name, value in ours.items() if value != theirs.get(name)}


def without_password(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings for pages and servers: the address of the tracking store may hold a password.

    Args:
        settings: of a whole run, nested.
    """
    tracking = settings["tracking"]
    return {**settings, "tracking": {**tracking, "uri": without_credentials(tracking["uri"])}}


def failure_tag(error: BaseException) -> dict[str, str]:
    """Return the tag that says why a run failed, in one line."""
    if isinstance(error, KeyboardInterrupt):
        return {FAILURE_TAG: "stopped by hand"}
    told = f"{type(error).__name__}: {error}".splitlines()[0]
    return {FAILURE_TAG: without_credentials(told)[:_FAILURE_CHARS]}


def run_note(scores: Mapping[str, Mapping[str, float]], changed: Mapping[str, Any], remarks: Sequence[str] = ()) -> str:
    """Return the description that the UI shows above a run, as Markdown: what it scored, what is special about it.

    Args:
        scores: system -> column -> figure, fractions. Columns are those of all systems together, in the order they
            first appear, e.g. "pseudo mask mIoU, train", "segmentation mIoU, val"; a system without a figure (the
            fully supervised bound has no seeds) gets a dash.
        changed: settings that are not the preset's.
        remarks: lines about the figures.
    """
    lines = []
    columns = list(dict.fromkeys(column for row in scores.values() for column in row))
    if scores and not columns:
        lines += [f"{', '.join(scores)}: not scored", "", *(f"{remark}.\n" for remark in remarks)]
    elif scores:
        lines += [f"| system | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
        lines += [
            f"| {label} | {' | '.join(f'{100 * row[column]:.1f}' if column in row else '-' for column in columns)} |"
            for label, row in scores.items()
        ]
        lines += ["", *(f"{remark}.\n" for remark in remarks)]
    settings = ", ".join(f"`{name}={json.dumps(value)}`" for name, value in changed.items())
    lines.append(f"Changed from the preset: {settings or 'nothing'}")
    return "\n".join(lines)


@functools.cache
def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _user() -> str:
    # A container's user id may have no name: KeyError up to Python 3.12, OSError from 3.13.
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""

"""Tags that make two runs in the MLflow UI comparable at a glance: what ran, on which data, with which code."""

import getpass
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from qaclims_ray.data.artifacts import package_version, source_hash
from qaclims_ray.run_config import RunConfig

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

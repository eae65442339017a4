"""What tells weights apart: a fingerprint of models that are given by name or path."""

import hashlib
from pathlib import Path
from typing import Any

from qaclims_ray.data import artifacts
from qaclims_ray.errors import ModelError
from qaclims_ray.models.weight_table import weight_named

FROM_CLASSIFIER = "classifier"
"""Initial weights of affinity and final networks: the backbone of the run's image-level classifier."""
FROM_CLIP = "clip"
"""Initial weights of final networks on the run's frozen CLIP: its image tower."""
_WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors")


def weights_fingerprint(*names: str | None) -> str:
    """Return a fingerprint of models given by name or path: local files by content, hub names by name.

    Raises:
        ModelError: when a path that looks local is not there.
    """
    parts: list[Any] = []
    for name in names:
        path = Path(name or "")
        if name and path.is_file():
            parts.append(_file_digest(path))
        elif name and path.is_dir():
            files = [file for file in sorted(path.rglob("*")) if file.is_file()]
            parts.append([(str(file.relative_to(path)), _file_digest(file)) for file in files])
        elif name and (name.startswith((".", "/", "~")) or path.suffix in _WEIGHT_SUFFIXES):
            known = weight_named(path.name)
            fetch = f"; `qaclims fetch {known.name}` brings them" if known else ""
            raise ModelError(
                f"there are no weights at {name}: give the path of a local file or folder, or a hub name{fetch}"
            )
        else:
            parts.append(name)
    return artifacts.fingerprint_of(parts)


def _file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

"""Named artefacts on disk: what a stage wrote, from what, and whether it is still current.

Every artefact folder holds ``meta.json``, written last. Its fingerprint is a hash of the artefact's kind, of the
settings that shaped it and of the fingerprints of its inputs, so a stage can tell before it starts whether its
result is already there, and a reader can refuse what was made from something else.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.errors import ArtifactError

META_NAME = "meta.json"


@dataclass(frozen=True, kw_only=True)
class ArtifactMeta:
    """What ``meta.json`` holds."""

    kind: str
    """manifest, corpus, text_bank, classifier, ritc, cams, evaluation, ..."""
    fingerprint: str
    """Hash of kind, settings and inputs; 16 hex digits."""
    settings: dict[str, Any]
    """The settings that shaped the artefact."""
    inputs: dict[str, str]
    """Name of each input -> its fingerprint."""
    summary: dict[str, Any]
    """Counts and figures worth a look."""
    package_version: str
    """Version of qaclims_ray."""
    source_hash: str
    """Hash of the package's sources: what code wrote this."""
    created: str
    """UTC time, ISO 8601."""


def fingerprint_of(value: Any) -> str:
    """Return a 16-digit hash of any JSON-like value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def expected_fingerprint(kind: str, settings: Any, inputs: Mapping[str, str]) -> str:
    """Return the fingerprint an artefact will carry, before it is made.

    Args:
        kind: the artefact's kind.
        settings: a config dataclass or JSON-like value.
        inputs: name of each input -> its fingerprint.
    """
    return fingerprint_of([kind, plain(settings), dict(inputs)])


def write_meta(
    uri: str, kind: str, settings: Any, inputs: Mapping[str, str], summary: Mapping[str, Any] | None = None
) -> ArtifactMeta:
    """Write ``meta.json``: the last thing a stage does, it declares the artefact complete."""
    meta = ArtifactMeta(
        kind=kind,
        fingerprint=expected_fingerprint(kind, settings, inputs),
        settings=plain(settings),
        inputs=dict(inputs),
        summary=dict(summary or {}),
        package_version=package_version(),
        source_hash=source_hash(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    content = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True, default=str)
    storage.write_bytes(storage.join(uri, META_NAME), content.encode())
    return meta


def read_meta(uri: str) -> ArtifactMeta | None:
    """Return the meta of the artefact in a folder, or None where none is complete.

    Raises:
        ArtifactError: when ``meta.json`` is there but broken.
    """
    path = storage.join(uri, META_NAME)
    if not storage.exists(path):
        return None
    try:
        return ArtifactMeta(**json.loads(storage.read_bytes(path)))
    except (ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is broken ({error}); remove {uri} and run the stage again") from None


def is_current(uri: str, kind: str, settings: Any, inputs: Mapping[str, str]) -> bool:
    """Whether the artefact is there, complete, and made from just these settings and inputs."""
    meta = read_meta(uri)
    return meta is not None and meta.fingerprint == expected_fingerprint(kind, settings, inputs)


def require(uri: str, kind: str, *, verb: str, fingerprint: str | None = None) -> ArtifactMeta:
    """Return an artefact's meta, or say how to make it.

    Args:
        uri: folder of the artefact.
        kind: the kind that is expected.
        verb: the ``qaclims`` verb that makes it.
        fingerprint: refuse any other, where given.

    Raises:
        ArtifactError: when it is absent, of another kind, or made from something else.
    """
    meta = read_meta(uri)
    if meta is None:
        raise ArtifactError(f"there is no complete {kind} at {uri}; make it with `qaclims {verb}`")
    if meta.kind != kind:
        raise ArtifactError(f"{uri} holds a {meta.kind}, expected a {kind}")
    if fingerprint is not None and meta.fingerprint != fingerprint:
        raise ArtifactError(
            f"{kind} at {uri} has fingerprint {meta.fingerprint}, expected {fingerprint}: "
            f"it was made from other inputs or settings; make it again with `qaclims {verb}`"
        )
    return meta


def package_version() -> str:
    """Return the installed version, or "source" when run from a bare checkout."""
    try:
        return version("qaclims-ray")
    except PackageNotFoundError:
        return "source"


@functools.cache
def source_hash() -> str:
    """Return a hash of the package's Python sources (a submitted job has no .git to ask)."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def plain(value: Any) -> Any:
    """Return config dataclasses, and containers of them, as plain JSON types."""
    return json.loads(json.dumps(value, default=_encode))


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)

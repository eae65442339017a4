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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qaclims_ray.data import storage
from qaclims_ray.errors import ArtifactError
from qaclims_ray.settings import dotted

META_NAME = "meta.json"
_REASONS_SHOWN = 3


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


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """One result of a run: where it goes, and all that it depends on."""

    uri: str
    """Its folder."""
    kind: str
    """See `ArtifactMeta.kind`."""
    settings: Any
    """The settings that shape it: a config dataclass or JSON-like value."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of each input -> its fingerprint."""
    verb: str
    """The ``qaclims`` verb that makes it."""

    @property
    def fingerprint(self) -> str:
        """The fingerprint it carries, known before it is made."""
        return fingerprint_of([self.kind, plain(self.settings), dict(self.inputs)])

    def at(self, uri: str) -> "Artifact":
        """Return the same result in another folder."""
        return dataclasses.replace(self, uri=uri)

    def current(self) -> ArtifactMeta | None:
        """Return its meta when it is there, complete, and made from just these settings and inputs."""
        meta = read_meta(self.uri)
        return meta if meta is not None and meta.fingerprint == self.fingerprint else None

    def require(self) -> ArtifactMeta:
        """Return its meta, or say how to make it; see `require_artifact`.

        Raises:
            ArtifactError: when it is absent, or made from something else.
        """
        return require_artifact(self.uri, self.kind, verb=self.verb, fingerprint=self.fingerprint)

    def complete(self, summary: Mapping[str, Any] | None = None) -> ArtifactMeta:
        """Write ``meta.json``: the last thing a stage does, it declares the artefact complete."""
        meta = ArtifactMeta(
            kind=self.kind,
            fingerprint=self.fingerprint,
            settings=plain(self.settings),
            inputs=dict(self.inputs),
            summary=dict(summary or {}),
            package_version=package_version(),
            source_hash=source_hash(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        content = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True, default=str)
        storage.write_bytes(storage.join(self.uri, META_NAME), content.encode())
        return meta

    def differs(self) -> str:
        """Say why what lies in its folder does not serve: the settings and inputs that are others now.

        Returns:
            Names with old and new values, at most three of them; empty where nothing complete is there.
        """
        try:
            meta = read_meta(self.uri)
        except ArtifactError as error:
            return str(error)
        if meta is None:
            return ""
        old, new = dotted({"": meta.settings}), dotted({"": plain(self.settings)})
        reasons = [
            f"{name.lstrip('.') or 'settings'} {_short(old, name)} -> {_short(new, name)}"
            for name in dict.fromkeys([*old, *new])
            if old.get(name) != new.get(name) or (name in old) != (name in new)
        ]
        reasons += [
            f"another {name}"
            for name in dict.fromkeys([*meta.inputs, *self.inputs])
            if meta.inputs.get(name) != self.inputs.get(name)
        ]
        more = f" and {len(reasons) - _REASONS_SHOWN} more" if len(reasons) > _REASONS_SHOWN else ""
        return ", ".join(reasons[:_REASONS_SHOWN]) + more


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


def require_artifact(uri: str, kind: str, *, verb: str, fingerprint: str | None = None) -> ArtifactMeta:
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
    # Through JSON, so that settings compare with those of a meta that was read: tuples, for one, become lists.
    return json.loads(json.dumps(value, default=_encode))


def _encode(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _short(values: Mapping[str, Any], name: str) -> str:
    """Return a setting as one reads it in a line, or that it is not there."""
    if name not in values:
        return "absent"
    text = json.dumps(values[name])
    return text if len(text) <= 40 else f"{text[:37]}..."

"""Named artefacts on disk: what a stage wrote, from what, and whether it is still current and whole.

An artefact is made aside, in a workshop beside its folder that is named by its fingerprint: a hash of its kind, of the
settings that shape it and of the fingerprints of its inputs. When all of it is there it gets the list of its files and
``meta.json``, and takes its place in one step; what was there before stays whole until then. So a stage can tell before
it starts whether its result is already there, and what was stopped never stands for what was finished.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from qaclims_ray.data import storage, trees, whole_files
from qaclims_ray.data.slices import in_slices
from qaclims_ray.errors import ArtifactError
from qaclims_ray.settings import dotted

META_NAME = trees.LAST_NAME
_WORKSHOP, _DAMAGED = ".making-", ".damaged-"
"""Behind a folder's name: where its artefact is made, and what was set aside because it is damaged."""
_REASONS_SHOWN = 3
_ROWS_HASHED = 10_000
"""Rows that are text at a time."""


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
    took_s: float = 0.0
    """Seconds from the start of the call that completed it; work of calls that were stopped is not counted."""
    content: str = ""
    """Hash of ``files.json``, the list of its files, and so of all that it holds."""
    seal: str = ""
    """Hash of all the rest of this."""

    def recipe(self) -> str:
        """Return a hash of what shaped each image's part of it, whichever images there are."""
        inputs = {name: value for name, value in self.inputs.items() if name != "manifest"}
        return fingerprint_of([self.kind, self.settings, inputs])

    def sealed(self) -> str:
        """Return the hash that `seal` must be."""
        values = plain(self)
        del values["seal"]
        return fingerprint_of(values)


def fingerprint_of(value: Any) -> str:
    """Return a 16-digit hash of any JSON-like value."""
    return hashlib.sha256(_text(value).encode()).hexdigest()[:16]


def fingerprint_of_rows(before: Sequence[Any], rows: Iterable[Any], after: Sequence[Any] = ()) -> str:
    """Return `fingerprint_of` ``[*before, [*rows], *after]``, without all of a million rows as text at a time."""
    digest = hashlib.sha256(("[" + "".join(f"{_text(value)}, " for value in before) + "[").encode())
    for position, some in enumerate(in_slices(rows, _ROWS_HASHED)):
        digest.update(((", " if position else "") + _text(some)[1:-1]).encode())
    digest.update(("]" + "".join(f", {_text(value)}" for value in after) + "]").encode())
    return digest.hexdigest()[:16]


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


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

    @property
    def workshop(self) -> str:
        """The folder in which it is made; `complete` puts it in its place."""
        return workshop_of(self.uri, self.fingerprint)

    def current(self) -> ArtifactMeta | None:
        """Return its meta when it is there and whole, and made from just these settings and inputs.

        What was complete when a call was cut off is put in place first: for the process that would make it.
        """
        meta = readable_meta(self.uri)
        if meta is None or meta.fingerprint != self.fingerprint:
            meta = self._go_on_publishing()
        return None if meta is None or _faults(self.uri, meta) else meta

    def in_place(self) -> ArtifactMeta | None:
        """Return what `current` does, for those who wait while another process makes it: nothing is moved."""
        meta = readable_meta(self.uri)
        return None if meta is None or meta.fingerprint != self.fingerprint or _faults(self.uri, meta) else meta

    def require(self) -> ArtifactMeta:
        """Return its meta, or say how to make it; see `require_artifact`.

        Raises:
            ArtifactError: when it is absent, or made from something else.
        """
        return require_artifact(self.uri, self.kind, verb=self.verb, fingerprint=self.fingerprint)

    def complete(self, summary: Mapping[str, Any] | None = None, *, took_s: float = 0.0) -> ArtifactMeta:
        """Declare what lies in the workshop complete and put it in its place: the last thing a stage does.

        Args:
            summary: counts and figures worth a look.
            took_s: seconds that it took.

        Raises:
            ResourceError: when the place cannot be written.
        """
        meta = ArtifactMeta(
            kind=self.kind,
            fingerprint=self.fingerprint,
            settings=plain(self.settings),
            inputs=dict(self.inputs),
            summary=plain(summary or {}),
            package_version=package_version(),
            source_hash=source_hash(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            took_s=round(took_s, 1),
            content=whole_files.write_list(self.workshop),
        )
        meta = dataclasses.replace(meta, seal=meta.sealed())
        content = json.dumps(dataclasses.asdict(meta), indent=2, sort_keys=True, default=str)
        storage.write_bytes(storage.join(self.workshop, META_NAME), content.encode())
        self._publish()
        return meta

    def begin(self, *, goes_on: bool = False) -> None:
        """Make the workshop ready, and clear the place of what is damaged there.

        Args:
            goes_on: whether finished parts in the workshop are kept: those of a stopped call, and those that are whole
                in a damaged artefact of the same settings. Where they are not, a damaged artefact is set aside under a
                name of its own.

        Raises:
            ResourceError: when the place cannot be written.
        """
        if goes_on:
            whole_files.take_on(self.workshop)
        else:
            storage.remove_tree(self.workshop)
        meta = _meta_or_fault(self.uri)
        if meta is None:
            return
        faults = _faults(self.uri, meta) if isinstance(meta, ArtifactMeta) else {META_NAME: meta}
        if not faults:
            return
        is_ours = isinstance(meta, ArtifactMeta) and meta.fingerprint == self.fingerprint
        if goes_on and is_ours and not storage.exists(self.workshop) and whole_files.LIST_NAME not in faults:
            trees.move_tree(self.uri, self.workshop)
            whole_files.take_on(self.workshop)
            return
        taken = trees.beside(self.uri, _DAMAGED)
        trees.move_tree(self.uri, f"{self.uri.rstrip('/')}{_DAMAGED}{len(taken) + 1}")

    def take_from(self, uri: str) -> None:
        """Copy what lies in another folder and is just this result, if every file is as listed.

        Nothing where this one is there already.

        Raises:
            ResourceError: when the place cannot be written.
        """
        if uri == self.uri or self.current() or not self.at(uri).in_place():
            return
        names = whole_files.listed_files(uri) or {}  # artefacts of early versions have no list
        if not names or not all(whole_files.is_as_listed(storage.join(uri, name)) for name in names):
            return
        self.begin()  # what a stopped call left there is no part of it
        with storage.local_copy(uri) as folder:
            storage.upload_tree(folder, self.workshop)
        self.current()  # puts it in place; half a copy is not whole by its list

    def _publish(self) -> None:
        trees.put_in_place(self.workshop, self.uri)
        for other in trees.beside(self.uri, _WORKSHOP):
            storage.remove_tree(other)

    def _go_on_publishing(self) -> ArtifactMeta | None:
        """Put in place what was complete when the call that made it was cut off, and return its meta."""
        made = readable_meta(self.workshop)
        if made is None or made.fingerprint != self.fingerprint or _faults(self.workshop, made):
            return None
        self._publish()
        return made

    def differs(self) -> str:
        """Say why what lies in its folder does not serve: what is damaged, or which settings and inputs are others now.

        Returns:
            At most three reasons, settings with old and new values; empty where nothing is there.
        """
        meta = _meta_or_fault(self.uri)
        if not isinstance(meta, ArtifactMeta):
            return f"its {META_NAME} {meta}" if meta else ""
        reasons = [*self._changes(meta), *(f"its {name} {fault}" for name, fault in _faults(self.uri, meta).items())]
        more = f" and {len(reasons) - _REASONS_SHOWN} more" if len(reasons) > _REASONS_SHOWN else ""
        return ", ".join(reasons[:_REASONS_SHOWN]) + more

    def took_s(self) -> float:
        """Return the seconds that making what lies in its folder took, as far as known."""
        meta = readable_meta(self.uri)
        return meta.took_s if meta is not None else 0.0

    def _changes(self, meta: ArtifactMeta) -> list[str]:
        old, new = dotted({"": meta.settings}), dotted({"": plain(self.settings)})
        return [
            *(
                f"{name.lstrip('.') or 'settings'} {_short(old, name)} -> {_short(new, name)}"
                for name in dict.fromkeys([*old, *new])
                if old.get(name) != new.get(name) or (name in old) != (name in new)
            ),
            *(
                f"another {name}"
                for name in dict.fromkeys([*meta.inputs, *self.inputs])
                if meta.inputs.get(name) != self.inputs.get(name)
            ),
        ]


def workshop_of(uri: str, fingerprint: str) -> str:
    """Return the folder, beside an artefact's, in which one of a fingerprint is made."""
    return f"{uri.rstrip('/')}{_WORKSHOP}{fingerprint}"


def _meta_or_fault(uri: str) -> ArtifactMeta | str | None:
    """Return the meta in a folder, what is wrong with it, or None where there is none."""
    try:
        return read_meta(uri)
    except ArtifactError as error:
        return f"is broken ({error.__cause__ or error})"


def readable_meta(uri: str) -> ArtifactMeta | None:
    """Return the meta of the artefact in a folder, or None where there is none that can be read."""
    meta = _meta_or_fault(uri)
    return meta if isinstance(meta, ArtifactMeta) else None


def _faults(uri: str, meta: ArtifactMeta) -> dict[str, str]:
    # Older versions kept no list, and then nothing can be said.
    return whole_files.faults_of(uri, meta.content) if meta.content else {}


def read_meta(uri: str) -> ArtifactMeta | None:
    """Return the meta of the artefact in a folder, or None where none is complete.

    Raises:
        ArtifactError: when ``meta.json`` is there but broken.
    """
    path = storage.join(uri, META_NAME)
    if not storage.exists(path):
        return None
    try:
        meta = ArtifactMeta(**json.loads(storage.read_bytes(path)))
        if meta.seal and meta.seal != meta.sealed():
            raise ValueError("its values are not those that were written")
        return meta
    except (ValueError, TypeError, RecursionError) as error:
        raise ArtifactError(f"{path} is broken ({error}); the command that made {uri} makes it again") from error


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
    if faults := _faults(uri, meta):
        name, fault = next(iter(faults.items()))
        raise ArtifactError(f"the {kind} at {uri} is damaged: its {name} {fault}; `qaclims {verb}` makes it again")
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

"""Files by path or fsspec URI: the one place that opens, lists, writes and publishes.

Every stage reads and writes through these functions, so a local folder and ``s3://bucket/run`` are the same to
it. A file appears under its final name only when it is whole. Symbolic links count as what they point to, as DVC,
git-annex and ``ln -s`` leave them; one that leads nowhere is listed as a file, and opening it says so.
"""

import contextlib
import glob
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import fsspec
from botocore.exceptions import BotoCoreError
from fsspec.core import url_to_fs

from qaclims_ray.data import links, written_files
from qaclims_ray.data.partial_files import partial_path
from qaclims_ray.errors import DataError, ResourceError

if TYPE_CHECKING:
    import pyarrow.fs


def is_remote(uri: str) -> bool:
    """Whether ``uri`` names something outside the local file system."""
    return "://" in uri and not uri.startswith(("file://", "local://"))


def absolute(uri: str) -> str:
    """Return a URI that means the same in every process: local paths become absolute."""
    if is_remote(uri):
        return uri
    return str(Path(uri.removeprefix("file://").removeprefix("local://")).expanduser().absolute())


def join(uri: str, *parts: str) -> str:
    """Append path parts to a path or URI."""
    base = uri if uri.endswith("://") else uri.rstrip("/") + "/"
    return base + "/".join(part.strip("/") for part in parts) if parts else uri


def resolve(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Return the fsspec file system and the path in it.

    Raises:
        ResourceError: when the protocol is unknown or its client library is not installed.
    """
    if not is_remote(uri):
        # A local path is no URL: a name may hold "::", which chains URLs.
        return fsspec.filesystem("file"), absolute(uri)
    try:
        return url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise ResourceError(
            f"cannot open {uri}: {error}. Local paths, s3:// and gs:// (extra: gcs) are known"
        ) from None


def arrow_filesystem(uri: str) -> "tuple[pyarrow.fs.FileSystem, str]":
    """Return the same place as `resolve`, as a pyarrow file system (for Parquet, Ray Data and Ray Train)."""
    import pyarrow.fs

    filesystem, path = resolve(uri)
    if not is_remote(uri):
        return pyarrow.fs.LocalFileSystem(), path
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(filesystem)), path


@contextlib.contextmanager
def reaching(uri: str) -> Iterator[None]:
    """Say what to do when a store itself refuses or does not answer."""
    try:
        yield
    except (BotoCoreError, PermissionError, ConnectionError, TimeoutError) as error:
        raise ResourceError(
            f"{uri} cannot be reached: {error}. Check the permissions, and for a remote store its credentials, "
            "region and endpoint (AWS_ACCESS_KEY_ID, AWS_PROFILE, AWS_ENDPOINT_URL)"
        ) from None


def exists(uri: str) -> bool:
    """Whether a file or folder is there.

    Raises:
        DataError: when it is a link that leads nowhere: it is neither there nor absent.
        ResourceError: when the store refuses or does not answer.
    """
    filesystem, path = resolve(uri)
    # fsspec remembers listings, and another process may have written since.
    filesystem.invalidate_cache()
    with reaching(uri):
        if filesystem.exists(path):
            return True
    _refuse_lost_link(uri)
    return False


def is_folder(uri: str) -> bool:
    """Whether a folder, or a link to one, is there."""
    filesystem, path = resolve(uri)
    filesystem.invalidate_cache()
    with reaching(uri):
        return bool(filesystem.isdir(path))


def _refuse_lost_link(uri: str) -> None:
    if not is_remote(uri):
        links.refuse_lost_link(resolve(uri)[1])


def size(uri: str) -> int:
    """Return the bytes of a file.

    Raises:
        DataError: when it is not there.
        ResourceError: when the store refuses or does not answer.
    """
    filesystem, path = resolve(uri)
    filesystem.invalidate_cache()
    with reaching(uri):
        try:
            return int(filesystem.size(path))  # type: ignore[arg-type]
        except FileNotFoundError:
            _refuse_lost_link(uri)
            raise DataError(f"there is no file {uri}") from None
        except OSError:
            _refuse_lost_link(uri)  # a link that leads back to itself
            raise


def list_folders(uri: str) -> list[str]:
    """Return the URIs of the folders directly inside a folder, and of links to folders, sorted.

    An absent folder holds none.

    Raises:
        DataError: when the folder is a link that leads nowhere.
        ResourceError: when the store refuses or does not answer.
    """
    return _list(uri, "directory")


def list_files(uri: str, suffix: str = "") -> list[str]:
    """Return the URIs of the files directly inside a folder, and of links to files, sorted; an absent folder is empty.

    Args:
        uri: folder.
        suffix: ending of the names, in any case.

    Raises:
        DataError: when the folder is a link that leads nowhere.
        ResourceError: when the store refuses or does not answer.
    """
    return [found for found in _list(uri, "file") if found.lower().endswith(suffix.lower())]


def _list(uri: str, kind: str) -> list[str]:
    filesystem, path = resolve(uri)
    filesystem.invalidate_cache()
    try:
        with reaching(uri):
            entries = filesystem.ls(path, detail=True)
            # A file lists itself, and S3 lists a folder's own marker.
            entries = [entry for entry in entries if entry["name"].strip("/") != path.strip("/")]
            kinds = [links.kind_of(filesystem, entry) for entry in entries]
    except (FileNotFoundError, NotADirectoryError):
        _refuse_lost_link(uri)
        return []
    except OSError as error:
        _refuse_lost_link(uri)
        raise DataError(f"{uri} cannot be listed: {error}") from None
    names = [
        entry["name"].rstrip("/").rsplit("/", 1)[-1] for entry, own in zip(entries, kinds, strict=True) if own == kind
    ]
    return [join(uri, name) for name in sorted(names)]


def listing_fingerprint(uri: str, *, home: str = "") -> str:
    """Return a hash over names, sizes and times of all files below a folder: it changes when any of them does.

    Links are followed, to files and to folders. A folder that is met again, such as one that holds a link to itself,
    counts once. Files inside `home`, a folder that may be moved, count by their place in it.

    Raises:
        DataError: when the folder is not there, or is a link that leads nowhere.
    """
    filesystem, path = resolve(uri)
    filesystem.invalidate_cache()
    found = links.local_marks(path) if not is_remote(uri) else _remote_marks(filesystem, path)
    if not found:
        _refuse_lost_link(uri)
        raise DataError(f"there is no file below {uri}; give the folder of the data set")
    digest = hashlib.sha256()
    start = f"{resolve(home)[1].rstrip('/')}/" if home else ""
    for name, mark in sorted(found.items()):
        name = name.removeprefix(start)
        digest.update(f"{name} {mark}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _remote_marks(filesystem: fsspec.AbstractFileSystem, path: str) -> dict[str, str]:
    found: Any = filesystem.find(path, detail=True) if filesystem.exists(path) else {}
    for name, info in list(found.items()):
        if info.get("type") not in ("file", "directory") and links.kind_of(filesystem, info) == "directory":
            inside: Any = filesystem.find(f"{name}/", detail=True)
            found |= inside
    # Each file system has its own mark of a change.
    times = ("mtime", "ETag", "LastModified", "updated")
    return {
        name: f"{info.get('size')} {next((info[time] for time in times if info.get(time)), None)}"
        for name, info in found.items()
    }


@contextlib.contextmanager
def open_input(uri: str) -> Iterator[BinaryIO]:
    """Open a file for reading bytes.

    Raises:
        DataError: when it is not there or may not be read.
        ResourceError: when the store does not answer.
    """
    filesystem, path = resolve(uri)
    with reaching(uri):
        try:
            handle: Any = filesystem.open(path, "rb")
        except FileNotFoundError:
            _refuse_lost_link(uri)
            raise DataError(f"there is no file {uri}") from None
        except IsADirectoryError:
            raise DataError(f"{uri} cannot be read: it is a folder, where a file belongs; move it away") from None
        except (PermissionError, NotADirectoryError) as error:
            raise DataError(f"{uri} cannot be read: {error}") from None
        except OSError:
            _refuse_lost_link(uri)  # a link that leads back to itself
            raise
        with handle:
            yield handle


def read_bytes(uri: str) -> bytes:
    """Return a file's bytes.

    Raises:
        DataError: when it is not there or may not be read.
    """
    with open_input(uri) as handle:
        return handle.read()


def sha256(uri: str) -> str:
    """Return the SHA-256 hash of a file, in hex digits.

    Raises:
        DataError: when it is not there or may not be read.
    """
    digest = hashlib.sha256()
    with open_input(uri) as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def write_bytes(uri: str, content: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    Raises:
        ResourceError: when the place cannot be written or is full.
    """
    with publishing(uri) as local_path:
        Path(local_path).write_bytes(content)


@contextlib.contextmanager
def publishing(uri: str) -> Iterator[str]:
    """Yield a local path to write; on leaving without an error the file is published under its final name.

    Raises:
        ResourceError: when the place cannot be written or is full.
    """
    filesystem, path = resolve(uri)
    try:
        if is_remote(uri):
            with tempfile.TemporaryDirectory() as folder:
                local_path = os.path.join(folder, "file")
                yield local_path
                with reaching(uri):
                    # A store shows an object when all of it has arrived, and not before.
                    filesystem.put_file(local_path, path)
                filesystem.invalidate_cache()
                written_files.remember([uri])
        else:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            # In the same folder, because a file can be renamed in one step within a file system only.
            partial = partial_path(path)
            try:
                yield partial
                os.replace(partial, path)
            finally:
                if os.path.exists(partial):
                    os.remove(partial)
    except OSError as error:
        raise ResourceError(f"{uri} cannot be written: {error}. Check the permissions and the free space") from error


def remove_tree(uri: str) -> None:
    """Remove a folder and all in it, or a file; an absent one is fine."""
    filesystem, path = resolve(uri)
    if is_remote(uri):
        written_files.forget(uri)
    if not filesystem.exists(path):
        return
    if not is_remote(uri) or not glob.has_magic(path):
        try:
            filesystem.rm(path, recursive=True)
            return
        except FileNotFoundError:  # a bucket's listing of some seconds ago names what is gone
            if not is_remote(uri):
                raise
    # Where a name has brackets or stars, rm() takes it for a pattern.
    found: Any = filesystem.find(path, withdirs=True, detail=True)
    for name in (name for name, entry in found.items() if entry["type"] != "directory"):
        with contextlib.suppress(FileNotFoundError):
            filesystem.rm_file(name)
    for name in sorted({path, *found}, reverse=True):
        with contextlib.suppress(OSError):  # most stores know no folders
            filesystem.rmdir(name)


def check_writable(uri: str, *, min_free_mib: int = 64) -> None:
    """Fail early when a folder cannot be written.

    Args:
        uri: folder; made if it is not there.
        min_free_mib: space that must be free on a local disk, in MiB.

    Raises:
        ResourceError: when it cannot be written or too little space is free.
    """
    probe = join(uri, f".write-check-{uuid.uuid4().hex[:8]}")
    write_bytes(probe, b"ok")
    filesystem, path = resolve(probe)
    filesystem.rm(path)
    if not is_remote(uri):
        free_mib = shutil.disk_usage(resolve(uri)[1]).free >> 20
        if free_mib < min_free_mib:
            raise ResourceError(f"{uri} has {free_mib} MiB free, the run needs at least {min_free_mib} MiB")


@contextlib.contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Yield a local path of a file or folder, downloading a remote one for the time of the context."""
    filesystem, path = resolve(uri)
    if not exists(uri):
        raise DataError(f"there is nothing at {uri}")
    if not is_remote(uri):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, path.rstrip("/").rsplit("/", 1)[-1])
        # Name by name: in a path that is to be expanded, brackets and stars are a pattern.
        names: list[str] = filesystem.find(path)  # pyrefly: ignore[bad-assignment]
        copies = [target + name[len(path.rstrip("/")) :] for name in names]
        for copy in copies:
            os.makedirs(os.path.dirname(copy), exist_ok=True)
        filesystem.get(names, copies)
        yield target


def upload_tree(local_dir: str, uri: str) -> None:
    """Copy a local folder to a path or URI, file by file.

    Raises:
        ResourceError: when the place cannot be written.
    """
    for local_path in sorted(Path(local_dir).rglob("*")):
        if local_path.is_file():
            with publishing(join(uri, str(local_path.relative_to(local_dir)))) as target:
                shutil.copyfile(local_path, target)

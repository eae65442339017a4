"""Unpacking archives of others: into one folder, nothing outside it, and whole under its name or not at all."""

import os
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from qaclims_ray.errors import DataError

_ERRORS = (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, RuntimeError)


def unpack(
    archive: Path, folder: Path, makes: str, told: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """Unpack a tar or zip archive; what it makes appears when all of it is there.

    Args:
        archive: tar, compressed or not, or zip.
        folder: where to.
        makes: the folder inside the archive that is wanted, e.g. VOCdevkit/VOC2012; it must not be there yet.
        told: called with the members done and their number.

    Returns:
        The folder that was made.

    Raises:
        DataError: when it is no archive, is damaged, holds links or paths that lead out of it, or not what it should.
    """
    target = folder / makes
    staging = folder / f".{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unzip(archive, staging, told)
        else:
            _untar(archive, staging, told)
        made = staging / makes
        if not made.is_dir():
            found = ", ".join(sorted(path.name for path in staging.iterdir())[:8]) or "nothing"
            raise DataError(f"{archive} holds {found}, expected {makes}. Fetch it again")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, target)
    except _ERRORS as error:
        raise DataError(f"{archive} cannot be unpacked: {error}. Remove it and fetch it again") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _unzip(archive: Path, folder: Path, told: Callable[[int, int], None]) -> None:
    with zipfile.ZipFile(archive) as content:
        members = [one for one in content.infolist() if not one.filename.startswith("__MACOSX/")]
        for one in members:
            _check_place(archive, one.filename)
            if stat.S_ISLNK(one.external_attr >> 16):
                raise DataError(f"{archive} holds a link, {one.filename}; such an archive is not unpacked")
        for done, one in enumerate(members, start=1):
            content.extract(one, folder)
            told(done, len(members))


def _untar(archive: Path, folder: Path, told: Callable[[int, int], None]) -> None:
    with tarfile.open(archive) as content:
        members = content.getmembers()
        for one in members:
            _check_place(archive, one.name)
            if not (one.isfile() or one.isdir()):
                raise DataError(f"{archive} holds a link or device, {one.name}; such an archive is not unpacked")
        for done, one in enumerate(members, start=1):
            content.extract(one, folder, filter="data")
            told(done, len(members))


def _check_place(archive: Path, name: str) -> None:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts and ":" in path.parts[0]):
        raise DataError(f"{archive} holds {name!r}, which leads out of the folder; such an archive is not unpacked")

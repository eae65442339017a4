"""Which files of a data set's folders are pictures, and which are passed over.

What lies there and is not read is told in a note, never left out silently.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from qaclims_ray.data import storage
from qaclims_ray.data.image_ids import is_image_name
from qaclims_ray.errors import DataError

_UNREAD = (
    ".heic", ".heif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf", ".psd", ".svg", ".dcm",
    ".nii",
)  # fmt: skip
"""Endings of pictures that are not read."""


def file_name(uri: str) -> str:
    """Return the last part of a path or URI."""
    return uri.rstrip("/").rsplit("/", 1)[-1]


def visible_files(folder: str) -> list[str]:
    """Return the files directly inside a folder, without hidden ones such as ``.DS_Store`` and ``._a.jpg``.

    Raises:
        DataError: when a name is no text, as old archives leave them: no table can hold it.
    """
    files = [uri for uri in storage.list_files(folder) if not file_name(uri).startswith(".")]
    if broken := [uri for uri in files if not _is_text(uri)]:
        raise DataError(
            f"{folder} has {len(broken)} files whose names are not UTF-8 (the first: {file_name(broken[0])!a}); "
            "rename them, for example by convmv"
        )
    return files


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def pictures(folder: str) -> list[str]:
    """Return the images directly inside a folder, sorted."""
    return [uri for uri in visible_files(folder) if is_image_name(uri)]


def unread_pictures(folder: str) -> list[str]:
    """Return the files directly inside a folder that are pictures of a sort that is not read, such as HEIC."""
    return [uri for uri in visible_files(folder) if uri.lower().endswith(_UNREAD)]


def unread_note(folder: str) -> list[str]:
    """Return a note of the pictures in a folder that are not read, or none."""
    if not (unread := unread_pictures(folder)):
        return []
    return [f"{len(unread)} pictures in {folder} are not read ({endings(unread)}): convert them to JPEG or PNG"]


def endings(uris: Iterable[str]) -> str:
    """Return the endings of some files with their counts, for messages: ``.heic 3, .txt 1``."""
    counts = Counter(ending_of(uri).lower() or "without ending" for uri in uris)
    return ", ".join(f"{name} {count}" for name, count in counts.most_common(5))


def contents(folder: str) -> str:
    """Return what lies directly in a folder, for messages: ``files .txt 3 and folders train, val``."""
    files, folders = visible_files(folder), storage.list_folders(folder)
    parts = [f"files {endings(files)}"] if files else []
    parts += [f"folders {', '.join(map(file_name, folders[:8]))}"] if folders else []
    return " and ".join(parts) or "nothing"


def ending_of(uri: str) -> str:
    """Return a file's ending with its dot, or nothing."""
    stem, dot, ending = file_name(uri).rpartition(".")
    return f".{ending}" if dot and stem else ""


def find_folder(root: str, names: Sequence[str]) -> str | None:
    """Return the first folder of some names that is there; ``Masks`` serves where ``masks`` is not.

    Raises:
        DataError: when one is a link that leads nowhere.
    """
    for name in names:
        if storage.exists(uri := storage.join(root, name)):
            return uri
    there = {file_name(uri).lower(): uri for uri in storage.list_folders(root)}
    return next((there[name.lower()] for name in names if name.lower() in there), None)

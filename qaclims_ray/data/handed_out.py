"""Masks that were handed out to be corrected, remembered by hashes: what comes back as it went out is no correction.

`qaclims export-masks` writes one list beside the files and one into the run's folder, since tools give back their files
alone. Hashes are of pixels, so it does not matter in which form a mask comes back.
"""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from pydantic import TypeAdapter

from qaclims_ray.data import storage
from qaclims_ray.data.image_names import ImageNames
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.errors import DataError, ResourceError

HANDED_OUT_NAME = "handed_out.json"
"""The list, in the folder of what was exported."""
_UP = 2
"""Folders above the given one that are looked into: people name the folder of the pictures or the text files alone."""


@dataclass(frozen=True)
class HandedOut:
    """What one export wrote."""

    run: str
    """The run's folder."""
    what: str
    """Whose masks, in words."""
    form: str
    """Of the files."""
    drafts: Mapping[str, Sequence[str]]
    """Image's name -> hashes of its label map, and of what is read back where the form holds it within one pixel."""


def write_handed_out(listed: HandedOut, out: str, memory: str) -> bool:
    """Remember what was exported, beside the files and in the run.

    Args:
        listed: what was exported.
        out: folder of the exported files.
        memory: folder of the run for such lists.

    Returns:
        Whether the run could be written to; it may belong to somebody else.

    Raises:
        ResourceError: when `out` cannot be written.
    """
    content = json.dumps(asdict(listed), ensure_ascii=False, indent=1).encode()
    storage.write_bytes(storage.join(out, HANDED_OUT_NAME), content)
    # A name of its own for every content: two exports at once do not write over each other.
    try:
        storage.write_bytes(storage.join(memory, f"{hashlib.sha256(content).hexdigest()[:16]}.json"), content)
    except ResourceError:
        return False
    return True


def find_handed_out(place: str, memory: str) -> list[str]:
    """Return the lists that may be about masks that came back.

    Args:
        place: folder or file of the masks.
        memory: folder of the run for such lists.
    """
    place = storage.absolute(place).rstrip("/")
    folders = [place] if storage.is_folder(place) else []
    for _ in range(_UP):
        place = place.rpartition("/")[0]
        folders += [place] if place and not place.rstrip("/").endswith(":") else []
    beside = [uri for folder in folders if storage.exists(uri := storage.join(folder, HANDED_OUT_NAME))]
    return [*beside, *storage.list_files(memory, ".json")]


def drafts_by_image(lists: Iterable[str], places: Mapping[str, str]) -> dict[str, set[str]]:
    """Return the hashes of all masks that were handed out, by image.

    Args:
        lists: see `find_handed_out`.
        places: image id -> path or URI of the image.

    Raises:
        DataError: when a list cannot be read.
    """
    names = ImageNames(places)
    drafts: dict[str, set[str]] = defaultdict(set)
    remedy = "It says which masks were handed out; remove it, and what nobody corrected counts as corrected"
    for uri in lists:
        listed = read_json_file(uri, TypeAdapter(HandedOut).validate_python, remedy=remedy, error=DataError)
        for image_id, own in names.found(listed.drafts).items():
            drafts[image_id].update(*(listed.drafts[name] for name in own))
    return dict(drafts)

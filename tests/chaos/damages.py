"""Ways in which a file that lies on a disk goes wrong between two runs, and which kind of file of a run it is."""

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path


def _cut(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(1, max(2, len(content)))])


def _emptied(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _zeroed(path: Path, rng: random.Random) -> None:
    """As a disk leaves a file whose size it had noted before its content when the power went."""
    path.write_bytes(bytes(path.stat().st_size))


def _flipped(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _missing(path: Path, rng: random.Random) -> None:
    path.unlink()


def _folder_instead(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _without_folder(path: Path, rng: random.Random) -> None:
    shutil.rmtree(path.parent)


WAYS: dict[str, Callable[[Path, random.Random], None]] = {
    "cut short": _cut,
    "emptied": _emptied,
    "filled with zeros": _zeroed,
    "one bit flipped": _flipped,
    "missing": _missing,
    "a folder in its place": _folder_instead,
    "missing with its folder": _without_folder,
}
"""How -> what does it to a file; never to the run's own folder."""

_VARIABLE = (
    (r"mini_\d+", "IMAGE"),
    (r"part-\d+", "part-N"),
    (r"\b(qa_clims|semples)\b", "SYSTEM"),
    (r"(match|prompts|refine)-[0-9a-f]{16}", r"\1"),
    (r"\.making-[0-9a-f]{16}", ".making"),
    (r"training_runs/[a-z_]+-[0-9a-f]+", "training_runs/TRAINING"),
)


def kind_of(name: str) -> str:
    """Return the kind of a file by its place below a run's folder: images, parts, systems and hashes do not count."""
    for pattern, instead in _VARIABLE:
        name = re.sub(pattern, instead, name)
    return name


def is_unused(name: str) -> bool:
    """Whether a file is one of the drawn pictures that a run of twelve images a split does not use."""
    found = re.search(r"/data/.*mini_\d0*(\d+)\.png$", name)
    return found is not None and int(found[1]) >= 12


READERS = (
    (r"data/", "manifest"),
    (r"corpus/", "text_banks/qa_clims"),
    (r"classifier/network", "affinity/qa_clims"),
    (r"(text_banks|classifier)/", "networks/qa_clims"),
    (r"networks/(\w+)/prompts/", "report/report.json"),
    (r"networks/(\w+)/", r"cams/\1"),
    (r"phases/match-", "phases/refine-*"),
    (r"phases/prompts-", "phases/refine-*"),
    (r"phases/refine-", "networks/semples"),
    (r"cams/(\w+)/", r"evaluations/\1"),
    (r"thresholds/(\w+)/", r"evaluations/\1"),
    (r"seed_labels/(\w+)/", r"affinity/\1"),
    (r"affinity/(\w+)/", r"masks/\1"),
    (r"masks/(\w+)/(mini_\d+\.png|index\.parquet)", r"segmentation/\1"),
    (r"segmentation/(\w+)/", r"predictions/\1"),
    (r"predictions/\w+/mini_", "report/gallery"),
    (r"(evaluations|masks|predictions|trust)/", "report/report.json"),
    (r"report/gallery/highlights", "report/report.json"),
)
"""Files -> what is made from them: with that gone, the next run reads them."""


def reader_of(name: str) -> str:
    """Return what a run makes from a file, as a pattern below its folder; empty where nothing is made from it."""
    for pattern, reader in READERS:
        if found := re.match(pattern, name):
            return found.expand(reader)
    return ""

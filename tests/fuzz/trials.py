"""One trial: a good input, of which a file is changed, and what its reader makes of it."""

import copy
import json
import pickle
import random
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from qaclims_ray.commands.main import MISTAKE
from qaclims_ray.errors import QaclimsError
from tests.fuzz.changes import changed
from tests.fuzz.readers import READERS, Reader
from tests.time_limit import within

MOST_SECONDS = 20
"""Nothing that is this small takes so long, however busy the machine."""

Outcome = Literal["read", "refused", "fault"]


@dataclass(frozen=True)
class Trial:
    """How one input ended."""

    reader: str
    """Name in `READERS`."""
    seed: int
    """Decides the change."""
    outcome: Outcome
    """read: a result; refused: one clear error; fault: anything else."""
    told: str
    """The error's text, or what is wrong."""


class Trials:
    """Tries changed inputs of one reader; the good input is written once."""

    def __init__(self, name: str, folder: Path) -> None:
        """Write the good input and read it.

        Args:
            name: in `READERS`.
            folder: where all is done; it need not exist.
        """
        self.name, self.reader, self.folder = name, READERS[name], folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.good = folder / "good"
        self.good.mkdir()
        self.reader.write(self.good)
        self.files = sorted(path.relative_to(self.good) for path in self.good.glob(self.reader.changes))
        self.files = [path for path in self.files if (self.good / path).is_file()]
        assert self.files, f"{name}: no file to change"
        self.expected = _comparable(_read_in(self.good, self.reader, self.folder / "place"))

    def run(self, seed: int) -> Trial:
        """Change one file and read."""
        rng = random.Random(f"{self.name} {seed}")
        place = self.folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.good, place)
        file = place / rng.choice(self.files)
        others = [(self.good / path).read_bytes() for path in self.files]
        content = changed(file.read_bytes(), rng, others)
        is_changed = content != file.read_bytes()
        file.write_bytes(content)
        try:
            with within(MOST_SECONDS), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = self.reader.read(place)
        except QaclimsError as error:
            return Trial(self.name, seed, *_judged(str(error)))
        except SystemExit as ended:  # as a command ends
            outcomes: dict[Any, Outcome] = {MISTAKE: "refused", 0: "read", None: "read"}
            return Trial(self.name, seed, outcomes.get(ended.code, "fault"), f"exit code {ended.code}")
        except BaseException as error:  # whatever it is, it is not an error that a user can read
            if isinstance(error, KeyboardInterrupt):
                raise
            return Trial(self.name, seed, "fault", f"{file.name}: {type(error).__name__}: {str(error)[:300]}")
        if self.reader.is_ours and is_changed and _comparable(found) != self.expected:
            return Trial(self.name, seed, "fault", f"{file.name}: read as something else than was written")
        return Trial(self.name, seed, "read", "")


def _read_in(good: Path, reader: Reader, place: Path) -> Any:
    shutil.copytree(good, place)
    return copy.deepcopy(reader.read(place))


def _comparable(value: Any) -> bytes:
    try:
        return json.dumps(value, sort_keys=True, default=repr).encode()
    except (TypeError, ValueError):
        return pickle.dumps(value)


def _judged(text: str) -> tuple[Outcome, str]:
    if not text.strip() or "Traceback" in text:
        return "fault", f"an error that says nothing: {text!r}"
    return "refused", text


def all_trials(names: list[str], number: int, *, first_seed: int = 0) -> Iterator[Trial]:
    """Yield trials of some readers, each with as many seeds.

    Args:
        names: of `READERS`.
        number: for each.
        first_seed: the seeds count from it.
    """
    with tempfile.TemporaryDirectory() as folder:
        for position, name in enumerate(names):
            trials = Trials(name, Path(folder, str(position)))
            for seed in range(first_seed, first_seed + number):
                yield trials.run(seed)

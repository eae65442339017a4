"""What is struck: small commands as a user's own processes, and the moments at which they are."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.cluster.small_run import SMALL, as_flags

MARK = "QACLIMS_CHAOS"
"""Environment variable by which every process of a struck command is found, also one that has lost its parent."""
_SMALL = {
    **SMALL,
    "systems": ["baseline"],
    "data.num_images": 12,
    "tracking.enabled": True,
}
# One after the other: which of two comes first decides nothing then.
_TRIALS = _SMALL | {"systems": ["qa_clims"], "ritc.optim.epochs": 8, "concurrent": 1}
_BEFORE_CAMS = ("data", "manifest", "classifier")
_BEFORE_TRIALS = (*_BEFORE_CAMS, "corpus")
_WITHOUT_SYSTEMS = {name: value for name, value in _TRIALS.items() if name != "systems"}


@dataclass(frozen=True)
class Work:
    """A command, and how its output folder shows that it is at work."""

    verb: str
    """Of ``qaclims VERB ... miniature``."""
    settings: Mapping[str, Any]
    """All settings but --out."""
    began: Callable[[Path], bool]
    """Whether something that counts is there, and not all."""
    before: tuple[str, ...] = ()
    """Words before the preset."""
    ready: tuple[str, ...] = ("data", "manifest")
    """Folders of an undisturbed run that lie there before a command is struck, since it is struck later: that saves
    their making, twice for each fault."""


def _some_shards(out: Path) -> bool:
    return any(out.glob("corpus.making-*/answers/part-*.parquet"))


def _has_checkpoint(out: Path) -> bool:
    return any(_checkpoints(out))


def _has_checkpoint_of_trial(out: Path) -> bool:
    """Whether a trial is in its training; the classifier's, which all share, comes before."""
    return any("ritc" in folder for folder in _checkpoints(out))


def _checkpoints(out: Path) -> Iterator[str]:
    # Not glob, which fails where a folder goes away that it is about to look into.
    for folder, _, files in os.walk(out):
        if "training_runs" in folder and "progress.json" in files:
            yield folder.rpartition("training_runs")[2]


def _has_cams(out: Path) -> bool:
    return (out / "cams" / "baseline" / "meta.json").is_file()


FIRST_PART = "corpus in shards"
WORKS: dict[str, Work] = {
    FIRST_PART: Work(
        "corpus", _SMALL | {"systems": ["qa_clims"], "corpus.images_per_shard": 2, "corpus.num_beams": 3}, _some_shards
    ),
    "training on one worker": Work(
        "train", _SMALL | {"classifier.optim.epochs": 16, "cluster.num_workers": 1}, _has_checkpoint
    ),
    "training on two workers": Work(
        "train", _SMALL | {"classifier.optim.epochs": 16, "cluster.num_workers": 2}, _has_checkpoint
    ),
    "training in the run's process": Work("train", _SMALL | {"classifier.optim.epochs": 30}, _has_checkpoint),
    "masks to the report": Work(
        "run",
        _SMALL | {"goal": "mask", "data.limit": 12, "masks.steps": ["crf"], "masks.crf.iterations": 40},
        _has_cams,
        ready=_BEFORE_CAMS,
    ),
    "search of two trials": Work(
        "tune",
        _TRIALS | {"trials": 2, "num_images": 4, "algorithm": "random", "scheduler": "none", "vary": ["ritc.omega"]},
        _has_checkpoint_of_trial,
    ),
    "table of two rows": Work(
        "ablate", _WITHOUT_SYSTEMS | {"seeds": [20]}, _has_checkpoint_of_trial, ("qa_clims_fat",)
    ),
}


@dataclass
class Command:
    """A command at work in a process group of its own, as a terminal starts one."""

    work: Work
    """What it does."""
    out: Path
    """Its output folder."""
    token: str
    """Value of `MARK` in its processes, a path: with an ending it is the file of its lines."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """More variables of its environment."""

    def line(self) -> list[str]:
        """Return its words, the verb first."""
        what = [self.work.verb, *self.work.before, "miniature"]
        return [*what, "--out", str(self.out), *as_flags(dict(self.work.settings))]

    def start(self) -> None:
        """Start it; its lines go into a file."""
        self.log = Path(f"{self.token}.log")  # not beside the output folder, whose disk may be full
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "qaclims_ray", *self.line()],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.environment, MARK: self.token},
                preexec_fn=_as_in_a_terminal,
            )

    def told(self) -> str:
        """Return all that it has written."""
        return self.log.read_text(errors="replace")

    def workers(self, words: str) -> list[psutil.Process]:
        """Return its processes whose command line or name fits a pattern."""
        return [one for one in processes_of(self.token) if re.search(words, line_of(one))]


def _as_in_a_terminal() -> None:
    os.setsid()
    # What a shell starts in the background ignores it, and so do its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def line_of(process: psutil.Process) -> str:
    """Return a process's name and command line, empty when it has ended in the meantime."""
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""


def processes_of(token: str) -> list[psutil.Process]:
    """Return the living processes that were started with a value of `MARK`, whoever their parents are now."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == token and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # it has just ended, or is another user's
            continue
    return found

"""How a fault ended, as one row of the table; and a file that keeps rows from call to call."""

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qaclims_ray.data.artifacts import source_hash

Ending = Literal["the same", "repaired", "repaired when read", "told", "made nothing of it", "not struck", "FAULT"]
"""What a fault led to.

the same: a command that was struck, and called again, left what an undisturbed one leaves. repaired: the same command
left what an undisturbed run leaves. repaired when read: it left the damage alone, since it read nothing of it; the
first one that did repaired it. told: one error that names the file. made nothing of it: nothing is made from this file,
and all others are right. not struck: the command had ended before (on a machine that is too busy Ray does not start in
time); it is no fault, and not counted. FAULT: anything else.
"""
FAULT = "FAULT"
NOT_STRUCK = "not struck"
VERSIONS = ("ray", "torch", "mlflow", "pyarrow")


@functools.cache
def here() -> str:
    """Return day, machine, versions and commit of what was tried, and the hash of the package's sources."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    git = shutil.which("git")
    found = subprocess.run([git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True) if git else None
    commit = f", commit {found.stdout.strip()}" if found and found.returncode == 0 else ""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    return f"{datetime.date.today()}, {machine}{commit}, sources {source_hash()}"


@dataclass(frozen=True)
class Outcome:
    """What a fault did."""

    what: str
    """What ran, or the kind of file."""
    fault: str
    """What was done to it."""
    moment: str
    """When."""
    seed: int
    """Makes the same fault again."""
    ending: Ending
    """How it ended."""
    told: str = ""
    """The error or what is wrong, in a line."""
    where: str = field(default_factory=here)
    """Day, machine and versions."""

    def __str__(self) -> str:
        return f"{self.what} | {self.fault} | {self.moment} | seed {self.seed} | {self.told}"


def keep(outcome: Outcome, records: Path) -> None:
    """Add a row to a file."""
    with records.open("a") as file:
        file.write(json.dumps(dataclasses.asdict(outcome)) + "\n")


def read_kept(records: Path) -> list[Outcome]:
    """Return all rows of a file; of a fault that was tried again, the last."""
    rows: list[dict[str, Any]] = [json.loads(line) for line in records.read_text().splitlines()]
    found = {(row["what"], row["fault"], row["moment"]): Outcome(**row) for row in rows}
    return list(found.values())

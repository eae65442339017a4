"""Run a command and say where its CPU seconds went, process by process.

    python benchmarks/processes.py [--timeline FILE.png] [--json FILE.json] -- COMMAND ...

For example ``python benchmarks/processes.py -- qaclims run miniature --out runs/demo``. CPU seconds are user and system
time; they mean the same on a busy machine, which seconds on the clock do not. Printed are a table of the processes by
what they were, the sums, the seconds until the command's first line, and how long it took. ``--timeline`` draws when
each process lived and how busy it was.

A process is found by a variable in its environment, so those that left the command's tree count too. They are looked
at five times a second; what one used after its last look, and processes that lived shorter than that, are missed.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

_MARK = "QACLIMS_BENCHMARK_RUN"
_EVERY_S = 0.2
_PIECES = 300
"""Most pieces of a process's bar."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Process:
    """One process of the command."""

    pid: int
    """Its number."""
    is_python: bool
    """Whether it runs Python."""
    titles: dict[str, float] = field(default_factory=dict)
    """What it called itself -> CPU seconds spent under that name."""
    seen: list[tuple[float, float]] = field(default_factory=list)
    """(seconds since the command's start, CPU seconds until then), one per look."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds at the last look."""
        return self.seen[-1][1] if self.seen else 0.0

    @property
    def title(self) -> str:
        """The name under which it did most."""
        return max(self.titles, key=lambda name: self.titles[name], default="?")


@dataclass
class Finding:
    """What was seen of a command."""

    code: int
    """Its exit code."""
    wall_s: float
    """Seconds from start to end."""
    first_line_s: float | None
    """Seconds until it printed its first line; None where it printed none."""
    processes: list[Process]
    """In the order in which they were first seen."""

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all processes."""
        return sum(process.cpu_s for process in self.processes)


def watch(command: Sequence[str], *, every_s: float = _EVERY_S) -> Finding:
    """Run a command to its end; hand on what it prints."""
    mark = uuid.uuid4().hex
    started = time.perf_counter()
    child = subprocess.Popen(command, env={**os.environ, _MARK: mark}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    first: list[float] = []
    reader = threading.Thread(target=_hand_on, args=(child, started, first), daemon=True)
    reader.start()
    known: dict[tuple[int, int], Process] = {}
    others: set[tuple[int, int]] = set()
    while child.poll() is None:
        _look(mark, known, others, time.perf_counter() - started)
        time.sleep(every_s)
    wall_s = time.perf_counter() - started
    reader.join(timeout=5)
    return Finding(child.returncode, wall_s, first[0] if first else None, list(known.values()))


def _hand_on(child: subprocess.Popen, started: float, first: list[float]) -> None:
    assert child.stdout is not None
    for line in child.stdout:
        if not first:
            first.append(time.perf_counter() - started)
        sys.stdout.buffer.write(line)
        sys.stdout.flush()


def _look(mark: str, known: dict[tuple[int, int], Process], others: set[tuple[int, int]], now_s: float) -> None:
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            key = (int(folder.name), int(fields[19]))  # pid and start: numbers are given out again
            if key in others:
                continue
            if key not in known:
                if f"{_MARK}={mark}".encode() not in (folder / "environ").read_bytes():
                    others.add(key)
                    continue
                known[key] = Process(key[0], is_python=False)
            words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:  # it has ended, or is another user's
            continue
        process, cpu_s = known[key], (int(fields[11]) + int(fields[12])) / _TICKS
        title = title_of(words) if words else process.title
        process.titles[title] = process.titles.get(title, 0.0) + cpu_s - process.cpu_s
        process.is_python = (
            process.is_python or Path(words.split(" ")[0]).name.startswith("python") or words.startswith("ray::")
        )
        process.seen.append((now_s, cpu_s))


def title_of(words: str) -> str:
    """Return a short name of a command line, the same for processes of one kind."""
    if words.startswith("ray::"):
        return re.sub(r"[ :]*(pid|ip)=.*", "", words.removeprefix("ray::")).split("(")[0].strip() or "ray worker"
    if found := re.search(
        r"(gcs_server|raylet|log_monitor|dashboard/agent|runtime_env/agent|dashboard/dashboard)", words
    ):
        return f"ray: {found[1]}"
    if "default_worker.py" in words:
        return "ray: idle worker"
    first, *rest = words.split(" ")
    return " ".join([Path(first).name, *(Path(word).name for word in rest[:2])])[:50]


def table(finding: Finding) -> str:
    """Return the table that is printed."""
    rows: dict[str, list[Process]] = defaultdict(list)
    for process in finding.processes:
        rows[process.title].append(process)
    lines = [f"{'CPU s':>8} {'processes':>9}  what"]
    for title, found in sorted(rows.items(), key=lambda row: -sum(p.cpu_s for p in row[1])):
        lines.append(f"{sum(p.cpu_s for p in found):8.1f} {len(found):9}  {title}")
    python = sum(process.is_python for process in finding.processes)
    first = "none" if finding.first_line_s is None else f"after {finding.first_line_s:.1f} s"
    lines.append(f"{finding.cpu_s:8.1f} {len(finding.processes):9}  all, {python} of them Python")
    lines.append(f"{finding.wall_s:.1f} s on the clock, first line {first}, exit code {finding.code}")
    return "\n".join(lines)


def draw(finding: Finding, path: str) -> None:
    """Draw when each process lived; the darker, the busier."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    shown = [process for process in finding.processes if process.cpu_s >= 0.3]
    figure, axes = plt.subplots(figsize=(12, 0.5 + 0.2 * len(shown)), layout="constrained")
    for row, process in enumerate(shown):
        every = max(1, round(len(process.seen) / _PIECES))
        looks = [*process.seen[:-1:every], process.seen[-1]]
        steps = list(itertools.pairwise(looks))
        busy = [min(1.0, (after - before) / max(end - start, 1e-6)) for (start, before), (end, after) in steps]
        axes.broken_barh(
            [(start, end - start) for (start, _), (end, _) in steps],
            (row - 0.4, 0.8),
            facecolors=[(0.1, 0.3, 0.6, 0.08 + 0.92 * share) for share in busy],
        )
    axes.set_yticks(range(len(shown)), [f"{process.title}  {process.cpu_s:.1f}" for process in shown], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, finding.wall_s)
    axes.set_xlabel("seconds; a full colour is one core; behind the names CPU seconds (those under 0.3 are left out)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, draw; end with the command's exit code."""
    parser = argparse.ArgumentParser(description="CPU seconds of a command, process by process")
    parser.add_argument("--timeline", help="PNG to draw")
    parser.add_argument("--json", help="file for all that was seen")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- COMMAND ...")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("no command given")
    finding = watch(command)
    print(table(finding))
    if options.timeline:
        draw(finding, options.timeline)
    if options.json:
        content: dict[str, Any] = {**asdict(finding), "cpu_s": finding.cpu_s}
        Path(options.json).write_text(json.dumps(content))
    return finding.code


if __name__ == "__main__":
    sys.exit(main())

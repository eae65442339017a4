"""A command is struck while it works; then the same command again, held against one that nothing happened to."""

import contextlib
import json
import random
import re
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil

from qaclims_ray.training.checkpoint import is_sound
from tests.chaos.buckets import STORES, bad_bucket, download
from tests.chaos.clock import JUMPS, can_jump, clock_environment
from tests.chaos.comparison import content_of, differences, faults_of_tracking, half_files
from tests.chaos.outcome import Ending, Outcome
from tests.chaos.strikes import STRIKES, small_disk
from tests.chaos.works import WORKS, Command, Work, processes_of
from tests.cluster.kills import MARK as CURVE_MARK
from tests.cluster.kills import mark_checkpoints, wait_for

RUN = "run"
FIRST_PART = "corpus in shards"
IN_BUCKET = "corpus in a bucket"
MOST_SECONDS = 900
"""No command this small takes so long, however busy the machine."""
ENDS_S = 60
"""Seconds within which nothing of an ended command lives any more."""
DISK_MIB = 48
"""The small disk that is filled: a run of this size takes some twenty."""
_ONE_LINE = re.compile(r"^qaclims \w+: (.*)$", re.MULTILINE)


class Struck:
    """Undisturbed commands, and those that something happens to."""

    def __init__(self, folder: Path) -> None:
        """Do nothing yet.

        Args:
            folder: where all is done; what undisturbed commands left there is used again.
        """
        self.folder = folder

    def plans(self, rng: random.Random) -> list[tuple[str, str]]:
        """Return work and strike of every fault once, each strike once before any comes again."""
        pairs = [(work, strike) for work in WORKS for strike in STRIKES if _is_possible(work, strike)]
        pairs += [(IN_BUCKET, store) for store in STORES]
        rng.shuffle(pairs)
        seen: dict[str, int] = {}
        ranked = []
        for position, (work, strike) in enumerate(pairs):
            seen[strike] = seen.get(strike, 0) + 1
            ranked.append((seen[strike], position, (work, strike)))
        return [pair for _, _, pair in sorted(ranked)]

    def undisturbed(self, work: str) -> Path:
        """Return the home of an undisturbed command, which is run when first asked for."""
        home = self.folder / work.replace(" ", "_").replace("'", "")
        if not (home / "ended").is_file():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            command = Command(WORKS[work], home / RUN, token=f"{home}")
            command.start()
            code = command.process.wait(MOST_SECONDS)
            assert code == 0, command.told()
            assert not faults_of_tracking(home / "mlflow.db") and not half_files(home / RUN)
            (home / "ended").touch()
        return home

    def fault(self, work: str, strike: str, seed: int) -> Outcome:
        """Strike a command at a random moment after it has begun, call it again, and judge what it left."""
        if strike in STORES:
            return self._bucket_fault(strike, seed)
        expected = content_of(self.undisturbed(work) / RUN)
        place = self.folder / f"struck-{seed}"
        delay_s = random.Random(f"{work} {strike} {seed}").uniform(0, 1.5)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            for log in (Path(f"{place}.log"), Path(f"{place}-again.log")):
                stack.callback(log.unlink, missing_ok=True)
            if strike == "a full disk":
                assert stack.enter_context(small_disk(place, DISK_MIB)), "a small disk cannot be mounted here"
            place.mkdir(parents=True, exist_ok=True)
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qc", dir="/tmp")))
            ending, told = self._judged(work, strike, place, delay_s, expected, temporary)
        return Outcome(work, strike, f"{delay_s:.1f} s after it began", seed, ending, told)

    def _bucket_fault(self, store: str, seed: int) -> Outcome:
        """Let a command work in a bucket that answers badly, and once more when it answers well."""
        place = self.folder / f"struck-{seed}"
        work = Work("corpus", {**WORKS[FIRST_PART].settings, "tracking.enabled": False}, lambda out: True)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, place, ignore_errors=True)
            bucket, environment, answer_well = stack.enter_context(bad_bucket(store, seed))
            ended, told = [], []
            for token in (f"{place}", f"{place}-again"):
                stack.callback(Path(f"{token}.log").unlink, missing_ok=True)
                command = Command(work, place / RUN, token, environment, f"{bucket}/{RUN}")
                command.start()
                ended.append(command.process.wait(MOST_SECONDS))
                told.append(command.told())
                answer_well()
            download(f"{bucket}/{RUN}", environment, place / RUN)
            return self._judged_bucket(store, seed, ended, told, place)

    def _judged_bucket(self, store: str, seed: int, ended: list[int], told: list[str], place: Path) -> Outcome:
        how = _judged_end(store, ended[0], told[0])
        found, kept = content_of(place / RUN), content_of(self.undisturbed(FIRST_PART) / RUN)
        faults = [
            *([f"exit code {ended[0]}: {_last(told[0])}"] if how is None else []),
            *([f"again: exit code {ended[1]}: {_last(told[1])}"] if ended[1] else []),
            *(f"other: {name}" for name in kept if name.startswith("corpus/") and found.get(name) != kept[name]),
            *(f"left behind: {name}" for name in half_files(place / RUN)),
        ]
        ending: Ending = "FAULT" if faults else "the same"
        return Outcome(IN_BUCKET, store, "from the start", seed, ending, "; ".join(faults[:4]) or how or "")

    def _judged(
        self, work: str, strike: str, place: Path, delay_s: float, expected: dict[str, str], temporary: Path
    ) -> tuple[Ending, str]:
        token = f"{place}"
        own = {"TMPDIR": str(temporary), **clock_environment(strike, temporary)}
        first = Command(WORKS[work], place / RUN, token, own)
        first.start()
        try:
            wait_for(lambda: first.work.began(first.out) or first.process.poll() is not None, MOST_SECONDS, "its begin")
            if first.process.poll() is not None:
                return "not struck", _last(first.told())
            time.sleep(delay_s)
            STRIKES[strike](first)
            code = first.process.wait(MOST_SECONDS)
        finally:
            left = _left(token)
        if left:
            return "FAULT", f"processes live after the command had ended: {left[:3]}"
        (place / "fill").unlink(missing_ok=True)
        told = _judged_end(strike, code, first.told())
        if told is None:
            return "FAULT", f"exit code {code}: {_last(first.told())}"
        marked = code != 0 and _mark(first.out)
        again = Command(WORKS[work], place / RUN, f"{token}-again", {"TMPDIR": str(temporary)})
        again.start()
        code = again.process.wait(MOST_SECONDS)
        left = _left(again.token)
        if code != 0 or left or "Traceback" in again.told():
            return "FAULT", f"the same command again: exit code {code}, {left[:3]}, {_last(again.told())}"
        if marked and not _is_marked(first.out):
            return "FAULT", "the training began again although a whole checkpoint was there"
        _unmark(first.out)
        found = [
            *(f"other than undisturbed: {name}" for name in differences(expected, place / RUN)),
            *(f"left behind: {name}" for name in half_files(place / RUN)),
            *(f"left behind: {path.name}" for path in temporary.glob("qaclims-*") if not _is_kept_log(path, told)),
            *faults_of_tracking(place / "mlflow.db"),
        ]
        return ("FAULT", "; ".join(found[:4])) if found else ("the same", told)


def _is_possible(work: str, strike: str) -> bool:
    has_workers = work != "training in the run's process"
    return (has_workers or not re.search("worker|Ray's", strike)) and (strike not in JUMPS or can_jump())


def _judged_end(strike: str, code: int, told: str) -> str | None:
    """Return how a struck command ended, in words; None where it may not end so."""
    if "Traceback" in told:
        return None
    lines = _ONE_LINE.findall(told)
    match code:
        case 0:
            return "it went on by itself"
        case 2 | 130 | 143 if len(lines) == 1:
            return " ".join(lines[0].split())[:160]
        case -9 if "kill -9 of the command" in strike:
            return "killed"
        case 1 if "Ray's" in strike:  # Ray's core ends the process before anything of ours has its turn
            return "ended by Ray"
        case _:
            return None


def _last(told: str) -> str:
    return " ".join(told.split())[-400:]


def _left(token: str) -> list[str]:
    """Wait for the end of a command's processes; return those that live on, after ending them."""
    deadline = time.monotonic() + ENDS_S
    while (alive := processes_of(token)) and time.monotonic() < deadline:
        time.sleep(0.5)
    names = []
    for process in alive:
        with contextlib.suppress(psutil.Error):
            names.append(f"{process.name()} {' '.join(process.cmdline())[:80]}")
            process.send_signal(signal.SIGKILL)
    return names


def _is_kept_log(path: Path, told: str) -> bool:
    return path.name in told or "logs are in" in told


def _mark(out: Path) -> bool:
    """Mark the checkpoints of a stopped training; return whether it has to go on from one of them."""
    runs = out / "training_runs"
    if not any(is_sound(str(note.parent)) for note in runs.rglob("training.json")):
        return False
    # Its worker may have lived for the moment that it took to end.
    if (out / "classifier" / "meta.json").is_file():
        return False
    mark_checkpoints(runs)
    return True


def _is_marked(out: Path) -> bool:
    return any(CURVE_MARK in json.loads(path.read_text()) for path in out.rglob("curves.json"))


def _unmark(out: Path) -> None:
    for path in out.rglob("curves.json"):
        curves = json.loads(path.read_text())
        if curves.pop(CURVE_MARK, None) is not None:
            path.write_text(json.dumps(curves))

"""A command is struck while it works; then the same command again, held against one that nothing happened to."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import psutil

from qaclims_ray.training.checkpoint import is_sound
from tests.chaos.clock import JUMPS, can_jump
from tests.chaos.comparison import content_of, differences, faults_of_tracking, half_files, points_of
from tests.chaos.outcome import Ending, Outcome
from tests.chaos.strikes import STRIKES, can_mount
from tests.chaos.surroundings import FULL_DISK, NODE_ENDS, SERVER_ENDS, SERVER_RETURNS, Surroundings, around
from tests.chaos.works import FIRST_PART, WORKS, Command, Work, processes_of
from tests.cluster.kills import MARK as CURVE_MARK
from tests.cluster.kills import mark_checkpoints, wait_for

RUN = "run"
SPREAD = (FIRST_PART, "training on two workers")
"""Works whose processes lie on several nodes."""
TRACKED = (FIRST_PART, "training in the run's process", "training on one worker")
"""Works of which nothing but config.json tells where MLflow's store is."""
MOST_SECONDS = 900
"""No command this small takes so long, however busy the machine."""
ENDS_S = 60
"""Seconds within which nothing of an ended command lives any more."""
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
        strikes = (*STRIKES, SERVER_ENDS, SERVER_RETURNS, NODE_ENDS)
        pairs = [(work, strike) for work in WORKS for strike in strikes if _is_possible(work, strike)]
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

    def _empty_store(self) -> Path:
        """Return a store of MLflow without runs: making one takes seconds, copying it none."""
        store, making = self.folder / "empty.db", self.folder / "making.db"
        if not store.is_file():
            making.unlink(missing_ok=True)
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            from mlflow import MlflowClient

            MlflowClient(f"sqlite:///{making}").search_experiments()
            making.rename(store)
        return store

    def fault(self, work: str, strike: str, seed: int) -> Outcome:
        """Strike a command at a random moment after it has begun, call it again, and judge what it left."""
        undisturbed = self.undisturbed(work)
        place = self.folder / f"struck-{seed}"
        delay_s = random.Random(f"{work} {strike} {seed}").uniform(0, 1.5)
        with contextlib.ExitStack() as stack:
            stack.callback(_remove, place)
            _remove(place)  # of a call that was stopped itself
            temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qc", dir="/tmp")))
            there = stack.enter_context(around(strike, place, temporary))
            _make_ready(WORKS[work], undisturbed, place, self._empty_store())
            work_there = replace(WORKS[work], settings={**WORKS[work].settings, **there.settings})
            first, again = (
                Command(work_there, place / RUN, token, {"TMPDIR": str(temporary), **there.environment, **more})
                for token, more in ((f"{place}", there.at_first), (f"{place}-again", {}))
            )
            ending, told = _judged(strike, there, first, again, delay_s, undisturbed)
        return Outcome(work, strike, f"{delay_s:.1f} s after it began", seed, ending, told)


def _remove(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    for log in (Path(f"{place}.log"), Path(f"{place}-again.log")):
        log.unlink(missing_ok=True)


def _make_ready(work: Work, undisturbed: Path, place: Path, store: Path) -> None:
    """Copy what of a run counts as made before, at the top of its folder or of one for each seed, and a store."""
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "mlflow.db").exists():
        shutil.copyfile(store, place / "mlflow.db")
    for name in work.ready:
        for folder in (*undisturbed.glob(f"{RUN}/{name}"), *undisturbed.glob(f"{RUN}/seed-*/{name}")):
            shutil.copytree(folder, place / folder.relative_to(undisturbed))


def _judged(
    strike: str, there: Surroundings, first: Command, again: Command, delay_s: float, undisturbed: Path
) -> tuple[Ending, str]:
    """Strike the first command, call it again, and judge what both left."""
    ended = _struck(first, there, delay_s)
    if isinstance(ended, str):
        return "not struck", ended
    code, left = ended
    if left:
        return "FAULT", f"of the command is left after its end: {left[:3]}"
    told = _judged_end(strike, code, first.told())
    if told is None:
        return "FAULT", f"exit code {code}: {_last(first.told())}"
    there.mend()
    marked = code != 0 and _mark(first.out)
    again.start()
    code = again.process.wait(MOST_SECONDS)
    left = _left(again.token) + there.left()
    if code != 0 or left or "Traceback" in again.told():
        return "FAULT", f"the same command again: exit code {code}, {left[:3]}, {_last(again.told())}"
    if marked and not _is_marked(first.out):
        return "FAULT", "the training began again although a whole checkpoint was there"
    _unmark(first.out)
    others = [name for name in differences(content_of(undisturbed / RUN), first.out) if name not in there.own_files]
    said = first.told() + again.told()
    found = [
        *(f"other than undisturbed: {name}" for name in others),
        *(f"left behind: {name}" for name in half_files(first.out)),
        *(f"left behind: {path.name}" for path in _temporary(first).glob("qaclims-*") if not _is_kept_log(path, said)),
        *faults_of_tracking(first.out.with_name("mlflow.db"), points_of(undisturbed / "mlflow.db")),
    ]
    return ("FAULT", "; ".join(found[:4])) if found else ("the same", told)


def _struck(command: Command, there: Surroundings, delay_s: float) -> tuple[int, list[str]] | str:
    """Start a command and strike it; return its exit code and what is left of it, or why it could not be struck."""
    command.start()
    try:
        ended = command.process.poll
        wait_for(lambda: command.work.began(command.out) or ended() is not None, MOST_SECONDS, "its begin")
        if ended() is not None:
            return _last(command.told())
        time.sleep(delay_s)
        there.strike(command)
        code = command.process.wait(MOST_SECONDS)
    finally:
        left = _left(command.token)
    return code, left + there.left()


def _temporary(command: Command) -> Path:
    return Path(command.environment["TMPDIR"])


def _is_possible(work: str, strike: str) -> bool:
    match strike:
        case _ if strike in JUMPS:
            return can_jump()
        case _ if strike == FULL_DISK:
            return can_mount()
        case _ if strike == NODE_ENDS:
            return work in SPREAD
        case _ if strike in (SERVER_ENDS, SERVER_RETURNS):
            return work in TRACKED
        case _:
            return work != "training in the run's process" or not re.search("worker|Ray's", strike)


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
        case 1 if "the same command tries them again" in told:  # some trials of a table were lost
            return " ".join(lines[-1].split())[:160]
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
    # Its worker may have lived for the moment that it took to end, or to bring all into the workshop.
    if (out / "classifier" / "meta.json").is_file() or any(out.glob("classifier.making-*/meta.json")):
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

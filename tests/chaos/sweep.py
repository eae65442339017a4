"""Damage between two calls: every kind of file that a run keeps, in every way; then the same command again."""

import contextlib
import random
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.stages import image_stage
from qaclims_ray.training.context import LocalContext
from tests.chaos.comparison import content_of, differences, faults_of_tracking, half_files
from tests.chaos.damages import WAYS, is_unused, kind_of, reader_of
from tests.chaos.lines import EVERY_KIND, Called, call
from tests.chaos.outcome import Ending, Outcome

RUN = "run"
"""The run's folder, beside MLflow's store."""
FINISHED = "finished"
_OF_REPORT = re.compile(r"report/|trust/|networks/\w+/prompts/|.*curves\.json$|predictions/.*png$|[^/]*$")
"""Files that the report and what it shows are made from, and the run's own records: ``run`` reads them. For all others
``segment`` does, which ends before the report."""


class Stopped(BaseException):
    """Ctrl-C, as it reaches a stage."""


def _at_the_end_of(kind: str) -> Callable[[], contextlib.AbstractContextManager[Any]]:
    """Return what stops a call when an artefact of a kind lies in its workshop, before it is declared whole."""

    def patched() -> contextlib.AbstractContextManager[Any]:
        original = Artifact.complete

        def complete(self: Artifact, *args: Any, **options: Any) -> Any:
            if self.kind == kind:
                raise Stopped
            return original(self, *args, **options)

        return mock.patch.object(Artifact, "complete", complete)

    return patched


def _before_parts_are_added() -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(image_stage, "_merged", side_effect=Stopped)


def _after_two_checkpoints() -> contextlib.AbstractContextManager[Any]:
    original, seen = LocalContext.report, []

    def report(self: LocalContext, *args: Any) -> None:
        original(self, *args)
        seen.append(args)
        if len(seen) == 2:
            raise Stopped

    return mock.patch.object(LocalContext, "report", report)


STOPS: dict[str, tuple[str, Callable[[], contextlib.AbstractContextManager[Any]]]] = {
    "stopped in the corpus": ("corpus", _at_the_end_of("corpus")),
    "stopped in a training": ("classifier", _after_two_checkpoints),
    "stopped in CAMs": ("cams/qa_clims", _at_the_end_of("cams")),
    "stopped in masks": ("masks/qa_clims", _before_parts_are_added),
    "stopped in the gallery": ("report/gallery", _at_the_end_of("gallery")),
}
"""Moment -> the artefact that was in the making, and what stops there."""


class Sweep:
    """Runs that were finished or stopped once, and are copied for every fault."""

    def __init__(self, folder: Path, settings: Mapping[str, Any] = EVERY_KIND) -> None:
        """Make the finished run; a Ray is there.

        Args:
            folder: where all is done; an earlier sweep's runs there are used again.
            settings: of the run.
        """
        self.folder, self.settings = folder, settings
        home = folder / FINISHED
        ended = call(home / RUN, settings)
        assert ended.code == 0, ended.told
        self.expected = content_of(home / RUN)
        assert not half_files(home / RUN) and not faults_of_tracking(home / "mlflow.db")

    def home(self, moment: str) -> Path:
        """Return the folder of the run that is copied for a moment, made when first asked for."""
        home = self.folder / moment.replace(" ", "_")
        if moment in STOPS and not home.is_dir():
            made, stopping = STOPS[moment]
            shutil.copytree(self.folder / FINISHED, home)
            shutil.rmtree(home / RUN / made)
            with stopping():
                ended = call(home / RUN, self.settings)
            assert "Stopped" in ended.told, ended.told
            assert not (home / RUN / made / "meta.json").exists()
        return home

    def files(self, moment: str) -> dict[str, list[str]]:
        """Return kind -> files that may be damaged; after a stop those alone that a finished run has not."""
        home, known = self.home(moment), set()
        if moment in STOPS:
            known = {path.relative_to(self.folder / FINISHED) for path in (self.folder / FINISHED).rglob("*")}
        found: dict[str, list[str]] = {}
        for path in sorted(home.rglob("*")):
            place = path.relative_to(home)
            is_kept = place.parts[0] == RUN or path.name == "mlflow.db"
            if path.is_file() and is_kept and place not in known and not is_unused(place.as_posix()):
                found.setdefault(kind_of(place.as_posix()), []).append(place.as_posix())
        return found

    def plans(self, rng: random.Random) -> Iterator[tuple[str, str, str]]:
        """Yield moment, kind and way of every fault once, in an order that the generator gives."""
        every = [(moment, kind, way) for moment in (FINISHED, *STOPS) for kind in self.files(moment) for way in WAYS]
        rng.shuffle(every)
        # Each kind once before any comes again.
        rounds: dict[tuple[str, str], int] = {}
        ranked = []
        for position, (moment, kind, way) in enumerate(every):
            number = rounds[moment, kind] = rounds.get((moment, kind), 0) + 1
            ranked.append((number, position, (moment, kind, way)))
        yield from (plan for _, _, plan in sorted(ranked))

    def fault(self, moment: str, kind: str, way: str, seed: int) -> Outcome:
        """Damage one file, call the same command again, and judge what it left."""
        rng = random.Random(f"{moment} {kind} {way} {seed}")
        place = self.folder / f"fault-{seed}"
        shutil.rmtree(place, ignore_errors=True)  # of a sweep that was stopped itself
        shutil.copytree(self.home(moment), place)
        name = rng.choice(self.files(moment)[kind])
        try:
            if way == "missing with its folder" and (place / name).parent in (place, place / RUN):
                way = "missing"
            WAYS[way](place / name, rng)
            ending, told = self._judged(place, name)
        finally:
            shutil.rmtree(place)
        return Outcome(kind.removeprefix(f"{RUN}/"), way, moment, seed, ending, told)

    def _judged(self, place: Path, name: str) -> tuple[Ending, str]:
        short = name.removeprefix(f"{RUN}/")
        ends_before = self.settings["goal"] != "segmentation"
        verb = "run" if ends_before or _OF_REPORT.match(short) else "segment"
        ended = call(place / RUN, self.settings, verb)
        if ended.code != 0:
            return _refusal(ended, name)
        others = differences(self.expected, place / RUN)
        if left := half_files(place / RUN):
            return "FAULT", f"left behind: {left[:4]}"
        if others and others != [short]:
            return "FAULT", f"others than in an undisturbed run: {others[:4]}"
        if found := faults_of_tracking(place / "mlflow.db"):
            return "FAULT", f"MLflow: {found}"
        if not others:
            return "repaired", ""
        reader = reader_of(short)
        if not reader:
            return "made nothing of it", ""
        return self._when_read(place, name, reader, "run" if reader.startswith("report") else verb)

    def _when_read(self, place: Path, name: str, reader: str, verb: str) -> tuple[Ending, str]:
        (made, *_) = sorted((place / RUN).glob(reader))
        shutil.rmtree(made) if made.is_dir() else made.unlink()
        ended = call(place / RUN, self.settings, verb)
        if ended.code != 0:
            return _refusal(ended, name)
        if others := differences(self.expected, place / RUN):
            is_alone = others == [name.removeprefix(f"{RUN}/")]
            return ("made nothing of it", "") if is_alone else ("FAULT", f"when read: others are {others[:4]}")
        return "repaired when read", ""


def _refusal(ended: Called, name: str) -> tuple[Ending, str]:
    """Judge an error: one that names the file, or its folder, and is no traceback."""
    found = re.search(r"^qaclims \w+: (.*)", ended.told, re.MULTILINE | re.DOTALL)
    line = found[1] if found else ended.told.strip()[-600:]
    told = " ".join(line.split())
    folder, _, file = name.rpartition("/")
    is_named = file in told or f"{folder}" in told
    if ended.code is None or "Traceback" in ended.told or not is_named:
        return "FAULT", told[-400:]
    return "told", told[:400]

"""``qaclims rerun``: a run once more, from its stored settings, in another folder, held to the first file by file."""

import dataclasses
import json
import os
from dataclasses import dataclass

from rich.console import Console

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import refuse_credentials
from qaclims_ray.data.artifacts import ArtifactMeta, readable_meta
from qaclims_ray.data.same_files import FilesCompared, compare_files
from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.table import Column, Table, text_rows
from qaclims_ray.run_config import RunConfig
from qaclims_ray.settings import dotted
from qaclims_ray.stages.first_look import look_first
from qaclims_ray.stages.requests import RerunArguments
from qaclims_ray.stages.run_differences import recorded_versions
from qaclims_ray.stages.run_folder import absolute_out, load_config

RERUN_NAME = "rerun.json"
"""What was compared, in the new run's folder."""
_PARTS = {
    "data": ("data", "manifest"),
    "corpus": ("corpus",),
    "text": ("text_banks",),
    "train": ("classifier", "networks", "phases"),
    "cams": ("cams",),
    "evaluate": ("thresholds", "evaluations"),
    "refine": ("seed_labels", "affinity", "masks"),
    "segment": ("segmentation", "predictions"),
    "report": ("trust",),
}
"""Last stages, in order -> folders of what they make; the page itself tells times and is not compared."""
_NO_MATTER = ("memory_gib",)
"""Properties of a machine that no figure depends on."""
_NAMES_SHOWN = 2


@dataclass(frozen=True)
class ArtefactAgain:
    """One artefact of the first run beside that of the second."""

    name: str
    """Its folder, seen from the run's."""
    files: FilesCompared | None
    """What its files have in common; None where it cannot be said."""
    note: str = ""
    """Why it cannot be said."""
    figures: tuple[str, ...] = ()
    """Figures of its summary that differ, with both values."""

    @property
    def is_same(self) -> bool:
        """Whether both hold the same, byte for byte."""
        return self.files is not None and self.files.are_same


@dataclass(frozen=True)
class Rerun:
    """A run and its repetition."""

    first: str
    """Folder of the first."""
    second: str
    """Folder of the second."""
    artefacts: tuple[ArtefactAgain, ...]
    """In the order of the stages."""
    surroundings: tuple[str, ...] | None
    """In what code, versions and machine differ, each with both values; None where the first run's are not recorded."""

    @property
    def compared(self) -> tuple[ArtefactAgain, ...]:
        """Those of which something can be said."""
        return tuple(one for one in self.artefacts if one.files is not None)

    @property
    def is_same(self) -> bool:
        """Whether all that was compared is the same."""
        return bool(self.compared) and all(one.is_same for one in self.compared)


def reached(out: str) -> str:
    """Return the last stage of which a run holds something, one of `pipeline.STAGE_ORDER`.

    Args:
        out: the run's folder.

    Raises:
        ArtifactError: when the run holds nothing.
    """
    stages = [stage for stage, folders in _PARTS.items() if any(_artefacts_in(out, folder) for folder in folders)]
    if not stages:
        raise ArtifactError(f"{out} holds no finished artefact: there is nothing that a repetition could be held to")
    return stages[-1]


def _is_inside(place: str, folder: str) -> bool:
    place, folder = (uri if storage.is_remote(uri) else os.path.realpath(uri) for uri in (place, folder))
    return f"{place.rstrip('/')}/".startswith(f"{folder.rstrip('/')}/")


def _refuse_data_inside(config: RunConfig, first: str) -> None:
    """Refuse a run that keeps its data set in its own folder: the same images would have other places afterwards."""
    for name, place in (("data.root", config.data.root), ("data.label_file", config.data.label_file)):
        if place and _is_inside(place, first):
            raise ConfigError(
                f"{name} is {place}, inside of the run's folder, so a repetition elsewhere would be of other settings: "
                "move the data out, run it from there, and repeat that run"
            )


def _last_of(config: RunConfig, until: str) -> str:
    """Return the last stage of a run's present goal, where an earlier call with a further one left more behind."""
    order = [*_PARTS]
    goals = {"seed": "evaluate", "mask": "refine"}
    if until == "report" or config.goal not in goals:
        return until
    return min(until, goals[config.goal], key=order.index)


def run_rerun(asked: RerunArguments, console: Console | None = None) -> Rerun:
    """Run the settings of a finished run again and compare what both made.

    Args:
        asked: the run, and where the second goes.
        console: where the lines go.

    Returns:
        The comparison, which `RERUN_NAME` in the new folder holds too.

    Raises:
        ConfigError: when there is no run, or the new folder is the run's own.
        ArtifactError: when the run holds nothing to compare with.
        QaclimsError: for every other mistake a user can mend.
    """
    refuse_credentials(asked.run, "RUN")
    first, second = storage.absolute(asked.run), absolute_out(asked.folder)
    if _is_inside(second, first) or _is_inside(first, second):
        raise ConfigError(
            f"the run is at {first} and --out is {second}: a repetition needs a folder of its own, outside of the run's"
        )
    config = load_config(first, can_begin=False)
    _refuse_data_inside(config, first)
    until = _last_of(config, reached(first))
    look_first(config, second)
    # Not at the top: with it come PyTorch and MLflow, and what is wrong with a folder is told of before.
    from qaclims_ray.stages.pipeline import run_pipeline

    run_pipeline(config, second, until=until, console=console)
    found = compare_again(first, second)
    record = {**dataclasses.asdict(found), "is_same": found.is_same}
    storage.write_bytes(storage.join(second, RERUN_NAME), json.dumps(record, indent=2).encode())
    return found


def compare_again(first: str, second: str) -> Rerun:
    """Compare the artefacts of two runs of the same settings.

    Raises:
        ArtifactError: when a list of files cannot be read.
        DamagedError: when a file was changed since it was written.
    """
    names = list(dict.fromkeys(name for run in (first, second) for name in _artefacts(run)))
    return Rerun(
        first,
        second,
        tuple(_compare(name, first, second) for name in sorted(names, key=_place)),
        _surroundings(first, second),
    )


def _place(name: str) -> int:
    return [folder for folders in _PARTS.values() for folder in folders].index(name.split("/")[0])


def _artefacts(out: str) -> list[str]:
    return [name for folders in _PARTS.values() for folder in folders for name in _artefacts_in(out, folder)]


def _artefacts_in(out: str, folder: str) -> list[str]:
    """Return the names of the finished artefacts in one of a run's folders, which may be one itself."""
    place = storage.join(out, folder)
    if readable_meta(place) is not None:
        return [folder]
    # A dot is in the names of what is being made, damaged or replaced, and of no system.
    below = [uri for uri in storage.list_folders(place) if "." not in uri.rsplit("/", 1)[-1]]
    return [f"{folder}/{uri.rsplit('/', 1)[-1]}" for uri in below if readable_meta(uri) is not None]


def _compare(name: str, first: str, second: str) -> ArtefactAgain:
    ours, theirs = (storage.join(run, name) for run in (first, second))
    before, after = readable_meta(ours), readable_meta(theirs)
    if before is None or after is None:
        absent = "of the first run alone" if after is None else "of the second run alone"
        return ArtefactAgain(
            name, None, f"{absent}: the settings in config.json, or what they mean, have changed since"
        )
    if before.fingerprint != after.fingerprint:
        return ArtefactAgain(name, None, "made from other settings or inputs than config.json has now")
    files = compare_files(ours, theirs)
    if files is None:
        return ArtefactAgain(name, None, "keeps no list of its files: an early version made it")
    return ArtefactAgain(name, files, figures=() if files.are_same else tuple(_figures(before, after)))


def _figures(before: ArtifactMeta, after: ArtifactMeta) -> list[str]:
    ours, theirs = dotted(before.summary), dotted(after.summary)
    return [
        f"{name} {ours.get(name)} -> {theirs.get(name)}"
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name) != theirs.get(name) and not name.endswith("images_per_s")
    ]


def _surroundings(first: str, second: str) -> tuple[str, ...] | None:
    ours, theirs = (recorded_versions(run) for run in (first, second))
    if ours is None or theirs is None:
        return None
    pairs = [("source", _code_of(first), _code_of(second))]
    pairs += [(name, ours[name], theirs.get(name)) for name in ours if name not in _NO_MATTER]
    return tuple(f"{name} {before} -> {after}" for name, before, after in pairs if before != after)


def _code_of(run: str) -> str:
    metas = [readable_meta(storage.join(run, name)) for name in _artefacts(run)]
    return ", ".join(sorted({meta.source_hash for meta in metas if meta is not None}))


def print_rerun(found: Rerun, console: Console) -> None:
    """Print the comparison: a row for each artefact, then what follows from it."""
    heads = (("artefact", True), ("files", False), ("differ", False), ("which", True))
    rows = [[one.name, *_cells(one)] for one in found.artefacts]
    columns = tuple(Column(head=head, is_words=is_words) for head, is_words in heads)
    print_table(console, Table(columns, text_rows(rows)), f"{found.first} and its repetition")
    for one in found.artefacts:
        for figure in one.figures[:_NAMES_SHOWN]:
            print_line(console, f"{one.name}: {figure}")
    for line in found.surroundings or ():
        print_line(console, f"differs too: {line}")
    if found.is_same:
        number = sum(one.files.num_files for one in found.compared if one.files is not None)
        print_line(console, f"all {number} files of {len(found.compared)} artefacts are the same, byte for byte")
        if left_out := len(found.artefacts) - len(found.compared):
            print_line(console, f"{left_out} artefacts were not compared; the table says why")
    print_line(console, f"written  {storage.join(found.second, RERUN_NAME)}")


def _cells(one: ArtefactAgain) -> list[str]:
    if one.files is None:
        return ["-", "-", one.note]
    names = [*one.files.changed, *one.files.one_sided]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {len(names) - _NAMES_SHOWN} more" if names[_NAMES_SHOWN:] else "")
    return [str(one.files.num_files), str(len(names)), shown]


def difference(found: Rerun) -> str:
    """Say that a repetition differs and why that may be; empty where it does not.

    Args:
        found: the comparison.
    """
    if found.is_same:
        return ""
    if not found.compared:
        return "nothing could be compared: each artefact was made from other settings, or by an early version"
    differing = [one.name for one in found.compared if not one.is_same]
    match found.surroundings:
        case None:
            why = "the first run has no report that tells its versions and machine"
        case ():
            why = (
                "versions and machine are the same. On a GPU sums have no fixed order; on a CPU this is a fault of ours"
            )
        case _:
            why = "code, versions or the machine differ, as listed"
    return f"{len(differing)} of {len(found.compared)} artefacts differ, the first is {differing[0]}: {why}"

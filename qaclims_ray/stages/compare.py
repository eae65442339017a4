"""``qaclims compare``: what differs between runs, in settings and in results; needs no Ray."""

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from qaclims_ray.data import storage
from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.evaluation.comparison import (
    Comparison,
    Side,
    StageDifference,
    compare_stage,
    comparison_json,
    difference_note,
)
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.report.comparison import comparison_page
from qaclims_ray.report.gallery_highlights import ChangedImages
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.compare_gallery import write_compare_gallery
from qaclims_ray.stages.compare_maps import compare_label_free, compare_maps
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import CompareArguments, side_of
from qaclims_ray.stages.run_differences import what_differs
from qaclims_ray.stages.run_figures import SystemFigures, read_figures
from qaclims_ray.stages.run_folder import absolute_out, load_config
from qaclims_ray.systems.table import SUPERVISED, system_of

_HTML_NAME = "comparison.html"
_JSON_NAME = "comparison.json"


@dataclass(frozen=True)
class _ComparedRun:
    side: Side
    config: RunConfig

    def systems(self) -> list[str]:
        """Return its systems, and the bound where it has one."""
        has_bound = storage.exists(RunLayout(self.side.run).predictions(SUPERVISED))
        return list(dict.fromkeys([*self.config.systems, *([SUPERVISED] if has_bound else [])]))


def run_compare(arguments: CompareArguments) -> tuple[Comparison, str]:
    """Compare runs; return the comparison and the page's URI.

    Raises:
        ConfigError: when fewer than two sides are named, or one is no run.
        ArtifactError: when there is nothing that two sides have, or counts per image are missing.
        DataError: when runs have different classes.
        ResourceError: when the comparison cannot be written.
    """
    if arguments.resamples < 100:
        raise ConfigError(f"--resamples is {arguments.resamples}, expected at least 100: fewer give no 95 % interval")
    if arguments.seed < 0:
        raise ConfigError(f"--seed is {arguments.seed}, expected at least 0")
    runs = _runs(arguments.runs)
    groups = _groups(runs)
    out = absolute_out(arguments.out) if arguments.out else storage.join(RunLayout(runs[0].side.run).report, "compare")
    storage.check_writable(out)
    if arguments.gallery < 0:
        raise ConfigError(f"--gallery is {arguments.gallery}, expected a number of images, or 0 for no gallery")
    figures = {
        group: {run.side.letter: read_figures(run.side.run, run.config, system) for run, system in pairs}
        for group, pairs in groups.items()
    }
    stages = [stage for group, sides in figures.items() for stage in _stages(group, sides, arguments)]
    left_out = [line for sides in figures.values() for found in sides.values() for line in found.left_out]
    compared = [compare_maps(group, sides) for group, sides in figures.items()]
    free = [compare_label_free(group, sides) for group, sides in figures.items()]
    maps, label_free = [one for found, _ in compared for one in found], [one for found, _ in free for one in found]
    # Where runs were scored, that they could say something without masks too is no news.
    unsaid = [] if stages else [note for _, notes in (*compared, *free) for note in notes]
    if not (stages or maps or label_free):
        raise ArtifactError(_nothing_in_common(figures, left_out))
    sides = tuple(run.side for run in runs)
    differences, unknown = what_differs(sides, figures)
    notes = (difference_note(differences), *left_out, *_unshared(figures), *dict.fromkeys(unsaid), unknown)
    comparison = Comparison(
        sides=sides,
        differences=differences,
        stages=tuple(stages),
        notes=tuple(note for note in notes if note),
        maps=tuple(maps),
        label_free=tuple(label_free),
        num_resamples=arguments.resamples,
        seed=arguments.seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return comparison, _write(comparison, out, write_compare_gallery(figures, out, limit=arguments.gallery))


def _write(comparison: Comparison, out: str, changed: list[ChangedImages] | None) -> str:
    uri = storage.join(out, _HTML_NAME)
    storage.write_bytes(storage.join(out, _JSON_NAME), comparison_json(comparison).encode())
    storage.write_bytes(uri, comparison_page(comparison, changed).encode())
    return uri


def _runs(names: Sequence[str]) -> list[_ComparedRun]:
    if len(names) < 2:
        raise ConfigError(f"{len(names)} runs are named, expected at least two; each as RUN or RUN:SYSTEM")
    if len(names) > len(string.ascii_uppercase):
        raise ConfigError(f"{len(names)} runs are named, expected at most {len(string.ascii_uppercase)}")
    runs = []
    for letter, name in zip(string.ascii_uppercase, names, strict=False):
        run, system = side_of(name)
        if not storage.exists(RunLayout(run).config):
            raise ConfigError(
                f"there is no run at {run} (no config.json); give output folders of runs, each as RUN or RUN:SYSTEM"
            )
        runs.append(_ComparedRun(Side(letter, run, system), load_config(run)))
        if system and system not in runs[-1].systems():
            raise ConfigError(f"{run} has no system {system!r}; it has {', '.join(runs[-1].systems())}")
    return runs


def _groups(runs: list[_ComparedRun]) -> dict[str, list[tuple[_ComparedRun, str]]]:
    """Return who is compared with whom: one group where systems are named, else one for each system in common."""
    if named := [run.side.system for run in runs if run.side.system]:
        pairs = [(run, run.side.system or named[0]) for run in runs]
        for run, system in pairs:
            if system not in run.systems():
                raise ConfigError(f"{run.side.run} has no system {system!r}; name one of its own as RUN:SYSTEM")
        _refuse_twice([f"{run.side.run}:{system}" for run, system in pairs])
        return {" and ".join(dict.fromkeys(_label(run, system) for run, system in pairs)): pairs}
    _refuse_twice([run.side.run for run in runs])
    first, *others = runs
    groups = {}
    for system in first.systems():
        meeting = [(run, system) for run in others if system in run.systems()]
        if meeting:
            groups[_label(first, system)] = [(first, system), *meeting]
    if not groups:
        raise ConfigError(
            f"{first.side.run} has the systems {', '.join(first.config.systems)}, and no other run has one of them; "
            "name the systems to compare as RUN:SYSTEM"
        )
    return groups


def _refuse_twice(names: Sequence[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"{name} would be compared with itself: name runs, or systems of one run, that differ")


def _label(run: _ComparedRun, system: str) -> str:
    return system_of(run.config, system).label


def _stages(group: str, sides: Mapping[str, SystemFigures], arguments: CompareArguments) -> list[StageDifference]:
    (first_letter, first), *others = sides.items()
    return [
        compare_stage(
            first.figures[key],
            other.figures[key],
            group=group,
            stage=key,
            split=first.split_of(key),
            letters=(first_letter, letter),
            num_resamples=arguments.resamples,
            seed=arguments.seed,
        )
        for key in FIGURES
        for letter, other in others
        if key in first.figures and key in other.figures
    ]


def _nothing_in_common(figures: Mapping[str, Mapping[str, SystemFigures]], left_out: Sequence[str]) -> str:
    lines = [
        f"{letter} has {', '.join(FIGURES[key].words for key in found.figures) or 'nothing scored'} ({group})"
        for group, sides in figures.items()
        for letter, found in sides.items()
    ]
    return (
        f"the runs have no stage in common: {'; '.join([*lines, *left_out])}. Score them: "
        "`qaclims evaluate --out RUN`; without masks `qaclims report --out RUN` counts what can be compared"
    )


def _unshared(figures: Mapping[str, Mapping[str, SystemFigures]]) -> list[str]:
    """Name the stages that some sides have and others have not."""
    lines = []
    for group, sides in figures.items():
        first, *others = sides.values()
        for letter, other in zip(list(sides)[1:], others, strict=True):
            for who, these, those in (("only A", first, other), (f"only {letter}", other, first)):
                if only := [FIGURES[key].words for key in FIGURES if key in these.figures and key not in those.figures]:
                    lines.append(f"{group}: {who} of A and {letter} has {', '.join(only)}")
    return lines

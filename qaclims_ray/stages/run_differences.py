"""In what runs differ besides their results: settings, data, code, versions."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from qaclims_ray.data import storage
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.errors import ArtifactError
from qaclims_ray.evaluation.comparison import Difference, Side
from qaclims_ray.report.files import JSON_NAME
from qaclims_ray.run_config import in_effect
from qaclims_ray.settings import dotted
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_figures import SystemFigures

_IN_EFFECT = ("systems", "variants")
"""Settings whose effect on a system shows in its own."""
_MADE = ("network", "cams", "evaluations", "masks", "segmentation", "predictions")
"""Artefacts whose code is compared."""
_SAID_ELSEWHERE = ("source_hash", "supervision")
"""What a report says of its surroundings, and this comparison of each artefact, or by the settings."""
_WHERE_ALL_HAVE = ("data", "code")
"""Kinds that say nothing where a run has not come so far."""

logger = logging.getLogger(__name__)

Facts = dict[tuple[str, str], Any]
"""(kind, name) -> value, of plain JSON types."""


@dataclass(frozen=True)
class _Recorded:
    """What is read of a report."""

    environment: dict[str, Any]


def what_differs(
    sides: Sequence[Side], figures: Mapping[str, Mapping[str, SystemFigures]]
) -> tuple[tuple[Difference, ...], str]:
    """Collect what differs in each group of compared systems; what several groups share stands once.

    Args:
        sides: the runs.
        figures: group -> letter of a side -> its system.

    Returns:
        The differences, and what could not be compared (empty when all could).
    """
    versions = {side.letter: _as_facts(recorded_versions(side.run)) for side in sides}
    unrecorded = [letter for letter, facts in versions.items() if facts is None]
    groups_of: dict[tuple[str, str, str], list[str]] = {}
    for group, members in figures.items():
        facts = {letter: _facts(member) for letter, member in members.items()}
        if not unrecorded:
            facts = {letter: {**own, **(versions[letter] or {})} for letter, own in facts.items()}
        for kind, name in dict.fromkeys(key for own in facts.values() for key in own):
            values = [facts.get(side.letter, {}).get((kind, name)) for side in sides]
            is_everywhere = all((kind, name) in own for own in facts.values())
            if kind in _WHERE_ALL_HAVE and not is_everywhere:
                continue
            if len({json.dumps(own.get((kind, name))) for own in facts.values()}) > 1:
                groups_of.setdefault((kind, name, json.dumps(values)), []).append(group)
    differences = tuple(
        Difference(kind, name, tuple(json.loads(values)), tuple(groups))
        for (kind, name, values), groups in groups_of.items()
    )
    note = f"versions are not compared: {', '.join(unrecorded)} has no report that records them" if unrecorded else ""
    return differences, note


def _facts(member: SystemFigures) -> Facts:
    settings = {n: v for n, v in in_effect(member.config).items() if n not in _IN_EFFECT}
    facts: Facts = {("settings", "system"): member.system}
    facts |= {("settings", name): value for name, value in settings.items()}
    if manifest := member.metas.get("manifest"):
        facts["data", "fingerprint of the manifest, paths included"] = manifest.summary.get("content")
    if corpus := member.metas.get("corpus"):
        facts["data", "fingerprint of the corpus"] = corpus.fingerprint
    for name in _MADE:
        if meta := member.metas.get(name):
            facts["code", f"{name}: source hash"] = meta.source_hash
            facts["code", f"{name}: package version"] = meta.package_version
    return facts


def recorded_versions(run: str) -> dict[str, Any] | None:
    """Return versions of libraries and properties of the machine that a run's report records, by dotted name.

    Args:
        run: the run's folder.

    Returns:
        None where there is no report, or it cannot be read.
    """
    uri = storage.join(RunLayout(run).report, JSON_NAME)
    if not storage.exists(uri):
        return None
    remedy = f"Its versions are not compared; `qaclims report --out {run}` writes it anew"
    try:
        found = read_json_file(uri, TypeAdapter(_Recorded).validate_python, remedy=remedy).environment
    except ArtifactError as error:
        logger.warning("%s", error)
        return None
    return {name: value for name, value in dotted(found).items() if name not in _SAID_ELSEWHERE}


def _as_facts(versions: dict[str, Any] | None) -> Facts | None:
    return None if versions is None else {("versions", name): value for name, value in versions.items()}

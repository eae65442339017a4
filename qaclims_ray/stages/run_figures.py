"""What finished stages of a run left to compare: counts per image, and whether they belong to the run's settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.data.classes import has_background
from qaclims_ray.evaluation.image_counts import ScoredImages, read_image_counts
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.methods.table import method_of
from qaclims_ray.run_config import RunConfig, in_effect
from qaclims_ray.settings import dotted
from qaclims_ray.stages.layout import RunLayout, network_uri_of
from qaclims_ray.stages.refine import content_fingerprint, mask_settings
from qaclims_ray.systems.needs import rounds_of
from qaclims_ray.systems.table import system_config, system_of

_VERBS = {"evaluations": "evaluate", "masks": "refine", "predictions": "segment"}
_PREFIXES = {"cams": "cams.", "evaluations": "evaluation.", "predictions": "segmentation."}
"""Where the settings of an artefact lie in a run's, if not at its top."""
_INFERRED = {"cams": "cams.precision", "predictions": "segmentation.test.precision"}
"""What a network computed them in."""
_ROUNDS = "segmentation.rounds"


@dataclass(frozen=True)
class SystemFigures:
    """What one system of a run has to compare."""

    system: str
    """Its name."""
    run: str
    """Output folder of the run."""
    run_config: RunConfig
    """The run's stored configuration."""
    config: RunConfig
    """The run's settings with the system's own."""
    figures: dict[str, ScoredImages]
    """Key of `scored_figures.FIGURES` -> counts per image."""
    metas: dict[str, ArtifactMeta]
    """Artefact -> its meta, for those that are complete."""
    left_out: list[str] = field(default_factory=list)
    """Why stages that are there do not count."""
    stale: frozenset[str] = frozenset()
    """Artefacts that do not belong to the run's settings."""

    def split_of(self, stage: str) -> str:
        """Return the split that a stage is scored on."""
        data = self.config.data
        return data.test_split if FIGURES[stage].split == "test" else data.eval_split


def read_figures(run: str, config: RunConfig, system: str) -> SystemFigures:
    """Read what a system's finished stages scored.

    Args:
        run: output folder.
        config: the run's stored configuration.
        system: one of its systems.

    Raises:
        ArtifactError: when a stage has scores but no counts per image, which earlier versions did not keep.
    """
    layout, resolved = RunLayout(run), system_config(config, system)
    metas = _metas(layout, config, system)
    stale = _stale(metas, config, resolved, system)
    figures: dict[str, ScoredImages] = {}
    for artefact, verb in _VERBS.items():
        if artefact not in metas or artefact in stale:
            continue
        uri = storage.join(run, artefact, system)
        tables = read_image_counts(uri, remedy=f"`qaclims {verb} --out {run}`")
        if not has_background(resolved.data.dataset):
            tables = {name: scored.without_background() for name, scored in tables.items()}
        figures |= {
            key: tables[figure.counts]
            for key, figure in FIGURES.items()
            if figure.artefact == artefact and figure.counts in tables
        }
    left_out = [
        f"{artefact}/{system} of {run} is left out: {stale[artefact]}. Make it again: `qaclims {verb} --out {run}`"
        for artefact, verb in _VERBS.items()
        if artefact in stale
    ]
    return SystemFigures(system, run, config, resolved, figures, metas, left_out, frozenset(stale))


def _metas(layout: RunLayout, config: RunConfig, system: str) -> dict[str, ArtifactMeta]:
    network = network_uri_of(layout, system, method_of(system_of(config, system).method))
    places = {
        "manifest": layout.manifest,
        "corpus": layout.corpus,
        "network": network,
        "cams": layout.cams(system),
        "evaluations": layout.evaluation(system),
        "masks": layout.masks(system),
        "segmentation": layout.segmentation(system),
        "predictions": layout.predictions(system),
    }
    found = {name: artifacts.read_meta(uri) for name, uri in places.items()}
    return {name: meta for name, meta in found.items() if meta is not None}


def _stale(metas: Mapping[str, ArtifactMeta], config: RunConfig, resolved: RunConfig, system: str) -> dict[str, str]:
    """Say which artefacts were not made from the run's present settings, or from what now lies before them, and why.

    ``config.json`` is that of the last call, which may have stopped early: scores of earlier settings must not be
    compared under the names of the new ones.
    """
    # The classifier is the run's, whatever a system sets for itself.
    settings = in_effect(resolved) | {_ROUNDS: rounds_of(resolved, system)}
    of_network = in_effect(config) if method_of(system_of(config, system).method).is_classifier else settings
    stale: dict[str, str] = {}
    for name, before in {
        "network": "",
        "cams": "network",
        "evaluations": "cams",
        "masks": "cams",
        "segmentation": "masks",
        "predictions": "segmentation",
    }.items():
        if name not in metas:
            continue
        reason = stale.get(before) or _other_source(metas, name, before)
        reason = reason or _other_settings(metas[name], name, of_network if name == "network" else settings)
        if name == "masks" and metas[name].settings.get("masks") != artifacts.plain(mask_settings(resolved.masks)):
            reason = reason or "its masks had other settings than config.json has"
        if reason:
            stale[name] = reason
    return stale


def _other_source(metas: Mapping[str, ArtifactMeta], name: str, before: str) -> str:
    key = "network" if before == "segmentation" else before
    if before not in metas or key not in metas[name].inputs:
        return ""
    match before:
        case "masks":
            expected = content_fingerprint(metas[before])
        case "cams":
            expected = metas[before].recipe()
        case _:
            expected = metas[before].fingerprint
    is_same = metas[name].inputs[key] == expected
    return "" if is_same else f"its {name} came from another state of {before} than is there now"


def _other_settings(meta: ArtifactMeta, name: str, settings: Mapping[str, Any]) -> str:
    made = dotted(meta.settings, _PREFIXES.get(name, ""))
    if name in _INFERRED and "network" in meta.inputs:
        made = {_INFERRED[name]: "fp32"} | made  # which fingerprints leave out
    if name == "segmentation" and "masks" in meta.inputs:
        made = {_ROUNDS: 1} | made  # which the first round's leave out
    for setting, value in made.items():
        if setting in settings and settings[setting] != value:
            return f"its {name} had {setting} = {json.dumps(value)}, config.json has {json.dumps(settings[setting])}"
    return ""

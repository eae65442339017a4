"""What a stage is given: configuration, places, a tracker, and a line on the console."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import ArtifactMeta
from qaclims_ray.errors import ModelError
from qaclims_ray.miniature.shipped import clip_dir, context_clip_dir, vqa_dir
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.systems.table import FROM_CLASSIFIER
from qaclims_ray.tracking.tracker import NullTracker, Tracker


@dataclass(frozen=True)
class Stage:
    """The surroundings of one stage of one run."""

    config: RunConfig
    """Resolved configuration (of one system, where the stage belongs to one)."""
    layout: RunLayout
    """Where things are."""
    tracker: Tracker = field(default_factory=NullTracker)
    """MLflow run of this stage."""
    progress: "Progress" = field(default_factory=lambda: Progress())
    """Where to say how far it is."""
    on_epoch: Callable[[Mapping[str, float]], None] | None = None
    """Told of every epoch of every training: its figures, and its number as `epoch`; of a training that is there
    already, of its last epoch."""


class Progress:
    """Silent progress; ``stages.console`` has one that draws bars."""

    def start(self, name: str) -> None:
        """A stage starts."""

    def advance(self, done: int, total: int) -> None:
        """So many of so many steps are done."""

    def finish(self, message: str, *, is_new: bool = True) -> None:
        """The stage ended; one line says what it did, or that there was nothing to do."""


def current(uri: str, kind: str, settings: Any, inputs: Mapping[str, str]) -> ArtifactMeta | None:
    """Return the artefact's meta when it is there and matches, so that the stage can be skipped."""
    return artifacts.read_meta(uri) if artifacts.is_current(uri, kind, settings, inputs) else None


def clip_model(config: RunConfig) -> tuple[str, str | None]:
    """Return (model, weights) for `load_clip`; "miniature" and "miniature_context" are shipped folders."""
    if config.clip.model == "miniature":
        return str(clip_dir()), None
    if config.clip.model == "miniature_context":
        return str(context_clip_dir()), None
    return config.clip.model, config.clip.weights or None


def backbone_weights(config: RunConfig) -> str:
    """Return the pretrained weights of the mask generator; "miniature" is the image tower of the shipped CLIP."""
    if config.cam_net.weights == "miniature":
        return str(clip_dir() / "open_clip_model.safetensors")
    return config.cam_net.weights


def vqa_model(config: RunConfig) -> str:
    """Return the VQA model's name or folder; "miniature" is the shipped folder."""
    return str(vqa_dir()) if config.corpus.model == "miniature" else config.corpus.model


def weights_fingerprint(*names: str | None) -> str:
    """Return a fingerprint of models given by name or path: local files by content, hub names by name.

    Raises:
        ModelError: when a path that looks local is not there.
    """
    parts: list[Any] = []
    for name in names:
        path = Path(name or "")
        if name and path.is_file():
            parts.append(_file_digest(path))
        elif name and path.is_dir():
            parts.append(
                [
                    (str(file.relative_to(path)), _file_digest(file))
                    for file in sorted(path.rglob("*"))
                    if file.is_file()
                ]
            )
        elif name and (name.startswith((".", "/", "~")) or path.suffix in (".pt", ".pth", ".bin", ".safetensors")):
            raise ModelError(f"there are no weights at {name}: give the path of a local file or folder, or a hub name")
        else:
            parts.append(name)
    return artifacts.fingerprint_of(parts)


def start_fingerprint(stage: Stage, weights: str) -> str:
    """Return a fingerprint of what an affinity or final network starts from: the run's classifier, or named weights.

    Raises:
        ArtifactError: when it is the classifier, which is not trained.
        ModelError: when a path that looks local is not there.
    """
    if weights == FROM_CLASSIFIER:
        return artifacts.require(stage.layout.classifier, "classifier", verb="train").fingerprint
    return weights_fingerprint(weights)


def _file_digest(path: Path) -> str:
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()

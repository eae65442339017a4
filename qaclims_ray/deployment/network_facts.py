"""What goes with an exported network: what its labels mean, how it is fed, what it learned from and how good it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from qaclims_ray.data.classes import Classes, voc_palette
from qaclims_ray.deployment.exported_graph import Normalisation


@dataclass(frozen=True, kw_only=True)
class NetworkFacts:
    """All that a file or folder says of the network in it."""

    name: str
    """Run and system, for people."""
    kind: Literal["final", "cam"]
    """A final network, or the network of CAMs with its classifier."""
    architecture: str
    """Architecture and backbone."""
    classes: Classes
    """What its labels mean."""
    normalisation: Normalisation
    """Mean and standard deviation of its images."""
    threshold: float
    """Background score of its maps; one half means the foremost label."""
    label_threshold: float | None = None
    """CAMs: probability from which a class counts as present."""
    mirrored: bool
    """Whether it averages with the mirror image."""
    size: tuple[int, int] | None = None
    """Height and width that the network is given; None: each image's own."""
    example_size: tuple[int, int]
    """Height and width of an image it was made for, for an example."""
    differs: tuple[str, ...] = ()
    """What the run's own predictions do that an exported graph does not."""
    with_tags_alone: bool = True
    """Whether it learned from image-level tags, and no masks stand behind what it learned."""
    data: Mapping[str, str]
    """Lines about the data set: title -> text."""
    metrics: Mapping[str, float]
    """Figures of the run, fractions, by words that name the split; empty where nothing is scored."""
    weights: tuple[str, ...] = ()
    """Lines about weights that it started or learned from, with their licences."""
    licence: str
    """SPDX identifier of the weights it started from together, or "other"."""
    version: str
    """Version of this package."""

    @property
    def id2label(self) -> dict[int, str]:
        """Label value -> name."""
        return dict(enumerate(self.classes.label_names, start=0 if self.classes.has_background else 1))

    def metadata(self) -> dict[str, str]:
        """Return all as short texts, as ONNX's metadata takes them; all but `qaclims_ray` are JSON."""
        values = {
            "name": self.name,
            "kind": self.kind,
            "architecture": self.architecture,
            "class_names": self.classes.names,
            "labels": self.id2label,
            "palette": voc_palette(),
            "image_mean": self.normalisation[0],
            "image_std": self.normalisation[1],
            "threshold": self.threshold,
            "label_threshold": self.label_threshold,
            "mirrored": self.mirrored,
            "size": self.size,
            "differs": self.differs,
            "metrics": self.metrics,
            "weights": self.weights,
            "licence": self.licence,
        }
        return {name: json.dumps(value) for name, value in values.items()} | {"qaclims_ray": self.version}

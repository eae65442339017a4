"""Where false positives lie: on the stuff a class is usually seen with, or elsewhere.

The failure that the papers are about is the train whose CAM also fires on the track. Real data sets have no labels for
tracks; the miniature world knows what every pixel shows, so there it can be counted. As in `sweep.py`, one pass holds
the counts at every threshold, and they merge.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64, Int64, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.evaluation.confusion import check_label_values
from qaclims_ray.evaluation.foremost import ClassMaps, foremost_class
from qaclims_ray.evaluation.sweep import check_same_size

_ON_OBJECT, _ON_CONTEXT, _ELSEWHERE = 0, 1, 2


@dataclass(frozen=True, kw_only=True)
class CooccurrenceScores:
    """Means over classes, each in units of the class's object area; pixel labels and context maps are used."""

    threshold: float
    """Background score."""
    coverage: float
    """Share of the objects' pixels that carry their class."""
    false_positive_context: float
    """False positives on the class's co-occurring stuff."""
    false_positive_elsewhere: float
    """False positives anywhere else, other objects included."""
    per_class: dict[str, tuple[float, float, float]]
    """The three figures of each class that occurs."""


class CooccurrenceSums:
    """Mergeable pixel counts: foremost class x where the pixel lies x score bin, and the objects' areas."""

    def __init__(self, thresholds: Sequence[float], context_values: Sequence[int]) -> None:
        self.thresholds = tuple(float(threshold) for threshold in thresholds)
        self.context_values = tuple(context_values)
        self._edges = torch.tensor(self.thresholds, dtype=torch.float32)
        self.counts = torch.zeros((len(context_values), 3, len(thresholds) + 1), dtype=torch.int64)
        self.areas = torch.zeros(len(context_values), dtype=torch.int64)

    def update(
        self, cam: ClassMaps, labels: UInt8[Tensor, "height width"], context: UInt8[Tensor, "height width"]
    ) -> None:
        """Add one image.

        Args:
            cam: maps of the present classes.
            labels: true label values; 255 is not counted.
            context: what each pixel shows; only its values on true background matter.

        Raises:
            ArtifactError: when the full-resolution maps are missing.
            DataError: when sizes differ or a label value is unknown.
        """
        if cam.full is None:
            raise ArtifactError(
                f"{cam.image_id} was stored without full-resolution maps; set cams.store = both or full"
            )
        check_same_size(cam.image_id, cam.full, labels)
        check_label_values(labels, len(self.context_values), f"the mask of {cam.image_id}")
        is_scored = labels != IGNORE_VALUE
        areas = torch.bincount(labels[is_scored].long(), minlength=len(self.context_values) + 1)
        self.areas += areas[1:]
        if not cam.class_ids:
            return
        foremost, bins = foremost_class(cam.full, self._edges)
        class_id = torch.tensor(cam.class_ids)[foremost]  # (height, width)
        usual = torch.tensor(self.context_values)[class_id]
        place = torch.where((labels == BACKGROUND_VALUE) & (context == usual), _ON_CONTEXT, _ELSEWHERE)
        place = torch.where(labels.long() == class_id + 1, _ON_OBJECT, place)
        num_bins = len(self.thresholds) + 1
        cells = ((class_id * 3 + place) * num_bins + bins)[is_scored]
        self.counts += torch.bincount(cells, minlength=self.counts.numel()).view_as(self.counts)

    def merge(self, other: "CooccurrenceSums") -> "CooccurrenceSums":
        """Add other counts to these and return them.

        Raises:
            ArtifactError: when they were made with other thresholds or context values.
        """
        if (other.thresholds, other.context_values) != (self.thresholds, self.context_values):
            raise ArtifactError("cannot merge co-occurrence counts over different thresholds or classes")
        self.counts += other.counts
        self.areas += other.areas
        return self


def cooccurrence_scores(sums: CooccurrenceSums, threshold: float, class_names: Sequence[str]) -> CooccurrenceScores:
    """Read the figures at one of the thresholds off finished sums.

    Raises:
        ConfigError: when the threshold was not counted.
        DataError: when no object was seen.
    """
    distances = (torch.tensor(sums.thresholds, dtype=torch.float64) - threshold).abs()
    index = int(distances.argmin())
    if float(distances[index]) > 1e-6:
        raise ConfigError(f"threshold {threshold} was not counted, only {', '.join(f'{t:g}' for t in sums.thresholds)}")
    occurs = sums.areas > 0
    if not bool(occurs.any()):
        raise DataError("no image has an object: co-occurrence cannot be measured")
    pixels: Int64[Tensor, "class place"] = sums.counts[:, :, index + 1 :].sum(2)
    shares: Float64[Tensor, "class place"] = pixels[occurs].double() / sums.areas[occurs, None]
    coverage, on_context, elsewhere = shares.mean(0).tolist()
    names = [name for name, there in zip(class_names, occurs.tolist(), strict=True) if there]
    return CooccurrenceScores(
        threshold=sums.thresholds[index],
        coverage=coverage,
        false_positive_context=on_context,
        false_positive_elsewhere=elsewhere,
        per_class={name: tuple(row) for name, row in zip(names, shares.tolist(), strict=True)},
    )

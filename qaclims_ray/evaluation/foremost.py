"""What label maps and scores read of an image's maps: each pixel's foremost class, and between which thresholds it is.

Two small numbers a pixel in place of a float32 for each class: a GPU makes them where the maps are, and a process
beside it draws the label map and counts (`sweep.ThresholdSweep.add`) without the maps.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64, Integer, UInt8
from torch import Tensor

from qaclims_ray.data.classes import BACKGROUND_VALUE, IGNORE_VALUE, NO_BACKGROUND, label_value
from qaclims_ray.errors import ArtifactError
from qaclims_ray.models.devices import constant


@runtime_checkable
class ClassMaps(Protocol):
    """What is read of an image's CAM (`cams.inference.ImageCam`)."""

    @property
    def image_id(self) -> str:
        """Identifier, for messages."""
        ...

    @property
    def class_ids(self) -> tuple[int, ...]:
        """Present classes, one per map."""
        ...

    @property
    def full(self) -> Float[Tensor, "class height width"] | None:
        """Maps at the image's resolution, in [0, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Foremost:
    """An image's maps, as far as label maps and scores at some thresholds depend on them."""

    image_id: str
    """The manifest's image identifier."""
    class_ids: tuple[int, ...]
    """Class of each map."""
    position: Integer[Tensor, "height width"]
    """Each pixel's foremost map; 0 where there is none."""
    bins: Integer[Tensor, "height width"]
    """How many of the thresholds its score exceeds; 0 where there is none."""

    def cpu(self) -> "Foremost":
        """Return it on the CPU."""
        return Foremost(self.image_id, self.class_ids, self.position.cpu(), self.bins.cpu())

    def label_map(self, thresholds: tuple[float, ...], border: float) -> UInt8[Tensor, "height width"]:
        """Return the label map at one of the thresholds, as `cams.label_map.label_map` makes it of the maps.

        Args:
            thresholds: those that the bins belong to.
            border: the one; `NO_BACKGROUND` leaves pixels without a class out (255).
        """
        nothing = IGNORE_VALUE if border == NO_BACKGROUND else BACKGROUND_VALUE
        values = torch.tensor([label_value(class_id) for class_id in self.class_ids] or [nothing], dtype=torch.uint8)
        shown = self.bins > thresholds.index(border)
        return torch.where(shown, values[self.position.long()], nothing).to(torch.uint8)


def foremost_of(cam: ClassMaps, thresholds: tuple[float, ...]) -> Foremost:
    """Return each pixel's foremost map and its score's bin, where the maps are.

    Args:
        cam: finite maps.
        thresholds: rising.

    Raises:
        ArtifactError: when the maps were stored on the small grid only.
    """
    if cam.full is None:
        raise ArtifactError(
            f"{cam.image_id} was stored without full-resolution maps; run `qaclims cams` with cams.store = both or full"
        )
    if not cam.class_ids:
        nothing = torch.zeros(cam.full.shape[1:], dtype=torch.uint8, device=cam.full.device)
        return Foremost(cam.image_id, (), nothing, nothing)
    position, bins = foremost_class(cam.full, constant(thresholds, cam.full.device))
    small = torch.uint8 if max(len(cam.class_ids), len(thresholds)) < 256 else torch.int32
    return Foremost(cam.image_id, cam.class_ids, position.to(small), bins.to(small))


def foremost_class(
    maps: Float[Tensor, "class height width"], thresholds: Float[Tensor, " threshold"]
) -> tuple[Int64[Tensor, "height width"], Int64[Tensor, "height width"]]:
    """Return each pixel's foremost map and its score's bin: the number of thresholds that the score exceeds.

    Compared in float32, strictly: a tie with the background is background; a tie of classes goes to the first.
    """
    score, foremost = maps.float().max(0)
    return foremost, torch.bucketize(score, thresholds)

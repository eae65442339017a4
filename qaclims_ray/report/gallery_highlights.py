"""What a gallery hands to the page with the figures: the worst images of each stage, and what is taken for what."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pydantic import TypeAdapter

from qaclims_ray.data import storage
from qaclims_ray.data.json_files import read_json_file
from qaclims_ray.evaluation.agreement import MapStage

if TYPE_CHECKING:
    from qaclims_ray.report.gallery import Gallery, GalleryImage

HIGHLIGHTS_NAME = "highlights.json"
"""Beside the gallery's page."""
WORST_SHOWN = 6
"""Images of each stage."""


@dataclass(frozen=True)
class ShownImage:
    """One image of a page, with small pictures."""

    image_id: str
    """The manifest's image identifier."""
    labels: tuple[int, ...]
    """Classes that it is labelled with."""
    figures: dict[str, float]
    """Words under its pictures -> figure, a fraction."""
    tiles: dict[str, str]
    """`Pictures.tiles` of those that are shown."""


@dataclass(frozen=True)
class Highlights:
    """Of the source that a gallery shows at first."""

    source: int
    """Its position."""
    label: str
    """Its short name."""
    worst: dict[MapStage, list[ShownImage]] = field(default_factory=dict)
    """Stage -> its worst images, the last stage first."""
    confused_stage: str = ""
    """Stage of `confusion`; empty where no image has a true mask."""
    confusion: list[list[int]] = field(default_factory=list)
    """Pixels by true label value and that of the map, over the gallery's images."""
    num_confused: int = 0
    """Images behind `confusion`."""
    splits: dict[MapStage, str] = field(default_factory=dict)
    """Stage -> splits, as the gallery words them, whose images it is judged by; empty for all."""


@dataclass(frozen=True)
class ChangedImages:
    """The images that changed most from one run to another."""

    group: str
    """The compared system, or systems."""
    stage: MapStage
    """Whose scores are compared."""
    words: dict[str, str]
    """`map_key` -> letter of the side, the first one first."""
    gains: list[ShownImage]
    """The largest gain first."""
    losses: list[ShownImage]
    """The largest loss first."""
    class_names: tuple[str, ...]
    """Foreground classes in label order."""


class HighlightsMaker:
    """Gathers highlights while a gallery's pictures pass by."""

    def __init__(self, gallery: "Gallery") -> None:
        self.gallery = gallery
        self.source = gallery.shown[0] if gallery.shown else 0
        self.stages: tuple[MapStage, ...] = gallery.sources[self.source].stages if gallery.sources else ()
        self.worst: dict[MapStage, list[str]] = {}
        for stage in reversed(self.stages):
            own = [one for one in gallery.images if self._is_judged(one, stage)]
            scored = [(one.scores[self._key(stage)], one.image_id) for one in own if self._key(stage) in one.scores]
            if scored:
                self.worst[stage] = [image_id for _, image_id in sorted(scored)[:WORST_SHOWN]]
        self.kept: dict[str, dict[str, str]] = {name: {} for names in self.worst.values() for name in names}
        self.judged = {
            stage: {one.image_id for one in gallery.images if self._is_judged(one, stage)} for stage in self.stages
        }
        num = len(gallery.classes) + 1
        self.sums = {stage: [[0] * num for _ in range(num)] for stage in self.stages}
        self.counted = dict.fromkeys(self.stages, 0)

    def _is_judged(self, image: "GalleryImage", stage: MapStage) -> bool:
        """Whether a stage is judged by an image: what a network makes of those that it learned from is no result."""
        split = self.gallery.scored_on.get(stage)
        return not split or split in image.split.split(", ")

    def _splits(self) -> dict[MapStage, str]:
        found: dict[MapStage, str] = {}
        for stage in self.stages:
            judged = {image.split for image in self.gallery.images if self._is_judged(image, stage)}
            others = {image.split for image in self.gallery.images} - judged
            found[stage] = judged.pop() if len(judged) == 1 and others else ""
        return found

    def _key(self, stage: MapStage) -> str:
        return f"{self.source}.{stage}"

    def take(self, content: Mapping[str, Any]) -> None:
        """Look at one image's `Pictures`, as its line says them."""
        if content["id"] in self.kept:
            self.kept[content["id"]] = content["tiles"]
        for stage in self.stages:
            if content["id"] not in self.judged[stage]:
                continue
            if (found := content["confused"].get(self._key(stage))) is not None:
                self.counted[stage] += 1
                for true, said, pixels in found:
                    self.sums[stage][true][said] += pixels

    def write(self, folder: str) -> None:
        """Write them beside the page."""
        images = {image.image_id: image for image in self.gallery.images}
        worst: dict[MapStage, list[ShownImage]] = {}
        for stage, names in self.worst.items():
            keys = ["photo", self._key(stage), "truth"]
            worst[stage] = [
                ShownImage(
                    name,
                    images[name].labels,
                    {"IoU": images[name].scores[self._key(stage)]},
                    {key: self.kept[name][key] for key in keys if key in self.kept[name]},
                )
                for name in names
            ]
        last: MapStage | None = next((stage for stage in reversed(self.stages) if self.counted[stage]), None)
        found = Highlights(
            source=self.source,
            label=self.gallery.sources[self.source].label if self.gallery.sources else "",
            worst=worst,
            confused_stage=last or "",
            confusion=self.sums[last] if last else [],
            num_confused=self.counted[last] if last else 0,
            splits=self._splits(),
        )
        storage.write_bytes(storage.join(folder, HIGHLIGHTS_NAME), json.dumps(asdict(found)).encode())


def read_highlights(folder: str) -> Highlights:
    """Return what a finished gallery hands on.

    Raises:
        ArtifactError: when the file is damaged.
    """
    remedy = f"Remove {folder} and run `qaclims report` again, which makes it anew"
    path = storage.join(folder, HIGHLIGHTS_NAME)
    return read_json_file(path, TypeAdapter(Highlights).validate_python, remedy=remedy)


def image_address(image_id: str, **more: Any) -> str:
    """Return what stands behind a gallery's address to open it at an image."""
    return "#" + urlencode({**more, "image": image_id})


def shown_names(values: Sequence[int], names: Sequence[str]) -> str:
    """Return the names of classes in one line."""
    return ", ".join(names[value] for value in values)

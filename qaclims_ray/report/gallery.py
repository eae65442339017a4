"""A gallery: one page with every image at every stage, which fetches pictures when they come into view.

The page is a folder that can be copied: ``index.html`` and, for more pictures than fit inside it, a few script files of
about a megabyte beside it. Scripts and not JSON, because a page that is opened as a file may load nothing else.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from qaclims_ray.data import storage
from qaclims_ray.data.classes import Classes, label_value, voc_palette
from qaclims_ray.evaluation.agreement import MAP_STAGES, MapStage
from qaclims_ray.report.gallery_highlights import HIGHLIGHTS_NAME, HighlightsMaker
from qaclims_ray.report.page import render

PAGE_NAME = "index.html"
"""The page in the gallery's folder."""
INSIDE_BYTES = 16_000_000
"""Pictures of up to this size all lie inside the page: one file to send, which MLflow's own viewer shows too."""
_PART_BYTES = 1_000_000
_WRONG_SHARE, _WRONG_OF_CLASS = 0.005, 0.02
"""Of an image's pixels, and of the true class's among them; a confusion with less of both is not worth a look."""
_SPECK = 0.0005
"""Of an image's pixels; a confusion with less is left out, however small the class."""


@dataclass(frozen=True)
class GallerySource:
    """A system of a run: a line of pictures."""

    label: str
    """Its short name."""
    colour: str
    """The colour that stands for it."""
    stages: tuple[MapStage, ...]
    """Stages that drew label maps."""
    has_cams: bool
    """Whether there are CAMs."""


@dataclass(frozen=True)
class GalleryImage:
    """What is said of an image; its pictures come apart."""

    image_id: str
    """The manifest's image identifier."""
    labels: tuple[int, ...]
    """Classes that it is labelled with."""
    split: str
    """Splits that it belongs to, in words."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """`map_key` -> mean IoU of its classes."""
    disagreement: float | None = None
    """How little its label maps agree, 0 to 1."""


@dataclass(frozen=True)
class Pictures:
    """An image's pictures and what its label maps confuse."""

    image_id: str
    """The manifest's image identifier."""
    tiles: Mapping[str, str]
    """What it shows ("photo", "truth", `map_key`, `cam_key`) -> picture in base64."""
    confused: Mapping[str, Sequence[tuple[int, int, int]]]
    """`map_key` -> (true label value, that of the map, pixels) of all scored pixels, where there is a true mask."""

    def line(self) -> str:
        """Return it as a line of JSON."""
        return json.dumps({"id": self.image_id, "tiles": dict(self.tiles), "confused": dict(self.confused)})


@dataclass(frozen=True)
class Gallery:
    """All that a gallery says."""

    title: str
    """Its heading."""
    about: str
    """Which images are in it, in a sentence."""
    classes: Classes
    """Those of the data set."""
    sources: tuple[GallerySource, ...]
    """Lines of pictures."""
    shown: tuple[int, ...]
    """Positions of the sources that are shown at first."""
    images: tuple[GalleryImage, ...]
    """In the order of their ids."""
    has_truth: bool
    """Whether any image has a true mask."""
    scored_on: Mapping[MapStage, str] = field(default_factory=dict)
    """Stage -> split whose images it is judged by; of a stage that is not named, all images count."""
    home: str = ""
    """Address of the page that it belongs to, from its own folder."""
    compares: tuple[tuple[int, int, MapStage], ...] = ()
    """Two sources and the stage whose scores are held against each other; empty in a gallery of one run."""


def map_key(source: int, stage: str) -> str:
    """Return the name of a label map: position of its source, and the stage."""
    return f"{source}.{stage}"


def cam_key(source: int, class_id: int) -> str:
    """Return the name of an activation map."""
    return f"{source}.cam.{class_id}"


def write_gallery(folder: str, gallery: Gallery, lines: Iterable[bytes]) -> dict[str, Any]:
    """Write the page and its parts, and what `read_highlights` reads.

    Args:
        folder: where to.
        gallery: what it says.
        lines: `Pictures.line` of the images, in any order.

    Returns:
        Number of images, of bytes of pictures and of files beside the page.

    Raises:
        ResourceError: when the place cannot be written.
    """
    order = {image.image_id: position for position, image in enumerate(by_worst(gallery))}
    images = sorted(gallery.images, key=lambda image: order[image.image_id])
    wrong: dict[str, dict[int, list[list[int]]]] = {}
    highlights = HighlightsMaker(gallery)
    with tempfile.TemporaryDirectory() as local:
        sizes = _spread(local, lines, order, wrong, highlights)
        place_of = _places(sizes)
        inside = sum(sizes.values()) <= INSIDE_BYTES
        parts, names = [], []
        for number in range(max(place_of.values(), default=-1) + 1):
            text = _part(local, number, [at for at in sizes if place_of[at] == number])
            if inside:
                parts.append(Markup(text))
            else:
                names.append(f"pictures-{number:04d}.js")
                content = f"takePictures({number},{text});\n".encode("ascii")
                storage.write_bytes(storage.join(folder, names[-1]), content)
    index = _index(gallery, images, [place_of.get(at, -1) for at in range(len(images))], wrong, names)
    page = render(
        "gallery.html",
        title=gallery.title,
        about=gallery.about,
        home=gallery.home,
        index=Markup(_script_json(index)),
        parts=parts,
    )
    highlights.write(folder)
    storage.write_bytes(storage.join(folder, PAGE_NAME), page.encode())
    return {"images": len(images), "picture_bytes": sum(sizes.values()), "files_beside": len(names)}


def remove_gallery(folder: str) -> None:
    """Remove what `write_gallery` wrote into a folder; what else lies there stays."""
    for uri in storage.list_files(folder):
        name = uri.rpartition("/")[2]
        if name in (PAGE_NAME, HIGHLIGHTS_NAME) or re.fullmatch(r"pictures-\d+\.js", name):
            storage.remove_tree(uri)


def by_worst(gallery: Gallery) -> list[GalleryImage]:
    """Return the images with the lowest score at the last stage of the first shown source first."""
    first = gallery.shown[0] if gallery.shown else 0
    keys = [map_key(first, stage) for stage in reversed(gallery.sources[first].stages)] if gallery.sources else []

    def rank(image: GalleryImage) -> tuple[float, float, str]:
        found = next((image.scores[key] for key in keys if key in image.scores), None)
        return (2.0 if found is None else found, -(image.disagreement or 0.0), image.image_id)

    return sorted(gallery.images, key=rank)


def _spread(
    local: str,
    lines: Iterable[bytes],
    order: Mapping[str, int],
    wrong: dict[str, dict[int, list[list[int]]]],
    highlights: HighlightsMaker,
) -> dict[int, int]:
    """Lay each image's pictures into a local file of its place, and gather what is confused; return their sizes.

    Galleries are larger than memory should be; files are read again part by part.
    """
    sizes = {}
    for line in lines:
        content = json.loads(line)
        position = order.get(content["id"])
        if position is None:
            continue
        highlights.take(content)
        for key, counts in content["confused"].items():
            whole = sum(pixels for _, _, pixels in counts)
            of_class: dict[int, int] = {}
            for true, _, pixels in counts:
                of_class[true] = of_class.get(true, 0) + pixels
            large = [
                one
                for one in counts
                if one[0] != one[1]
                and one[2] >= min(_WRONG_SHARE * whole, max(_SPECK * whole, _WRONG_OF_CLASS * of_class[one[0]]))
            ]
            wrong.setdefault(key, {})[position] = [[true, said, round(1000 * n / whole)] for true, said, n in large]
        tiles = json.dumps(content["tiles"], separators=(",", ":"))
        with open(os.path.join(local, str(position)), "w", encoding="ascii") as handle:
            handle.write(tiles)
        sizes[position] = len(tiles)
    return dict(sorted(sizes.items()))


def _places(sizes: Mapping[int, int]) -> dict[int, int]:
    """Return the part of each image: neighbours lie together, about a megabyte in each."""
    places, number, room = {}, 0, _PART_BYTES
    for position, size in sizes.items():
        if room < size and room < _PART_BYTES:
            number, room = number + 1, _PART_BYTES
        places[position] = number
        room -= size
    return places


def _part(local: str, number: int, positions: Sequence[int]) -> str:
    texts = []
    for position in positions:
        with open(os.path.join(local, str(position)), encoding="ascii") as handle:
            texts.append(f'"{position}":{handle.read()}')
    return "{" + ",".join(texts) + "}"


def _index(
    gallery: Gallery,
    images: Sequence[GalleryImage],
    parts: Sequence[int],
    wrong: Mapping[str, Mapping[int, list[list[int]]]],
    names: Sequence[str],
) -> dict[str, Any]:
    keys = [map_key(at, stage) for at, source in enumerate(gallery.sources) for stage in source.stages]
    flat = voc_palette()
    colours = [flat[3 * value : 3 * value + 3] for value in map(label_value, range(len(gallery.classes)))]
    return {
        "classes": list(gallery.classes.names),
        "colours": ["#{:02x}{:02x}{:02x}".format(*colour) for colour in colours],
        "hasBackground": gallery.classes.has_background,
        "hasTruth": gallery.has_truth,
        "compares": [list(pair) for pair in gallery.compares],
        "stageWords": dict(MAP_STAGES),
        "sources": [
            {"label": one.label, "colour": one.colour, "stages": list(one.stages), "hasCams": one.has_cams}
            for one in gallery.sources
        ],
        "shown": list(gallery.shown),
        "ids": [image.image_id for image in images],
        "labels": [list(image.labels) for image in images],
        "splits": [image.split for image in images],
        "scores": {key: [_mille(image.scores.get(key)) for image in images] for key in keys},
        "disagreement": [_mille(image.disagreement) for image in images],
        "wrong": {key: [found.get(at, []) for at in range(len(images))] for key, found in wrong.items()},
        "parts": list(parts),
        "files": list(names),
    }


def _mille(value: float | None) -> int | None:
    return None if value is None else round(1000 * value)


def _script_json(value: Any) -> str:
    """Return JSON that stands in a page: no name of an image ends the script."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")

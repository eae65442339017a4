"""The parts of a run's page that lead into its gallery: the worst images of each stage, and what is taken for what."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import matplotlib
import numpy as np
from matplotlib.colors import to_hex

from qaclims_ray.evaluation.agreement import MAP_STAGES
from qaclims_ray.report.gallery import map_key
from qaclims_ray.report.gallery_highlights import ChangedImages, Highlights, ShownImage, image_address, shown_names
from qaclims_ray.report.wording import percent

GALLERY_PAGE = "gallery/index.html"
"""Address of a gallery, from the page that it belongs to."""
_MOST_LABELS = 25
"""Data sets with more labels have the largest confusions as a list."""
_LISTED = 30


@dataclass(frozen=True)
class ImageCard:
    """One image of a page."""

    name: str
    """The manifest's image identifier."""
    classes: str
    """What it is labelled with."""
    figure: str
    """What it scores, in words."""
    address: str
    """Where the gallery shows it."""
    pictures: list[tuple[str, list[str]]]
    """Words -> pictures that lie over each other, as addresses."""


@dataclass(frozen=True)
class ConfusionCell:
    """How much of a true class is taken for a class."""

    text: str
    """Percent of the true class's pixels; empty where it is less than 0.05."""
    ground: str
    """Colour; empty on the diagonal and where there is nothing."""
    ink: str
    """Colour of the text on it."""
    address: str
    """Where the gallery shows those images."""
    meaning: str
    """The same in words."""


@dataclass(frozen=True)
class Confusions:
    """What is taken for what, of the best system's last stage."""

    system: str
    """Its short name."""
    stage: str
    """The stage in words."""
    num_images: int
    """Images behind it."""
    split: str
    """Splits whose images these are; empty for all."""
    names: list[str]
    """Columns: what the map says."""
    rows: list[tuple[str, list[ConfusionCell]]]
    """True class and its cells; empty where there are too many labels for a table."""
    largest: list[ConfusionCell]
    """The largest confusions by pixels."""


def worst_images(found: Highlights, class_names: list[str]) -> list[tuple[str, str, list[ImageCard]]]:
    """Return the stage in words, the address of all its images, and its worst ones, for each stage."""
    stages = []
    for stage, images in found.worst.items():
        key = map_key(found.source, stage)
        cards = [image_card(image, class_names, key) for image in images]
        stages.append((MAP_STAGES[stage], f"{GALLERY_PAGE}#order={key}{_split(found, stage)}", cards))
    return stages


def _split(found: Highlights, stage: str) -> str:
    words = found.splits.get(stage, "")  # pyrefly: ignore[no-matching-overload]
    return f"&{urlencode({'split': words})}" if words else ""


def changed_images(found: ChangedImages) -> list[tuple[str, list[ImageCard]]]:
    """Return what a comparison shows of the images that gained and lost most: words, and the images."""
    first, other = found.words.values()
    said = f"{MAP_STAGES[found.stage]}, {other} against {first}"
    lists = {f"Largest gains: {said}": found.gains, f"Largest losses: {said}": found.losses}
    key = next(reversed(found.words))
    return [
        (words, [image_card(image, found.class_names, key, letters=found.words) for image in images])
        for words, images in lists.items()
        if images
    ]


def image_card(
    image: ShownImage, class_names: Sequence[str], key: str, letters: Mapping[str, str] | None = None
) -> ImageCard:
    """Return what a page shows of an image.

    Args:
        image: what a gallery hands on.
        class_names: foreground classes in label order.
        key: `map_key` whose order the gallery shows it in.
        letters: `map_key` -> what stands under its picture; the stage, where there are none.
    """
    tiles = dict(image.tiles)
    photo = tiles.pop("photo", "")
    pictures = [("image", [_address(photo)])] if photo else []
    for name, tile in tiles.items():
        stage = "truth" if name == "truth" else MAP_STAGES[name.rpartition(".")[2]]  # pyrefly: ignore[bad-index]
        words = (letters or {}).get(name, stage)
        pictures.append((words, [*([_address(photo)] if photo else []), _address(tile)]))
    return ImageCard(
        name=image.image_id,
        classes=shown_names(image.labels, class_names),
        figure=", ".join(f"{words} {percent(value)} %" for words, value in image.figures.items()),
        address=GALLERY_PAGE + image_address(image.image_id, order=key),
        pictures=pictures,
    )


def _address(code: str) -> str:
    return f"data:image/{'webp' if code.startswith('UklG') else 'png'};base64,{code}"


def confusions(found: Highlights, class_names: list[str], *, has_background: bool) -> Confusions | None:
    """Return the table of confusions; None where no image of the gallery has a true mask."""
    if not found.confused_stage:
        return None
    counts = np.array(found.confusion, dtype=np.int64)
    names = ["background" if has_background else "nothing", *class_names]
    key = map_key(found.source, found.confused_stage)
    split = _split(found, found.confused_stage)
    totals = counts.sum(1)
    rows = []
    if len(names) <= _MOST_LABELS:
        for true in range(len(names)):
            if totals[true]:
                rows.append(
                    (names[true], [_cell(counts, names, key, (true, said), split) for said in range(len(names))])
                )
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:_LISTED]
    places = [divmod(int(at), len(names)) for at in order if wrong.flat[at]]
    return Confusions(
        system=found.label,
        stage=MAP_STAGES[found.confused_stage],  # pyrefly: ignore[bad-index]
        num_images=found.num_confused,
        split=found.splits.get(found.confused_stage, ""),  # pyrefly: ignore[no-matching-overload]
        names=names,
        rows=rows,
        largest=[] if rows else [_cell(counts, names, key, (true, said), split) for true, said in places],
    )


def _cell(counts: np.ndarray, names: list[str], key: str, place: tuple[int, int], split: str) -> ConfusionCell:
    true, said = place
    share = float(counts[true, said] / max(1, counts[true].sum()))
    text = f"{100 * share:.1f}" if share >= 0.0005 else ""
    meaning = f"{100 * share:.1f} % of the pixels of {names[true]} are called {names[said]}"
    if true == said:
        return ConfusionCell(text, "", "", "", meaning)
    address = f"{GALLERY_PAGE}#wrong={key}.{true}.{said}{split}" if text else ""
    # A tenth is much: the colours end at three tenths.
    ground = to_hex(matplotlib.colormaps["YlOrBr"](0.08 + 0.92 * min(1.0, share / 0.3))) if text else ""
    return ConfusionCell(text, ground, "#ffffff" if share > 0.18 else "#1b1f24", address, meaning)

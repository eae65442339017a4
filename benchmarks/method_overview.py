"""Draw how a photograph and its tags become a mask, with one image of a finished run, for the README.

    python -m benchmarks.method_overview runs/miniature --out docs/results/method_overview.png

Needs a run that went to its final network, with the systems of the miniature: baseline and qa_clims. The image is the
first training image of two classes: it is chosen by its tags, not by a result. All that is drawn is what the run made.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from jaxtyping import UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from benchmarks.method_pictures import cams_of
from qaclims_ray.corpus.table import read_corpus
from qaclims_ray.data import storage
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, read_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.splits import images_with_cams
from qaclims_ray.report.contact_sheet import heat_picture, mask_picture
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.text.bank import TextBank, read_bank

BEFORE, AFTER = "baseline", "qa_clims"
_GREEN, _RED, _GREY = "#1b7f4b", "#b3372f", "#444444"
_WIDTH, _HEIGHT = 15.0, 6.2
_TILE = 2.0
"""Side of a picture, in inches as all lengths here."""


@dataclass(frozen=True)
class Story:
    """What a run made of one image and one of its classes."""

    class_names: Sequence[str]
    class_name: str
    questions: list[tuple[str, str, str]]
    """Kind, question and answer."""
    foreground: list[str]
    background: list[str]
    pictures: dict[str, UInt8[np.ndarray, "height width 3"]]


def read_story(run: str) -> Story:
    """Read what is drawn from a finished run's folder."""
    layout, config = RunLayout(run), load_config(storage.absolute(run))
    manifest = read_manifest(layout.manifest)
    train = manifest.subset(config.data.train_split)
    record = next(one for one in train.records if len(one.labels) == 2)
    first = record.labels[0]
    image = load_image(record.image_uri)
    cams = {
        name: cams_of(layout.cams(name), images_with_cams(manifest, config.data, with_training=True), {record.image_id})
        for name in (BEFORE, AFTER)
    }
    corpus = read_corpus(layout.corpus_table)
    own = corpus[(corpus["image_id"] == record.image_id) & (corpus["class_id"] == first)]
    bank = read_bank(layout.text_bank(AFTER))
    name = f"{record.image_id}.png"
    return Story(
        class_names=[manifest.class_names[label] for label in record.labels],
        class_name=manifest.class_names[first],
        questions=[(row.kind, row.question, row.answer) for row in own.itertuples()],
        **_texts(bank, record, first),
        pictures={
            "photograph": image.permute(1, 2, 0).numpy(),
            **{
                system: heat_picture(image, cams[system][record.image_id].full[0].float()) for system in (BEFORE, AFTER)
            },
            "masks": mask_picture(image, load_mask(storage.join(layout.masks(AFTER), name))),
            "predictions": mask_picture(image, load_mask(storage.join(layout.predictions(AFTER), name))),
        },
    )


def _texts(bank: TextBank, record: ImageRecord, class_id: int) -> dict[str, list[str]]:
    (row,) = bank.rows([record.image_id], [class_id])
    return {
        "foreground": [bank.texts[int(at)] for at in bank.foreground[row, : int(bank.num_foreground[row])]],
        "background": [bank.texts[int(at)] for at in bank.background[row, : int(bank.num_background[row])]],
    }


def draw(story: Story) -> Figure:
    """Draw the way from a photograph to a network, from left to right."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), facecolor="white")
    page = figure.add_axes((0, 0, 1, 1))
    page.set_xlim(0, _WIDTH)
    page.set_ylim(0, _HEIGHT)
    page.axis("off")
    tags = " and ".join(f"“{name}”" for name in story.class_names)
    _picture(page, story, "photograph", (0.3, 2.1), f"An image, and what it shows:\n{tags}")
    _answers(page, story)
    _words(page, story)
    _picture(page, story, BEFORE, (3.4, 0.75), f"What tells images with\n“{story.class_name}” from others")
    _picture(page, story, AFTER, (6.7, 0.75), "The same network, once CLIP has\nread its regions against the texts")
    _picture(page, story, "masks", (9.9, 0.75), "Grown to outlines:\na pseudo mask")
    _picture(page, story, "predictions", (12.6, 0.75), "A network that has learnt from\nall masks, told no tags")
    _arrow(page, (2.4, 3.5), (3.3, 4.4))
    _arrow(page, (2.4, 2.7), (3.3, 1.9))
    _arrow(page, (8.8, 4.4), (9.3, 4.4))
    _arrow(page, (5.5, 1.75), (6.6, 1.75))
    _arrow(page, (9.6, 3.25), (8.3, 2.82))
    _arrow(page, (8.8, 1.75), (9.8, 1.75))
    _arrow(page, (12.0, 1.75), (12.5, 1.75))
    return figure


def _picture(page: Axes, story: Story, name: str, corner: tuple[float, float], caption: str) -> None:
    left, low = corner
    page.imshow(story.pictures[name], extent=(left, left + _TILE, low, low + _TILE), aspect="auto", zorder=2)
    page.text(left + _TILE / 2, low - 0.08, caption, ha="center", va="top", fontsize=9.5, color=_GREY)


def _arrow(page: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    page.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=16, color=_GREY, linewidth=1.4))


def _box(page: Axes, left: float, low: float, width: float, height: float, title: str) -> None:
    shape = FancyBboxPatch(
        (left, low),
        width,
        height,
        boxstyle="round,pad=0.02,rounding_size=0.08",
        facecolor="#f6f6f4",
        edgecolor="#bbbbbb",
    )
    page.add_patch(shape)
    page.text(left + 0.12, low + height - 0.12, title, va="top", fontsize=9.5, weight="bold", color=_GREY)


def _answers(page: Axes, story: Story) -> None:
    """Some questions with their answers: one of each group of the corpus."""
    _box(page, 3.4, 3.35, 5.3, 2.5, f"Sixteen questions about “{story.class_name}”, answered by a VQA model")
    shown: list[tuple[str, str, str]] = []
    for kind, count in (("background", 3), ("foreground", 2)):
        distinct = {answer: (kind, question, answer) for one, question, answer in story.questions if one == kind}
        shown += list(distinct.values())[:count]
    for line, (kind, question, answer) in enumerate(shown):
        height = 5.35 - 0.4 * line
        page.text(3.55, height, question, fontsize=9, color=_GREY, va="center")
        colour = _GREEN if kind == "foreground" else _RED
        page.text(8.55, height, answer, fontsize=9, color=colour, va="center", ha="right", weight="bold")


def _words(page: Axes, story: Story) -> None:
    """The texts that CLIP gets, those of the class above those of its background."""
    _box(page, 9.4, 3.35, 5.3, 2.5, "Texts for a frozen CLIP")
    sides = (
        (5.3, _GREEN, "draw the map to", story.foreground[:3]),
        (4.4, _RED, "push it away from", story.background[:3]),
    )
    for top, colour, wish, texts in sides:
        page.text(9.55, top, wish, fontsize=9, color=colour, va="center", weight="bold")
        for line, text in enumerate(texts):
            page.text(11.1, top - 0.27 * line, text, fontsize=9, color=_GREY, va="center")


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--out", type=Path, required=True, help="the picture, a .png")
    asked = parser.parse_args()
    matplotlib.rcParams["font.family"] = "DejaVu Sans"
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    draw(read_story(asked.run)).savefig(asked.out, dpi=110)
    print(f"{asked.out}  {asked.out.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()

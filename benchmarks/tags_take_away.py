"""What image tags take away from SAM 3: how much of what it paints by class names no tag names.

    python benchmarks/tags_take_away.py RUN --model facebook/sam3          # a folder works too
    python benchmarks/tags_take_away.py RUN --model DIR --images 200 --device cuda

RUN is the folder of a run whose data was read (`qaclims data ...`). Every image is asked about all classes of the data
set, as somebody does who has no tags: the score of a pixel is that of `sam3_names`, times SAM 3's own presence of the
class, and a pixel shows the class with the highest score above the threshold. With tags the scores are those of the
system, for the classes of the image alone and without presence, which the tag replaces. Printed are tables of
docs/results/sam.md; true masks are not read.
"""

import argparse
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, read_manifest
from qaclims_ray.data.splits import images_with_cams
from qaclims_ray.methods.sam3_names.network import LoadSam3Names, Sam3Names
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.text.prompts import class_words

NOTHING = -1
"""Of a pixel that shows no class."""


@dataclass(frozen=True)
class Painted:
    """What was painted over some images, by class."""

    images: Int64[Tensor, " class"]
    """Images where the class was painted somewhere."""
    untagged_images: Int64[Tensor, " class"]
    """Those of them that are not tagged with it."""
    pixels: Int64[Tensor, " class"]
    """Pixels painted as the class."""
    untagged_pixels: Int64[Tensor, " class"]
    """Those of them in images that are not tagged with it."""
    taken_over: int
    """Pixels that no tag named and that show a tagged class where only these are asked for; the others show nothing."""
    touched: int
    """Images where something was painted that no tag names."""
    seen: int
    """Images that were asked about."""


Asked = tuple[Float[Tensor, "class height width"], Float[Tensor, "class height width"], Sequence[int]]
"""Scores of all classes of an image with presence and without, and the classes of its tags."""


def count(scored: Iterable[Asked], threshold: float) -> Painted:
    """Count what is painted with all names, and what of it no tag names.

    Args:
        scored: of each image.
        threshold: a pixel shows the class with the highest score, if that is above it.
    """
    images = untagged_images = pixels = untagged_pixels = torch.zeros(0, dtype=torch.int64)
    taken_over = touched = seen = 0
    for scores, of_tags, own in scored:
        if not seen:
            images, untagged_images, pixels, untagged_pixels = torch.zeros(4, len(scores), dtype=torch.int64)
        seen += 1
        is_own = torch.zeros(len(scores), dtype=torch.bool)
        is_own[list(own)] = True
        shown, with_tags = _foremost(scores, threshold), _foremost(of_tags * is_own[:, None, None], threshold)
        painted = torch.bincount(shown[shown != NOTHING], minlength=len(scores))
        images += painted > 0
        pixels += painted
        untagged_images += (painted > 0) & ~is_own
        untagged_pixels += painted * ~is_own
        is_foreign = (shown != NOTHING) & ~is_own[shown.clamp_min(0)]
        taken_over += int((is_foreign & (with_tags != NOTHING)).sum())
        touched += bool(is_foreign.any())
    return Painted(images, untagged_images, pixels, untagged_pixels, taken_over, touched, seen)


def _foremost(scores: Float[Tensor, "class height width"], threshold: float) -> Int64[Tensor, "height width"]:
    best, foremost = scores.max(0)
    return torch.where(best > threshold, foremost, NOTHING)


def all_scores(named: Sam3Names, records: Sequence[ImageRecord], num_classes: int) -> Iterable[Asked]:
    """Yield what is counted of each image."""
    for record in records:
        answers = named.answers(load_image(record.image_uri), range(num_classes), CamConfig(precision="fp32"))
        plain = torch.stack([one.scores for one in answers])
        yield plain * torch.tensor([one.presence for one in answers])[:, None, None], plain, record.labels


def tables(found: Painted, names: Sequence[str]) -> str:
    """Return the tables in Markdown: all in all, and by class."""

    def share(part: int, whole: int) -> str:
        return f"{100 * part / whole:.1f} %" if whole else "-"

    foreign, painted = int(found.untagged_pixels.sum()), int(found.pixels.sum())
    lines = [
        "| of what SAM 3 paints by all class names | no tag names it |",
        "|---|---|",
        f"| images ({found.seen}) | {share(found.touched, found.seen)} |",
        f"| pairs of image and class ({int(found.images.sum())}) | "
        f"{share(int(found.untagged_images.sum()), int(found.images.sum()))} |",
        f"| pixels | {share(foreign, painted)} |",
        f"| ... which with tags show a class that is named | {share(found.taken_over, painted)} |",
        f"| ... which with tags show nothing | {share(foreign - found.taken_over, painted)} |",
        "",
        "| class | images painted | of them not tagged | of its pixels not tagged |",
        "|---|---|---|---|",
    ]
    for index, name in enumerate(names):
        own = int(found.images[index])
        lines.append(
            f"| {name} | {own} | {share(int(found.untagged_images[index]), own)} | "
            f"{share(int(found.untagged_pixels[index]), int(found.pixels[index]))} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse the arguments, ask, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a run whose data was read")
    parser.add_argument("--model", required=True, help="hub name or folder of SAM 3")
    parser.add_argument("--images", type=int, help="so many images, spread evenly over the run's; all unless given")
    parser.add_argument("--threshold", type=float, default=0.5, help="score that makes a pixel foreground")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    arguments = parser.parse_args()
    config = load_config(arguments.run)
    manifest = images_with_cams(read_manifest(RunLayout(arguments.run).manifest), config.data, with_training=False)
    records = manifest.records
    if arguments.images and arguments.images < len(records):
        records = [records[index * len(records) // arguments.images] for index in range(arguments.images)]
    words = class_words(manifest.class_names, config.text)
    named = LoadSam3Names(model=arguments.model, words=words, least_score=config.sam3_names.least_score)(
        torch.device(arguments.device)
    )
    print(f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()},", end=" ")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "transformers"))
    print(f"{versions}; {arguments.model} on {arguments.device}, threshold {arguments.threshold:g}\n")
    print(tables(count(all_scores(named, records, len(words)), arguments.threshold), manifest.class_names))


if __name__ == "__main__":
    main()

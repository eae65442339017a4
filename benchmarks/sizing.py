"""Hours and storage of a run by images and GPUs, from throughputs that were measured and the settings of a preset.

    python benchmarks/sizing.py                                   # VOC 2012 and COCO 2014
    python benchmarks/sizing.py --preset voc12 --images 50000 --classes-per-image 2 --gpus 2 16
    python benchmarks/sizing.py --page docs/cluster/sizing.md     # writes the tables of that page

Throughputs are in ``throughput.json``. A stage that nobody measured on a GPU has no hours here, not even a guess.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from qaclims_ray.corpus.questions import question_set
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig
from qaclims_ray.systems.needs import systems_with_cams, systems_with_networks
from qaclims_ray.systems.table import system_of, training_order

START, END = "<!-- tables -->", "<!-- /tables -->"
THROUGHPUTS = Path(__file__).with_name("throughput.json")
CONDITIONS = "one NVIDIA H200, 2026-11-20, torch 2.11.0, random weights"

BACKBONE_GFLOP = 192.0
"""ResNet-50 at stride 16, 512x512, forward and backward, one image (docs/results/full_size.md)."""
CONTRAST_GFLOP_PER_CLASS = 644.0
"""Mask-adapted ViT-L/14 on the two regions of a pair, forward and backward: 966 GFLOP at 1.5 classes an image."""
DEEPLAB_GFLOP = 801.0
"""DeepLabV2 with ResNet-101, three scales, crop 321, one image (docs/results/full_size.md)."""
VOC_PIXELS, COCO_PIXELS = 375 * 500, 480 * 640
"""Of a usual image; CAMs are made at its size."""
IMAGE_KIB = 90.4
"""Mean JPEG of the 180 photographs of docs/results/voc_sample.md."""
ANSWER_BYTES = 9.3
"""Of one row of the corpus: 117 KiB for 12,944 answers of the miniature."""
MASK_KIB = 4.0
"""Of one palette PNG of 640x480 with 8 objects (docs/data_sets.md)."""
PARAMETERS = {"cam": 23.5e6, "final": 44.05e6}
"""ResNet-50 with classifier, DeepLabV2 with ResNet-101 (docs/results/full_size.md)."""
GIB = 2**30


@dataclass(frozen=True)
class Workload:
    """A data set of some size, and how it is run."""

    config: RunConfig
    images: int
    """Training images."""
    classes: float
    """Mean number of labels of an image."""
    pixels: int = VOC_PIXELS
    """Of an image."""

    def __post_init__(self) -> None:
        if self.images < 1 or self.classes <= 0:
            raise SystemExit(
                f"{self.images} images with {self.classes} classes each: expected at least one image and more than none"
            )


@dataclass(frozen=True)
class StageCost:
    """What one stage of a run has to do."""

    name: str
    work: float
    """Answers, images or TFLOP, as the throughput counts; 0 where nothing was measured."""
    throughput: str
    """Its key in throughput.json, or "" where nobody measured one."""
    note: str = ""

    def hours(self, gpus: int, rates: dict[str, float]) -> float | None:
        """Return hours on so many GPUs, each as fast as one; None where nothing was measured."""
        return self.work / rates[self.throughput] / gpus / 3600 if self.throughput else None


def stage_costs(load: Workload) -> list[StageCost]:
    """Return the stages of a run with what each has to do."""
    config, images = load.config, load.images
    if config.masks.steps != ("irn",) or config.segmentation.net.architecture != "deeplab_v2":
        raise SystemExit(f"{config.name} refines and segments otherwise than by IRN and DeepLabV2: not sized here")
    methods = [system_of(config, name).method for name in training_order(config)]
    if set(methods) - {"classifier", "qa_clims"}:
        raise SystemExit(f"{config.name} trains systems of methods {sorted(set(methods))}: only RITC is sized here")
    contrasts = methods.count("qa_clims")
    contrast_tflop = (BACKBONE_GFLOP + CONTRAST_GFLOP_PER_CLASS * load.classes) / 1000
    bf16 = config.cluster.arithmetic == "bf16"
    # A throughput counts for the settings it was measured with, and for no others.
    backbone = "h200_backbone_bf16" if bf16 else ""
    # Hours of inference are at most those in fp32, which is what was timed.
    asked_alike = (config.corpus.engine, config.corpus.num_beams) == ("blip", 3)
    cams_alike = len(config.cams.scales) == 4 and config.cams.flip
    cams, finals = len(systems_with_cams(config)), len(systems_with_networks(config))
    answers = images * load.classes * len(question_set(config.corpus.questions))
    epochs = config.classifier.optim.epochs * images
    final = config.segmentation.optim
    steps = final.epochs * (config.segmentation.steps_per_epoch or max(images // final.batch_size, 1))
    return [
        StageCost("corpus", answers, "h200_corpus_fp32" if asked_alike else "", f"{answers:,.0f} answers"),
        StageCost(
            "image-level classifier",
            epochs * BACKBONE_GFLOP / 1000,
            backbone,
            f"{config.classifier.optim.epochs} epochs",
        ),
        StageCost(
            f"RITC, {contrasts} systems",
            contrasts * config.ritc.optim.epochs * images * contrast_tflop,
            "h200_contrast_bf16" if bf16 else "h200_contrast_fp32",
            f"{config.ritc.optim.epochs} epochs each",
        ),
        StageCost(
            f"CAMs, {cams} systems",
            cams * images * load.pixels / VOC_PIXELS,
            "h200_cams_fp32" if cams_alike else "",
            f"{len(config.cams.scales)} scales, mirrored",
        ),
        StageCost(f"IRN and random walk, {cams} systems", 0, "", f"{config.masks.irn.optim.epochs} epochs each"),
        StageCost(
            f"final network, {finals}{' (with the bound)' if config.supervised_bound else ''}",
            finals * steps * final.batch_size * DEEPLAB_GFLOP / 1000,
            backbone,
            f"{steps:,} steps of {final.batch_size} each",
        ),
        StageCost("label maps of the final networks, CRF", 0, "", ""),
    ]


def storage_gib(load: Workload) -> dict[str, float]:
    """Return GiB by kind of artefact; CAMs before compression, so at most."""
    config, images = load.config, load.images
    systems, pairs = len(systems_with_cams(config)), images * load.classes
    answers = pairs * len(question_set(config.corpus.questions))
    maps = {"full": 1.0, "grid": config.cams.grid_stride**-2, "both": 1.0 + config.cams.grid_stride**-2}
    cam_bytes = load.pixels * maps[config.cams.store] * (2 if config.cams.dtype == "float16" else 4)
    # A training keeps two checkpoints of weights and momentum beside its artefact, and removes them at its end.
    weights = 4 * (systems * PARAMETERS["cam"] + (systems + 1) * PARAMETERS["final"])
    return {
        "images": images * IMAGE_KIB * 1024 / GIB,
        "corpus": answers * ANSWER_BYTES / GIB,
        f"CAMs, {systems} systems, at most": systems * pairs * cam_bytes / GIB,
        f"seeds and pseudo masks, {systems} systems": 2 * systems * images * MASK_KIB * 1024 / GIB,
        "networks": weights / GIB,
        "checkpoints, while it trains": 4 * 4 * PARAMETERS["final"] / GIB,
    }


def sizing_table(load: Workload, gpus: list[int]) -> str:
    """Return hours by stage and storage by kind, in Markdown."""
    if not gpus or min(gpus) < 1:
        raise SystemExit(f"--gpus {gpus}: expected one or more numbers of at least 1")
    throughputs = json.loads(THROUGHPUTS.read_text())
    rates = {name: row["value"] for name, row in throughputs.items()}
    lines = [
        f"### Preset `{load.config.name}`: {load.images:,} images, {load.classes} classes an image",
        "",
        f"| stage | what | by | {' | '.join(f'hours, {count} GPU' + 's' * (count > 1) for count in gpus)} |",
        "|---" * (3 + len(gpus)) + "|",
    ]
    costs = stage_costs(load)
    for cost in costs:
        by = "-" if not cost.throughput else "measured" if throughputs[cost.throughput]["measured"] else "derived"
        cells = [cost.hours(count, rates) for count in gpus]
        shown = ["not measured" if hours is None else f"{hours:.2f}" for hours in cells]
        lines.append(f"| {cost.name} | {cost.note} | {by} | {' | '.join(shown)} |")
    sums = [sum(cost.hours(count, rates) or 0 for cost in costs) for count in gpus]
    bold = " | ".join(f"**{hours:.1f}**" for hours in sums)
    lines.append(f"| **together, without what was not measured** | | | {bold} |")
    kinds = storage_gib(load)
    lines += ["", "| storage | GiB |", "|---|---|"]
    lines += [f"| {kind} | {size:.1f} |" for kind, size in kinds.items()]
    return "\n".join([*lines, f"| **together** | **{sum(kinds.values()):.0f}** |"])


def throughput_table() -> str:
    """Return the throughputs that hours are computed from, in Markdown."""
    rows = json.loads(THROUGHPUTS.read_text()).values()
    lines = ["### Throughputs", "", f"Of {CONDITIONS}.", "", "| value | of |", "|---|---|"]
    return "\n".join([*lines, *(f"| {row['value']:,} {row['unit']} | {row['source']} |" for row in rows)])


def page_tables(gpus: list[int]) -> str:
    """Return everything that the page holds: VOC 2012 and COCO 2014."""
    loads = [Workload(preset("voc12"), 10_582, 1.5), Workload(preset("coco14"), 82_081, 2.9, COCO_PIXELS)]
    return "\n\n".join([*(sizing_table(load, gpus) for load in loads), throughput_table()])


def main() -> None:
    """Parse the arguments; print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="voc12", help="with --images: whose settings; IRN and DeepLabV2")
    parser.add_argument("--images", type=int, help="training images; without it VOC 2012 and COCO 2014 are sized")
    parser.add_argument("--classes-per-image", type=float, default=1.5)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--page", type=Path, help="write the tables of VOC and COCO into this file")
    arguments = parser.parse_args()
    if arguments.page and arguments.images is not None:
        parser.error("--page holds VOC and COCO; leave out --images")
    if arguments.images is None:
        body = page_tables(arguments.gpus)
    else:
        load = Workload(preset(arguments.preset), arguments.images, arguments.classes_per_image)
        body = f"{sizing_table(load, arguments.gpus)}\n\n{throughput_table()}"
    print(body)
    if arguments.page:
        text = arguments.page.read_text()
        arguments.page.write_text(f"{text.split(START)[0]}{START}\n{body}\n{END}{text.split(END)[1]}")


if __name__ == "__main__":
    main()

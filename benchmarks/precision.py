"""Measure on a finished run of the miniature what bf16 and fp16 change, stage by stage.

    python -m benchmarks.precision RUN [--trained RUN_IN_BF16] [--images 200] [--stages corpus text cams masks final]

Each stage's network infers again in fp32, bf16 and fp16 from what the run holds before it, everything else as in the
run: the answers of the corpus, the texts' features, CAMs, IRN's pseudo masks, the final network's masks. Printed are
the share of answers or of mask pixels that differ from fp32's, and the mIoU. With ``--trained``, a run of the same
settings and seed with another ``cluster.precision``, the two runs' figures follow. In bf16 and fp16 batch norm is
folded into convolutions, as it is on GPUs.

Scores are with pixel labels. Needs neither Ray nor a GPU: a CPU rounds to the same types, at its own speed.
"""

import argparse
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import torch
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam, compute_cams
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.corpus import build
from qaclims_ray.corpus.questions import question_set
from qaclims_ray.data.artifacts import require_artifact
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import ImageRecord, Manifest, read_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, seed_scores
from qaclims_ray.methods.table import method_of
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.devices import BatchSize, dtype_of
from qaclims_ray.models.folding import without_batch_norm
from qaclims_ray.models.generators.mask_generator import load_mask_generator
from qaclims_ray.models.precision import Arithmetic
from qaclims_ray.refine.irn.network import boundary_maps, load_affinity_net
from qaclims_ray.refine.refinement import Refiners, refine_cams
from qaclims_ray.refine.shares import HALF
from qaclims_ray.run_config import RunConfig
from qaclims_ray.segmentation.inference import as_class_maps, segment_images
from qaclims_ray.segmentation.networks.network import load_segmentation_network
from qaclims_ray.stages.corpus import load_engine
from qaclims_ray.stages.evaluate import read_evaluation
from qaclims_ray.stages.layout import RunLayout, network_uri_of
from qaclims_ray.stages.refine import read_pseudo_masks
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.segment import read_segmentation
from qaclims_ray.systems.needs import systems_with_cams, systems_with_networks
from qaclims_ray.systems.recipe import clip_files, vqa_model
from qaclims_ray.systems.table import system_config, system_of
from qaclims_ray.text.bank import read_bank

ROUNDED: tuple[Arithmetic, ...] = ("bf16", "fp16")
Compared = tuple[list[ImageRecord], float, Callable[[Arithmetic], Iterable[ImageCam]]]
"""Images, the border of their maps, and what makes the maps in a precision."""
_BATCH = 16


@dataclass(frozen=True)
class Row:
    """What one precision changes in one stage."""

    stage: str
    """And the system, where it has one."""
    precision: Arithmetic
    """Held against fp32."""
    differs: str
    """How much of the results differs."""
    score: str = ""
    """Score in fp32, and in this precision."""


@dataclass(frozen=True)
class Run:
    """A finished run, and the images that are looked at."""

    layout: RunLayout
    """Its folder."""
    config: RunConfig
    """Its settings."""
    manifest: Manifest
    """All of its images."""
    num_images: int
    """At most so many of a split."""

    def records(self, split: str) -> list[ImageRecord]:
        """Return images of a split that have a mask, evenly spread."""
        found = [record for record in self.manifest.records if split in record.splits and record.mask_uri]
        return found[:: max(1, len(found) // self.num_images)][: self.num_images]


def corpus_rows(run: Run) -> Iterator[Row]:
    """Ask the VQA model in each precision."""
    config, questions = run.config.corpus, question_set(run.config.corpus.questions)
    shards = build.plan_shards(replace(run.manifest, records=tuple(run.records(run.config.data.train_split))), 32)
    answers: dict[str, list[str]] = {}
    for precision in ("fp32", *ROUNDED):
        own = replace(config, precision=precision)
        ask = load_engine(vqa_model(run.config), own, BatchSize(own.questions_per_batch, "corpus.questions_per_batch"))
        decoded = (build.decode_shard(shard, own.image_size) for shard in shards)
        rows = [row for d in decoded for row in build.answer_shard(d, ask, questions, run.manifest.class_names, own)]
        answers[precision] = [row["answer"] for row in rows]
    for precision in ROUNDED:
        pairs = list(zip(answers["fp32"], answers[precision], strict=True))
        yield Row("corpus", precision, f"{sum(a != b for a, b in pairs) / len(pairs):.2%} of {len(pairs)} answers")


def text_rows(run: Run) -> Iterator[Row]:
    """Encode the texts of the last system's bank in each precision."""
    with_texts = [name for name in run.config.systems if method_of(system_of(run.config, name).method).uses_texts]
    system = with_texts[-1]
    bank, (model, weights) = read_bank(run.layout.text_bank(system)), clip_files(run.config)
    features: dict[str, Tensor] = {}
    for precision in ("fp32", *ROUNDED):
        dtype = dtype_of(precision, "cpu")
        clip = load_clip(model, weights, device="cpu", dtype=dtype, mask_adapted=run.config.clip.mask_adapted)
        with torch.no_grad():
            features[precision] = clip.encode_texts(list(bank.texts)).double()
    exact = features["fp32"]
    for precision in ROUNDED:
        cosines = torch.nn.functional.cosine_similarity(exact, features[precision])
        moved = (features[precision] @ features[precision].T - exact @ exact.T).abs().max()
        text = f"largest angle {torch.rad2deg(cosines.clamp(max=1).acos()).max():.2f} degrees of {len(cosines)} texts"
        yield Row("text bank", precision, f"{text}, similarities move by at most {moved:.4f}")


def cam_rows(run: Run) -> Iterator[Row]:
    """Compute every system's CAMs in each precision."""
    for system in systems_with_cams(run.config):
        yield from _compared(f"CAMs, {system}", run, *_cams_of(run, system))


def _cams_of(run: Run, system: str) -> Compared:
    config = system_config(run.config, system)
    records, mean, std = run.records(config.data.eval_split), config.cam_net.image_mean, config.cam_net.image_std
    method = method_of(system_of(run.config, system).method)
    network_in = _network_in(load_mask_generator(network_uri_of(run.layout, system, method)))

    def cams(precision: Arithmetic) -> Iterator[ImageCam]:
        for batch in _batches(records):
            images, labels = [load_image(record.image_uri) for record in batch], [record.labels for record in batch]
            names = [record.image_id for record in batch]
            yield from compute_cams(
                network_in(precision),
                images,
                labels,
                names,
                config.cams,
                mean,
                std,
                precision=precision,
            )

    return records, config.fixed_threshold, cams


def mask_rows(run: Run) -> Iterator[Row]:
    """Refine every system's CAMs by IRN, whose network infers in each precision; the CAMs are fp32's."""
    for system in systems_with_cams(run.config) if run.config.masks.steps == ("irn",) else ():
        yield from _compared(f"IRN's masks, {system}", run, *_masks_of(run, system))


def _masks_of(run: Run, system: str) -> Compared:
    config, (records, _, cams) = system_config(run.config, system).masks, _cams_of(run, system)
    network_in, seeds = _network_in(load_affinity_net(run.layout.affinity(system))), list(cams("fp32"))

    def masks(precision: Arithmetic) -> Iterator[ImageCam]:
        network, pad_px = network_in(precision), config.irn.pad_px
        refiners = Refiners(lambda images: boundary_maps(network, images, pad_px, precision=precision))
        for start in range(0, len(records), _BATCH):
            images = [load_image(record.image_uri) for record in records[start : start + _BATCH]]
            part = seeds[start : start + _BATCH]
            yield from refine_cams(images, part, config, refiners, run.manifest.classes).cams

    return records, config.irn.walk_threshold, masks


def final_rows(run: Run) -> Iterator[Row]:
    """Segment the test split by every final network in each precision, without CRF."""
    for system in systems_with_networks(run.config) if run.config.goal == "segmentation" else ():
        yield from _compared(f"final network, {system}", run, *_segmented_by(run, system))


def _segmented_by(run: Run, system: str) -> Compared:
    records, test = run.records(run.config.data.test_split), system_config(run.config, system).segmentation.test
    network = load_segmentation_network(run.layout.segmentation(system)).to(memory_format=torch.channels_last)
    network_in, net = _network_in(network), network.config

    def masks(precision: Arithmetic) -> Iterator[ImageCam]:
        for batch in _batches(records):
            images, maps = [load_image(record.image_uri) for record in batch], {}
            parts = segment_images(
                network_in(precision), images, test, net.image_mean, net.image_std, precision=precision
            )
            for positions, probabilities in parts:
                for position, one in zip(positions, probabilities, strict=True):
                    maps[position] = as_class_maps(batch[position].image_id, one)
            yield from (maps[position] for position in range(len(batch)))

    return records, HALF, masks


def _network_in(network: Any) -> Callable[[Arithmetic], Any]:
    """Return what gives a network as it infers in a precision: batch norm is folded but in fp32, as on a GPU."""
    without_norm = without_batch_norm(network.eval())
    return lambda precision: network if precision == "fp32" else without_norm


def _batches(records: Sequence[ImageRecord]) -> Iterator[Sequence[ImageRecord]]:
    return (records[start : start + _BATCH] for start in range(0, len(records), _BATCH))


def _compared(
    stage: str,
    run: Run,
    records: Sequence[ImageRecord],
    border: float,
    maps: Callable[[Arithmetic], Iterable[ImageCam]],
) -> Iterator[Row]:
    """Yield how masks and their mIoU in each precision differ from those in fp32."""
    classes, scores, masks = run.manifest.classes, {}, {}
    for precision in ("fp32", *ROUNDED):
        sweep, masks[precision] = ThresholdSweep((border,), len(classes)), []
        for record, cam in zip(records, maps(precision), strict=True):
            assert record.mask_uri is not None
            sweep.update(cam, load_mask(record.mask_uri), record.labels)
            masks[precision].append(label_map(cam, border).flatten())
        scores[precision] = seed_scores(sweep, border, classes).miou_fixed
    exact = torch.cat(masks["fp32"])
    for precision in ROUNDED:
        differs = (torch.cat(masks[precision]) != exact).double().mean()
        score = f"{scores['fp32']:.2%} -> {scores[precision]:.2%}"
        yield Row(stage, precision, f"{differs:.3%} of the pixels of {len(records)} masks", score)


def trained_rows(run: Run, other: Run) -> Iterator[Row]:
    """Hold the figures of two whole runs against each other."""
    precision, splits = other.config.cluster.arithmetic, run.config.data
    ours, theirs = (_figures(each) for each in (run, other))
    for name in (name for name in ours if name in theirs):
        split = splits.test_split if name.startswith("final") else splits.eval_split
        yield Row(f"{name} ({split})", precision, "trained anew", f"{ours[name]:.2%} -> {theirs[name]:.2%}")


def _figures(run: Run) -> dict[str, float]:
    """Return the mIoU of a run's seeds, masks and final networks at their fixed thresholds."""
    layout, goal = run.layout, run.config.goal
    figures: dict[str, SeedScores | None] = {}
    for system in systems_with_cams(run.config):
        figures[f"seeds, {system}"] = read_evaluation(layout.evaluation(system)).seed
        if goal != "seed":
            meta = require_artifact(layout.masks(system), "masks", verb="refine")
            figures[f"masks, {system}"] = read_pseudo_masks(layout.masks(system), meta).scores
    for system in systems_with_networks(run.config) if goal == "segmentation" else ():
        figures[f"final network, {system}"] = read_segmentation(layout.predictions(system)).plain
    return {name: scores.miou_fixed for name, scores in figures.items() if scores is not None}


STAGES: dict[str, Callable[[Run], Iterator[Row]]] = {
    "corpus": corpus_rows,
    "text": text_rows,
    "cams": cam_rows,
    "masks": mask_rows,
    "final": final_rows,
}


def read(folder: str, num_images: int) -> Run:
    """Return a finished run."""
    layout = RunLayout(folder)
    return Run(layout, load_config(folder), read_manifest(layout.manifest), num_images)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description="what bf16 and fp16 change in each stage of a finished run")
    parser.add_argument("run", help="folder of the run, in fp32")
    parser.add_argument("--trained", help="folder of the same run with another cluster.precision")
    parser.add_argument("--images", type=int, default=200, help="at most so many images of a split")
    parser.add_argument("--stages", nargs="*", choices=tuple(STAGES), default=list(STAGES))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    run = read(options.run, options.images)
    print(
        f"seed {run.config.seed}, {platform.machine()} CPU, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}\n\n"
        "| stage | precision | differs from fp32 | mIoU, fp32 -> this |\n|---|---|---|---|"
    )
    rows = [STAGES[stage](run) for stage in options.stages]
    if options.trained:
        rows.append(trained_rows(run, read(options.trained, options.images)))
    for each in rows:
        for row in each:
            print(f"| {row.stage} | {row.precision} | {row.differs} | {row.score} |", flush=True)


if __name__ == "__main__":
    main()

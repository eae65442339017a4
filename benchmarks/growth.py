"""How what the driver does grows with the data set: time and memory of each function over all images.

    python benchmarks/growth.py [--images 10000 100000]

Manifests are made up, with two labels an image, one image in eleven scored, and no photograph is read; label maps hold
one pixel. Planning, a stage that was stopped when all its shards were done and is called again, its tables, the list of
its files, the counts of all images, and what a report reads off them. Times are CPU seconds over records; a function
that is linear has the same number in both columns. Each size has a process of its own. Memory is what that process has
taken at its highest so far, with the libraries that it imports (read from /proc, so on Linux alone).
"""

import argparse
import functools
import io
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.shards import places_in_shards, plan_fingerprint, shards_of
from qaclims_ray.data.splits import images_with_cams, scored_images, training_images
from qaclims_ray.data.storage import listing_fingerprint
from qaclims_ray.evaluation.image_counts import CountedFigure, LabelCounts, read_image_counts, write_image_counts
from qaclims_ray.evaluation.image_scores import image_scores, own_interval
from qaclims_ray.evaluation.sweep import ThresholdSweep, sweep_thresholds
from qaclims_ray.presets.miniature import miniature
from qaclims_ray.refine.mask_index import mask_file_name, read_mask_index
from qaclims_ray.stages.gallery import choose
from qaclims_ray.stages.image_stage import Part, run_image_stage, write_part
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.mask_images import masked_images
from qaclims_ray.stages.refine import write_mask_tables
from qaclims_ray.stages.stage import Stage

_RESAMPLES = 1000
"""As a report draws them."""


def made_up(num_images: int) -> Manifest:
    """Return a manifest of which every eleventh image is scored, and the others are trained on."""
    records = tuple(
        ImageRecord(
            image_id=f"2007_{index:06d}",
            image_uri=f"/data/JPEGImages/2007_{index:06d}.jpg",
            width=500,
            height=375,
            labels=tuple(sorted({index % 20, (index + 7) % 20})),
            mask_uri=f"/data/SegmentationClass/2007_{index:06d}.png",
            splits=("val",) if index % 11 == 0 else ("train",),
        )
        for index in range(num_images)
    )
    return Manifest(class_names=tuple(f"class {index}" for index in range(20)), records=records)


def counts_of(record: ImageRecord) -> list[LabelCounts]:
    """Return made-up counts of an image: background and its labels."""
    return [(0, 90_000, 95_000, 100_000, 0), *((label + 1, 30_000, 50_000, 40_000, 1) for label in record.labels)]


def counted(manifest: Manifest) -> Iterator[tuple[str, Iterator[LabelCounts]]]:
    """Yield the counts of each image, which are made when they are written."""
    return ((record.image_id, _rows_of(record)) for record in manifest.records)


def _rows_of(record: ImageRecord) -> Iterator[LabelCounts]:
    yield from counts_of(record)


def most_memory() -> float:
    """Return this process's memory at its highest, MiB; getrusage would tell of the process that began it too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


class Notes:
    """What calls took."""

    def __init__(self, num_images: int) -> None:
        self.num_images = num_images
        self.found: dict[str, tuple[float, float]] = {}
        """Name -> microseconds an image, and the process's memory at its highest so far, MiB."""

    def note(self, name: str, call: Callable[[], Any]) -> Any:
        """Return a call's result, and note what it took; said at once, since a million images take a while."""
        started = time.process_time()
        result = call()
        took, memory = 1e6 * (time.process_time() - started) / self.num_images, most_memory()
        print(f"{self.num_images:,} images: {name} {took:.2f} us, {memory:,.0f} MiB", file=sys.stderr, flush=True)
        self.found[name] = took, memory
        return result


def planned(notes: Notes, folder: str) -> Manifest:
    """Write and read a manifest, and plan the work on its images."""
    data = DataConfig(dataset="folder", root="/data", train_split="train", eval_split="val")
    artifact = manifest_artifact(f"{folder}/manifest", {})
    notes.note("write_manifest", functools.partial(write_manifest, made_up(notes.num_images), artifact))
    manifest = notes.note("read_manifest", lambda: read_manifest(artifact.uri))
    notes.note("Manifest.fingerprint", manifest.fingerprint)
    notes.note("Manifest.images_fingerprint", manifest.images_fingerprint)
    notes.note("Manifest.truth_fingerprint", manifest.truth_fingerprint)
    notes.note("training_images", lambda: training_images(manifest, data))
    notes.note("images_with_cams", lambda: images_with_cams(manifest, data, with_training=True))
    notes.note("scored_images", lambda: scored_images(manifest, data))
    notes.note("shards_of", lambda: shards_of(manifest))
    notes.note("places_in_shards", lambda: places_in_shards(manifest))
    notes.note("plan_fingerprint", lambda: plan_fingerprint(manifest, ""))
    return manifest


def stopped_stage(artifact: Artifact, manifest: Manifest, sweep: ThresholdSweep) -> None:
    """Write what a stage has of masks when it is stopped after its last shard."""
    pixel = io.BytesIO()
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(pixel, format="PNG")
    artifact.begin(goes_on=True)
    Path(artifact.workshop).mkdir()
    for index, shard in enumerate(shards_of(manifest)):
        rows = []
        for one in shard:
            Path(artifact.workshop, mask_file_name(one.image_id)).write_bytes(pixel.getvalue())
            shares = {"coverage": 0.3, "ignored": 0.0, "class_ids": one.labels, "areas": (0.15,) * len(one.labels)}
            size = {"image_id": one.image_id, "mask": mask_file_name(one.image_id), "height": 375, "width": 500}
            rows.append({**size, **shares, "status": "ok", "error": ""})
            if "val" in one.splits:
                rows[-1]["counts"] = counts_of(one)
        write_part(artifact.workshop, index, rows, {"sweep": sweep.to_array()})


def resumed(notes: Notes, folder: str, manifest: Manifest) -> None:
    """Go on with a stopped stage, complete it, and find it there."""
    config, classes = miniature(), manifest.classes
    sweep = ThresholdSweep(sweep_thresholds(config.scoring, classes), len(classes))
    stage = Stage(config, RunLayout(folder))
    artifact = Artifact(uri=f"{folder}/masks", kind="masks", settings={}, verb="refine")
    stopped_stage(artifact, manifest, sweep)

    def go_on() -> Part:
        kept: dict[str, Any] = {"actor": object, "actor_kwargs": {}, "write": dict, "num_actors": 1}
        return run_image_stage(stage, artifact, manifest, gpus_per_actor=0, **kept)

    # No name keeps the parts: a stage lets go of them once the tables are written.
    tables = functools.partial(write_mask_tables, artifact.workshop, notes.note("run_image_stage", go_on))
    summary = notes.note("write_mask_tables", functools.partial(tables, config.scoring, classes))
    del tables
    notes.note("Artifact.complete", lambda: artifact.complete(summary))
    assert notes.note("Artifact.current", artifact.current) is not None
    notes.note("read_mask_index", lambda: read_mask_index(artifact.uri))
    notes.note("masked_images", lambda: masked_images(manifest, "train", artifact.uri))
    notes.note("listing_fingerprint", lambda: listing_fingerprint(artifact.uri))


def reported(notes: Notes, folder: str, manifest: Manifest) -> None:
    """Write counts of all images at two thresholds, and read off them what a report does."""
    figures = [CountedFigure(name, 0.5, counted(manifest)) for name in ("fixed", "best")]
    notes.note("write_image_counts", lambda: write_image_counts(folder, figures, manifest.class_names))
    read = functools.partial(read_image_counts, folder, remedy="", only=("best",))
    counts = notes.note("read_image_counts", read)["best"]
    notes.note("own_interval", lambda: own_interval(counts, num_resamples=_RESAMPLES, seed=0))
    scores = notes.note("image_scores", lambda: image_scores(counts))
    notes.note("choose", lambda: choose(manifest.records, scores, 500))


def measure(num_images: int) -> dict[str, tuple[float, float]]:
    """Return what each function took; see `Notes.found`."""
    notes = Notes(num_images)
    with tempfile.TemporaryDirectory() as folder:
        manifest = planned(notes, folder)
        resumed(notes, folder, manifest)
        reported(notes, folder, manifest)
    return notes.found


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="how what the driver does grows with the data set")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the data sets")
    sizes = parser.parse_args(arguments).images
    # One after another, and each from the start: what one has taken is no memory of the next.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        measured = dict(zip(sizes, pool.map(measure, sizes, chunksize=1), strict=True))
    titles = [f"{size:>14,}{'MiB':>8}" for size in sizes]
    print(f"{'microseconds a record, memory':32}" + "".join(titles))
    for name in measured[sizes[0]]:
        found = [measured[size][name] for size in sizes]
        print(f"{name:32}" + "".join(f"{took:14.2f}{memory:8,.0f}" for took, memory in found))
    sums = [sum(took for took, _ in found.values()) for found in measured.values()]
    highest = [max(memory for _, memory in found.values()) for found in measured.values()]
    ends = [f"{took:14.2f}{memory:8,.0f}" for took, memory in zip(sums, highest, strict=True)]
    print(f"{'all together':32}" + "".join(ends))


if __name__ == "__main__":
    main()

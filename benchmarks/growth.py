"""How what the driver does grows with the data set: microseconds a record of each function over all images.

    python benchmarks/growth.py [--images 10000 100000]

Manifests are made up, with two labels an image, and no image is read; files hold one byte. Times are CPU seconds over
records; a function that is linear has the same number in both columns. Each size has a process of its own, whose memory
at its highest stands in the last row, with the libraries that it imports (read from /proc, so on Linux alone).
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.shards import shards_of
from qaclims_ray.data.splits import images_with_cams, scored_images, training_images
from qaclims_ray.data.storage import listing_fingerprint
from qaclims_ray.data.whole_files import faults_of, write_list
from qaclims_ray.evaluation.image_counts import CountedFigure, LabelCounts, read_image_counts, write_image_counts
from qaclims_ray.refine.mask_index import MaskRow, mask_file_name, read_mask_index, summarise_masks, write_mask_index
from qaclims_ray.stages.mask_images import masked_images


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


def counted(manifest: Manifest) -> Iterator[tuple[str, list[LabelCounts]]]:
    """Yield made-up counts of each image: background and its two labels."""
    for record in manifest.records:
        pixels = [(0, 90_000, 95_000, 100_000, 0), *((label + 1, 30_000, 50_000, 40_000, 1) for label in record.labels)]
        yield record.image_id, pixels


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return a call's result and its CPU seconds."""
    started = time.process_time()
    return call(), time.process_time() - started


def most_memory() -> float:
    """Return this process's memory at its highest, MiB; getrusage would tell of the process that began it too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) / 1024


def measure(num_images: int) -> tuple[dict[str, float], float]:
    """Return microseconds a record of each function, and the process's memory at its highest, MiB."""
    found: dict[str, float] = {}
    data = DataConfig(dataset="folder", root="/data", train_split="train", eval_split="val")
    manifest = made_up(num_images)

    def note(name: str, call: Callable[[], Any]) -> Any:
        result, seconds = timed(call)
        found[name] = 1e6 * seconds / num_images
        return result

    with tempfile.TemporaryDirectory() as folder:
        artifact = manifest_artifact(f"{folder}/manifest", {})
        note("write_manifest", lambda: write_manifest(manifest, artifact))
        manifest = note("read_manifest", lambda: read_manifest(artifact.uri))
        note("Manifest.fingerprint", manifest.fingerprint)
        note("Manifest.images_fingerprint", manifest.images_fingerprint)
        note("Manifest.truth_fingerprint", manifest.truth_fingerprint)
        note("training_images", lambda: training_images(manifest, data))
        note("images_with_cams", lambda: images_with_cams(manifest, data, with_training=True))
        note("scored_images", lambda: scored_images(manifest, data))
        note("shards_of", lambda: shards_of(manifest))
        rows = [
            MaskRow(
                one.image_id, mask_file_name(one.image_id), 375, 500, 0.3, 0.0, one.labels, (0.1,) * len(one.labels)
            )
            for one in manifest.records
        ]
        note("write_mask_index", lambda: write_mask_index(folder, rows, manifest.class_names))
        note("read_mask_index", lambda: read_mask_index(folder))
        note("summarise_masks", lambda: summarise_masks(rows, manifest.class_names))
        note("masked_images", lambda: masked_images(manifest, "train", folder))
        figures = [CountedFigure(name, 0.5, counted(manifest)) for name in ("fixed", "best")]
        note("write_image_counts", lambda: write_image_counts(folder, figures, manifest.class_names))
        note("read_image_counts", lambda: read_image_counts(folder, remedy=""))
        files = Path(folder, "files")
        files.mkdir()
        for record in manifest.records:
            Path(files, f"{record.image_id}.png").write_bytes(b"x")
        content = note("write_list", lambda: write_list(str(files)))
        note("faults_of", lambda: faults_of(str(files), content))
        note("listing_fingerprint", lambda: listing_fingerprint(str(files)))
    return found, most_memory()


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="how what the driver does grows with the data set")
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000], help="sizes of the data sets")
    sizes = parser.parse_args(arguments).images
    # One after another, and each from the start: what one has taken is no memory of the next.
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        measured = dict(zip(sizes, pool.map(measure, sizes, chunksize=1), strict=True))
    found = {size: microseconds for size, (microseconds, _) in measured.items()}
    print(f"{'microseconds a record':32}" + "".join(f"{size:>12,}" for size in sizes))
    for name in found[sizes[0]]:
        print(f"{name:32}" + "".join(f"{found[size][name]:12.2f}" for size in sizes))
    print(f"{'all together':32}" + "".join(f"{sum(found[size].values()):12.2f}" for size in sizes))
    print(f"{'memory at its highest, MiB':32}" + "".join(f"{measured[size][1]:12,.0f}" for size in sizes))


if __name__ == "__main__":
    main()

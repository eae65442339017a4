"""Draw one small picture per method out of finished run folders, for docs/methods/.

    python benchmarks/method_pictures.py RUN [RUN ...] --out docs/methods

Each picture has the image, its true mask, and the CAM and the mask at the fixed threshold of the run's systems of that
method, with the baseline in front where the run has it. A CAM is the highest class score of every pixel; the number in
a mask's corner is the mean IoU of the image's classes, which uses pixel labels. Images are chosen by class, as those of
the report, and not by result. The first run that has a method draws it.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import storage
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.shards import shard_name, shards_of
from qaclims_ray.data.splits import images_with_cams, scored_images
from qaclims_ray.report.contact_sheet import SheetRow, contact_sheet
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.sheet_rows import choose_images
from qaclims_ray.stages.threshold import at_chosen_threshold
from qaclims_ray.systems.needs import systems_with_cams
from qaclims_ray.systems.table import system_config, system_of

BASELINE = "baseline"


def systems_by_method(config: RunConfig) -> dict[str, list[str]]:
    """Return the systems that each method's picture shows, the baseline in front of all but its own."""
    names = systems_with_cams(config)
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(system_of(config, name).method, []).append(name)
    return {
        method: [*([BASELINE] if BASELINE in names and BASELINE not in own else []), *own]
        for method, own in found.items()
    }


def method_picture(
    config: RunConfig, out: str, systems: Sequence[str], *, num_images: int, tile_px: int
) -> Image.Image:
    """Draw systems of a finished run side by side.

    Args:
        config: of the run.
        out: its folder.
        systems: in order.
        num_images: rows.
        tile_px: side of a picture.
    """
    layout = RunLayout(out)
    manifest = read_manifest(layout.manifest)
    images = images_with_cams(manifest, config.data, with_training=config.goal != "seed")
    scored = scored_images(manifest, config.data)
    chosen = [scored.records[position] for position in choose_images(scored, num_images)]
    cams = {name: cams_of(layout.cams(name), images, {record.image_id for record in chosen}) for name in systems}
    labels = {name: system_of(config, name).label for name in systems}
    rows = [
        SheetRow(
            image_id=record.image_id,
            image=load_image(record.image_uri),
            truth=load_mask(record.mask_uri) if record.mask_uri else None,
            class_ids=record.labels,
            heat={labels[name]: cams[name][record.image_id].full.float().amax(0) for name in systems},
            masks={
                labels[name]: label_map(cams[name][record.image_id], _threshold(config, layout, name, manifest))
                for name in systems
            },
        )
        for record in chosen
    ]
    sheet = Image.fromarray(contact_sheet(rows, manifest.class_names, tile_px=tile_px))
    # A third of the file; the pictures go into the repository.
    return sheet.quantize(256, dither=Image.Dither.NONE)


def _threshold(config: RunConfig, layout: RunLayout, name: str, manifest: Manifest) -> float:
    fixed = at_chosen_threshold(system_config(config, name), layout, name).fixed_threshold
    return manifest.classes.border(fixed)


def cams_of(uri: str, images: Manifest, wanted: set[str]) -> dict[str, ImageCam]:
    """Return the stored CAMs of the images that are wanted, by their names."""
    shards = [index for index, shard in enumerate(shards_of(images)) if wanted & {record.image_id for record in shard}]
    cams = (cam for index in shards for cam in read_cam_shard(storage.join(uri, shard_name(index))))
    return {cam.image_id: cam for cam in cams if cam.image_id in wanted}


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", help="folders of finished runs")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--images", type=int, default=3)
    parser.add_argument("--tile-px", type=int, default=112)
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    drawn: set[str] = set()
    for run in asked.runs:
        config = load_config(storage.absolute(run))
        for method, systems in systems_by_method(config).items():
            if method in drawn:
                continue
            drawn.add(method)
            path = asked.out / f"{method}.png"
            picture = method_picture(config, run, systems, num_images=asked.images, tile_px=asked.tile_px)
            picture.save(path, optimize=True)
            print(f"{path}  {path.stat().st_size // 1024} KiB  {', '.join(systems)}, of {run}")


if __name__ == "__main__":
    main()

"""Draw what a SAM is asked about seeds (mask step sam, prompts seeds): docs/methods/sam.png.

    python benchmarks/sam_prompts_picture.py RUN --system patch_text --out docs/methods/sam.png

Image, map, seed and prompts of the first image of each of a few classes of a finished run: the box of each part, points
inside in white, points outside in black. No SAM is asked.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.method_pictures import cams_of
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.label_map import label_map
from qaclims_ray.data import storage
from qaclims_ray.data.classes import label_value, voc_palette
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.splits import images_with_cams, scored_images
from qaclims_ray.refine.config import SamConfig
from qaclims_ray.refine.sam_prompts import PartPrompt, prompts_of
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.sheet_rows import choose_images
from qaclims_ray.stages.threshold import at_chosen_threshold
from qaclims_ray.systems.table import system_config

_TILE, _GAP, _DOT = 160, 4, 3


def row(pixels: np.ndarray, cam: ImageCam, border: float, config: SamConfig) -> Image.Image:
    """Draw image, map, seed and prompts side by side.

    Args:
        pixels: RGB (height, width, 3).
        cam: its full maps.
        border: their background score.
        config: of the prompts.
    """
    assert cam.full is not None
    photo = Image.fromarray(pixels)
    heat = Image.fromarray((cam.full.float().amax(0).numpy() * 255).astype(np.uint8))
    seed = Image.fromarray(label_map(cam, border).numpy())
    seed.putpalette(voc_palette())
    asked = photo.resize((_TILE, _TILE), Image.Resampling.NEAREST)
    _draw(asked, prompts_of(cam, border, config), cam)
    found = Image.new("RGB", (4 * _TILE + 3 * _GAP, _TILE), "white")
    for index, one in enumerate((photo, heat, seed)):
        found.paste(one.convert("RGB").resize((_TILE, _TILE), Image.Resampling.NEAREST), (index * (_TILE + _GAP), 0))
    found.paste(asked, (3 * (_TILE + _GAP), 0))
    return found


def _draw(picture: Image.Image, prompts: list[PartPrompt], cam: ImageCam) -> None:
    across, down = _TILE / cam.width, _TILE / cam.height
    pen, colours = ImageDraw.Draw(picture), np.reshape(voc_palette(), (-1, 3))
    for prompt in prompts:
        left, top, right, bottom = prompt.box
        pen.rectangle(
            (left * across, top * down, right * across - 1, bottom * down - 1),
            outline=tuple(int(part) for part in colours[label_value(cam.class_ids[prompt.position])]),
            width=2,
        )
        for points, fill, outline in ((prompt.inside, "white", "black"), (prompt.outside, "black", "white")):
            for x, y in points:
                middle = (x + 0.5) * across, (y + 0.5) * down
                pen.ellipse([one + sign * _DOT for sign in (-1, 1) for one in middle], fill=fill, outline=outline)


def main() -> None:
    """Draw what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="folder of a finished run")
    parser.add_argument("--system", required=True, help="whose maps")
    parser.add_argument("--out", type=Path, required=True, help="the picture")
    parser.add_argument("--images", type=int, default=3)
    asked = parser.parse_args()
    layout = RunLayout(storage.absolute(asked.run))
    config = load_config(layout.out)
    resolved = at_chosen_threshold(system_config(config, asked.system), layout, asked.system)
    manifest = read_manifest(layout.manifest)
    scored = scored_images(manifest, config.data)
    chosen = [scored.records[position] for position in choose_images(scored, asked.images)]
    images = images_with_cams(manifest, config.data, with_training=config.goal != "seed")
    cams = cams_of(layout.cams(asked.system), images, {record.image_id for record in chosen})
    rows = [
        row(
            load_image(record.image_uri).permute(1, 2, 0).numpy(),
            cams[record.image_id],
            resolved.fixed_threshold,
            resolved.masks.sam,
        )
        for record in chosen
    ]
    sheet = Image.new("RGB", (rows[0].width, len(rows) * (_TILE + _GAP) - _GAP), "white")
    for index, one in enumerate(rows):
        sheet.paste(one, (0, index * (_TILE + _GAP)))
    sheet.quantize(256, dither=Image.Dither.NONE).save(asked.out, optimize=True)
    print(f"{asked.out}  {asked.out.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()

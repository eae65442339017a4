"""Whether a gallery of many images stalls: time of its making, first picture, scrolling and orders in Chromium.

    python -m benchmarks.gallery --images 10000 --out DIR

Images are drawn, with label maps of three stages and a CAM, at the size that a gallery keeps of a photograph. Prints a
Markdown table. With ``--folder`` it measures a gallery that is there, of a run.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.browser import LOOKED_AT, WHOLE, Page, browser_page, find_browser
from qaclims_ray.data.classes import Classes
from qaclims_ray.report.gallery import (
    PAGE_NAME,
    Gallery,
    GalleryImage,
    GallerySource,
    Pictures,
    cam_key,
    map_key,
    write_gallery,
)
from qaclims_ray.report.gallery_tiles import cam_tile, labels_tile, photo_tile
from qaclims_ray.stages.gallery_images import confused_pixels

CLASSES = Classes(("aeroplane", "bird", "boat", "bus", "cat", "dog", "horse", "sheep"))
_HEIGHT, _WIDTH = 168, 224
_DISTINCT = 500


def drawn_images(number: int) -> Iterator[tuple[GalleryImage, Pictures]]:
    """Yield images, of which `_DISTINCT` differ: a page does not know, and drawing more would measure the drawing."""
    drawn = [_drawn(at) for at in range(min(number, _DISTINCT))]
    for at in range(number):
        image, pictures = drawn[at % len(drawn)]
        name = f"drawn_{at:05d}"
        yield replace(image, image_id=name), replace(pictures, image_id=name)


def _drawn(at: int) -> tuple[GalleryImage, Pictures]:
    """Return an image with one object, and label maps that miss a part of it."""
    rows, columns = torch.meshgrid(torch.arange(_HEIGHT), torch.arange(_WIDTH), indexing="ij")
    generator = torch.Generator().manual_seed(at)
    draws = torch.rand(8, generator=generator).tolist()
    label = at % len(CLASSES)
    middle = 40 + draws[0] * 80, 50 + draws[1] * 120
    distance = ((rows - middle[0]) ** 2 + (columns - middle[1]) ** 2).float().sqrt()
    radius = 18 + 30 * draws[2]
    ground = torch.stack([rows * draws[3], columns * draws[4], (rows + columns) * draws[5]]).mul(0.9).byte()
    noise = (torch.rand(3, _HEIGHT // 4, _WIDTH // 4, generator=generator) * 40).byte()
    noise = noise.repeat_interleave(4, 1).repeat_interleave(4, 2)
    photo = torch.where(distance < radius, 255 - ground, ground) // 2 + noise + 40
    truth = ((distance < radius) * (label + 1)).byte()
    maps = {
        stage: ((distance < radius * (share + 0.4 * draws[6])) * (label + 1)).byte()
        for stage, share in (("seed", 0.4), ("mask", 0.6), ("final", 0.65))
    }
    name = f"drawn_{at:05d}"
    tiles = {"photo": photo_tile(photo), "truth": labels_tile(truth)}
    tiles[cam_key(0, label)] = cam_tile((1 - distance / 80).clamp(0, 1))
    tiles |= {map_key(0, stage): labels_tile(labels) for stage, labels in maps.items()}
    scores = {map_key(0, stage): iou(labels, truth) for stage, labels in maps.items()}
    confused = {map_key(0, "final"): confused_pixels(truth, maps["final"], CLASSES)}
    image = GalleryImage(name, (label,), "train", scores, disagreement=1 - scores["0.seed"])
    return image, Pictures(name, tiles, confused)


def iou(labels: torch.Tensor, truth: torch.Tensor) -> float:
    """Return the IoU of one object."""
    both, either = (labels > 0) & (truth > 0), (labels > 0) | (truth > 0)
    return float(both.sum()) / float(either.sum())


def write_drawn(folder: str, number: int) -> dict[str, float]:
    """Write the gallery; return what it took, and its size."""
    started = time.process_time()
    images: list[GalleryImage] = []
    with tempfile.TemporaryFile() as lines:
        for image, pictures in drawn_images(number):
            images.append(image)
            lines.write(pictures.line().encode() + b"\n")
        lines.seek(0)
        drawn = time.process_time()
        source = GallerySource("drawn", "#0072b2", ("seed", "mask", "final"), has_cams=True)
        gallery = Gallery(
            title=f"{number} drawn images",
            about=f"All {number} images, drawn for a benchmark.",
            classes=CLASSES,
            sources=(source,),
            shown=(0,),
            images=tuple(images),
            has_truth=True,
        )
        summary = write_gallery(folder, gallery, (line.rstrip(b"\n") for line in lines))
    return {
        "ms of CPU to draw and encode the pictures of one image": 1000 * (drawn - started) / min(number, _DISTINCT),
        "seconds of CPU to write the page and its parts": time.process_time() - drawn,
        "MB of pictures": summary["picture_bytes"] / 1e6,
        "files beside the page": summary["files_beside"],
        "MB of memory of the process, at most": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


_FIRST = f"{LOOKED_AT}.some(box => [...box.querySelectorAll('img')].some(i => i.complete && i.naturalWidth))"
_SCROLL = """new Promise(done => {
  const list = document.getElementById('list'), waits = [], steps = %d, pixels = %s;
  let before = performance.now(), step = 0;
  const move = () => {
    const now = performance.now();
    if (step) waits.push(now - before);
    before = now;
    if (step === steps) { done(waits.sort((a, b) => a - b)); return; }
    list.scrollTop += pixels;
    step += 1;
    requestAnimationFrame(move);
  };
  requestAnimationFrame(move);
})"""
_STEPS = 120
_FLIGHT = f"(list.scrollHeight - list.clientHeight) / {_STEPS}"
_NEXT_FRAME = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
_SORT = """(() => { const select = document.getElementById('sort'), from = performance.now();
  select.value = %d; select.dispatchEvent(new Event('change')); return performance.now() - from; })()"""


def measure(page: Page, url: str) -> dict[str, float]:
    """Return what it takes to open, scroll, fly through all and change the order: time, and the browser's CPU."""
    page.show(1300, 900)
    found: dict[str, float] = {}
    started, cpu = time.perf_counter(), page.cpu_s()
    page.call("Page.navigate", url=url)
    page.wait(_FIRST)
    found["ms to the first picture"] = 1000 * (time.perf_counter() - started)
    page.wait(WHOLE)
    found["ms to all pictures in view"] = 1000 * (time.perf_counter() - started)
    found["ms of CPU for it"] = 1000 * (page.cpu_s() - cpu)
    for name, pixels in (("scrolling by 50 pixels a frame", "50"), ("flying through all images", _FLIGHT)):
        page.value("document.getElementById('list').scrollTop = 0")
        page.value(_NEXT_FRAME)
        cpu = page.cpu_s()
        waits = page.value(_SCROLL % (_STEPS, pixels))
        page.wait(WHOLE)
        found[f"ms between frames when {name}, middle"] = waits[len(waits) // 2]
        found[f"ms of CPU a frame when {name}"] = 1000 * (page.cpu_s() - cpu) / _STEPS
    page.value("document.getElementById('list').scrollTop = document.getElementById('list').scrollHeight / 2")
    page.value(_NEXT_FRAME)
    found["ms to all pictures after a jump to the middle"] = page.wait(WHOLE)
    orders = page.value("document.getElementById('sort').options.length")
    sorts, shown, cpu = [], [], page.cpu_s()
    for order in [*range(1, orders), 0]:
        sorts.append(page.value(_SORT % order))
        shown.append(page.wait(WHOLE))
    found["ms to another order, middle"] = sorted(sorts)[len(sorts) // 2]
    found["ms to its pictures, middle"] = sorted(shown)[len(shown) // 2]
    found["ms of CPU for both"] = 1000 * (page.cpu_s() - cpu) / orders
    found["MB of script memory at the end"] = page.value("performance.memory.usedJSHeapSize") / 1e6
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="so many drawn images")
    parser.add_argument("--folder", default="", help="measure this gallery instead of drawing one")
    parser.add_argument("--out", default="", help="keep the drawn gallery here")
    asked = parser.parse_args()
    program = find_browser()
    if program is None:
        raise SystemExit("this machine has no Chromium, which the benchmark measures with: install one")
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or asked.out or temporary
        figures = {} if asked.folder else write_drawn(folder, asked.images)
        index = Path(folder).resolve() / PAGE_NAME
        figures["MB of the page itself"] = index.stat().st_size / 1e6
        with browser_page(program) as page:
            figures |= measure(page, index.as_uri())
            version = page.value("navigator.userAgent").split("Chrome/")[-1].split(" ")[0]
    print(f"| {json.dumps(asked.folder) if asked.folder else f'{asked.images} drawn images'}, Chromium {version} | |")
    print("| --- | ---: |")
    for name, value in figures.items():
        print(f"| {name} | {value:,.0f} |" if value >= 10 else f"| {name} | {value:.1f} |")


if __name__ == "__main__":
    main()

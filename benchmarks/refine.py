"""The dense CRF (`refine/crf.py`) beside pydensecrf2, image by image and batched, at the papers' three settings.

Run: `OMP_NUM_THREADS=1 python benchmarks/refine.py [FOLDER] [--masks FOLDER]`. FOLDER holds JPEG or PNG photographs;
those of the most frequent size are used. Without it the script makes pictures of VOC's size, which are easier than
photographs. Both sides start from the same energies and labels: label maps of `--masks` (PNG files of the same name,
255 counts as background) shifted by 8 pixels or averaged over cells of 16, else brightness levels of such cells.
pydensecrf2 needs a compiler: `pip install "qaclims-ray[crf]"`.
"""

import argparse
import datetime
import os
import platform
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydensecrf.densecrf import DenseCRF2D
from torch import Tensor

from qaclims_ray.data.images import image_size, load_image
from qaclims_ray.refine.crf import dense_crf, label_energy, probability_energy
from qaclims_ray.refine.crf_config import CrfConfig, deeplab_crf, irn_crf, semples_crf

SETTINGS = {"irn_crf": irn_crf(), "semples_crf": semples_crf(), "deeplab_crf": deeplab_crf()}
CELL_PX, SHIFT_PX = 16, 8
Result = TypeVar("Result")


def read_photographs(folder: Path, count: int) -> dict[str, Tensor]:
    """Return photographs of the folder's most frequent size by name, evenly picked."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    sizes = {path: image_size(str(path)) for path in paths}
    size = Counter(sizes.values()).most_common(1)[0][0]
    same = [path for path in paths if sizes[path] == size]
    chosen = same[:: max(len(same) // count, 1)][:count]
    return {path.stem: load_image(str(path)) for path in chosen}


def make_pictures(count: int, height: int, width: int) -> dict[str, Tensor]:
    """Return smooth random colours, cut into regions by a smooth random field, with noise."""
    pictures = {}
    for index in range(count):
        generator = torch.Generator().manual_seed(index)

        def smooth(channels: int, cells: int, generator: torch.Generator = generator) -> Tensor:
            coarse = torch.rand(1, channels, cells, cells, generator=generator)
            return F.interpolate(coarse, (height, width), mode="bicubic")[0]

        regions = (smooth(1, 6) * 4).floor()
        colours = 90 * smooth(3, 5) + 60 * smooth(3, 40) + 30 * regions
        noise = 4 * torch.randn(3, height, width, generator=generator)
        pictures[f"picture {index}"] = (colours + noise).clamp(0, 255).to(torch.uint8)
    return pictures


def make_labels(images: dict[str, Tensor], masks: Path | None, num_labels: int) -> Tensor:
    """Return label maps (image, height, width)."""
    labels = []
    for name, image in images.items():
        if masks:
            mask = np.array(Image.open(masks / f"{name}.png"))
            mask[mask == 255] = 0
            found = torch.from_numpy(np.unique(mask, return_inverse=True)[1].reshape(mask.shape))
        else:
            cells = F.avg_pool2d(image.float().mean(0)[None, None], CELL_PX, ceil_mode=True)
            levels = torch.quantile(cells, torch.arange(1, num_labels) / num_labels)
            found = F.interpolate(torch.bucketize(cells, levels).float(), image.shape[1:])[0, 0].long()
        labels.append(found.clamp(max=num_labels - 1))
    return torch.stack(labels)


def make_energies(labels: Tensor, num_labels: int, config: CrfConfig) -> Tensor:
    """Return the energies that both sides start from."""
    if config.unary == "label":
        return label_energy(labels.roll(SHIFT_PX, 2), num_labels, config.label_confidence)
    shares = F.one_hot(labels, num_labels).movedim(-1, 1).float()
    cells = F.avg_pool2d(shares, CELL_PX, ceil_mode=True)
    scores = 4 * F.interpolate(cells, labels.shape[1:], mode="bilinear")
    return probability_energy(scores.softmax(1))


def pydensecrf(image: np.ndarray, energies: np.ndarray, config: CrfConfig) -> np.ndarray:
    """Return pydensecrf2's probabilities (label, height * width)."""
    num_labels, (height, width, _) = len(energies), image.shape
    crf = DenseCRF2D(width, height, num_labels)
    crf.setUnaryEnergy(energies)
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy, srgb=config.bilateral_srgb, rgbim=image, compat=config.bilateral_weight
    )
    return np.array(crf.inference(config.iterations))


class Clock:
    """Wall and CPU seconds per image of each way."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def time(self, way: str, num_images: int, work: Callable[[], Result]) -> Result:
        """Do a piece of work and note its time per image."""
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        self.seconds[way].append(((time.perf_counter() - wall) / num_images, (time.process_time() - cpu) / num_images))
        return result

    def medians(self, way: str) -> tuple[float, float]:
        """Return the medians of wall and CPU seconds."""
        walls, cpus = zip(*self.seconds[way], strict=True)
        return statistics.median(walls), statistics.median(cpus)


def compare(images: Tensor, energies: Tensor, config: CrfConfig, batch: int, repeats: int) -> tuple[Clock, list[float]]:
    """Run the three ways in turn, batch by batch; return times and the share of equal labels of each image."""
    clock, equal = Clock(), []
    for repeat in range(repeats):
        for some, own in zip(images.split(batch), energies.split(batch), strict=True):
            batched = clock.time("ours, batched", len(some), lambda some=some, own=own: dense_crf(some, own, config))
            for image, energy, result in zip(some, own, batched, strict=True):
                single = clock.time(
                    "ours", 1, lambda image=image, energy=energy: dense_crf(image[None], energy[None], config)
                )
                pixels = np.ascontiguousarray(image.movedim(0, -1).numpy())
                unary = np.ascontiguousarray(energy.flatten(1).numpy())
                theirs = clock.time("pydensecrf2", 1, lambda p=pixels, u=unary: pydensecrf(p, u, config))
                if not torch.equal(single[0], result):
                    raise SystemExit("ours and ours, batched differ")
                if repeat == 0:
                    equal.append(float((result.argmax(0).flatten().numpy() == theirs.argmax(0)).mean()))
    return clock, equal


def main() -> None:
    """Parse the command line, run the ways at each setting and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="photographs (default: pictures made here)")
    parser.add_argument("--masks", type=Path, help="their label maps as PNG files")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--labels", type=int, default=3, help="labels that both sides choose from")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.folder:
        pictures = read_photographs(options.folder, options.images)
    else:
        pictures = make_pictures(options.images, 375, 500)
    images = torch.stack(list(pictures.values()))
    labels = make_labels(pictures, options.masks, options.labels)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s),")
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, pydensecrf2 {version('pydensecrf2')}, ", end=""
    )
    print(f"numpy {np.__version__}, {datetime.date.today().isoformat()}")
    kind = "photographs" if options.folder else "made pictures"
    print(f"{len(images)} {kind} of {images.shape[3]}x{images.shape[2]}, {options.labels} labels,", end=" ")
    print(f"batches of {options.batch}, medians over images and {options.repeats} repeats")
    print(f"{'setting':13}{'way':15}{'wall s/image':>13}{'CPU s/image':>13}{'ratio':>7}   equal labels: mean, least")
    for name, config in SETTINGS.items():
        energies = make_energies(labels, options.labels, config)
        dense_crf(images[:1], energies[:1], config)  # warm up
        clock, equal = compare(images, energies, config, options.batch, options.repeats)
        reference = clock.medians("pydensecrf2")[1]
        for way in ("pydensecrf2", "ours", "ours, batched"):
            wall, cpu = clock.medians(way)
            same = "" if way == "pydensecrf2" else f"   {statistics.mean(equal):.4%}, {min(equal):.4%}"
            print(f"{name:13}{way:15}{wall:13.3f}{cpu:13.3f}{cpu / reference:7.2f}{same}")


if __name__ == "__main__":
    main()

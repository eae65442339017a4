"""The product beside the plain way beside, in one table (docs/results/speed.md).

Run: `OMP_NUM_THREADS=1 python -m benchmarks.speed [WORD ...] [--repeats 5]`. CPU milliseconds of one thread, the ways
in turn, median with least and most. The results of each row are compared; where they differ by more than said the
benchmark fails. pydensecrf2 takes part where it is installed (`pip install "qaclims-ray[crf]"`).
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import os
import platform
import statistics
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from benchmarks.clock import in_turn, shown


class Row(NamedTuple):
    """A comparison."""

    what: str
    plain: str
    ways: dict[str, Callable[[], Any]]
    """Ours, and the plain way."""
    agreement: Callable[[Any, Any], str]
    """Says how far the results agree, or raises."""


def corpus() -> Row:
    """Answers of the miniature world's BLIP."""
    from benchmarks.corpus import answer_naively, tiny_case
    from qaclims_ray.models.vqa.blip import BlipVqa

    model, processor, images, questions, size = tiny_case(4)
    vqa = BlipVqa(tiny_case(1)[0], processor, image_size=size)
    search: dict[str, Any] = {"num_beams": 3, "max_length": 10}
    model = model.eval()

    def agreement(ours: list[list[str]], theirs: list[list[str]]) -> str:
        if ours != theirs:
            raise SystemExit("answers differ from generate's")
        return f"the same {sum(map(len, ours))} answers"

    return Row(
        f"corpus: {sum(map(len, questions))} questions about 4 images, 3 beams, the miniature's BLIP",
        "`generate`, one question at a time",
        {
            "ours": lambda: vqa.answer(images, questions, **search),
            "plain": lambda: answer_naively(model, vqa, images, questions, {**search, "min_length": 1}),
        },
        agreement,
    )


def walk() -> Row:
    """IRN's random walk."""
    from benchmarks.random_walk import dense_power, make_maps, sparse_operator

    maps, boundary = make_maps(32, 32, 2)
    return Row(
        "IRN's walk: 32x32 cells, 2 classes, 256 steps",
        "the dense matrix squared 8 times",
        {"ours": lambda: sparse_operator(maps, boundary), "plain": lambda: dense_power(maps, boundary)},
        lambda ours, theirs: _difference(ours, theirs, 1e-3),
    )


def crf() -> Row:
    """The dense CRF."""
    import numpy as np

    from benchmarks.refine import SETTINGS, make_energies, make_labels, make_pictures, pydensecrf
    from qaclims_ray.refine.crf import dense_crf

    pictures, config = make_pictures(2, 375, 500), SETTINGS["irn_crf"]
    images = torch.stack(list(pictures.values()))
    energies = make_energies(make_labels(pictures, None, 3), 3, config)

    def plain() -> torch.Tensor:
        pairs = zip(images.movedim(1, -1).numpy(), energies.flatten(2).numpy(), strict=True)
        return torch.stack([
            torch.from_numpy(pydensecrf(np.ascontiguousarray(image), np.ascontiguousarray(energy), config))
            for image, energy in pairs
        ])  # fmt: skip

    def agreement(ours: torch.Tensor, theirs: torch.Tensor) -> str:
        same = float((ours.flatten(2).argmax(1) == theirs.argmax(1)).float().mean())
        if same < 0.99:
            raise SystemExit(f"the CRF gives {same:.2%} of pixels the label that pydensecrf2 gives them")
        return f"the same label at {same:.2%} of pixels"

    return Row(
        "CRF: 2 made pictures of 500x375, 3 labels, IRN's settings",
        "pydensecrf2",
        {"ours": lambda: dense_crf(images, energies, config), "plain": plain},
        agreement,
    )


def sweep() -> Row:
    """Scores of CAMs at all thresholds."""
    from benchmarks.cam_evaluation import make_image, one_pass, released_loop
    from qaclims_ray.data.classes import VOC_CLASSES, Classes
    from qaclims_ray.evaluation.config import EvaluationConfig
    from qaclims_ray.evaluation.sweep import sweep_thresholds

    thresholds = sweep_thresholds(EvaluationConfig(), Classes(VOC_CLASSES))
    images = [make_image(index, 375, 500) for index in range(2)]
    return Row(
        f"scored labels: 2 images of 500x375 at {len(thresholds)} thresholds",
        "a loop over thresholds, as released",
        {"ours": lambda: one_pass(images, thresholds), "plain": lambda: released_loop(images, thresholds)},
        lambda ours, theirs: _difference(ours, theirs, 0.0),
    )


ROWS = {"corpus": corpus, "walk": walk, "crf": crf, "sweep": sweep}


def _difference(ours: torch.Tensor, theirs: torch.Tensor, most: float) -> str:
    difference = float((ours - theirs).abs().max() / theirs.abs().max())
    if difference > most:
        raise SystemExit(f"the two ways differ by {difference:.1e} of the maximum")
    return f"differ by at most {difference:.0e} of the maximum" if difference else "the same numbers"


def line(row: Row, repeats: int) -> str:
    """Run a row; return its line of the table."""
    results, seconds = in_turn(row.ways, repeats)
    ratio = statistics.median(seconds["plain"]) / statistics.median(seconds["ours"])
    agreement = row.agreement(results["ours"], results["plain"])
    cells = (row.what, row.plain, shown(seconds["ours"]), shown(seconds["plain"]), f"{ratio:.1f}", agreement)
    return f"| {' | '.join(cells)} |"


def main(arguments: list[str]) -> None:
    """Parse the command line and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", choices=[*ROWS, []], help="rows; all by default")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = options.words or [*ROWS]
    has_crf = importlib.util.find_spec("pydensecrf") is not None
    packages = ("torch", "transformers", *(("pydensecrf2",) if has_crf else ()))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread; python ", end="")
    print(f"{platform.python_version()}, {versions}; {datetime.date.today().isoformat()}\n")
    print("| what | beside | ours, CPU ms | beside, CPU ms | times | results |\n|---|---|---|---|---|---|")
    for name in names:
        if name == "crf" and not has_crf:
            print("| CRF | pydensecrf2 | | | | pydensecrf2 is not installed |")
        else:
            print(line(ROWS[name](), options.repeats), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

r"""Thresholds chosen without masks against the best one by pixel labels: every criterion, system and seed.

    python benchmarks/threshold_without_masks.py --work runs/thresholds
    python benchmarks/threshold_without_masks.py --work runs/thresholds --photographs DIR \
        --weights voc12_mobilenet=FILE voc12_efficientnet_lite2=FILE
    python benchmarks/threshold_without_masks.py --work runs/thresholds --print-only

Runs the miniature up to its scored seeds for each seed, and a small network on photographs where they are given; reads
the stored CAMs, asks each criterion of `threshold_criteria.py` and Otsu of the scores, and shows them beside what the
run itself chose. What is there is not made again, so a call that is cut off goes on.
"""

import argparse
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.threshold_criteria import cut, rate
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data import storage
from qaclims_ray.data.images import load_image
from qaclims_ray.data.manifest import Manifest, read_manifest
from qaclims_ray.data.shards import shard_name, shards_of
from qaclims_ray.data.splits import images_with_cams
from qaclims_ray.evaluation.threshold import LEVELS, small
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.evaluate import read_evaluation
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.stages.threshold import read_threshold
from qaclims_ray.systems.table import system_of

OTSU, PRODUCT = "Otsu of the scores", "chosen by the run"
_PHOTOGRAPHS = "photographs-"
_SYSTEMS = [
    "miniature=baseline,ritc_class_names,qa_clims,clims,patch_text,patch_text_answers",
    "miniature_combined=semples_match,semples,semples_on_qa_clims,qa_clims_prompts",
]
_CRF_EVERY = 4
"""Of so many images one is asked of its CRFs."""
MOST = 2.0
"""Points of mIoU that a threshold may cost."""


def main() -> None:
    """Parse the arguments; run what is missing, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--choose", type=int, nargs="*", default=[10, 11], help="seeds by which a criterion is taken")
    parser.add_argument("--report", type=int, nargs="*", default=[20, 21, 22, 23, 24], help="seeds it is tried on")
    parser.add_argument("--systems", nargs="+", default=_SYSTEMS, metavar="PRESET=SYSTEMS", help="of each miniature")
    parser.add_argument("--photographs", default="", help="folder in VOC's layout, with masks to score with")
    parser.add_argument("--weights", nargs="*", default=[], metavar="PRESET=FILE", help="of that preset's backbone")
    parser.add_argument("--images", type=int, default=60, help="images that a criterion looks at")
    parser.add_argument("--print-only", action="store_true", help="take the runs that are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(conditions())
    for title, folders in _folders(arguments).items():
        rows = [row for name, (config, out) in folders.items() for row in rows_of(name, config, out, arguments)]
        print(table(title, rows))


def _folders(arguments: argparse.Namespace) -> dict[str, dict[str, tuple[RunConfig, Path]]]:
    """Return the runs of each table: name -> (settings, folder)."""
    size = {"goal": "seed", "tracking.enabled": False}

    def miniatures(seeds: Sequence[int]) -> dict[str, tuple[RunConfig, Path]]:
        found = {}
        for seed in seeds:
            for name, systems in (item.split("=", 1) for item in arguments.systems):
                own = with_overrides(preset(name), {**size, "systems": systems.split(","), "seed": seed})
                found[f"{name}-{seed}"] = own, arguments.work / f"{name}-{seed}"
        return found

    found = {"Seeds by which it was taken": miniatures(arguments.choose)}
    found["Other seeds"] = miniatures(arguments.report)
    photographs = dict(item.split("=", 1) for item in arguments.weights)
    if arguments.print_only:
        photographs = {path.name.removeprefix(_PHOTOGRAPHS): "" for path in arguments.work.glob(f"{_PHOTOGRAPHS}*")}
    for name, weights in sorted(photographs.items()):
        places = {"data.root": arguments.photographs, "cam_net.weights": weights, "seed": 1}
        config = with_overrides(preset(name), {**size, **places})
        found.setdefault("Photographs", {})[name] = config, arguments.work / f"{_PHOTOGRAPHS}{name}"
    return found


def rows_of(name: str, config: RunConfig, out: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield each system of a run with the thresholds that were chosen for it; run it first where it is not there."""
    if not arguments.print_only:
        run_pipeline(config, str(out), until="evaluate")
    elif not (out / "config.json").is_file():
        return
    config, layout = load_config(str(out)), RunLayout(str(out))
    for system in config.systems:
        if not (out / "evaluations" / system / "scores.json").is_file():
            continue
        path = out / f"criteria-{system}.json"
        if not path.is_file():
            path.write_text(json.dumps(chosen_thresholds(config, layout, system, arguments.images), indent=2))
        curve = read_evaluation(layout.evaluation(system)).seed.curve
        yield {
            "name": f"{name} {system_of(config, system).label}",
            "curve": dict(zip(curve.thresholds, curve.miou, strict=True)),
            "chosen": {PRODUCT: read_threshold(layout, system).threshold, **json.loads(path.read_text())},
        }


def chosen_thresholds(config: RunConfig, layout: RunLayout, system: str, num_images: int) -> dict[str, float]:
    """Return the threshold that each criterion takes for a system's seeds."""
    manifest = read_manifest(layout.manifest)
    images = images_with_cams(manifest, config.data, with_training=False)
    thresholds, sums, histogram = torch.tensor(LEVELS), {}, torch.zeros(256, dtype=torch.float64)
    for number, (pixels, cam) in enumerate(_sampled(images, layout.cams(system), num_images)):
        assert cam.full is not None
        histogram += torch.histc(cam.full.amax(0), 256, 0, 1).double()
        grid, maps = small(pixels, cam.full)
        image = cut(grid, maps, thresholds, config.masks.crf, grid.shape[1] / pixels.shape[1])
        for criterion, figure in rate(image, with_crf=number % _CRF_EVERY == 0).items():
            sums[criterion] = sums.get(criterion, 0) + figure.double()
    found = {criterion: LEVELS[int(total.argmax())] for criterion, total in sums.items()}
    return {OTSU: otsu(histogram), **found}


def _sampled(images: Manifest, cams_uri: str, number: int) -> Iterator[tuple[Tensor, ImageCam]]:
    """Yield some labelled images, evenly spread, and their CAMs."""
    labelled = [record for record in images.records if record.labels]
    count = min(number, len(labelled))
    wanted = {labelled[at * len(labelled) // count].image_id for at in range(count)}
    for index, shard in enumerate(shards_of(images)):
        places = {record.image_id: record.image_uri for record in shard}
        for cam in read_cam_shard(storage.join(cams_uri, shard_name(index))):
            if cam.image_id in wanted:
                yield load_image(places[cam.image_id]), cam


def otsu(histogram: Tensor) -> float:
    """Return the score that parts low from high ones best (Otsu 1979): the most variance between the two sides.

    Args:
        histogram: pixels by score, in equal bins over [0, 1].
    """
    share = histogram / histogram.sum()
    centres = (torch.arange(len(share)) + 0.5) / len(share)
    below, moment = share.cumsum(0), (share * centres).cumsum(0)
    spread = (moment[-1] * below - moment) ** 2 / (below * (1 - below)).clamp_min(1e-12)
    return (int(spread.argmax()) + 1) / len(share)


def conditions() -> str:
    """Return where and with what this was measured."""
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in ("torch", "ray"))
    where = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    return f"{date.today()}, {where}, {versions}. Points of seed mIoU below the best threshold (pixel labels)."


def table(title: str, rows: Sequence[dict[str, Any]]) -> str:
    """Return a table as Markdown: what each criterion costs every system, by the most that it costs any of them."""
    lines = ["", f"**{title}**", ""]
    if not rows:
        return "\n".join([*lines, "nothing is there"])
    lost = {criterion: [_lost(row, criterion) for row in rows] for criterion in rows[0]["chosen"]}
    lines += [f"| | {' | '.join(row['name'] for row in rows)} | most |", "|---" * (len(rows) + 2) + "|"]
    best = [max(row["curve"].items(), key=lambda at: at[1]) for row in rows]
    lines.append(
        f"| best (**pixel labels**) | {' | '.join(f'{100 * miou:.1f} (.{t * 100:02.0f})' for t, miou in best)} | |"
    )
    for criterion in sorted(lost, key=lambda one: (one != PRODUCT, max(lost[one]))):
        chosen = [row["chosen"][criterion] for row in rows]
        cells = [f"{cost:.1f} (.{at * 100:02.0f})" for cost, at in zip(lost[criterion], chosen, strict=True)]
        lines.append(f"| {criterion} | {' | '.join(cells)} | {max(lost[criterion]):.1f} |")
    kept = [criterion for criterion in lost if max(lost[criterion]) <= MOST]
    return "\n".join([*lines, "", f"At most {MOST:g} points for every system: {', '.join(kept) or 'none'}."])


def _lost(row: dict[str, Any], criterion: str) -> float:
    curve, chosen = row["curve"], row["chosen"][criterion]
    at = min(curve, key=lambda threshold: abs(threshold - chosen))
    return 100 * (max(curve.values()) - curve[at])


if __name__ == "__main__":
    main()

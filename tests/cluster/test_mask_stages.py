"""Masks of more images than are scored, stages that are killed, and images that break in between, on a real Ray."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.label_files import read_label_file
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import DataError
from qaclims_ray.evaluation.config import EvaluationConfig
from qaclims_ray.evaluation.sweep import SeedScores, ThresholdSweep, seed_scores, sweep_thresholds
from qaclims_ray.miniature.dataset import write_dataset
from qaclims_ray.miniature.vocabulary import CLASSES
from qaclims_ray.refine.mask_index import read_mask_index
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.image_stage import part_name
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import RunOutcome, run_pipeline
from qaclims_ray.systems.table import system_config
from tests.cluster.kills import kill_tree, start, wait_for
from tests.cluster.small_run import SMALL, small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

PER_SHARD = 4
NUM_IMAGES, NUM_SCORED = 24, 8


def _overrides(root: Path, **further: Any) -> dict[str, Any]:
    settings = {
        "goal": "mask",
        "systems": ["baseline"],
        "data.dataset": "folder",
        "data.root": str(root),
        "data.class_names": list(CLASSES),
        "data.train_split": "train_aug",
        "data.eval_split": "train",
        "data.check_images": False,
        "masks.steps": ["crf"],
        "cams.max_failed_fraction": 0.0,
    }
    return {**SMALL, **settings, **{name.replace("__", "."): value for name, value in further.items()}}


def _config(root: Path, **further: Any) -> RunConfig:
    return small_config(**{name.replace(".", "__"): value for name, value in _overrides(root, **further).items()})


def _evaluation(root: Path) -> EvaluationConfig:
    return system_config(_config(root), "baseline").scoring


@pytest.fixture(scope="module", autouse=True)
def small_shards() -> Iterator[None]:
    """Shards of a few images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("qaclims_ray.data.shards.IMAGES_PER_SHARD", PER_SHARD)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """As VOC's: all images are trained on, a third of them is scored, and some of the others have no mask."""
    drawn, root = tmp_path_factory.mktemp("drawn"), tmp_path_factory.mktemp("voc_like")
    write_dataset(drawn, num_images=NUM_IMAGES, num_val=4, seed=3)
    shutil.copytree(drawn / "JPEGImages", root / "images")
    shutil.copytree(drawn / "SegmentationClass", root / "masks")
    labels = json.loads((drawn / "image_labels.json").read_text())
    lines = ["image,labels,split"]
    for number, (name, classes) in enumerate(labels.items()):
        splits = "val" if number >= NUM_IMAGES else "train_aug;train" if number % 3 == 0 else "train_aug"
        lines.append(f"{name},{';'.join(classes)},{splits}")
        if number % 3 == 1:
            (root / "masks" / f"{name}.png").unlink()
    (root / "labels.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def scored(root, tmp_path_factory) -> tuple[Path, RunOutcome]:
    """A run up to the seeds' scores."""
    out = tmp_path_factory.mktemp("run")
    return out, run_pipeline(_config(root), str(out), until="evaluate")


def _names(out: Path, split: str) -> list[str]:
    return [record.image_id for record in read_manifest(str(out / "manifest")).subset(split).records]


def _scores_of(
    cams: list[ImageCam], root: Path, evaluation: EvaluationConfig, label_free: float | None = None
) -> SeedScores:
    """Score maps against the true masks, without Ray."""
    sweep = ThresholdSweep(sweep_thresholds(evaluation, Classes(CLASSES)), len(CLASSES))
    labels = read_label_file(str(root / "labels.csv")).labels
    for cam in cams:
        mask = load_mask(str(root / "masks" / f"{cam.image_id}.png"))
        sweep.update(cam, mask, [list(CLASSES).index(name) for name in labels[cam.image_id]])
    return seed_scores(sweep, evaluation.threshold, Classes(CLASSES), label_free)


def _text(scores: Any) -> str:
    """Return figures as text, in which classes that do not occur (NaN) are equal too."""
    return json.dumps(scores if isinstance(scores, dict) else dataclasses.asdict(scores))


def _as_cam(out: Path, name: str) -> ImageCam:
    """Return a pseudo mask as maps of 0 and 1."""
    values = torch.from_numpy(np.array(Image.open(out / "masks" / "baseline" / f"{name}.png")))
    full = torch.stack([(values == class_id + 1).float() for class_id in range(len(CLASSES))])
    return ImageCam(name, tuple(range(len(CLASSES))), full, None, *values.shape)


def test_all_training_images_get_cams_and_only_scored_ones_count(scored, root):
    out, outcome = scored
    shards = sorted((out / "cams" / "baseline").glob("part-*.parquet"))
    cams = {cam.image_id: cam for shard in shards for cam in read_cam_shard(str(shard))}
    names = _names(out, "train")
    assert len(shards) == NUM_IMAGES // PER_SHARD and len(names) == NUM_SCORED
    assert set(cams) == set(_names(out, "train_aug")) and len(cams) == NUM_IMAGES
    chosen = outcome.results.thresholds["baseline"].threshold
    expected = _scores_of([cams[name] for name in names], root, _evaluation(root), chosen)
    assert _text(outcome.results.scores["baseline"].seed) == _text(expected)


def test_a_killed_stage_keeps_its_finished_shards_and_counts_nothing_twice(scored, root):
    out, _ = scored
    slow = {"masks__crf__iterations": 120}
    folder = out / "masks" / "baseline"
    process = start(out, "refine", _overrides(root, **slow), images_per_shard=PER_SHARD)
    wait_for(lambda: len(list(folder.parent.glob("*.making-*/parts/*.npz"))) >= 2, 600, "two finished shards")
    kill_tree(process)
    records = read_manifest(str(out / "manifest")).subset("train_aug").records
    shards = [records[position : position + PER_SHARD] for position in range(0, len(records), PER_SHARD)]
    (workshop,) = folder.parent.glob("*.making-*")
    done = [index for index in range(len(shards)) if (workshop / part_name(index)).exists()]
    assert 2 <= len(done) < len(shards)
    kept = [f"{record.image_id}.png" for index in done for record in shards[index]]
    before = {name: (workshop / name).stat().st_mtime_ns for name in kept}
    outcome = run_pipeline(_config(root, **slow), str(out), until="refine")
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == before
    rows, _ = read_mask_index(str(folder))
    assert [row.image_id for row in rows] == sorted(record.image_id for record in records)
    found = outcome.results.masks["baseline"].scores
    expected = _scores_of([_as_cam(out, name) for name in _names(out, "train")], root, _evaluation(root))
    assert _text(found.iou) == _text(expected.iou)


def test_an_image_that_breaks_is_an_error_until_it_is_mended_or_allowed(scored, root, tmp_path):
    """Every attempt says it, the second one too, and a stage that was allowed to leave it out says which it was."""
    out = shutil.copytree(scored[0], tmp_path / "copy")
    name = _names(out, "train")[2]
    victim = root / "images" / f"{name}.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    anew = {"cams__scales": [1.0, 0.5]}
    try:
        for _ in range(2):
            with pytest.raises(DataError, match=f"1 .*images cannot be read: .*{name}"):
                run_pipeline(_config(root, **anew), str(out), until="cams")
        allowed = {**anew, "cams__max_failed_fraction": 0.1}
        outcome = run_pipeline(_config(root, **allowed), str(out), until="refine")
        layout = RunLayout(str(out))
        assert read_meta(layout.cams("baseline")).summary["images"] == NUM_IMAGES - 1
        rows = {row.image_id: row for row in read_mask_index(layout.masks("baseline"))[0]}
        assert [row.image_id for row in rows.values() if row.status == "error"] == [name]
        assert str(victim) in rows[name].error and not Path(layout.masks("baseline"), f"{name}.png").exists()
        assert outcome.results.masks["baseline"].summary["num_failed"] == 1
        cams = [_as_cam(out, other) for other in _names(out, "train") if other != name]
        expected = _scores_of(cams, root, _evaluation(root))
        assert _text(outcome.results.masks["baseline"].scores.iou) == _text(expected.iou)
        with pytest.raises(DataError, match=f"1 of {NUM_IMAGES} images cannot be read: {victim}"):
            run_pipeline(_config(root, **anew, masks__crf__iterations=7), str(out), until="refine")
    finally:
        victim.write_bytes(whole)
    with pytest.raises(DataError, match=f"{name}.png could not be read when CAMs were computed.*; remove "):
        run_pipeline(_config(root, **anew, masks__crf__iterations=7), str(out), until="refine")


def test_broken_test_images_are_left_out_of_the_final_scores_when_allowed(scored, root, tmp_path):
    out = shutil.copytree(scored[0], tmp_path / "copy")
    length = {
        "segmentation__optim__epochs": 1,
        "segmentation__steps_per_epoch": 2,
        "segmentation__optim__batch_size": 4,
    }
    final = {"goal": "segmentation", **length}
    name = _names(out, "val")[1]
    victim = root / "images" / f"{name}.png"
    whole = victim.read_bytes()
    victim.write_bytes(whole[: len(whole) // 2])
    try:
        with pytest.raises(DataError, match=f"1 of {NUM_SCORED + 4} images cannot be read: .*{name}"):
            run_pipeline(_config(root, **final), str(out), until="segment")
        allowed = {**final, "cams__max_failed_fraction": 0.1}
        outcome = run_pipeline(_config(root, **allowed), str(out), until="segment")
    finally:
        victim.write_bytes(whole)
    assert list(outcome.results.segmentations) == ["baseline", "fully_supervised"]
    meta = read_meta(RunLayout(str(out)).predictions("baseline"))
    assert meta.summary["images"] == NUM_SCORED + 3 and name in meta.summary["errors"][0]
    predicted = {path.stem for path in (out / "predictions" / "baseline").glob("*.png")}
    assert predicted == {*_names(out, "train"), *_names(out, "val")} - {name}
    assert outcome.results.segmentations["baseline"].plain is not None
    assert outcome.results.segmentations["baseline"].seed_plain != outcome.results.segmentations["baseline"].plain

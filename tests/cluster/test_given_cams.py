"""CAMs of one run, given to another on a real local Ray: scored as they are, and learned from."""

import json
from pathlib import Path

import numpy as np
import pytest

from qaclims_ray.cams.store import read_cam_shard
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.data.manifest import read_manifest
from qaclims_ray.data.splits import scored_images
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.stages.cams import run_cams
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.stage import Stage
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]


def _config(*systems: str, given: str = ""):
    return small_config(
        variants=[],
        systems=list(systems),
        given__cams=given,
        semples__refine__epochs=1,
        semples__refine__batch_size=8,
        semples__prompt__optim__epochs=1,
        semples__prompt__steps_per_epoch=4,
        semples__prompt__optim__batch_size=8,
    )


def test_given_cams_score_as_their_source_and_serve_prompt_learning(tmp_path: Path) -> None:
    source, out = RunLayout(str(tmp_path / "source")), RunLayout(str(tmp_path / "out"))
    expected = run_pipeline(_config("baseline"), source.out, until="evaluate").results.scores["baseline"]
    config = _config("given_cams", "semples_on_given", given=source.cams("baseline"))
    scores = run_pipeline(config, out.out).results.scores
    assert scores["given_cams"].seed == expected.seed
    phases = read_meta(out.network("semples_on_given")).summary["phases"]
    assert list(phases) == ["prompts", "refine"]
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert set(report["systems"]) == {"given_cams", "semples_on_given"}
    assert len(report["systems"]["semples_on_given"]["prompts"]) == 8
    assert "given CAMs" in report["environment"]["supervision"]

    # As files: a fault anywhere is reported with all others, and nothing counts as imported.
    files = tmp_path / "files"
    files.mkdir()
    cams = [
        cam for path in sorted(Path(source.cams("baseline")).glob("*.parquet")) for cam in read_cam_shard(str(path))
    ]
    for cam in cams[2:]:
        np.savez(files / f"{cam.image_id}.npz", keys=np.array(cam.class_ids), maps=cam.full.numpy())
    np.savez(files / f"{cams[0].image_id}.npz", keys=np.array([8]), maps=np.ones((1, 4, 4)))
    config = _config("given_cams", given=str(files))
    imported = read_meta(out.cams("given_cams"))
    with pytest.raises(DataError, match=r"(?s)class ids that are none.*images without CAMs"):
        run_pipeline(config, out.out, until="evaluate")
    assert read_meta(out.cams("given_cams")) == imported, "those of before stay until others are whole"
    for cam in cams[:2]:
        np.savez(files / f"{cam.image_id}.npz", keys=np.array(cam.class_ids), maps=cam.full.numpy())
    scores = run_pipeline(config, out.out, until="evaluate").results.scores
    assert scores["given_cams"].seed.miou_fixed == pytest.approx(expected.seed.miou_fixed, abs=1e-3)
    before = Path(out.cams("given_cams"), "meta.json").stat().st_mtime_ns
    manifest = scored_images(read_manifest(out.manifest), config.data)
    run_cams(Stage(config, out), "given_cams", manifest)
    own = Stage(_config("given_cams", given=out.cams("given_cams")), out)
    with pytest.raises(ConfigError, match="which this run writes itself"):
        run_cams(own, "given_cams", manifest)
    assert Path(out.cams("given_cams"), "meta.json").stat().st_mtime_ns == before

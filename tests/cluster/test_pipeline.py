"""The pipeline on a real local Ray: complete, skipped when there, resumed after kills."""

import contextlib
import io
import json
import shutil
import sqlite3
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from qaclims_ray.corpus.table import read_corpus
from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.predict import run_predict
from qaclims_ray.stages.requests import PredictArguments
from tests.cluster.kills import kill_training_worker, kill_tree, start, wait_for
from tests.cluster.small_run import SMALL, small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory) -> tuple[Path, object]:
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, run_pipeline(_tracked_config(), str(out))


def _tracked_config() -> RunConfig:
    return small_config(cluster__num_workers=2, tracking__enabled=True)


def _doubled_points(runs: Path) -> list[tuple]:
    """Return the points that MLflow's store beside the outputs holds more than once."""
    with contextlib.closing(sqlite3.connect(runs / "mlflow.db")) as store:
        assert store.execute("SELECT count(*) FROM metrics").fetchone() > (10,)
        return store.execute(
            "SELECT key, step, count(*) FROM metrics GROUP BY run_uuid, key, step HAVING count(*) > 1"
        ).fetchall()


def test_whole_run_leaves_every_artefact(finished_run):
    out, outcome = finished_run
    layout = RunLayout(str(out))
    kinds = [
        layout.manifest,
        layout.corpus,
        layout.classifier,
        layout.text_bank("qa_clims"),
        layout.network("qa_clims"),
    ]
    kinds += [layout.cams("baseline"), layout.cams("qa_clims"), layout.evaluation("qa_clims")]
    assert all(read_meta(uri) is not None for uri in kinds)
    report = json.loads((out / "report" / "report.json").read_text())
    seed = report["systems"]["qa_clims"]["seed"]
    assert {"miou_fixed", "miou_best", "threshold_best", "false_positive_rate", "false_negative_rate"} <= seed.keys()
    assert set(seed["iou"]) >= {"aeroplane", "train"}
    assert 0 < seed["miou_best"] <= 1
    assert seed["miou_best"] >= seed["miou_fixed"]
    assert {"timings", "environment", "config"} <= report.keys()
    assert "<html" in (out / "report" / "report.html").read_text()[:200].lower()
    assert outcome.results.scores.keys() == {"baseline", "qa_clims"}


def test_corpus_holds_each_question_once(finished_run):
    out, _ = finished_run
    frame = read_corpus(str(out / "corpus" / "answers"))
    assert not frame.duplicated(["image_id", "class_id", "question_index"]).any()
    counts = frame.groupby(["image_id", "class_id"]).size()
    assert (counts == 16).all()
    assert frame["image_id"].nunique() == 24


def test_a_moved_folder_goes_on_and_logs_nothing_twice(finished_run):
    from mlflow.tracking._tracking_service import utils

    out, first = finished_run
    record, lines = (out / "tracking.json").read_bytes(), io.StringIO()
    elsewhere = out.parent.with_name("elsewhere [b]")
    out.parent.rename(elsewhere)
    utils._artifact_repos_cache.clear()  # such a rerun is another process
    try:
        again = run_pipeline(_tracked_config(), str(elsewhere / "run"), console=Console(file=lines))
        assert not out.parent.exists()
        made = [line for line in lines.getvalue().splitlines() if " -> " in line]
        assert made == [] and "is made again" not in lines.getvalue()
        assert again.results.scores["qa_clims"] == first.results.scores["qa_clims"]
        assert (elsewhere / "run" / "tracking.json").read_bytes() == record
        assert _doubled_points(elsewhere) == []
    finally:
        elsewhere.rename(out.parent)
        utils._artifact_repos_cache.clear()


def test_second_run_does_nothing_again(finished_run):
    out, first = finished_run
    suffixes = (".parquet", ".safetensors", ".html", ".png")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.suffix in suffixes}
    lines = io.StringIO()
    second = run_pipeline(_tracked_config(), str(out), console=Console(file=lines, width=200))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    made = [line for line in lines.getvalue().splitlines() if " -> " in line or line.startswith("processes for images")]
    assert made == [] and second.report_uri == first.report_uri
    assert second.results.scores["qa_clims"] == first.results.scores["qa_clims"]


def test_changed_setting_makes_only_what_depends_on_it(finished_run):
    out, _ = finished_run
    layout = RunLayout(str(out))
    corpus_before = read_meta(layout.corpus)
    network_before = read_meta(layout.network("qa_clims"))
    run_pipeline(small_config(ritc__omega=0.3), str(out))
    assert read_meta(layout.corpus) == corpus_before
    assert read_meta(layout.network("qa_clims")).fingerprint != network_before.fingerprint


def test_predict_writes_masks_and_overlays(finished_run, tmp_path):
    out, _ = finished_run
    images = sorted((out / "data" / "JPEGImages").iterdir())[:3]
    broken = tmp_path / "broken.png"
    broken.write_bytes(images[0].read_bytes()[:200])
    target = tmp_path / "predicted"
    run_predict(PredictArguments(run=str(out), images=(*map(str, images), str(broken)), out=str(target)))
    index = json.loads((target / "predictions.json").read_text())
    assert sum("error" in row for row in index["images"]) == 1
    for image in images:
        mask = np.asarray(Image.open(target / "masks" / image.name))
        assert mask.shape == (64, 64)
        assert mask.max() <= 8
        assert (target / "overlays" / image.name).is_file()
    with pytest.raises(DataError, match="no image"):
        run_predict(PredictArguments(run=str(out), images=(str(tmp_path / "predicted"),), out=str(target)))


def test_more_workers_than_images_in_a_batch_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="num_workers"):
        run_pipeline(small_config(cluster__num_workers=9), str(tmp_path))


def test_killed_corpus_build_goes_on_and_repeats_nothing(tmp_path):
    extra = {"data.num_images": 80, "corpus.num_beams": 3}
    process = start(tmp_path, "corpus", {**SMALL, **extra})
    corpus = tmp_path / "corpus" / "answers"
    wait_for(lambda: len(list(tmp_path.glob("corpus.making-*/answers/*.parquet"))) >= 3, 600, "three shards")
    kill_tree(process)
    done = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("corpus.making-*/answers/*.parquet")}
    assert 3 <= len(done) < 20
    assert not corpus.exists()
    overrides = {name.replace(".", "__"): value for name, value in extra.items()}
    run_pipeline(small_config(**overrides), str(tmp_path), until="corpus")
    assert {name: (corpus / name).stat().st_mtime_ns for name in done} == done
    frame = read_corpus(str(corpus))
    assert not frame.duplicated(["image_id", "class_id", "question_index"]).any()
    assert frame["image_id"].nunique() == 80


def test_killed_training_worker_goes_on_from_its_checkpoint(tmp_path, empty_store):
    config = small_config(
        data__num_images=64,
        classifier__optim__epochs=15,
        classifier__optim__name="sgd",  # Adam blows rounding up where gradients vanish
        classifier__optim__lr=0.05,
        classifier__freeze_batch_norm=True,  # the other figures do not depend on the number of workers
        systems=["baseline"],
        cluster__num_workers=2,
        tracking__enabled=True,
    )
    out = tmp_path / "run"
    shutil.copyfile(empty_store, tmp_path / "mlflow.db")
    runs = out / "training_runs"
    victims: list[int] = []

    def kill_one() -> None:
        wait_for(lambda: len(list(runs.glob("classifier-*/checkpoint_*"))) >= 1, 600, "a first checkpoint")
        victims.append(kill_training_worker())

    killer = threading.Thread(target=kill_one)
    killer.start()
    run_pipeline(config, str(out), until="train")
    killer.join()
    assert victims
    meta = read_meta(RunLayout(str(out)).classifier)
    assert meta is not None
    assert _doubled_points(tmp_path) == []
    undisturbed = tmp_path / "undisturbed"
    run_pipeline(with_overrides(config, {"cluster.num_workers": 0}), str(undisturbed), until="train")
    again = read_meta(RunLayout(str(undisturbed)).classifier)
    assert meta.summary["loss"] == pytest.approx(again.summary["loss"], rel=1e-3)

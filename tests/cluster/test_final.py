"""From CAMs to pseudo masks to final networks on a real local Ray, and prediction with them."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.evaluation.bootstrap import iou_of, mean_of
from qaclims_ray.evaluation.scored_figures import FIGURES
from qaclims_ray.refine.mask_index import read_mask_index
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from qaclims_ray.stages.predict import run_predict
from qaclims_ray.stages.requests import CompareArguments, PredictArguments
from qaclims_ray.stages.run_figures import read_figures
from qaclims_ray.stages.run_folder import load_config
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

LIMIT = 24
FINAL = {
    "goal": "segmentation",
    "data.limit": LIMIT,
    "masks.steps": ["irn", "crf"],
    "masks.irn.optim.epochs": 4,
    "masks.irn.optim.batch_size": 8,
    "segmentation.optim.epochs": 2,
    "segmentation.steps_per_epoch": 12,
    "segmentation.optim.batch_size": 8,
}


def _config(**overrides):
    final = {name.replace(".", "__"): value for name, value in FINAL.items()}
    return small_config(**{**final, "systems": ["baseline"], **overrides})


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("final")
    run_pipeline(_config(), str(out), until="cams")
    run_pipeline(_config(cluster__num_workers=2), str(out))  # Ray Train for what is new here alone
    return out


def test_the_report_goes_from_seed_to_final_network_and_shows_the_bound(finished):
    report = json.loads((finished / "report" / "report.json").read_text())
    systems = report["systems"]
    assert list(systems) == ["baseline", "fully_supervised"]
    keys = set(systems["baseline"]["seed"])
    assert set(systems["baseline"]["mask"]) == keys == set(systems["baseline"]["segmentation"])
    assert systems["fully_supervised"]["seed"] is None and systems["fully_supervised"]["mask"] is None
    assert 0 < systems["fully_supervised"]["segmentation"]["miou_fixed"] < 1
    assert {"irn/loss", "segmentation/loss"} <= set(systems["baseline"]["curves"])


def test_pseudo_masks_are_palette_pngs_with_an_index_that_tells_the_truth(finished):
    rows, names = read_mask_index(str(finished / "masks" / "baseline"))
    assert len(rows) == 24 and len(names) == 8
    for row in rows:
        picture = Image.open(finished / "masks" / "baseline" / row.mask)
        values = np.array(picture)
        assert picture.mode == "P" and values.shape == (64, 64)
        assert set(np.unique(values)) <= {0, *(class_id + 1 for class_id in row.class_ids)}
        assert row.coverage == pytest.approx(float((values > 0).mean()), abs=1e-6)
    found = {path.name for path in (finished / "masks" / "baseline").iterdir() if path.suffix != ".png"}
    expected = {"files.json", "image_counts.parquet", "index.parquet", "meta.json", "scores.json"}
    assert found == expected
    assert (finished / "masks" / "baseline" / "index.parquet").is_file()


def test_counts_by_image_add_up_to_the_scores_of_every_stage_and_systems_can_be_compared(finished):
    comparison, _ = run_compare(
        CompareArguments((f"{finished}:baseline", f"{finished}:fully_supervised"), resamples=100)
    )
    assert [stage.stage for stage in comparison.stages] == [key for key in FIGURES if key.startswith("segmentation")]
    assert not any(stage.unpaired for stage in comparison.stages) and comparison.stages[0].interval is not None
    config = load_config(str(finished))
    figures = read_figures(str(finished), config, "baseline").figures
    assert list(figures) == list(FIGURES)
    systems = json.loads((finished / "report" / "report.json").read_text())["systems"]
    for key, counted in figures.items():
        stage, threshold = FIGURES[key].stage, FIGURES[key].threshold
        iou, averaged = iou_of(counted.counts.sum(0)), counted.scored_labels().averaged
        expected = systems["baseline"][stage]
        assert float(mean_of(iou, averaged)) == pytest.approx(expected[f"miou_{threshold}"], abs=1e-9), key
        assert counted.threshold == expected[f"threshold_{threshold}"] and len(counted.image_ids) == LIMIT


def test_a_second_run_does_nothing_again_and_a_lost_artefact_is_made_alone(finished):
    layout = RunLayout(str(finished))
    weights = Path(layout.segmentation("fully_supervised"), "network.safetensors")
    before = weights.stat().st_mtime_ns
    seeds = Path(layout.seed_labels("baseline"), "meta.json").stat().st_mtime_ns
    Path(layout.masks("baseline"), "meta.json").unlink()
    run_pipeline(_config(), str(finished))
    assert weights.stat().st_mtime_ns == before
    assert Path(layout.seed_labels("baseline"), "meta.json").stat().st_mtime_ns == seeds
    assert read_meta(layout.masks("baseline")) is not None


def test_prediction_takes_the_final_network_and_packs_a_submission(finished, tmp_path):
    images = sorted((finished / "data" / "JPEGImages").glob("*.png"))[:3]
    archive = tmp_path / "results.tgz"
    run_predict(
        PredictArguments(
            run=str(finished), images=tuple(map(str, images)), out=str(tmp_path / "out"), submission=str(archive)
        )
    )
    content = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert content["by"] == "the final network"
    assert {row["labels_from"] for row in content["images"]} == {"final network"}
    with tarfile.open(archive) as packed:
        assert len([name for name in packed.getnames() if name.endswith(".png")]) == 3
    predicted = Path(finished, "predictions", "baseline")
    assert len(list(predicted.glob("*.png"))) == 2 * LIMIT, "those of the test split, and those whose seeds are scored"


def test_a_broken_image_is_a_row_with_an_error_and_no_submission(finished, tmp_path):
    whole = sorted((finished / "data" / "JPEGImages").glob("*.png"))[:2]
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole[0].read_bytes()[:200])
    archive, images = tmp_path / "results.tgz", tuple(map(str, (*whole, broken)))
    arguments = PredictArguments(run=str(finished), images=images, out=str(tmp_path / "out"), submission=str(archive))
    with pytest.raises(DataError, match="needs every image, but 1 could not be read; no archive"):
        run_predict(arguments)
    rows = json.loads((tmp_path / "out" / "predictions.json").read_text())["images"]
    assert [("error" in row, Path(row["image"]).name) for row in rows if "error" in row] == [(True, "broken.png")]
    assert {path.name for path in (tmp_path / "out" / "masks").iterdir()} == {path.name for path in whole}
    assert not archive.exists()


def test_prediction_by_cams_is_still_there_and_options_that_would_do_nothing_are_refused(finished, tmp_path):
    image = str(next((finished / "data" / "JPEGImages").glob("*.png")))
    arguments = {"run": str(finished), "images": (image,), "out": str(tmp_path)}
    run_predict(PredictArguments(**arguments, network="cam"))
    assert json.loads((tmp_path / "predictions.json").read_text())["by"] == "CAMs"
    with pytest.raises(ConfigError, match="leave it out"):
        run_predict(PredictArguments(**arguments, network="final", threshold=0.3))
    with pytest.raises(ConfigError, match="refines the final network"):
        run_predict(PredictArguments(**arguments, network="cam", crf=True))
    with pytest.raises(ConfigError, match="no CAM network"):
        run_predict(PredictArguments(**arguments, network="cam", system="fully_supervised"))


def test_a_second_round_goes_on_from_the_network_of_the_first(finished):
    layout = RunLayout(str(finished))
    first = read_meta(layout.segmentation("baseline"))
    outcome = run_pipeline(_config(segmentation__rounds=2), str(finished))
    assert read_meta(layout.round_network("baseline", 1)) == first is not None
    rows, _ = read_mask_index(layout.round_masks("baseline", 2))
    assert len(rows) == LIMIT and all(Path(layout.round_masks("baseline", 2), row.mask).is_file() for row in rows)
    last = read_meta(layout.segmentation("baseline"))
    assert last is not None and last.settings["segmentation"]["rounds"] == 2
    assert outcome.results.segmentations["baseline"].crf is not None
    assert "2 final networks" in (finished / "report" / "report.html").read_text()


def test_other_steps_share_the_cams(finished):
    config = _config(masks__steps=["pamr"], masks__uncertain=[0.4, 0.6], goal="mask")
    outcome = run_pipeline(config, str(finished), until="refine")
    summary = outcome.results.masks["baseline"].summary
    assert 0 < summary["mean_ignored"] < 1
    assert outcome.results.masks["baseline"].scores is not None
    assert not outcome.results.segmentations


def test_a_stage_beyond_the_goal_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--goal segmentation"):
        run_pipeline(_config(goal="mask"), str(tmp_path), until="segment")

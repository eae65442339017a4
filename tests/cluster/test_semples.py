"""CLIMS and SemPLeS on a real local Ray: phases that systems share, and going on from the phase that was cut."""

import io
import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.models.clip.prompts import load_prompts
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.pipeline import run_pipeline
from tests.cluster.small_run import small_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900), pytest.mark.usefixtures("shared_ray")]

SEMPLES = {
    "semples.match.epochs": 1,
    "semples.match.batch_size": 8,
    "semples.refine.epochs": 1,
    "semples.refine.batch_size": 8,
    "semples.prompt.optim.epochs": 1,
    "semples.prompt.steps_per_epoch": 4,
    "semples.prompt.optim.batch_size": 8,
    "semples.prompt.num_views": 1,
    "clims.optim.epochs": 1,
    "clims.optim.batch_size": 8,
    "clims.optim.warmup_steps": 0,
}


def _config(*systems: str, workers: int = 0):
    overrides = {name.replace(".", "__"): value for name, value in SEMPLES.items()}
    return small_config(systems=list(systems), cluster__num_workers=workers, **overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run whose phases train on a worker of Ray, each on its own."""
    out = tmp_path_factory.mktemp("semples")
    run_pipeline(_config("clims", "semples", workers=1), str(out))
    return out


def test_every_phase_leaves_its_artefact_and_the_systems_their_scores(finished):
    layout = RunLayout(str(finished))
    phases = read_meta(layout.network("semples")).summary["phases"]
    assert list(phases) == ["match", "prompts", "refine"]
    assert all(read_meta(layout.phase(name)) is not None for name in phases.values())
    assert load_prompts(layout.prompts("semples")).vectors.shape[:2] == (8, 8)
    report = json.loads((finished / "report" / "report.json").read_text())
    assert set(report["systems"]) == {"clims", "semples"}
    assert len(report["systems"]["semples"]["prompts"]) == 8
    assert report["systems"]["clims"]["prompts"] is None
    assert "Learned prompts" in (finished / "report" / "report.html").read_text()
    curves = report["systems"]["semples"]["curves"]
    assert {"match/loss", "prompts/loss/image", "refine/loss/prompts"} <= set(curves)


def test_systems_share_phases_and_a_base_is_trained_but_not_compared(finished):
    layout = RunLayout(str(finished))
    before = {path: path.stat().st_mtime_ns for path in (finished / "phases").rglob("*.safetensors")}
    config = _config("semples_match", "semples_random_prompts", "semples_joint", "semples_on_clims")
    outcome = run_pipeline(config, str(finished), until="evaluate")
    assert set(outcome.results.scores) == set(config.systems)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    phases = {name: read_meta(layout.network(name)).summary["phases"] for name in ("semples", *config.systems)}
    assert phases["semples_match"]["match"] == phases["semples"]["match"]
    assert phases["semples_random_prompts"]["match"] == phases["semples"]["match"]
    assert phases["semples_random_prompts"]["prompts"] != phases["semples"]["prompts"]
    assert phases["semples_on_clims"]["match"] != phases["semples"]["match"]
    assert list(phases["semples_joint"]) == ["joint"]
    assert load_prompts(layout.prompts("semples_joint")).class_names[0] == "aeroplane"


def test_a_lost_phase_is_made_again_and_the_others_are_kept(finished):
    layout = RunLayout(str(finished))
    phases = read_meta(layout.network("semples")).summary["phases"]
    (finished / "phases" / phases["refine"] / "meta.json").unlink()
    (finished / "networks" / "semples" / "meta.json").unlink()
    kept = finished / "phases" / phases["match"] / "network.safetensors"
    before = kept.stat().st_mtime_ns
    run_pipeline(_config("semples", workers=2), str(finished), until="train")
    assert read_meta(layout.network("semples")).summary["phases"] == phases
    assert read_meta(layout.phase(phases["refine"])) is not None
    assert kept.stat().st_mtime_ns == before


def test_qa_clims_with_prompts_learns_them_on_qa_clims(tmp_path):
    config = _config("qa_clims_prompts")
    outcome = run_pipeline(config, str(tmp_path), until="evaluate")
    layout = RunLayout(str(tmp_path))
    assert set(outcome.results.scores) == {"qa_clims_prompts"}
    assert read_meta(layout.network("qa_clims")) is not None
    assert load_prompts(layout.prompts("qa_clims_prompts")).vectors.shape[0] == 8


def test_a_phase_that_a_setting_makes_again_says_why(finished):
    lines = io.StringIO()
    config = with_overrides(_config("semples"), {"semples.refine_weight": 0.7})
    run_pipeline(config, str(finished), until="train", console=Console(file=lines, width=200))
    said = [line for line in lines.getvalue().splitlines() if "made again" in line]
    assert len(said) == 1 and re.search(r" is made again: refine_weight 0\.6 -> 0\.7(; it took .*)?$", said[0])
    assert said[0].startswith("phases/refine-")

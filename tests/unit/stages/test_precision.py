"""A precision is part of what an artefact was made from, and those from before the setting stay what they were."""

from types import SimpleNamespace
from typing import Any

import pytest

from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta, plain
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, in_effect, with_overrides
from qaclims_ray.stages.cams import run_cams
from qaclims_ray.stages.corpus import run_corpus
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.refine import mask_settings
from qaclims_ray.stages.run_figures import _other_settings
from qaclims_ray.stages.segment import score_final_network
from qaclims_ray.stages.stage import Stage
from qaclims_ray.stages.text import bank_of

SPLITS = ("train", "val")
MANIFEST = Manifest(("cat",), (ImageRecord("a", "a.jpg", 8, 8, (0,), "a.png", None, SPLITS),))
ON_GPU = {
    "cams.gpus_per_actor": 1.0,
    "masks.gpus_per_actor": 1.0,
    "corpus.gpus_per_actor": 1.0,
    "cluster.use_gpu": True,
}
META = ArtifactMeta(
    kind="any",
    fingerprint="f",
    settings={},
    inputs={},
    summary={},
    package_version="",
    source_hash="",
    created="",
)


class Made(Exception):
    """The artefact that a stage is about to make."""


@pytest.fixture
def artifact_of(monkeypatch):
    """Return the artefact of a stage that is called with a run's settings."""

    def stop(_: Stage, artifact: Artifact, *__: Any, **___: Any) -> ArtifactMeta:
        raise Made(artifact)

    monkeypatch.setattr(Stage, "make", stop)
    monkeypatch.setattr(artifacts, "require_artifact", lambda *_, **__: META)

    def found(name: str, config: RunConfig) -> Artifact:
        stage = Stage(config, RunLayout("memory://run"))
        if name == "text":
            return bank_of(stage, "qa_clims", MANIFEST)
        calls = {
            "corpus": lambda: run_corpus(stage, MANIFEST),
            "cams": lambda: run_cams(stage, "qa_clims", MANIFEST),
            "segment": lambda: score_final_network(stage, "qa_clims", META, MANIFEST),
        }
        with pytest.raises(Made) as caught:
            calls[name]()
        return caught.value.args[0]

    return found


def _without(values: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in plain(values).items() if name not in names}


def test_on_cpus_settings_are_those_from_before_precision_was_one(artifact_of) -> None:
    config = preset("miniature")
    resources = ("num_actors", "gpus_per_actor", "max_failed_fraction")
    corpus = _without(config.corpus, *resources, "questions_per_batch") | {"precision": "fp32"}
    assert artifact_of("corpus", config).settings == corpus
    assert artifact_of("text", config).settings == {
        "text": _without(config.text, "precision"),
        "clip": plain(config.clip),
    }
    assert artifact_of("cams", config).settings == _without(config.cams, *resources, "batch_size", "precision")
    assert artifact_of("segment", config).settings["test"] == _without(
        config.segmentation.test, "batch_size", "precision"
    )
    assert "precision" not in mask_settings(config.masks)


SETTINGS = {
    "corpus": "corpus.precision",
    "text": "text.precision",
    "cams": "cams.precision",
    "segment": "segmentation.test.precision",
}


@pytest.mark.parametrize(("stage", "setting"), SETTINGS.items())
def test_each_stages_precision_is_its_own(artifact_of, stage, setting) -> None:
    config = preset("miniature")
    spelled, rounded = (with_overrides(config, {setting: value}) for value in ("fp32", "bf16"))
    before = artifact_of(stage, config).fingerprint
    assert artifact_of(stage, spelled).fingerprint == before != artifact_of(stage, rounded).fingerprint
    for other in SETTINGS.keys() - {stage}:
        assert artifact_of(other, rounded).fingerprint == artifact_of(other, config).fingerprint


def test_another_device_makes_another_artefact_unless_the_precision_is_set(artifact_of) -> None:
    config, moved = preset("miniature"), with_overrides(preset("miniature"), ON_GPU)
    for stage in ("corpus", "cams", "segment"):
        assert artifact_of(stage, moved).fingerprint != artifact_of(stage, config).fingerprint
        kept = with_overrides(moved, {SETTINGS[stage]: "fp32"})
        assert artifact_of(stage, kept).fingerprint == artifact_of(stage, config).fingerprint
    by_irn = with_overrides(moved, {"masks.steps": ["irn"]}).masks
    assert mask_settings(by_irn)["precision"] == "fp16"
    assert "precision" not in mask_settings(moved.masks), "no network refines by CRF"


def test_a_run_says_what_its_precisions_stand_for() -> None:
    found = in_effect(with_overrides(preset("miniature"), ON_GPU | {"cams.precision": "bf16"}))
    assert {name: found[name] for name in found if name.endswith("precision")} == {
        "corpus.precision": "bf16",
        "text.precision": "fp32",
        "cluster.precision": "bf16",
        "cams.precision": "bf16",
        "masks.precision": "fp16",
        "segmentation.test.precision": "fp16",
    }


def test_cams_of_another_precision_are_not_compared_under_the_present_one() -> None:
    made = SimpleNamespace(**{**vars(META), "inputs": {"network": "n"}})
    meta = ArtifactMeta(**vars(made))
    rounded = in_effect(with_overrides(preset("miniature"), {"cams.precision": "fp16"}))
    assert _other_settings(meta, "cams", in_effect(preset("miniature"))) == ""
    assert "cams.precision" in _other_settings(meta, "cams", rounded)
    assert _other_settings(META, "cams", rounded) == "", "given CAMs come from no network"

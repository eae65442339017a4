import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.data import artifacts
from qaclims_ray.data.config import DataConfig
from qaclims_ray.errors import ArtifactError


def test_meta_comes_back(tmp_path: Path) -> None:
    written = artifacts.write_meta(str(tmp_path), "cams", CamConfig(), {"manifest": "81ab"}, {"num_images": 3})
    assert artifacts.read_meta(str(tmp_path)) == written
    assert written.settings["scales"] == [1.0, 0.5, 1.5, 2.0]
    assert written.inputs == {"manifest": "81ab"} and written.summary == {"num_images": 3}
    assert len(written.fingerprint) == 16 and len(written.source_hash) == 12


def test_the_fingerprint_is_known_before_and_ignores_the_summary(tmp_path: Path) -> None:
    expected = artifacts.expected_fingerprint("cams", CamConfig(), {"a": "1", "b": "2"})
    metas = [
        artifacts.write_meta(str(tmp_path / name), "cams", CamConfig(), inputs, summary)
        for name, inputs, summary in [("x", {"a": "1", "b": "2"}, None), ("y", {"b": "2", "a": "1"}, {"n": 1})]
    ]
    assert [meta.fingerprint for meta in metas] == [expected, expected]


def test_the_fingerprint_follows_kind_settings_and_inputs() -> None:
    fingerprints = {
        artifacts.expected_fingerprint("cams", CamConfig(), {}),
        artifacts.expected_fingerprint("corpus", CamConfig(), {}),
        artifacts.expected_fingerprint("cams", CamConfig(flip=False), {}),
        artifacts.expected_fingerprint("cams", CamConfig(), {"manifest": "81ab"}),
        artifacts.expected_fingerprint("cams", CamConfig(), {"corpus": "81ab"}),
    }
    assert len(fingerprints) == 5


def test_settings_mean_the_same_as_dataclass_and_as_json() -> None:
    config = DataConfig(dataset="voc12", root="/data")
    plain = json.loads(json.dumps(artifacts.plain(config)))
    assert artifacts.expected_fingerprint("manifest", config, {}) == artifacts.expected_fingerprint(
        "manifest", plain, {}
    )


def test_plain_reaches_dataclasses_inside_containers() -> None:
    @dataclass
    class Inner:
        values: tuple[int, ...]

    assert artifacts.plain({"x": Inner((1, 2)), "y": [Inner(())]}) == {"x": {"values": [1, 2]}, "y": [{"values": []}]}


def test_current_means_complete_and_of_just_these_inputs(tmp_path: Path) -> None:
    uri = str(tmp_path)
    assert not artifacts.is_current(uri, "cams", CamConfig(), {})
    artifacts.write_meta(uri, "cams", CamConfig(), {"manifest": "81ab"})
    assert artifacts.is_current(uri, "cams", CamConfig(), {"manifest": "81ab"})
    assert not artifacts.is_current(uri, "cams", CamConfig(), {"manifest": "81ac"})
    assert not artifacts.is_current(uri, "cams", CamConfig(batch_size=2), {"manifest": "81ab"})
    assert not artifacts.is_current(uri, "corpus", CamConfig(), {"manifest": "81ab"})


def test_require_says_how_to_make_it(tmp_path: Path) -> None:
    uri = str(tmp_path)
    with pytest.raises(ArtifactError, match=r"no complete corpus at .*; make it with `qaclims corpus`"):
        artifacts.require(uri, "corpus", verb="corpus")
    meta = artifacts.write_meta(uri, "cams", {}, {})
    assert artifacts.require(uri, "cams", verb="cams", fingerprint=meta.fingerprint) == meta
    with pytest.raises(ArtifactError, match="holds a cams, expected a corpus"):
        artifacts.require(uri, "corpus", verb="corpus")
    with pytest.raises(ArtifactError, match=f"has fingerprint {meta.fingerprint}, expected 81ab"):
        artifacts.require(uri, "cams", verb="cams", fingerprint="81ab")


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"kind": "cams"}', '{"kind": "cams", "surplus": 1}'])
def test_a_broken_meta_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"meta\.json is broken .* run the stage again"):
        artifacts.read_meta(str(tmp_path))


def test_version_and_source_hash_are_stable() -> None:
    assert artifacts.source_hash() == artifacts.source_hash()
    assert artifacts.package_version()

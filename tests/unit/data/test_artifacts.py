import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.data import artifacts, whole_files
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.config import DataConfig
from qaclims_ray.errors import ArtifactError


def _artifact(uri: str, kind: str, settings: Any, inputs: Mapping[str, str] | None = None) -> Artifact:
    return Artifact(uri=uri, kind=kind, settings=settings, inputs=inputs or {}, verb="cams")


def _fingerprint(kind: str, settings: Any, inputs: Mapping[str, str] | None = None) -> str:
    return _artifact("", kind, settings, inputs).fingerprint


def test_meta_comes_back(tmp_path: Path) -> None:
    written = _artifact(str(tmp_path), "cams", CamConfig(), {"manifest": "81ab"}).complete({"num_images": 3})
    assert artifacts.read_meta(str(tmp_path)) == written
    assert written.settings["scales"] == [1.0, 0.5, 1.5, 2.0]
    assert written.inputs == {"manifest": "81ab"} and written.summary == {"num_images": 3}
    assert len(written.fingerprint) == 16 and len(written.source_hash) == 12


def test_the_fingerprint_is_known_before_and_ignores_the_summary(tmp_path: Path) -> None:
    expected = _fingerprint("cams", CamConfig(), {"a": "1", "b": "2"})
    metas = [
        _artifact(str(tmp_path / name), "cams", CamConfig(), inputs).complete(summary)
        for name, inputs, summary in [("x", {"a": "1", "b": "2"}, None), ("y", {"b": "2", "a": "1"}, {"n": 1})]
    ]
    assert [meta.fingerprint for meta in metas] == [expected, expected]


def test_the_fingerprint_follows_kind_settings_and_inputs() -> None:
    fingerprints = {
        _fingerprint("cams", CamConfig()),
        _fingerprint("corpus", CamConfig()),
        _fingerprint("cams", CamConfig(flip=False)),
        _fingerprint("cams", CamConfig(), {"manifest": "81ab"}),
        _fingerprint("cams", CamConfig(), {"corpus": "81ab"}),
    }
    assert len(fingerprints) == 5


def test_settings_mean_the_same_as_dataclass_and_as_json() -> None:
    config = DataConfig(dataset="voc12", root="/data")
    plain = json.loads(json.dumps(artifacts.plain(config)))
    assert _fingerprint("manifest", config) == _fingerprint("manifest", plain)


def test_plain_reaches_dataclasses_inside_containers() -> None:
    @dataclass
    class Inner:
        values: tuple[int, ...]

    assert artifacts.plain({"x": Inner((1, 2)), "y": [Inner(())]}) == {"x": {"values": [1, 2]}, "y": [{"values": []}]}


def test_current_means_complete_and_of_just_these_inputs(tmp_path: Path) -> None:
    uri, inputs = str(tmp_path), {"manifest": "81ab"}
    assert _artifact(uri, "cams", CamConfig()).current() is None
    written = _artifact(uri, "cams", CamConfig(), inputs).complete()
    assert _artifact(uri, "cams", CamConfig(), inputs).current() == written
    assert _artifact(uri, "cams", CamConfig(), {"manifest": "81ac"}).current() is None
    assert _artifact(uri, "cams", CamConfig(batch_size=2), inputs).current() is None
    assert _artifact(uri, "corpus", CamConfig(), inputs).current() is None


def test_the_same_result_may_lie_in_another_folder(tmp_path: Path) -> None:
    one = _artifact(str(tmp_path / "a"), "cams", CamConfig(), {"manifest": "81ab"})
    other = one.at(str(tmp_path / "b"))
    assert other.fingerprint == one.fingerprint and other.uri == str(tmp_path / "b")
    other.complete()
    assert one.current() is None and other.current() is not None


# --- why it does not serve


def _differs(folder: Path, old: Artifact, new: Artifact) -> str:
    old.at(str(folder)).complete()
    return new.at(str(folder)).differs()


def test_where_nothing_is_there_nothing_differs(tmp_path: Path) -> None:
    one = _artifact(str(tmp_path / "absent"), "cams", CamConfig())
    assert one.differs() == ""
    assert _differs(tmp_path, one, one) == ""


def test_settings_that_differ_are_named_with_old_and_new_values(tmp_path: Path) -> None:
    old, new = _artifact("", "cams", CamConfig()), _artifact("", "cams", CamConfig(flip=False, scales=(1.0, 2.0)))
    assert _differs(tmp_path, old, new) == "flip true -> false, scales [1.0, 0.5, 1.5, 2.0] -> [1.0, 2.0]"


def test_nested_settings_have_their_dotted_names(tmp_path: Path) -> None:
    old = _artifact("", "ritc", {"ritc": {"optim": {"lr": 0.1, "epochs": 3}}, "seed": 0})
    new = _artifact("", "ritc", {"ritc": {"optim": {"lr": 0.2, "epochs": 3}}, "seed": 0})
    assert _differs(tmp_path, old, new) == "ritc.optim.lr 0.1 -> 0.2"


def test_a_setting_that_one_of_the_two_has_not_is_absent_there(tmp_path: Path) -> None:
    old, new = _artifact("", "cams", {"gone": None, "kept": 1}), _artifact("", "cams", {"kept": 1, "come": "x"})
    assert _differs(tmp_path, old, new) == 'gone null -> absent, come absent -> "x"'


def test_another_input_is_named_and_one_that_came_or_went_too(tmp_path: Path) -> None:
    old = _artifact("", "cams", {}, {"manifest": "81ab", "network": "1", "gone": "2"})
    new = _artifact("", "cams", {}, {"manifest": "81ab", "network": "3", "come": "4"})
    assert _differs(tmp_path, old, new) == "another gone, another network, another come"


def test_of_many_reasons_three_are_shown_and_the_others_counted(tmp_path: Path) -> None:
    names = [f"s{number}" for number in range(4)]
    old = _artifact("", "cams", dict.fromkeys(names, 0), {"manifest": "81ab"})
    new = _artifact("", "cams", dict.fromkeys(names, 1), {"manifest": "81ac"})
    assert _differs(tmp_path, old, new) == "s0 0 -> 1, s1 0 -> 1, s2 0 -> 1 and 2 more"


def test_a_long_value_is_cut(tmp_path: Path) -> None:
    said = _differs(tmp_path, _artifact("", "x", {"s": "a" * 99}), _artifact("", "x", {"s": 1}))
    assert said == f's "{"a" * 36}... -> 1'


def test_a_broken_meta_is_the_reason_itself(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{")
    assert "meta.json is broken" in _artifact(str(tmp_path), "cams", CamConfig()).differs()


# --- reading


def test_require_says_how_to_make_it(tmp_path: Path) -> None:
    uri = str(tmp_path)
    with pytest.raises(ArtifactError, match=r"no complete corpus at .*; make it with `qaclims corpus`"):
        artifacts.require_artifact(uri, "corpus", verb="corpus")
    with pytest.raises(ArtifactError, match=r"no complete cams at .*; make it with `qaclims cams`"):
        _artifact(uri, "cams", {}).require()
    meta = _artifact(uri, "cams", {}).complete()
    assert _artifact(uri, "cams", {}).require() == meta
    assert artifacts.require_artifact(uri, "cams", verb="cams", fingerprint=meta.fingerprint) == meta
    with pytest.raises(ArtifactError, match="holds a cams, expected a corpus"):
        artifacts.require_artifact(uri, "corpus", verb="corpus")
    with pytest.raises(ArtifactError, match=f"has fingerprint {meta.fingerprint}, expected 81ab"):
        artifacts.require_artifact(uri, "cams", verb="cams", fingerprint="81ab")
    with pytest.raises(ArtifactError, match=r"made from other inputs or settings; make it again with `qaclims cams`"):
        _artifact(uri, "cams", {"other": 1}).require()


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"kind": "cams"}', '{"kind": "cams", "surplus": 1}'])
def test_a_broken_meta_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "meta.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"meta\.json is broken .* makes it again"):
        artifacts.read_meta(str(tmp_path))


def test_who_waits_moves_nothing(tmp_path: Path) -> None:
    artifact = _artifact(str(tmp_path / "cams"), "cams", CamConfig())
    artifact.begin()
    Path(artifact.workshop).mkdir()
    Path(artifact.workshop, "a").write_text("x")
    artifact.complete()
    Path(artifact.uri).rename(artifact.workshop)  # as it is while another process puts it in place
    assert artifact.in_place() is None and Path(artifact.workshop, "a").is_file()
    assert artifact.current() is not None and artifact.in_place() == artifact.current()


@pytest.mark.parametrize("content", ["[]", "[" * 100_000, '{"a": {"bytes": Infinity, "sha256": ""}}', '{"a": 1}'])
def test_a_broken_list_of_files_is_told(tmp_path: Path, content: str) -> None:
    _artifact(str(tmp_path), "cams", CamConfig()).complete()
    (tmp_path / "a").write_text("x")
    (tmp_path / "files.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"files\.json is broken"):
        whole_files.read_whole(str(tmp_path / "a"))


def test_version_and_source_hash_are_stable() -> None:
    assert artifacts.source_hash() == artifacts.source_hash()
    assert artifacts.package_version()


@pytest.mark.parametrize("number", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(("before", "after"), [([("cat", "dog")], []), (["x", True], ["no background", 3])])
def test_a_fingerprint_of_rows_is_that_of_all_at_once(number, before, after, monkeypatch):
    monkeypatch.setattr(artifacts, "_ROWS_HASHED", 2)
    rows = [[f"caf\u00e9 {at}", (at, at + 1), None, {"b": 1, "a": 2}] for at in range(number)]
    expected = artifacts.fingerprint_of([*before, rows, *after])
    assert artifacts.fingerprint_of_rows(before, iter(rows), after) == expected

"""A run repeated from its stored settings, and held to the first."""

import json
import shutil
from pathlib import Path

import pytest

from qaclims_ray.commands.main import INCOMPLETE, MISTAKE, run_verb
from qaclims_ray.data import artifacts
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.stages.rerun import compare_again, difference, reached
from tests.finished_artifacts import finished


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has drawn its world and read it, which takes no Ray."""
    out = tmp_path_factory.mktemp("runs") / "first"
    assert run_verb("data", ["miniature", "--out", str(out), "--data.num-images", "8"]) == 0
    return out


def test_the_same_settings_make_the_same_files(drawn: Path, capsys) -> None:
    assert run_verb("rerun", [str(drawn)]) == 0
    said = capsys.readouterr().out
    assert "2 artefacts are the same, byte for byte" in said
    record = json.loads((drawn.parent / "first-again" / "rerun.json").read_text())
    assert record["is_same"] and [one["name"] for one in record["artefacts"]] == ["data", "manifest"]
    assert min(one["files"]["num_files"] for one in record["artefacts"]) > 0
    stored = [json.loads((drawn.parent / name / "config.json").read_text()) for name in ("first", "first-again")]
    assert stored[0] == stored[1]


def test_a_file_with_other_content_is_named_and_the_exit_code_says_so(drawn: Path, tmp_path: Path, capsys) -> None:
    again = tmp_path / "again"
    shutil.copytree(drawn, again)
    meta = artifacts.read_meta(str(again / "data"))
    assert meta is not None
    picture = next((again / "data" / "JPEGImages").iterdir())
    picture.write_bytes(picture.read_bytes()[::-1])
    finished(Artifact(uri=str(again / "data"), kind=meta.kind, settings=meta.settings, inputs=meta.inputs, verb="data"))
    capsys.readouterr()
    assert run_verb("rerun", [str(drawn), "--out", str(again)]) == INCOMPLETE
    printed = capsys.readouterr()
    assert picture.name in printed.out.replace("\n", "")
    assert "1 of 2 artefacts differ, the first is data" in printed.err
    assert not json.loads((again / "rerun.json").read_text())["is_same"]


@pytest.mark.parametrize("out", ["{0}", "{0}/again", "{1}"])
def test_it_needs_a_folder_of_its_own(drawn: Path, out: str, capsys) -> None:
    before = sorted(path.name for path in drawn.iterdir())
    assert run_verb("rerun", [str(drawn), "--out", out.format(drawn, drawn.parent)]) == MISTAKE
    assert "needs a folder of its own" in capsys.readouterr().err
    assert sorted(path.name for path in drawn.iterdir()) == before


def test_a_folder_without_results_is_refused(drawn: Path, tmp_path: Path, capsys) -> None:
    assert run_verb("rerun", [str(tmp_path)]) == MISTAKE
    assert "there is no run at" in capsys.readouterr().err
    (tmp_path / "config.json").write_bytes((drawn / "config.json").read_bytes())
    assert run_verb("rerun", [str(tmp_path)]) == MISTAKE
    assert "holds no finished artefact" in capsys.readouterr().err


def made(folder: Path, content: bytes, settings: dict[str, int], **summary: float) -> None:
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(content)
    finished(Artifact(uri=str(folder), kind="any", settings=settings, verb="run"), summary)


def test_how_far_a_run_came_is_read_off_its_folders(tmp_path: Path) -> None:
    for folder, stage in (("manifest", "data"), ("networks/a", "train"), ("masks/a", "refine"), ("trust", "report")):
        made(tmp_path / folder, b"", {})
        assert reached(str(tmp_path)) == stage


def test_a_run_that_now_ends_earlier_is_repeated_as_far_as_it_goes(drawn: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "first"
    shutil.copytree(drawn, out)
    made(out / "masks" / "baseline", b"", {})
    begun = []
    monkeypatch.setattr("qaclims_ray.stages.pipeline.run_pipeline", lambda *_, until, **__: begun.append(until))
    for goal in ("seed", "mask"):
        settings = json.loads((out / "config.json").read_text()) | {"goal": goal}
        (out / "config.json").write_text(json.dumps(settings))
        (tmp_path / "first-again").mkdir(exist_ok=True)
        run_verb("rerun", [str(out)])
    assert begun == ["evaluate", "refine"]


def test_a_data_set_in_the_runs_own_folder_is_refused(drawn: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "first"
    shutil.copytree(drawn, out)
    settings = json.loads((out / "config.json").read_text())
    settings["data"]["root"] = "{out}/data"
    (out / "config.json").write_text(json.dumps(settings))
    assert run_verb("rerun", [str(out)]) == MISTAKE
    assert "inside of the run's folder" in capsys.readouterr().err


def test_a_link_to_the_run_is_the_run(drawn: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "link").symlink_to(drawn)
    assert run_verb("rerun", [str(tmp_path / "link"), "--out", str(drawn)]) == MISTAKE
    assert "needs a folder of its own" in capsys.readouterr().err


def test_only_what_has_the_same_settings_is_compared(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for run, iou in ((first, 0.5), (second, 0.25)):
        made(run / "manifest", b"m", {})
        made(run / "cams" / "a", run.name.encode(), {"scales": 1}, miou=iou, images_per_s=iou)
        made(run / "cams" / "b", b"", {"scales": 1 if run is first else 2})
    made(first / "masks" / "a", b"", {})
    found = compare_again(str(first), str(second))
    assert [one.name for one in found.artefacts] == ["manifest", "cams/a", "cams/b", "masks/a"]
    assert [one.is_same for one in found.artefacts] == [True, False, False, False]
    assert found.artefacts[1].figures == ("miou 0.5 -> 0.25",)
    assert [one.name for one in found.compared] == ["manifest", "cams/a"]
    assert "other settings" in found.artefacts[2].note and "first run alone" in found.artefacts[3].note
    assert "1 of 2 artefacts differ, the first is cams/a: the first run has no report" in difference(found)

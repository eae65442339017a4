"""Two reports are the same where every figure is, and only there."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import same_figures

REPORT: dict[str, Any] = {
    "title": "miniature: before",
    "created": "2026-01-01",
    "systems": {
        "qa_clims": {
            "label": "QA-CLIMS",
            "seed": {"miou_best": 0.5, "iou": {"cat": 0.25}, "curve": {"miou": [0.1, 0.2]}},
            "mask": None,
            "curves": {"loss": [[10, 0.5]], "images_per_s": [[10, 99.0]], "segmentation/images_per_s": [[10, 9.0]]},
        }
    },
    "timings": {"CAMs of qa_clims": 3.0},
    "dataset": {"fingerprint": "ab", "content": "ab", "num_images": 600},
    "environment": {"source_hash": "cd", "gpus": [], "packages": {"torch": "2"}, "supervision": "image-level labels"},
    "config": {"data": {"root": "/a"}, "segmentation": {"optimizer": "adamw", "lr": 0.006}, "systems": []},
}
NUM_COMPARED = 13


def _write(folder: Path, report: dict[str, Any]) -> Path:
    file = folder / "report" / "report.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(report))
    return folder


def _changed(*path: str | int, to: Any) -> dict[str, Any]:
    report: Any = copy.deepcopy(REPORT)
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return report


def _lines(after: dict[str, Any], tolerance: float = 0.0) -> list[str]:
    return same_figures.differences(same_figures.figures(REPORT), same_figures.figures(after), tolerance)


def test_a_report_is_the_same_as_itself_from_a_folder_and_from_a_file(tmp_path, capsys):
    run = _write(tmp_path / "run", REPORT)
    assert same_figures.main([str(run), str(run / "report" / "report.json")]) == 0
    assert capsys.readouterr().out == f"{NUM_COMPARED} figures, all the same\n"


def test_one_other_digit_is_found_and_fails(tmp_path, capsys):
    other = _changed("systems", "qa_clims", "seed", "iou", "cat", to=0.2500000000000001)
    before, after = _write(tmp_path / "before", REPORT), _write(tmp_path / "after", other)
    assert same_figures.main([str(before), str(after)]) == 1
    said = capsys.readouterr().out
    assert "systems.qa_clims.seed.iou.cat: 0.25 -> 0.2500000000000001\n" in said
    assert f"1 of {NUM_COMPARED} figures differ" in said
    assert same_figures.main([str(before), str(after), "--tolerance", "1e-9"]) == 0


@pytest.mark.parametrize(
    ("path", "to", "line"),
    [
        (("systems", "qa_clims", "seed", "curve", "miou"), [0.1], "curve.miou[1]: 0.2 -> (absent)"),
        (("systems", "qa_clims", "mask"), 0.0, "mask: null -> 0.0"),
        (("systems", "qa_clims", "curves", "loss"), [[10, 0.6]], "curves.loss[0][1]: 0.5 -> 0.6"),
        (("systems", "qa_clims", "label"), "QA", 'label: "QA-CLIMS" -> "QA"'),
        (("environment", "supervision"), "masks", 'environment.supervision: "image-level labels" -> "masks"'),
        (("config", "systems"), ["clims"], "config.systems: [] -> (absent)"),
        (("config", "segmentation", "lr"), True, "config.segmentation.optim.lr: 0.006 -> true"),
    ],
)
def test_what_differs_is_named(path, to, line):
    assert any(found.endswith(line) for found in _lines(_changed(*path, to=to)))


@pytest.mark.parametrize(
    "path",
    [
        ("title",),
        ("created",),
        ("timings", "CAMs of qa_clims"),
        ("systems", "qa_clims", "curves", "images_per_s"),
        ("systems", "qa_clims", "curves", "segmentation/images_per_s"),
        ("dataset", "fingerprint"),
        ("environment", "source_hash"),
        ("environment", "packages", "torch"),
        ("config", "data", "root"),
    ],
)
def test_when_where_and_how_fast_are_no_figures(path):
    assert not _lines(_changed(*path, to="other"))


def test_a_setting_that_moved_is_compared_under_its_new_name():
    moved = _changed("config", "segmentation", to={"optim": {"name": "adamw", "lr": 0.006}})
    assert not _lines(moved)
    moved["config"]["segmentation"]["optim"]["lr"] = 0.01
    assert _lines(moved) == ["config.segmentation.optim.lr: 0.006 -> 0.01"]


def test_what_is_no_report_is_refused(tmp_path, capsys):
    empty = tmp_path / "report.json"
    empty.write_text("{}")
    assert same_figures.main([str(tmp_path / "none"), str(empty)]) == 2
    assert "cannot read" in capsys.readouterr().err
    assert same_figures.main([str(empty), str(empty)]) == 2
    assert "has no systems" in capsys.readouterr().err


def test_what_a_run_sets_for_single_systems_is_compared_in_both_ways_of_saying_it():
    systems = {"a": {"miou": 1.0}}
    before = {"systems": systems, "config": {"per_system": [{"system": "a", "overrides": {"x": 1}}], "variants": []}}
    after = {"systems": systems, "config": {"variants": [{"name": "a", "like": "a", "overrides": {"x": 1}}]}}
    other = {"systems": systems, "config": {"variants": [{"name": "a", "like": "a", "overrides": {"x": 2}}]}}
    compared = [same_figures.figures(report) for report in (before, after, other)]
    assert same_figures.differences(compared[0], compared[1]) == []
    assert same_figures.differences(compared[0], compared[2]) == ["config.overrides by system.a.x: 1 -> 2"]

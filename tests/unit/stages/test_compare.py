"""`qaclims compare` on runs as they lie on disk; no Ray is started."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qaclims_ray import cli
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta
from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.evaluation.image_counts import IMAGE_COUNTS_FILE, CountedFigure, write_image_counts
from qaclims_ray.presets.table import preset
from qaclims_ray.report.comparison import print_comparison
from qaclims_ray.run_config import to_dict, with_overrides
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.evaluate import scoring_settings
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import CompareArguments
from qaclims_ray.systems.table import system_config
from tests.finished_artifacts import finished

NAMES = ("bird", "boat")


def complete(uri: str, kind: str, settings: Any, inputs: dict[str, str] | None = None) -> ArtifactMeta:
    return finished(Artifact(uri=uri, kind=kind, settings=settings, inputs=inputs or {}, verb=""))


def make_run(
    out: Path, *, found: int = 50, systems: tuple[str, ...] = ("baseline", "qa_clims"), **overrides: Any
) -> str:
    """A miniature run with scored seeds; `found` of 100 pixels of each bird."""
    values = {name.replace("__", "."): value for name, value in overrides.items()}
    config = with_overrides(preset("miniature"), {"systems": list(systems), **values})
    layout = RunLayout(str(out))
    storage.write_bytes(layout.config, json.dumps(to_dict(config)).encode())
    for number, system in enumerate(systems):
        resolved = system_config(config, system)
        settings = {"ritc": artifacts.plain(resolved.ritc), "seed": config.seed}
        if system == "qa_clims":
            network = complete(layout.network(system), "ritc", settings).fingerprint
        else:
            network = complete(layout.classifier, "classifier", {"seed": config.seed}).fingerprint
        cams = complete(layout.cams(system), "cams", {}, {"network": network})
        images = [(f"i{i}", [(0, 900, 1000 - found, 900, 0), (1, found - i, found, 100, 1)]) for i in range(5 - number)]
        figures = [CountedFigure(name, 0.1, images) for name in ("fixed", "label_free", "best")]
        write_image_counts(layout.evaluation(system), figures, NAMES)
        scored = scoring_settings(resolved.scoring)
        complete(layout.evaluation(system), "evaluation", scored, {"cams": cams.recipe()})
    return str(out)


def compare(*runs: str, **options: Any) -> Any:
    return run_compare(CompareArguments(runs, **options))[0]


def named(comparison: Any, kind: str = "settings") -> dict[str, tuple[Any, ...]]:
    return {d.name: d.values for d in comparison.differences if d.kind == kind}


def test_systems_meet_their_namesakes_and_only_what_differs_is_listed(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", found=70, ritc__omega=0.3)]
    found, page = run_compare(CompareArguments(tuple(runs), resamples=200))
    assert named(found) == {"ritc.omega": (0.1, 0.3)}
    assert [(s.group, s.stage) for s in found.stages] == [
        (group, stage)
        for group in ("baseline CAM", "QA-CLIMS")
        for stage in ("seed_fixed", "seed_label_free", "seed_best")
    ]
    assert all(s.difference > 0.05 and s.interval.low > 0 for s in found.stages)
    assert page == str(tmp_path / "a" / "report" / "compare" / "comparison.html")
    assert "QA-CLIMS" in Path(page).read_text()
    assert json.loads(Path(page).with_suffix(".json").read_text())["num_resamples"] == 200


def test_two_systems_of_one_run_and_a_third_side(tmp_path):
    run, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", found=60)
    found = compare(f"{run}:baseline", f"{run}:qa_clims", other, resamples=200)
    assert named(found)["system"] == ("baseline", "qa_clims", "baseline")
    assert {(s.first_letter, s.other_letter) for s in found.stages} == {("A", "B"), ("A", "C")}
    assert [bool(s.unpaired) for s in found.stages[:2]] == [True, False], "qa_clims has one image fewer"
    assert "versions are not compared: A, B, C has no report that records them" in found.notes


def test_the_seed_alone_is_said_and_so_is_what_only_one_run_has(tmp_path):
    runs = [make_run(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 2))]
    figures = [CountedFigure("fixed", 0.5, [("i0", [(0, 5, 5, 5, 0)])])]
    layout = RunLayout(runs[1])
    write_image_counts(layout.masks("qa_clims"), figures, NAMES)
    found = compare(*runs, resamples=200)
    assert any("differ in seed only" in note for note in found.notes)
    assert not any("pseudo mask" in note for note in found.notes), "masks without meta.json are not complete"


def test_scores_of_earlier_settings_do_not_count(tmp_path):
    """config.json is the last call's; a call that stopped early leaves scores of the call before."""
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", systems=("qa_clims",))]
    layout = RunLayout(runs[1])
    values = json.loads(Path(layout.config).read_text())
    values["ritc"]["omega"] = 0.3
    Path(layout.config).write_text(json.dumps(values))
    with pytest.raises(
        ArtifactError, match=r"no stage in common.*its network had ritc.omega = 0.1, config.json has 0.3"
    ):
        compare(*runs)
    settings = {"ritc": values["ritc"], "seed": 0}
    complete(layout.network("qa_clims"), "ritc", settings)
    with pytest.raises(ArtifactError, match=r"its cams came from another state of network.*qaclims evaluate --out"):
        compare(*runs)


def test_versions_come_from_the_reports_when_all_have_one(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    for run, torch in zip(runs, ("2.6", "2.7"), strict=True):
        environment = {"packages": {"torch": torch, "ray": "1"}, "source_hash": run}
        storage.write_bytes(f"{run}/report/report.json", json.dumps({"environment": environment}).encode())
    found = compare(*runs, resamples=200)
    assert named(found, "versions") == {"packages.torch": ("2.6", "2.7")}
    assert "The runs have the same settings." in found.notes


def test_the_console_shows_settings_results_and_classes(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", found=70, ritc__omega=0.3)]
    console = Console(file=io.StringIO(), width=160)
    print_comparison(compare(*runs, resamples=200), console)
    text = console.file.getvalue()
    assert "ritc.omega" in text and "seed, best threshold *" in text and "bird" in text
    assert "says nothing about training variance" in text


def test_a_colon_in_a_folder_name_is_no_system(tmp_path):
    runs = [make_run(tmp_path / "a:1"), make_run(tmp_path / "b")]
    assert compare(*runs, resamples=200).sides[0].run == runs[0]
    assert compare(f"{runs[0]}:baseline", f"{runs[1]}:baseline", resamples=200).sides[0].system == "baseline"


def test_runs_without_a_common_system_are_told_how_to_name_them(tmp_path):
    runs = [make_run(tmp_path / "a", systems=("baseline",)), make_run(tmp_path / "b", systems=("qa_clims",))]
    with pytest.raises(ConfigError, match="no other run has one of them; name the systems to compare as RUN:SYSTEM"):
        compare(*runs)
    with pytest.raises(ConfigError, match=r"/b has no system 'baseline'"):
        compare(f"{runs[0]}:baseline", runs[1])


def test_a_run_of_an_earlier_version_is_told_which_verb_to_run(tmp_path, capsys):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    Path(RunLayout(runs[1]).evaluation("qa_clims"), IMAGE_COUNTS_FILE).unlink()
    assert _call("compare", *runs) == 2
    error = capsys.readouterr().err
    assert f"qaclims compare: ArtifactError: {runs[1]}/evaluations/qa_clims has scores but no" in error
    assert f"`qaclims evaluate --out {runs[1]}`" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["A"], "1 runs are named, expected at least two"),
        (["A", "nowhere"], "there is no run at"),
        (["A", "A"], "would be compared with itself"),
        (["A", "A:baseline"], "would be compared with itself"),
        (["A:nosuch", "A:baseline"], "has no system 'nosuch'; it has baseline, qa_clims"),
        (["A:qa_clims", "A:baseline", "--resamples", "7"], "--resamples is 7"),
        (["A:qa_clims", "A:baseline", "--seed", "-1"], "--seed is -1"),
        (["A:qa_clims", "A:baseline", "--out", "/proc/nowhere"], "cannot be written"),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, tmp_path, capsys):
    run = make_run(tmp_path / "a")
    assert _call("compare", *[argument.replace("A", run) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_tissue_is_compared_over_its_classes_alone(tmp_path):
    """A patch that shows no class of the list is background throughout, which the data set does not have."""
    runs = [make_run(tmp_path / name, systems=("baseline",), data__dataset="bcss_wsss") for name in ("a", "b")]
    found = compare(*runs, resamples=200).stages[0]
    assert [label.name for label in found.classes] == list(NAMES)
    assert found.first == pytest.approx(240 / 510), "the background's IoU counts"
    assert "over the classes (there is no background)" in Path(f"{runs[0]}/report/compare/comparison.html").read_text()


def test_runs_may_lie_in_a_bucket(tmp_path):
    """fsspec's memory store stands in for one; every URI has a colon."""
    local = make_run(tmp_path / "a")
    storage.upload_tree(make_run(tmp_path / "b", found=60), "memory://bucket/b")
    found = compare(f"{local}:qa_clims", "memory://bucket/b:qa_clims", out=str(tmp_path / "out"), resamples=200)
    assert (found.sides[1].run, found.sides[1].system) == ("memory://bucket/b", "qa_clims")
    assert found.stages[0].interval is not None


def _call(*arguments: str) -> int:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ending:
        patch.setattr("sys.argv", ["qaclims", *arguments])
        cli.main()
    assert isinstance(ending.value.code, int)
    return ending.value.code

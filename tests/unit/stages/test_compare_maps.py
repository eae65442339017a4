"""`qaclims compare` on runs without masks; no Ray is started."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from qaclims_ray.data import storage
from qaclims_ray.data.artifacts import Artifact, read_meta
from qaclims_ray.data.manifest import Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.report.comparison import print_comparison
from qaclims_ray.stages.compare import run_compare
from qaclims_ray.stages.compare_maps import compare_maps
from qaclims_ray.stages.requests import CompareArguments
from qaclims_ray.stages.run_figures import SystemFigures, read_figures
from qaclims_ray.stages.run_folder import load_config
from tests.finished_artifacts import finished
from tests.unit.stages.unmasked_run import SYSTEM, make_run

BOX = 8
"""Columns of the boxes that the maps show."""


def sides(*runs: str) -> dict[str, SystemFigures]:
    return {letter: read_figures(run, load_config(run), SYSTEM) for letter, run in zip("ABC", runs, strict=False)}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("compared")
    return make_run(folder / "a"), make_run(folder / "b", shift=2)


def test_runs_without_masks_are_compared_by_maps_and_figures(runs: tuple[str, str], tmp_path: Path) -> None:
    found, page = run_compare(CompareArguments(runs, out=str(tmp_path)))
    assert not found.stages and [one.stage for one in found.maps] == ["mask", "final"]
    mask, final = found.maps
    assert mask.miou == 1.0 and mask.num_images == 6
    assert final.iou["cat"] == pytest.approx((BOX - 2) / (BOX + 2)) and len(final.worst) == 6
    free = {one.name: one for one in found.label_free}
    assert free["threshold of the seed"].values == {"A": 0.6, "B": 0.6} and free["threshold of the seed"].is_threshold
    agreed = free["agreement of pseudo mask and final network"].values
    assert agreed["A"] > agreed["B"]
    text = Path(page).read_text()
    assert "final network" in text and "What the intervals mean" not in text and "i5" in text
    assert json.loads(Path(page).with_suffix(".json").read_text())["maps"][1]["stage"] == "final"
    console = Console(file=io.StringIO(), width=140)
    print_comparison(found, console)
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "label maps of both runs" in printed and "figures without masks" in printed and "interval" not in printed


def test_seeds_are_compared_where_nothing_follows_them(tmp_path: Path) -> None:
    one, two = make_run(tmp_path / "a", goal="seed"), make_run(tmp_path / "b", goal="seed")
    found, notes = compare_maps("group", sides(one, two))
    assert [(each.stage, each.miou) for each in found] == [("seed", 1.0)] and not notes


def relabelled(run: str, *, names: tuple[str, ...] = ("cat", "dog"), tags: tuple[int, ...] | None = None) -> str:
    uri = f"{run}/manifest"
    old = read_manifest(uri)
    records = [r if tags is None else dataclasses.replace(r, labels=tags) for r in old.records]
    storage.remove_tree(uri)
    write_manifest(Manifest(names, tuple(records)), manifest_artifact(uri, {}))
    return run


def test_images_that_only_share_their_names_are_not_compared(runs: tuple[str, str], tmp_path: Path) -> None:
    other = relabelled(make_run(tmp_path / "tags"), tags=(0, 1))
    found, notes = compare_maps("group", sides(runs[0], other))
    assert not found and notes[0] == "group: A and B have no image with a pseudo mask in common"
    other = relabelled(make_run(tmp_path / "classes"), names=("cat", "cow"))
    found, notes = compare_maps("group", sides(runs[0], other))
    assert not found and "of other classes" in notes[0]


def test_figures_that_were_counted_on_other_maps_do_not_count(runs: tuple[str, str], tmp_path: Path) -> None:
    stale, absent = make_run(tmp_path / "stale"), make_run(tmp_path / "absent")
    made = read_meta(f"{stale}/masks/{SYSTEM}")
    assert made is not None
    uri = f"{stale}/masks/{SYSTEM}"
    finished(Artifact(uri=uri, kind="masks", settings=made.settings, inputs={"cams": "others"}, verb=""))
    storage.remove_tree(f"{absent}/trust")
    found, _ = run_compare(CompareArguments((runs[0], stale, absent), out=str(tmp_path / "out")))
    assert all(set(one.values) == {"A"} for one in found.label_free)
    assert any("figures without masks of B are left out" in note for note in found.notes)
    assert any(note.startswith("C has no figures without masks yet: `qaclims report --out") for note in found.notes)

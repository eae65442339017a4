"""The report of a search: which trials count, which setting matters, what is written."""

import json
import math

import numpy as np

from qaclims_ray.report.search import SearchResult, TrialRow, best_trial, importances, write_search


def _result(num_whole: int = 16) -> SearchResult:
    generator = np.random.default_rng(0)
    rows = []
    for index in range(num_whole):
        weight, noise = float(generator.uniform(0.1, 10)), float(generator.uniform(0, 1))
        figure = 1 - abs(math.log10(weight)) + 0.01 * noise
        values = {"ritc.area_weight": weight, "ritc.omega": noise, "mode": "ab"[index % 2]}
        rows.append(TrialRow(name=f"t{index}", values=values, objective=figure, epochs=4, seconds=1.0))
    values = {"ritc.area_weight": 1.0, "ritc.omega": 0.5, "mode": "a"}
    rows.append(TrialRow(name="early", values=values, objective=9.0, epochs=2, seconds=1.0))
    rows.append(TrialRow(name="dead", values=values, objective=None, epochs=0, seconds=0.0, failure="loss is <nan>"))
    return SearchResult(
        title="a search",
        objective="separation",
        epochs=4,
        start=values,
        scales={"ritc.area_weight": "log", "ritc.omega": "linear"},
        rows=tuple(rows),
    )


def test_only_trials_that_ended_are_compared():
    result = _result()
    best = best_trial(result)
    assert best is not None
    assert best.name == max(result.rows[:16], key=lambda row: row.objective or 0).name
    assert best_trial(_result(0)) is None


def test_the_setting_that_matters_comes_first():
    shares = importances(_result(40))
    assert next(iter(shares)) == "ritc.area_weight"
    assert shares["ritc.area_weight"] > 2 * shares["ritc.omega"]
    assert importances(_result(5)) == {}


def test_table_figures_and_page_are_written(tmp_path):
    files = write_search(str(tmp_path), _result())
    content = json.loads((tmp_path / "search.json").read_text())
    assert len(content["rows"]) == 18
    assert "importance" in content
    page = (tmp_path / "search.html").read_text()
    assert page.count("<svg") == 2
    assert "dead failed: loss is <nan>" in (tmp_path / "search.md").read_text()
    assert set(files) == {"table", "figures", "page"}

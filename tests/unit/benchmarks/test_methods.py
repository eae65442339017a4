"""What the table over all methods rests on: cells of pages, the source with most seeds, FLOPs of whole trainings."""

import dataclasses
import json

import pytest

from benchmarks import method_records, methods
from benchmarks.method_flops import Length, brought_to, full_lengths
from benchmarks.method_records import Record, cell_of, figure_of, more_seeds
from benchmarks.methods import ROWS, Row, chosen_by, figure, licences, needs, records_of, sources, table
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.systems.table import SUPERVISED
from tests.ritc_fakes import write_pictures

PAGE = """
| system | network | + CRF |
|---|---|---|
| one | 37.1 +- 0.7 | - |

Text.

| | seed 20 one | seed 21 one |
|---|---|---|
| best | 40.4 (.61) | 37.9 (.56) |
| lost | 1.4 (.52) | 0.2 (.52) |
"""


def test_a_cell_is_looked_up_in_the_table_that_has_its_row_and_column() -> None:
    assert cell_of(PAGE, "one", "network") == "37.1 +- 0.7"
    assert cell_of(PAGE, "best", "seed 21 one") == "37.9 (.56)"
    assert cell_of(PAGE, "one", "+ CRF") is None and cell_of(PAGE, "best", "network") is None


def test_records_are_means_of_pages_and_values_by_seed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(method_records, "RESULTS", tmp_path)
    (tmp_path / "page.md").write_text(PAGE)
    rows = [{"system": "one", "miou_best": value} for value in (0.5, 0.6)] + [{"system": "other", "miou_best": 0.1}]
    (tmp_path / "page.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    mean = Record("final", "page.md", "one", ("network",)).read()
    assert mean is not None and (mean.cell, mean.source) == ("37.1 +- 0.7 (3)", "page.md")
    by_seed = Record("label_free", "page.md", "best", ("seed 20 one", "seed 21 one"), minus="lost").read()
    assert by_seed is not None and by_seed.mean == pytest.approx((39.0 + 37.7) / 2) and by_seed.num_seeds == 2
    lines = Record("seed_best", "page.jsonl", "one", ("miou_best",)).read()
    assert lines is not None and lines.mean == pytest.approx(55) and lines.num_seeds == 2
    assert Record("final", "page.md", "none", ("network",)).read() is None


def test_a_cell_comes_from_where_most_seeds_stand_behind_it(tmp_path, monkeypatch) -> None:
    few, many = figure_of([1.0, 2.0], "few"), figure_of([1.0, 2.0, 3.0], "many")
    assert more_seeds([few, None, many]) == many and more_seeds([None]) is None
    monkeypatch.setattr(methods, "MEASURED", tmp_path / "methods.jsonl")
    row = next(row for row in ROWS if row.key == "qa_clims")
    assert (found := figure(row, "final_crf")) is not None and found.source == "miniature_final.md"
    lines = [{"row": row.key, "seed": seed, "step": "final", "final_crf": 0.8} for seed in (20, 21, 22, 23)]
    (tmp_path / "methods.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    assert (found := figure(row, "final_crf")) is not None and found.cell == "80.0 +- 0.0 (4)"
    assert found.source == "here"


ON_PAGES = [row for row in ROWS if row.rounds == 1 and row.key != "online_answers"]


@pytest.mark.parametrize("row", ON_PAGES, ids=lambda row: row.key)
def test_what_pages_are_said_to_hold_is_there(row: Row) -> None:
    records = records_of(row)
    assert records and all(record.read() is not None for record in records)


def test_thresholds_of_networks_that_make_their_own_masks_are_settings_wherever_they_are_measured() -> None:
    online, stages, bound = (next(row for row in ROWS if row.key == key) for key in ("online", "baseline", SUPERVISED))
    here, page = figure_of([40.0], "here"), figure_of([50.0], "miniature_final.md")
    assert chosen_by(online, [None, here]) == "masks of seed 10"
    assert chosen_by(stages, [here, page]) == "colours, no masks"
    assert chosen_by(stages, [None, page]) == "masks of seeds 10 and 11"
    assert chosen_by(bound, [here]) == chosen_by(stages, [None]) == "-"


def test_what_is_measured_goes_on_where_it_stopped_and_ends_in_rounds(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(methods, "MEASURED", tmp_path / "methods.jsonl")
    small = {"data.num_images": 12, "classifier.optim.epochs": 1, "classifier.optim.batch_size": 4}
    final = {"steps_per_epoch": 2, "optim.epochs": 1, "optim.batch_size": 4}
    config = with_overrides(preset("miniature"), {**small, **{f"segmentation.{k}": v for k, v in final.items()}})
    monkeypatch.setattr(methods, "preset", lambda name: config)
    row = Row(system="baseline", rounds=2)
    methods.measure(dataclasses.replace(row, rounds=1), 7, tmp_path, "mask")
    assert [(line["row"], line["step"]) for line in methods.lines_of()] == [("baseline", "seed"), ("baseline", "mask")]
    for _ in range(2):
        methods.measure(row, 7, tmp_path, "final")
    lines = {(line["row"], line["step"]): line for line in methods.lines_of()}
    assert list(lines) == [("baseline", "seed"), ("baseline", "mask"), ("baseline", "final"), ("baseline*2", "final")]
    assert len(methods.lines_of()) == 4, "what is there is not measured again"
    again = lines["baseline*2", "final"]
    assert {"mask", "final", "final_crf", "final_cpu_s"} <= set(again) and 0 < again["mask"] < 1
    names = {path.name for path in (tmp_path / "miniature" / "seed-7").iterdir()}
    assert {"masks-baseline", "final-baseline", "masks-baseline-2", "final-baseline-2"} <= names
    written = list((tmp_path / "miniature" / "seed-7" / "masks-baseline-2").iterdir())
    assert len(written) == 12 and figure(row, "final_crf") is not None


def test_rows_say_what_they_learn_from_and_the_licences_of_it() -> None:
    by_key = {row.key: row for row in ROWS}
    assert needs(by_key["baseline"]) == "tags" and needs(by_key["qa_clims"]) == "tags + CLIP + VQA"
    assert needs(by_key["fully_supervised"]) == "masks" and licences(by_key["baseline"]) == "Apache-2.0"
    published, plain = licences(by_key["qa_clims"]).split(" or ")
    assert "CC-BY-NC-4.0" in published and "CC-BY-NC-4.0" not in plain
    shown = table(ROWS)
    assert shown.count("\n") == len(ROWS) + 1 and sources(ROWS).count("\n") == len(ROWS) + 1


def test_flops_of_two_short_trainings_give_those_of_a_long_one() -> None:
    per_image, per_step = 3.0, 7.0
    short = (Length(32, 1), Length(32, 2))
    one, two = (per_image * length.images + per_step * length.steps for length in short)
    assert brought_to(one, two, short, Length(600, 162)) == pytest.approx(3 * 600 + 7 * 162)
    assert brought_to(96.0, 96.0, (Length(32, 0), Length(32, 0)), Length(64, 0)) == pytest.approx(192)


def test_lengths_are_those_of_the_trainings_that_a_system_needs(tmp_path) -> None:
    pictures, config = write_pictures(tmp_path), preset("miniature")
    assert full_lengths(config, "qa_clims", 600, pictures) == [360, 0, 162]  # classifier, texts, RITC
    semples = preset("miniature_semples")
    assert full_lengths(semples, "semples", 600, pictures) == [360, 126, 500, 126]
    assert full_lengths(config, "patch_text", 600, pictures) == [0]

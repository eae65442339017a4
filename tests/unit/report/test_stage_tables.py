import dataclasses
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.report.contents import FULLY_SUPERVISED, ReportData, SystemReport, data_colours, winner
from qaclims_ray.report.files import report_json, write_report
from qaclims_ray.report.palette import INK, system_colours
from qaclims_ray.report.seed_table import seeds_table
from qaclims_ray.report.stage_charts import stages_chart
from qaclims_ray.systems.table import SUPERVISED

SPLITS = {"seed": "train", "mask": "train", "segmentation": "val"}


def scores(fixed: float, best: float | None = None) -> SeedScores:
    best = fixed if best is None else best
    iou = {"background": 0.8, "bird": fixed, "boat": math.nan}
    return SeedScores(
        threshold_fixed=0.2, miou_fixed=fixed, false_positive_rate=0.3, false_negative_rate=0.2, iou=iou,
        threshold_label_free=0.4, miou_label_free=fixed, threshold_best=0.4, miou_best=best,
        false_positive_rate_best=0.1, false_negative_rate_best=0.3, iou_best=iou,
        num_images=20, curve=SweepCurve(
            thresholds=(0.2, 0.4), miou=(fixed, best), false_positive_rate=(0.3, 0.1), false_negative_rate=(0.2, 0.3)
        ),
    )  # fmt: skip


def systems() -> dict[str, SystemReport]:
    return {
        "baseline": SystemReport(
            label="baseline CAM", seed=scores(0.21, 0.39), mask=scores(0.40, 0.99), segmentation=scores(0.44),
            threshold_label_free=0.24,
            mask_summary={"num_images": 600, "mean_coverage": 0.312, "mean_ignored": None, "classes": {"bird": 0.1}},
            initial_weights="timm <r50>",
        ),
        "qa_clims": SystemReport(
            label="QA-CLIMS", seed=scores(0.59, 0.62), mask=scores(0.64), segmentation=scores(0.67),
            segmentation_crf=scores(0.68), initial_weights="timm <r50>",
        ),
        FULLY_SUPERVISED: SystemReport(
            label="full masks", seed=None, segmentation=scores(0.78), segmentation_crf=scores(0.79),
            initial_weights="random",
        ),
    }  # fmt: skip


def report_data(**changes) -> ReportData:
    data = ReportData(
        title="miniature",
        config={},
        environment={},
        timings={},
        dataset={"name": "miniature"},
        systems=systems(),
        splits=SPLITS,
    )
    return dataclasses.replace(data, **changes)


def page_of(folder: Path, data: ReportData) -> str:
    return Path(write_report(str(folder), data)).read_text()


def section_of(page: str, heading: str) -> str:
    return page[page.index(f"<h2>{heading}</h2>") :].split("</section>")[0]


def row_of(section: str, label: str) -> list[str]:
    """Cells of the first table row of a system, tags removed."""
    row = section[section.index(f"<b>{label}</b></td>") :].split("</tr>")[0]
    return [re.sub(r"<[^>]+>", " ", cell).strip() for cell in re.findall(r"<td.*?</td>", row)]


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    return page_of(tmp_path_factory.mktemp("stages"), report_data())


def test_json_has_the_same_keys_for_every_stage():
    report = json.loads(json.dumps(report_json(report_data()), allow_nan=False))
    found = report["systems"]["qa_clims"]
    assert set(found["mask"]) == set(found["segmentation"]) == set(found["segmentation_crf"]) == set(found["seed"])
    assert (found["mask"]["miou_fixed"], found["segmentation"]["miou_fixed"]) == (0.64, 0.67)
    assert found["segmentation_crf"]["iou"] == {"background": 0.8, "bird": 0.68, "boat": None}
    assert set(report["chosen_by_pixel_labels"]) <= set(found["segmentation_crf"])
    full = report["systems"][FULLY_SUPERVISED]
    assert full["seed"] is None and full["mask"] is None and full["segmentation"]["miou_fixed"] == 0.78
    assert report["splits"] == SPLITS and full["initial_weights"] == "random"
    assert report["systems"]["baseline"]["mask_summary"]["classes"] == {"bird": 0.1}
    assert report["systems"]["baseline"]["threshold_label_free"] == 0.24
    assert report["systems"]["baseline"]["segmentation_crf"] is None


def test_the_table_follows_every_system_to_its_final_network(page: str):
    section = section_of(page, "From seeds to the final network")
    assert row_of(section, "QA-CLIMS") == ["59.0", "62.0 at 0.4", "64.0 +5.0", "67.0", "68.0 +1.0", "-11.0 86 % of it"]
    assert row_of(section, "baseline CAM") == ["21.0", "39.0 at 0.4", "40.0 +19.0", "44.0", "-", "-34.0 56 % of it"]
    assert row_of(section, "full masks") == ["-", "-", "-", "78.0", "79.0 +1.0", "the bound"]
    assert section.count("<svg") == 1 and section.count('class="bound"') == 1
    assert "99.0" not in section  # a threshold chosen with pixel labels is no pseudo mask's figure


def test_the_best_seed_is_marked_as_chosen_with_pixel_labels(page: str):
    section = section_of(page, "From seeds to the final network")
    head = section[section.index("<thead>") :].split("</thead>")[0]
    marked = [cell for cell in re.findall(r"<th>.*?</th>", head) if "chosen with pixel labels" in cell]
    assert len(marked) == 1 and "best threshold" in marked[0]
    assert "seed, best threshold (chosen with pixel labels)" in section[section.index("<svg") :]


def test_splits_and_initial_weights_stand_beside_the_figures(page: str):
    section = section_of(page, "From seeds to the final network")
    caption = section[section.index("<p>") :].split("</p>")[0]
    assert "seeds on train (20 images), pseudo masks on train (20 images), final networks on val (20 images)" in caption
    assert "timm &lt;r50&gt;, but random for <b>full masks</b>" in caption
    assert "full masks learns from the true masks" in caption and "255" in caption


def test_a_change_needs_the_same_images(tmp_path: Path):
    same = page_of(tmp_path / "same", report_data(splits={"seed": "val", "mask": "val", "segmentation": "val"}))
    assert row_of(section_of(same, "From seeds to the final network"), "QA-CLIMS")[2:4] == ["64.0 +5.0", "67.0 +3.0"]
    unknown = page_of(tmp_path / "unknown", report_data(splits={}))
    assert row_of(section_of(unknown, "From seeds to the final network"), "QA-CLIMS")[2:4] == ["64.0", "67.0"]


def test_numbers_of_the_mask_index_are_shown(page: str):
    section = section_of(page, "From seeds to the final network")
    table = section[section.index("pseudo masks</th>") :]
    assert "<th>images</th><th>mean coverage</th></tr>" in table and "<td>600</td><td>31.2 %</td>" in table
    assert "classes" not in table and "QA-CLIMS" not in table


def test_classes_show_every_stage_that_there_is(page: str):
    section = section_of(page, "Classes at every stage")
    tables = section.split("<table")[1:]
    assert [len(re.findall("<th>", table)) - 1 for table in tables] == [3, 4, 2], "a table for each system"
    bird = [cell for table in tables for cell in table[table.index("<td>bird</td>") :].split("</tr>")[:1]]
    figures = [re.findall(r">([\w/]+)</td>", row) for row in bird]
    assert figures == [["bird", "21", "40", "44"], ["bird", "59", "64", "67", "68"], ["bird", "78", "79"]]
    assert section.count("n/a") == 9


def test_the_bound_is_no_failed_system_and_never_the_winner(page: str):
    assert winner(report_data()) == "qa_clims"
    section = section_of(page, "Seeds")
    assert "learns from the true masks" in section and "no image has a mask" not in section
    tiles = page[page.index('<div class="tiles">') :].split("<section>")[0]
    assert "67.0 %" in tiles and "mIoU of the final network, QA-CLIMS on val (20 images); full masks 78.0 %" in tiles


def test_without_later_stages_there_is_no_section(tmp_path: Path):
    plain = {name: SystemReport(label=s.label, seed=s.seed) for name, s in systems().items() if s.seed}
    page = page_of(tmp_path, report_data(systems=plain))
    assert "From seeds to the final network" not in page and "Classes at every stage" not in page


def test_a_run_without_a_bound_says_so(tmp_path: Path):
    weak = {name: system for name, system in systems().items() if name != FULLY_SUPERVISED}
    page = page_of(tmp_path, report_data(systems=weak))
    section = section_of(page, "From seeds to the final network")
    assert "holds no fully supervised network" in section and row_of(section, "QA-CLIMS")[-1] == "-"
    assert 'id="stages-bound"' not in section and section_of(page, "Classes at every stage").count("<table") == 2


def test_the_bound_alone_can_be_reported(tmp_path: Path):
    page = page_of(tmp_path, report_data(systems={FULLY_SUPERVISED: systems()[FULLY_SUPERVISED]}))
    section = section_of(page, "From seeds to the final network")
    assert row_of(section, "full masks")[3] == "78.0" and 'id="stages-bound"' in section


def test_figures_that_do_not_exist_are_said_so(tmp_path: Path):
    broken = systems() | {"qa_clims": dataclasses.replace(systems()["qa_clims"], mask=scores(math.nan))}
    cells = row_of(
        section_of(page_of(tmp_path, report_data(systems=broken)), "From seeds to the final network"), "QA-CLIMS"
    )
    assert cells[2] == "n/a" and cells[3] == "67.0"


def test_the_bound_has_the_name_that_systems_give_it():
    assert FULLY_SUPERVISED == SUPERVISED


def test_colours_are_those_of_the_other_charts_wherever_the_bound_stands():
    first = {FULLY_SUPERVISED: systems()[FULLY_SUPERVISED]} | systems()
    for data in (report_data(), report_data(systems=first)):
        expected = system_colours(["baseline CAM", "QA-CLIMS"]) | {"full masks": INK}
        assert data_colours(data) == expected
    axes = stages_chart(report_data()).axes[0]
    lines = {line.get_gid(): line.get_color() for line in axes.lines if line.get_gid()}
    assert lines == {
        "system-0": expected["baseline CAM"],
        "system-0-other-images": expected["baseline CAM"],
        "system-1": expected["QA-CLIMS"],
        "system-1-other-images": expected["QA-CLIMS"],
        "bound": INK,
        "bound-crf": INK,
    }


class Balance(HTMLParser):
    """Checks that every element is closed, and gathers identifiers."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed(page: str):
    parser = Balance()
    parser.feed(page)
    assert parser.open == [] and len(parser.ids) == len(set(parser.ids))


def test_masks_that_were_given_have_no_seeds_and_it_is_said_why() -> None:
    given = SystemReport(label="given masks (not tags)", mask=scores(0.5), mask_summary={"given_masks": {"given": 3}})
    rows = seeds_table(report_data(systems={**systems(), "given_masks": given})).rows
    assert [row.cells[1].text for row in rows if row.cells[0].text == given.label] == [
        "no seeds: its masks were made elsewhere"
    ]

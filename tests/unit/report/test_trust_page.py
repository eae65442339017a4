"""A run without masks on its page and on the console."""

import dataclasses
import io
from pathlib import Path

import pytest
from rich.console import Console

from qaclims_ray.data.tag_pairs import TagPair
from qaclims_ray.evaluation.agreement import MapPair, MapSource
from qaclims_ray.evaluation.average_precision import ClassAccuracy, ClassifierFigures
from qaclims_ray.evaluation.trust import (
    AgreementFigures,
    FewMasks,
    MapClass,
    MapFigures,
    MapThreshold,
    TrustFigures,
)
from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.contents import ReportData, SystemReport, TrustLists
from qaclims_ray.report.files import write_report
from qaclims_ray.report.trust_page import console_trust, trust_page
from tests.unit.report.test_run_page import Balance, png, report_data

SEED, MASK, FINAL = (MapSource("a", stage) for stage in ("seed", "mask", "final"))
OTHER = MapSource("b", "seed")


def maps(source: MapSource, *, shown: int = 9, untagged: int = 0, empty: int = 0) -> MapFigures:
    classes = {
        "cat": MapClass(10, shown, 0.3, untagged),
        "<dog>": MapClass(5, 5, 0.2, 0),
        "cow": MapClass(0, 0, None, 0),
    }
    return MapFigures(source, 15, 0.25, 12, empty, classes)


def agreement(kind: str, first: MapSource, other: MapSource, cat: float = 0.9) -> AgreementFigures:
    iou = {"background": 0.8, "cat": cat, "<dog>": 0.7, "cow": None}
    return AgreementFigures(MapPair(kind, first, other), 15, (0.8 + cat + 0.7) / 3, iou)


def trust(**changes) -> TrustFigures:
    classes = {"cat": ClassAccuracy(4, 0.4, 0.5, 0.5), "<dog>": ClassAccuracy(3, 0.95, 1.0, 1.0)}
    classes["cow"] = ClassAccuracy(0, None, None, None)
    found = TrustFigures(
        num_images=15,
        thresholds={"a": MapThreshold(0.15, 0.21), "b": MapThreshold(0.3, 0.33)},
        maps=(maps(SEED), maps(MASK), maps(FINAL, shown=4, untagged=6, empty=2), maps(OTHER)),
        agreements=(
            agreement("stages", SEED, MASK),
            agreement("stages", MASK, FINAL, 0.31),
            agreement("stages", SEED, FINAL),
            agreement("systems", SEED, OTHER),
            agreement("threshold", SEED, SEED),
        ),
        few={"a": FewMasks(20, MapPair("stages", MASK, FINAL), 0.5, 0.74)},
        classifier=ClassifierFigures("val", True, 7, 0.675, 0.8, classes),
        inseparable=(TagPair("cat", "<dog>", 9, 10),),
    )
    return dataclasses.replace(found, **changes)


def unscored(**changes) -> ReportData:
    lists = TrustLists(stage="final", not_found={"cat": ["i1", "i2"]}, not_tagged={"<dog>": [("i3", 0.25)]})
    data = ReportData(
        title="no masks",
        systems={
            "b": SystemReport(label="other"),
            "a": SystemReport(label="mine", mask_summary={"mean_coverage": 0.5}, initial_weights="timm (deeplab)"),
        },
        timings={"train": 9.0},
        contact_sheets={"sheet": png()},
        trust=trust(),
        trust_lists={"a": lists},
    )
    return dataclasses.replace(data, **changes)


def page(folder: Path, data: ReportData) -> str:
    return Path(write_report(str(folder), data)).read_text()


def test_a_page_without_masks_says_what_is_known_and_nothing_about_scores(tmp_path: Path) -> None:
    text = page(tmp_path, unscored())
    balance = Balance()
    balance.feed(text)
    assert not balance.open
    for words in (
        "67.5 %", "mean average precision of the classifier on 7 images of val, which it did not learn from",
        "60.3 %", "agreement of pseudo mask and final network, mine",
        "No image has a mask, so nothing is scored", "0.21", "Believe it without masks",
        "cat with &lt;dog&gt; (9 of 10)",
        "i1, i2", "i3 (25.0 %)", "&lt;dog&gt;", "timm (deeplab)", "+/- 12.0", "sheet",
    ):  # fmt: skip
        assert words in text, words
    for words in (
        "not scored: no image has a mask",
        "From seeds to the final network",
        "n/a %",
        "number in a mask's corner",
    ):
        assert words not in text, words


def test_remarks_name_what_stands_out_of_the_last_system() -> None:
    found = trust_page(unscored())
    assert found is not None
    text = "\n".join(found.remarks)
    assert (
        "It hardly knows cat (40.0 on 4 of the images)" in text and "<dog> (" not in text.split("hardly knows")[1][:40]
    )
    assert "mine: pseudo mask and final network agree on less than half of cat (31.0)" in text
    assert "lacks the class on more than 20% of the images of cat (6 of 10)" in text
    assert "2 of 12 tagged images shows no class" in text and "not tagged with: cat (6)" in text
    assert "known to about +/- 12.0 points" in text
    assert [label for label, _ in found.classes] == ["mine", "other"]


def test_classifiers_are_not_praised_for_what_they_learned_from() -> None:
    learned = dataclasses.replace(trust().classifier, is_held_out=False)
    found = trust_page(unscored(trust=trust(classifier=learned)))
    assert found is not None and "looks better than it is" in found.remarks[0]
    assert trust_page(unscored(trust=trust(classifier=None))).remarks[0].startswith("mine:")


def test_the_least_agreed_class_comes_first_and_one_without_images_last() -> None:
    found = trust_page(unscored())
    assert found is not None
    rows = found.classes[0][1].plain_rows()
    assert [row[0] for row in rows] == ["cat", "<dog>", "cow"]
    heads = [column.plain or column.head for _, column in found.classes[0][1].plain_columns()]
    cat = dict(zip(heads, rows[0], strict=True))
    assert cat == {
        "class": "cat", "images": "10", "AP": "40.0", "area": "30.0", "agreement": "31.0", "others": "90.0",
        "not found": "6 / 10", "not tagged": "6",
    }  # fmt: skip


def test_the_console_has_the_same_tables() -> None:
    console = Console(file=io.StringIO(), width=130)
    tables, lines = console_trust(unscored())
    for title, table in tables:
        print_table(console, table, title)
    for line in lines:
        print_line(console, line)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for words in ("Label maps, without masks", "0.21", "6 / 10", "Nothing here is an mIoU", "+/- 12.0"):
        assert words in text, words
    assert console_trust(unscored(trust=None)) == ([], [])


def test_beside_scores_it_stands_too_and_without_it_the_page_is_as_before(tmp_path: Path) -> None:
    data = report_data()
    renamed = {"a": data.systems["qa_clims"], "b": data.systems["baseline"]}
    text = page(tmp_path / "both", dataclasses.replace(data, systems=renamed, trust=trust()))
    assert "Believe it without masks" in text and "Mean IoU of the seeds" in text and "What the label maps of" in text
    assert "Believe it without masks" not in page(tmp_path / "scores", data)


@pytest.mark.parametrize("thresholds", [{}, {"a": MapThreshold(0.15, 0.21), "b": MapThreshold(0.3, 0.33)}])
def test_without_a_background_there_are_no_thresholds(tmp_path: Path, thresholds: dict) -> None:
    text = page(tmp_path, unscored(trust=trust(thresholds=thresholds)))
    assert ("label-free" in text) == bool(thresholds)

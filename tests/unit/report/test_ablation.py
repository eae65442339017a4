"""An ablation beside the paper's figures: means, differences, ranks, gaps, and the three forms."""

import dataclasses
import html.parser
import json

import pytest

from qaclims_ray.report.ablation import (
    AblationResult,
    ResultRow,
    SeedFigures,
    ablation_html,
    ablation_json,
    ablation_markdown,
    difference_to,
    failures,
    mean_and_deviation,
    rank_agreement,
    table_cells,
    write_ablation,
)


def _figures(fixed: float, best: float) -> SeedFigures:
    return SeedFigures(miou_fixed=fixed, miou_label_free=0.3, miou_best=best, threshold_best=0.4)


def _row(label: str, published: float | None, *pairs: tuple[float, float], **failed: str) -> ResultRow:
    return ResultRow(
        label=label,
        system=label.lower().replace(" ", "_"),
        published=published,
        scores={20 + index: _figures(*pair) for index, pair in enumerate(pairs)},
        failures={int(name.removeprefix("seed_")): reason for name, reason in failed.items()},
    )


def _result(*rows: ResultRow) -> AblationResult:
    return AblationResult(
        name="some_table",
        title="Paper, Table 9: a title",
        what="seed mIoU, %",
        note="Nothing like it.",
        rows=rows,
        seeds=(20, 21),
        conditions={"preset": "miniature", "versions": "a <b> 1"},
    )


@pytest.fixture
def result() -> AblationResult:
    return _result(
        _row("FRC", 60.3, (0.50, 0.60), (0.52, 0.62)),
        _row("FRC + BRC", 67.1, (0.60, 0.65), (0.56, 0.69)),
        _row("BRC", 57.7, (0.40, 0.50), (0.44, 0.50)),
    )


def test_cells_hold_figures_spread_and_differences(result):
    assert table_cells(result) == [
        ["FRC", "60.3", "", "51.0 +- 1.4", "", "61.0 +- 1.4", ""],
        ["FRC + BRC", "67.1", "+6.8", "58.0 +- 2.8", "+7.0", "67.0 +- 2.8", "+6.0"],
        ["BRC", "57.7", "-2.6", "42.0 +- 2.8", "-9.0", "50.0 +- 0.0", "-11.0"],
    ]


def test_one_seed_has_no_deviation():
    row = _row("a", None, (0.5, 0.6))
    assert mean_and_deviation(row, "miou_best") == (pytest.approx(60.0), None)
    assert mean_and_deviation(_row("b", None), "miou_best") == (None, None)


def test_difference_is_taken_over_seeds_that_both_rows_have():
    first = _row("a", 1.0, (0.5, 0.5), (0.9, 0.9))
    other = _row("b", 2.0, (0.6, 0.6), seed_21="out of memory")
    assert difference_to(other, first, "miou_fixed") == pytest.approx(10.0)
    only_21 = dataclasses.replace(first, scores={21: first.scores[21]})
    assert difference_to(other, only_21, "miou_fixed") is None


def test_failed_trials_are_seen_in_every_form(tmp_path):
    result = _result(
        _row("a", 60.0, (0.5, 0.6), seed_21="ResourceError: out | of <memory>"),
        _row("b", 61.0, seed_20="x", seed_21="y"),
    )
    cells = table_cells(result)
    assert cells[0][3] == "50.0 (1 of 2 seeds)"
    assert cells[1][3] == cells[1][5] == "failed"
    assert failures(result) == ["a, seed 21: ResourceError: out | of <memory>", "b, seed 20: x", "b, seed 21: y"]
    assert "- b, seed 20: x" in ablation_markdown(result)
    assert "out | of &lt;memory&gt;" in ablation_html(result)
    assert ablation_json(result)["rows"][1]["failures"] == {"20": "x", "21": "y"}
    assert rank_agreement(result, "miou_fixed") is None


def test_rank_agreement_is_spearmans(result):
    assert rank_agreement(result, "miou_best") == pytest.approx(1.0)
    turned = _result(*(dataclasses.replace(row, published=-(row.published or 0)) for row in result.rows))
    assert rank_agreement(turned, "miou_best") == pytest.approx(-1.0)


def test_rank_agreement_shares_ranks_between_ties():
    # Published ranks 1.5 1.5 3 4, ours 2 1 3 4: 1 - 6 * 0.5 / 60 holds only without ties; by hand, Pearson of ranks.
    published, ours = (67.6, 67.6, 67.7, 68.7), (0.3, 0.2, 0.4, 0.5)
    result = _result(*(_row(f"r{i}", p, (o, o)) for i, (p, o) in enumerate(zip(published, ours, strict=True))))
    assert rank_agreement(result, "miou_fixed") == pytest.approx(4.5 / (4.5 * 5.0) ** 0.5)


def test_rank_agreement_needs_all_figures_and_some_difference(result):
    gap = _result(dataclasses.replace(result.rows[0], published=None), *result.rows[1:])
    assert rank_agreement(gap, "miou_best") is None
    assert "Rank agreement" not in ablation_markdown(gap)
    flat = _result(_row("a", 1.0, (0.5, 0.5)), _row("b", 2.0, (0.5, 0.6)))
    assert rank_agreement(flat, "miou_fixed") is None
    assert "Spearman, n = 2 rows" in ablation_markdown(flat)


def test_markdown_names_what_pixel_labels_chose(result):
    text = ablation_markdown(result)
    lines = text.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 5
    assert len({line.count("|") for line in table}) == 1
    assert "best threshold (chosen with pixel labels)" in table[0]
    assert "preset: miniature; versions: a <b> 1" in lines
    assert "Nothing like it." in lines


def test_a_bar_in_a_label_does_not_break_the_table():
    lines = ablation_markdown(_result(_row("a | b", 1.0, (0.5, 0.5)))).splitlines()
    assert r"| a \| b |" in next(line for line in lines if "50.0" in line)


class _Balance(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells = 0
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)
        self.cells += tag == "td"
        self.outside += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_asks_for_nothing(result):
    page = _Balance()
    page.feed(ablation_html(result))
    assert page.open == []
    assert page.cells == 3 * 7
    assert page.outside == []
    assert '<span class="pixels">chosen with pixel labels</span>' in ablation_html(result)
    assert "a &lt;b&gt; 1" in ablation_html(result)


def test_files_hold_the_same_figures(result, tmp_path):
    files = write_ablation(str(tmp_path), result)
    assert {path.name for path in tmp_path.iterdir()} == {f"ablation-some_table.{e}" for e in ("md", "html", "json")}
    values = json.loads((tmp_path / "ablation-some_table.json").read_text())
    assert values["rows"][1]["scores"]["21"]["miou_best"] == 0.69
    assert values["rows"][1]["miou_best_mean"] == pytest.approx(67.0)
    assert values["rows"][1]["published_to_first"] == pytest.approx(6.8)
    assert values["rank_agreement"] == {"miou_fixed": pytest.approx(1.0), "miou_best": pytest.approx(1.0)}
    assert "miou_best" in values["chosen_by_pixel_labels"]
    assert files["md"].endswith("ablation-some_table.md")

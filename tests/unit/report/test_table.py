"""One table in three forms: console, Markdown, page."""

import html
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2 import DictLoader, UndefinedError
from markdown_it import MarkdownIt
from rich.console import Console

from qaclims_ray.report import page
from qaclims_ray.report.console_text import print_table
from qaclims_ray.report.table import Cell, Column, Note, Row, Table, markdown_table, text_rows

TABLE = Table(
    (
        Column(head="system"),
        Column(head="mIoU\nfixed", plain="fixed", note="val"),
        Column(head="mIoU\nbest", is_chosen=True),
        Column(head="FP", group="errors", page_only=True),
        Column(head="FN", group="errors"),
    ),
    (
        Row(
            (
                Cell(text="[bold]A[/bold] <b>", colour="#1b1f24", is_name=True, badge="best"),
                Cell(text="40.0", notes=(Note(text="at 0.2", change=-0.011),), bar=(0.4, "#123456")),
                Cell(text="50.0", plain="A 50.0", is_top=True, notes=(Note(change=0.05),)),
                Cell(text="1.0"),
                Cell(text="2.0", way="up"),
            ),
            "winner",
        ),
        Row((Cell(text="a | b"), Cell(text="not scored", columns=4))),
    ),
)


def on_console(table: Table, title: str = "") -> str:
    console = Console(file=io.StringIO(), width=100)
    print_table(console, table, title)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def on_page(table: Table) -> str:
    environment = page._environment()
    source = '{% import "parts.html" as parts with context %}{{ parts.table(table) }}'
    template = environment.overlay(cache_size=0).from_string(source)
    return template.render(table=table)


def test_the_console_shows_plain_forms_and_reads_no_markup() -> None:
    text = on_console(TABLE, "Seeds of [red]x[/red]")
    assert "Seeds of [red]x[/red]" in text and "[bold]A[/bold] <b>" in text
    heads = next(line for line in text.splitlines() if "system" in line)
    assert [head.strip() for head in heads.split("\u2503")[1:-1]] == ["system", "fixed", "mIoU best *", "FN"]
    assert "A 50.0" in text and "at 0.2" not in text


def test_markdown_says_what_pixel_labels_chose_and_escapes_bars() -> None:
    lines = markdown_table(TABLE)
    assert lines[:2] == [
        "| system | fixed | mIoU best (chosen with pixel labels) | FN |",
        "| --- | ---: | ---: | ---: |",
    ]
    assert lines[3] == r"| a \| b | not scored |  |  |"


@given(st.lists(st.one_of(st.text("a_*|\\\\`[]()<>&;!~#x ", max_size=8), st.text(max_size=6)), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_markdown_shows_names_word_for_word(names: list[str]) -> None:
    names = [" ".join(re.sub(r"[\x00-\x1f]", " ", name).split()) for name in names]
    table = Table((Column(head="class"), Column(head="x")), text_rows([[name, "1"] for name in names]))
    page = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render("\n".join(markdown_table(table)))
    shown = [html.unescape(cell) for cell in re.findall(r"<td>(.*?)</td>", page)]
    assert [" ".join(cell.split()) for cell in shown] == names


def test_a_page_has_small_print_colours_spans_and_escapes() -> None:
    text = on_page(TABLE)
    assert '<tr class="winner"><td><span class="swatch" style="background:currentColor"></span>' in text
    assert '<b>[bold]A[/bold] &lt;b&gt;</b><span class="crown">best</span></td>' in text
    assert '<td>40.0<span class="bar" style="width:44px;background:#123456"></span>' in text
    assert '<small>at 0.2 <span class="down">-1.1</span></small>' in text and '<small class="up">+5.0</small>' in text
    assert '<th rowspan="2">mIoU<br>fixed<br><small>val</small></th>' in text
    assert '<th colspan="2">errors</th></tr><tr><th>FP</th><th>FN</th></tr>' in text
    assert '<td colspan="4">not scored</td></tr>' in text and text.count("chosen with pixel labels") == 1


def test_a_cell_can_cover_rows() -> None:
    columns = (Column(head="system"), Column(head="class", is_words=True))
    rows = (Row((Cell(text="A", rows=2), Cell(text="bird"))), Row((None, Cell(text="boat"))))
    text = on_page(Table(columns, rows))
    assert '<tr><td rowspan="2">A</td><td style="text-align:left">bird</td></tr>' in text
    assert '<tr><td style="text-align:left">boat</td></tr>' in text
    assert Table(columns, rows).plain_rows() == [["A", "bird"], ["", "boat"]]


def test_many_columns_fold_into_cards_that_name_every_figure() -> None:
    columns = (Column(head="system"), *(Column(head=f"n{at}", group="on val", note="of 9") for at in range(7)))
    table = Table(columns, (Row((Cell(text="A"), *(Cell(text="1") for _ in range(6)), Cell(text="-", columns=1))),))
    text = on_page(table)
    assert '<table class="folds"' in text and '<td data-head="on val, n0, of 9">1</td>' in text
    assert "folds" not in on_page(Table(columns[:7], ())), "there is room for fewer"
    spanning = Table(columns, (Row((Cell(text="A", rows=2), Cell(text="x"))), Row((None, Cell(text="y")))))
    assert not spanning.folds, "a card of its own would lack the name"


def test_rows_of_texts() -> None:
    assert Table((Column(head="a"),), text_rows([["x"], ["y"]])).plain_rows() == [["x"], ["y"]]


def test_a_name_that_a_template_misspells_leaves_no_hole() -> None:
    environment = page._environment().overlay(loader=DictLoader({"x": "{{ titel }}"}))
    with pytest.raises(UndefinedError, match="titel"):
        environment.get_template("x").render(title="t")

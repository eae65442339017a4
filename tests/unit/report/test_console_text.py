import io

import pytest
from rich.console import Console

from qaclims_ray.report.console_text import print_line, print_table
from qaclims_ray.report.table import Column, Table, text_rows

HOSTILE = (
    "[b]", "[/b]",
    "[draft v2]", "a[/b]c", ":smile:", "[red]x[/red]", "\\[b]", "[link=x]y", "{0}", "%s", "\u732b", "a\\",
)  # fmt: skip


def console(*, encoding: str = "utf-8", width: int = 200, is_terminal: bool = False) -> tuple[Console, io.BytesIO]:
    kept = io.BytesIO()
    lines = io.TextIOWrapper(kept, encoding=encoding, write_through=True)
    return Console(file=lines, width=width, force_terminal=is_terminal, color_system=None), kept


@pytest.mark.parametrize("is_terminal", [False, True])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_printed_as_they_are(name: str, is_terminal: bool) -> None:
    where, kept = console(is_terminal=is_terminal)
    print_line(where, f"2 masks -> /data/{name}/out")
    print_table(where, Table((Column(head=name), Column(head="x")), text_rows([[f"<{name}>", "1"]])), f"of {name}")
    shown = kept.getvalue().decode()
    assert shown.startswith(f"2 masks -> /data/{name}/out\n")
    assert f"of {name}" in shown and f" {name} " in shown and f"<{name}>" in shown


def test_a_line_is_neither_wrapped_nor_cut() -> None:
    where, kept = console(width=20)
    print_line(where, "/data/a folder with blanks/" + "x" * 100, bold=5)
    assert kept.getvalue().decode() == "/data/a folder with blanks/" + "x" * 100 + "\n"


def test_what_a_console_cannot_show_is_written_out_and_ends_nothing() -> None:
    where, kept = console(encoding="latin-1")
    name = "\u732b B\u00e4r \udce9 \x1b[31m\r\x07"
    print_line(where, name)
    print_table(where, Table((Column(head=name),), text_rows([[name]])), name)
    shown = kept.getvalue().decode("latin-1")
    assert shown.count("\\u732b B\u00e4r \\udce9 \\x1b[31m\\x0d\\x07") == 4
    assert "\x1b" not in shown

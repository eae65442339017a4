"""Lines and tables on the console, word for word: names, paths and errors come from users.

rich reads ``[b]`` as markup and ``:smile:`` as a picture, and a closing tag that nothing opened ends a run. So
everything is printed here, as text, with what the console cannot show written out.
"""

import re

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from qaclims_ray.report.table import Table, plain_head

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def print_line(console: Console, line: str, *, bold: int = 0) -> None:
    """Print a line as it is, however wide.

    Args:
        console: where it goes.
        line: its text; may have several lines.
        bold: so many of its first letters stand out.
    """
    text = Text(_shown(line, console))
    text.stylize("bold", 0, bold)
    console.print(text, soft_wrap=True)


def print_table(console: Console, table: Table, title: str) -> None:
    """Print a table; an asterisk marks what was chosen with pixel labels."""
    shown = RichTable(title=Text(_shown(title, console), style="table.title"), title_justify="left")
    for position, column in table.plain_columns():
        is_left = position == 0 or column.is_words
        head = plain_head(column) + (" *" if column.is_chosen else "")
        shown.add_column(Text(_shown(head, console)), justify="left" if is_left else "right", overflow="fold")
    for row in table.plain_rows():
        shown.add_row(*(Text(_shown(cell, console)) for cell in row))
    console.print(shown)


def _shown(text: str, console: Console) -> str:
    """Write out what would move the cursor, and letters that the console's encoding has not."""
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return text.encode(console.encoding, "backslashreplace").decode(console.encoding)

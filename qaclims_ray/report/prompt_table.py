"""The table of learned prompts, for the page and the console."""

from collections.abc import Mapping

from qaclims_ray.report.contents import PromptReading
from qaclims_ray.report.table import Cell, Column, Row, Table

_COLUMNS = (
    Column(head="system", page_only=True),
    Column(head="class", is_words=True),
    Column(head="nearest words", plain="nearest words, cosines", is_words=True),
    Column(head="own text"),
)
_TIED = "\N{NO-BREAK SPACE}"


def prompts_table(readings: Mapping[str, PromptReading], colours: Mapping[str, str]) -> Table:
    """Return a row for each class of each system.

    Args:
        readings: label of a system -> what its prompts say.
        colours: label -> colour.
    """
    rows = []
    for label, reading in readings.items():
        title = Cell(text=label, colour=colours.get(label, ""), is_name=True, rows=len(reading.nearest))
        for position, (name, nearest) in enumerate(reading.nearest.items()):
            words = Cell(
                text=", ".join(f"{word}{_TIED}{cosine:.2f}" for word, cosine in nearest),
                plain=", ".join(f"{word} {cosine:.2f}" for word, cosine in nearest),
            )
            own = Cell(text=f"{reading.own_text[name]:.2f}")
            rows.append(Row((title if position == 0 else None, Cell(text=name), words, own)))
    return Table(_COLUMNS, tuple(rows))

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaclims_ray.data import row_tables
from qaclims_ray.data.row_tables import one_of_each, read_rows, write_rows

SCHEMA = pa.schema([("name", pa.string()), ("values", pa.list_(pa.int32()))])
ROWS = [{"name": f"row {number}", "values": [*range(number)]} for number in range(5)]


@pytest.mark.parametrize(("number", "groups"), [(0, 0), (1, 1), (5, 3)])
def test_rows_come_back_however_many_are_dictionaries_at_a_time(
    number: int, groups: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_tables, "ROWS_AT_ONCE", 2)
    path = str(tmp_path / "t.parquet")
    write_rows(path, iter(ROWS[:number]), SCHEMA, {"classes": ["a", "b"], "is": True})
    rows, notes = read_rows(path, SCHEMA)
    assert list(rows) == ROWS[:number] and notes == {"classes": ["a", "b"], "is": True}
    assert pq.ParquetFile(path).num_row_groups == groups
    assert pq.read_table(path).num_rows == number


def test_a_column_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "t.parquet")
    write_rows(path, ROWS, SCHEMA, {})
    rows, _ = read_rows(path, pa.schema([("name", pa.string()), ("other", pa.string())]))
    with pytest.raises(KeyError, match="other"):
        list(rows)


def test_equal_values_are_one_object() -> None:
    known: dict = {}
    first, again = (one_of_each(known, tuple(values)) for values in ([1, 2], [1, 2]))
    assert first is again and one_of_each(known, (3,)) == (3,)

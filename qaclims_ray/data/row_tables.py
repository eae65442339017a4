"""Parquet tables with a row for each image, written and read some thousand rows at a time.

As dictionaries a million rows take gigabytes, as columns some hundred megabytes: there are never more than a few of the
former.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.slices import in_slices

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 50_000
"""Rows that are dictionaries at a time, and those of a group in a table."""


def write_rows(uri: str, rows: Iterable[Mapping[str, Any]], schema: "pa.Schema", notes: Mapping[str, Any]) -> None:
    """Write a table.

    Args:
        uri: file, local or remote.
        rows: column -> value of each row.
        schema: the columns.
        notes: values of JSON types, kept under their names in the table's metadata.

    Raises:
        ResourceError: when the place cannot be written.
    """
    # Imported where it is used: settings name types of modules that use this one, and are read without it.
    import pyarrow as pa
    import pyarrow.parquet as pq

    noted = schema.with_metadata({name: json.dumps(value) for name, value in notes.items()})
    with (
        storage.publishing(uri) as local_path,
        pq.ParquetWriter(local_path, noted, compression="zstd") as writer,
    ):
        for some in in_slices(rows, ROWS_AT_ONCE):
            writer.write_table(pa.Table.from_pylist(some, schema=noted))


def read_rows(uri: str, schema: "pa.Schema") -> tuple[Iterator[dict[str, Any]], dict[str, Any]]:
    """Return a table's rows, which are read as they are asked for, and its notes.

    Args:
        uri: file, local or remote.
        schema: the columns that are read, as these types.

    Raises:
        ArrowException, OSError, KeyError, ValueError: when the table is broken, also while its rows are read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(whole_files.read_whole(uri)))
    found = file.schema_arrow.metadata or {}
    notes = {name.decode(): json.loads(value) for name, value in found.items() if name != b"ARROW:schema"}
    return _rows_of(file, schema), notes


def _rows_of(file: Any, schema: "pa.Schema") -> Iterator[dict[str, Any]]:
    import pyarrow as pa

    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
        yield from pa.Table.from_batches([batch]).select(schema.names).cast(schema).to_pylist()


def one_of_each(known: dict[Any, Any], value: Any) -> Any:
    """Return the value that was known first of those that are equal: a million images have few sets of labels."""
    return known.setdefault(value, value)

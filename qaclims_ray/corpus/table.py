"""The corpus on disk: one row per (image, present class, question), in Parquet shards that pandas and DuckDB read.

``_plan.json`` beside the shards says which plan they belong to and how many there are, so that a killed build goes
on where it stopped and shards of two plans are never mixed. A shard appears under its final name only when whole.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ArtifactError

PLAN_NAME = "_plan.json"
"""Name of the file that says which shards there must be. The underscore hides it from readers that take a folder of
Parquet files as one table."""
NO_QUESTION = -1
"""``question_index`` of the row that stands for an image that could not be read or answered."""

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("class_id", pa.int32(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("question_index", pa.int32(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("raw_answer", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
"""Columns of the corpus; ``status`` is "ok" or "error", ``answer`` is the cleaned ``raw_answer``."""

_KEY = ["image_id", "class_id", "question_index"]
_PLAN_KEY = b"plan"
_AGAIN = "make it again with `qaclims corpus`"


def write_shard(uri: str, rows: Iterable[Mapping[str, Any]], *, plan: str = "") -> None:
    """Write one shard whole under its final name.

    Args:
        uri: the shard's own path or URI, ``shard_name`` in the corpus folder.
        rows: rows of `SCHEMA`; there may be none.
        plan: fingerprint of the plan; kept in the file, so that a straggler of an older build is found out.

    Raises:
        ResourceError: when the place cannot be written.
    """
    schema = SCHEMA.with_metadata({_PLAN_KEY: plan.encode()}) if plan else SCHEMA
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema)
    with whole_files.publishing_part(uri) as local_path:
        pq.write_table(table, local_path, compression="zstd")


def missing_shards(uri: str, num_shards: int, plan: str) -> list[int]:
    """Prepare the folder of a build and return the shards it still lacks.

    A folder of the same plan keeps its whole shards; one whose plan cannot be read, or is another, is emptied. A shard
    with a failed image is asked again: the image may have been mended since, or the failure have been a passing one.

    Args:
        uri: folder of the shards, in the corpus's workshop; it need not exist.
        num_shards: shards of the plan.
        plan: fingerprint of the plan.

    Raises:
        ResourceError: when the place cannot be written.
    """
    wanted = {"fingerprint": plan, "num_shards": num_shards}
    if _read_plan(uri) != wanted:
        storage.remove_tree(uri)
        storage.write_bytes(storage.join(uri, PLAN_NAME), json.dumps(wanted, indent=2).encode())
    names = _names(storage.list_files(uri))
    return [
        index
        for index in range(num_shards)
        if shard_name(index) not in names or not _is_good(storage.join(uri, shard_name(index)), plan)
    ]


def read_corpus(uri: str) -> pd.DataFrame:
    """Read a finished corpus, sorted as it was written.

    Raises:
        ArtifactError: when a shard is absent, broken or of another plan, or a row stands in it twice.
    """
    plan = _read_plan(uri)
    if plan is None:
        raise ArtifactError(f"there is no corpus at {uri} (no readable {PLAN_NAME}); {_AGAIN}")
    expected = [shard_name(index) for index in range(plan["num_shards"])]
    found = _names(storage.list_files(uri, ".parquet"))
    # Looked at by name, because a bucket's listing may be some seconds old.
    if missing := sorted(name for name in set(expected) - set(found) if not storage.exists(storage.join(uri, name))):
        raise ArtifactError(
            f"the corpus at {uri} is not complete: {len(missing)} of {len(expected)} shards are missing, "
            f"e.g. {missing[0]}; go on with `qaclims corpus`"
        )
    if foreign := sorted(set(found) - set(expected)):
        raise ArtifactError(f"the corpus at {uri} holds files of something else, e.g. {foreign[0]}; {_AGAIN}")
    tables = [_read_shard(storage.join(uri, name), plan["fingerprint"]) for name in expected]
    # A data set without labels has no shard, and pyarrow refuses to join an empty list of tables.
    corpus = pa.concat_tables([SCHEMA.empty_table(), *tables]).to_pandas()
    repeated = corpus[corpus.duplicated(_KEY)]
    if len(repeated):
        example = tuple(repeated.iloc[0][_KEY])
        raise ArtifactError(f"the corpus at {uri} has {len(repeated)} rows twice, e.g. {_KEY} = {example}; {_AGAIN}")
    return corpus


def _is_good(uri: str, plan: str) -> bool:
    """Whether a shard is as it was written, belongs to the plan and has answers for all its images."""
    try:
        return whole_files.is_whole_part(uri) and "error" not in _read_shard(uri, plan)["status"].to_pylist()
    except ArtifactError:
        return False


def _read_shard(uri: str, plan: str) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(whole_files.read_whole(uri)))
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{uri} cannot be read ({error}); go on with `qaclims corpus`: it makes it again") from None
    written_for = (table.schema.metadata or {}).get(_PLAN_KEY, plan.encode()).decode()
    if written_for != plan:
        raise ArtifactError(
            f"{uri} belongs to plan {written_for}, the corpus to plan {plan}; "
            "go on with `qaclims corpus`: it makes it again"
        )
    table = table.replace_schema_metadata(None)
    if not table.schema.equals(SCHEMA):
        raise ArtifactError(f"{uri} has columns {table.schema.names}, expected {SCHEMA.names}; {_AGAIN}")
    return table


def _read_plan(uri: str) -> dict[str, Any] | None:
    """The plan beside the shards; None when there is none or it cannot be trusted."""
    path = storage.join(uri, PLAN_NAME)
    if not storage.exists(path):
        return None
    try:
        plan = json.loads(whole_files.read_whole(path))
        return {"fingerprint": str(plan["fingerprint"]), "num_shards": int(plan["num_shards"])}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _names(uris: list[str]) -> list[str]:
    return [uri.rsplit("/", 1)[-1] for uri in uris]

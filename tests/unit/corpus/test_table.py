import json

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qaclims_ray.corpus import table
from qaclims_ray.data import storage
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ArtifactError


def row(image_id="a", class_id=0, question_index=0, answer="grass", **changes):
    values = {
        "image_id": image_id,
        "class_id": class_id,
        "class_name": "dog",
        "question_index": question_index,
        "question": "what is under the dog?",
        "kind": "background",
        "group": "objects",
        "raw_answer": answer,
        "answer": answer,
        "status": "ok",
        "error": None,
    }
    return {**values, **changes}


def built(tmp_path, shards, plan="p1"):
    uri = str(tmp_path / "corpus")
    for index in table.missing_shards(uri, len(shards), plan):
        table.write_shard(f"{uri}/{shard_name(index)}", shards[index], plan=plan)
    return uri


def test_corpus_round_trip_keeps_order_and_values(tmp_path):
    uri = built(tmp_path, [[row("b"), row("b", question_index=1)], [], [row("a", error="x", status="error")]])
    corpus = table.read_corpus(uri)
    assert corpus["image_id"].tolist() == ["b", "b", "a"]
    assert corpus["question_index"].tolist() == [0, 1, 0]
    assert list(corpus.columns) == table.SCHEMA.names
    assert corpus["error"].isna().tolist() == [True, True, False]


def test_a_person_can_query_the_shards(tmp_path):
    uri = built(tmp_path, [[row("a"), row("b", answer="sky")], [row("c")]])
    counts = duckdb.sql(f"select answer, count(*) from '{uri}/*.parquet' group by answer order by answer").fetchall()
    assert counts == [("grass", 2), ("sky", 1)]
    assert pd.read_parquet(f"{uri}/{shard_name(0)}")["answer"].tolist() == ["grass", "sky"]


def test_a_corpus_without_rows_can_be_read(tmp_path):
    assert len(table.read_corpus(built(tmp_path, []))) == 0


def test_shard_names_sort_like_their_numbers():
    names = [shard_name(index) for index in (0, 2, 10, 99999)]
    assert names == sorted(names)
    assert names[0] == "part-00000.parquet"


def test_a_build_goes_on_where_it_stopped(tmp_path):
    uri = str(tmp_path / "corpus")
    assert table.missing_shards(uri, 3, "p1") == [0, 1, 2]
    table.write_shard(f"{uri}/{shard_name(1)}", [row()], plan="p1")
    assert table.missing_shards(uri, 3, "p1") == [0, 2]
    found = sorted(path.name for path in (tmp_path / "corpus").iterdir())
    assert found == ["_plan.json", "part-00001.parquet", "part-00001.parquet.sha256"]


def test_a_finished_build_lacks_nothing(tmp_path):
    assert table.missing_shards(built(tmp_path, [[row()]]), 1, "p1") == []


@pytest.mark.parametrize(("num_shards", "plan"), [(2, "p2"), (3, "p1")])
def test_another_plan_empties_the_folder(tmp_path, num_shards, plan):
    uri = built(tmp_path, [[row("a")], [row("b")]])
    assert table.missing_shards(uri, num_shards, plan) == list(range(num_shards))
    assert [path.name for path in (tmp_path / "corpus").iterdir()] == ["_plan.json"]


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"fingerprint": "p1", "num_shards": "many"}'])
def test_a_broken_plan_starts_over(tmp_path, content):
    uri = built(tmp_path, [[row()]])
    (tmp_path / "corpus" / "_plan.json").write_text(content)
    assert table.missing_shards(uri, 1, "p1") == [0]
    assert json.loads((tmp_path / "corpus" / "_plan.json").read_text()) == {"fingerprint": "p1", "num_shards": 1}


def test_reading_refuses_an_absent_corpus(tmp_path):
    with pytest.raises(ArtifactError, match=r"no corpus at .*qaclims corpus"):
        table.read_corpus(str(tmp_path / "corpus"))


def test_reading_refuses_a_missing_shard(tmp_path):
    uri = built(tmp_path, [[row("a")], [row("b")]])
    (tmp_path / "corpus" / "part-00001.parquet").unlink()
    with pytest.raises(ArtifactError, match=r"1 of 2 shards are missing, e.g. part-00001"):
        table.read_corpus(uri)


def test_reading_refuses_a_shard_too_many(tmp_path):
    uri = built(tmp_path, [[row("a")]])
    table.write_shard(f"{uri}/{shard_name(7)}", [row("b")])
    with pytest.raises(ArtifactError, match=r"something else, e.g. part-00007"):
        table.read_corpus(uri)


def test_reading_refuses_a_straggler_of_another_plan(tmp_path):
    uri = built(tmp_path, [[row("a")]])
    table.write_shard(f"{uri}/{shard_name(0)}", [row("a")], plan="older")
    with pytest.raises(ArtifactError, match="plan older, the corpus to plan p1"):
        table.read_corpus(uri)


def test_reading_refuses_a_row_that_stands_twice(tmp_path):
    uri = built(tmp_path, [[row("a"), row("b")], [row("b", answer="sky")]])
    with pytest.raises(ArtifactError, match=r"1 rows twice.*'b'"):
        table.read_corpus(uri)


def test_reading_refuses_a_broken_shard(tmp_path):
    uri = built(tmp_path, [[row("a")]])
    path = tmp_path / "corpus" / "part-00000.parquet"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ArtifactError, match=r"part-00000.parquet cannot be read"):
        table.read_corpus(uri)


def test_reading_refuses_other_columns(tmp_path):
    uri = built(tmp_path, [[row("a")]])
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "corpus" / "part-00000.parquet")
    with pytest.raises(ArtifactError, match=r"columns .'image_id'., expected"):
        table.read_corpus(uri)


def test_a_row_that_fails_leaves_no_file(tmp_path):
    with pytest.raises(pa.ArrowException):
        table.write_shard(str(tmp_path / "part-00000.parquet"), [row(class_id="none")])
    assert list(tmp_path.iterdir()) == []


def test_a_corpus_lives_in_a_bucket_just_so():
    uri = "memory://bucket/run/corpus"
    storage.remove_tree(uri)
    assert table.missing_shards(uri, 2, "p1") == [0, 1]
    table.write_shard(f"{uri}/{shard_name(1)}", [row("b")], plan="p1")
    assert table.missing_shards(uri, 2, "p1") == [0]
    table.write_shard(f"{uri}/{shard_name(0)}", [row("a")], plan="p1")
    assert table.read_corpus(uri)["image_id"].tolist() == ["a", "b"]
    assert table.missing_shards(uri, 2, "p2") == [0, 1]
    assert [path.rsplit("/", 1)[-1] for path in storage.list_files(uri)] == ["_plan.json"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: table.write_shard(str(path), [row("a"), row("bad", status="error", error="gone")], plan="p1"),
        lambda path: table.write_shard(str(path), [row("a")], plan="older"),
        lambda path: path.write_bytes(path.read_bytes()[:40]),
        lambda path: pq.write_table(pa.table({"image_id": ["a"]}), path),
    ],
    ids=["failed image", "other plan", "cut off", "other columns"],
)
def test_a_shard_that_is_not_good_is_made_again(tmp_path, spoil):
    uri = built(tmp_path, [[], [row("a")], [row("b")]])
    spoil(tmp_path / "corpus" / "part-00001.parquet")
    assert table.missing_shards(uri, 3, "p1") == [1]

"""What becomes of a shard outside Ray: in a task's process, and where it is told."""

import functools
import logging
import pickle

import torch

from qaclims_ray.cluster import shards
from qaclims_ray.data import storage, written_files
from qaclims_ray.errors import ConfigError, DataError, ResourceError


class Counting:
    """Counts how often it was made, and what it worked on."""

    made = 0

    def __init__(self, label: str) -> None:
        if label == "wrong":
            raise ConfigError("label is wrong")
        type(self).made += 1
        self.label = label

    def __call__(self, decoded: int) -> dict:
        return {"label": self.label, "decoded": decoded}


def doubled(shard: int) -> int:
    """Decode a shard."""
    if shard < 0:
        raise DataError("negative")
    return 2 * shard


def run(task, shard: int):
    return pickle.loads(task({"shard": pickle.dumps(shard)})["outcome"])[0]


def test_a_process_keeps_its_model_for_the_tasks_of_one_stage() -> None:
    Counting.made = 0
    first, second = (shards._ShardTask(doubled, Counting, {"label": label}) for label in "ab")
    assert [run(first, i)["decoded"] for i in range(3)] == [0, 2, 4] and Counting.made == 1
    assert run(second, 1)["label"] == "b" and Counting.made == 2
    assert len(shards._HELD) == 1, "the model of the stage before is gone"
    copy = pickle.loads(pickle.dumps(second))
    assert run(copy, 1)["label"] == "b" and Counting.made == 2, "a task that comes pickled is of the same stage"
    again = shards._ShardTask(doubled, Counting, {"label": "b"})
    assert run(again, 1)["label"] == "b" and Counting.made == 3, "what lies behind equal arguments may have changed"


def test_users_mistakes_travel_as_values() -> None:
    assert isinstance(run(shards._ShardTask(doubled, Counting, {"label": "a"}), -1), DataError)
    assert isinstance(run(shards._ShardTask(doubled, Counting, {"label": "wrong"}), 1), ConfigError)


def _write(made: dict, *, uri: str) -> dict:
    storage.write_bytes(f"{uri}/part-{made['decoded']}", b"x")
    return made


def test_names_of_files_that_a_task_wrote_into_a_bucket_come_with_its_outcome(tmp_path) -> None:
    uri = f"memory://{tmp_path.name}/cams"
    written_files.take()
    task = shards._ShardTask(doubled, Counting, {"label": "a"}, functools.partial(_write, uri=uri))
    _, names = pickle.loads(task({"shard": pickle.dumps(2)})["outcome"])
    assert names == [f"{uri}/part-4"] and not written_files.new_below(uri)
    made = shards._ShardActor(Counting, {"label": "a"})({"decoded": [shards.as_bytes(6)]})["outcome"][0]
    written = shards._ShardWriter(functools.partial(_write, uri=uri))({"outcome": made})["outcome"]
    assert pickle.loads(written) == ({"label": "a", "decoded": 6}, [f"{uri}/part-6"])


def test_a_remark_is_told_once(caplog) -> None:
    told: set[str] = set()
    with caplog.at_level(logging.WARNING):
        for remark in ("", "half the batch", "half the batch", "another"):
            shards._tell(remark, told)
    assert [record.message for record in caplog.records] == ["half the batch", "another"]


def published(made: dict) -> dict:
    """Write nothing, but fail as a full disk would."""
    if made["decoded"] == 4:
        raise ResourceError("the disk is full")
    return {"wrote": made["decoded"]}


def test_on_a_cpu_one_task_writes_too_and_mistakes_travel_past_the_writer() -> None:
    task = shards._ShardTask(doubled, Counting, {"label": "a"}, published)
    assert run(task, 1) == {"wrote": 2}
    assert str(run(task, 2)) == "the disk is full" and isinstance(run(task, 2), ResourceError)
    assert isinstance(run(task, -1), DataError)


def test_a_writer_is_given_what_an_actor_made_and_hands_mistakes_on() -> None:
    actor = shards._ShardActor(Counting, {"label": "a"})
    write = shards._ShardWriter(published)

    def summary(shard: int):
        decoded = shards._ShardDecoder(doubled)({"shard": pickle.dumps(shard)})["decoded"]
        (made,) = actor({"decoded": [decoded]})["outcome"]
        return pickle.loads(write({"outcome": made})["outcome"])[0]

    assert summary(1) == {"wrote": 2}
    assert isinstance(summary(2), ResourceError) and isinstance(summary(-1), DataError)


def test_tensors_travel_as_they_are() -> None:
    base = torch.arange(12, dtype=torch.uint8).view(3, 4)
    sent = {
        "view": base[1:, ::2], "turned": base.t(), "half": torch.tensor([0.1, -2.0]).half(), "none": torch.zeros(0, 3),
        "number": torch.tensor(3), "bfloat": torch.tensor([1.5]).bfloat16(), "whole": base,
    }  # fmt: skip
    got = pickle.loads(shards.as_bytes(sent))
    for name, tensor in sent.items():
        assert got[name].dtype == tensor.dtype and torch.equal(got[name], tensor), name
    got["whole"].add_(1)
    assert len(shards.as_bytes(torch.zeros(1000, 1000)[:1])) < 10_000, "a part does not take its whole along"

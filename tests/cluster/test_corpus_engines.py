"""The corpus by other models than BLIP: transformers' on Ray Data, and ray.data.llm with the engine replaced."""

import functools
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaclims_ray.cluster import vllm_corpus
from qaclims_ray.cluster.shards import run_shards
from qaclims_ray.corpus import build, table
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.corpus.questions import Question
from qaclims_ray.data import storage
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ModelError, ResourceError
from qaclims_ray.stages.corpus import CorpusActor, write_answers
from qaclims_ray.stages.opening import try_networks
from tests.cluster.small_run import small_config
from tests.tiny_vlm import write_llava

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300), pytest.mark.usefixtures("shared_ray")]

CLASSES = ("cat", "dog")
QUESTIONS = (
    Question(template="what is next to the {}?", kind="background", group="objects"),
    Question(template="What kind of {} is in the photo?", kind="foreground", group="fine_grained"),
)
VLLM = CorpusConfig(engine="vllm", model="some/model", gpus_per_actor=1.0, num_actors=3, num_beams=1, image_size=32)


@pytest.fixture
def shards(tmp_path) -> list[tuple[int, list[ImageRecord]]]:
    """Three shards; an image of the first is broken, and so is the only one of the last."""
    for index, name in enumerate("abcd"):
        Image.fromarray(np.full((20, 30, 3), 60 * index, np.uint8)).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "d.png").write_bytes(b"none either")
    labels = {"a": (0, 1), "b": (0,), "c": (1,), "d": (0,)}
    records = {name: ImageRecord(name, str(tmp_path / f"{name}.png"), 30, 20, labels[name]) for name in "abcd"}
    return [(0, [records["a"], records["b"]]), (1, [records["c"]]), (2, [records["d"]])]


def _decode(shard, *, image_size=32):
    index, records = shard
    return index, build.decode_shard(records, image_size)


def _rows(folder: Path, index: int) -> list[dict]:
    return table._read_shard(storage.join(str(folder), shard_name(index)), "plan").to_pylist()


def _run_vllm(shards, folder: Path, done: list[int]) -> None:
    vllm_corpus.run_vllm_shards(
        shards,
        decode=_decode,
        model="some/model",
        config=VLLM,
        questions=QUESTIONS,
        class_names=CLASSES,
        uri=str(folder),
        plan="plan",
        progress=lambda count, _: done.append(count),
    )


def _answer(row, *, fail: str = ""):
    """What an engine hands on: the row with its request, its answer and why there is none."""
    request = vllm_corpus.ChatRequest(VLLM.prompt, VLLM.max_length)(row)
    text = request["messages"][0]["content"][1]["text"]
    failure = "ValueError: too long" if row["image_id"] == fail else ""
    answer = None if failure else f"A {text.split()[-7]}."
    return {**row, "generated_text": answer, vllm_corpus.FAILURE: failure}


def _backwards(batch):
    return {name: values[::-1] for name, values in batch.items()}


def test_answers_of_ray_data_llm_find_their_places(shards, tmp_path, monkeypatch):
    """Whatever order they come back in; failed images and failed requests are kept as such."""

    def engine(*_):
        return lambda rows: rows.map(functools.partial(_answer, fail="c")).map_batches(_backwards, batch_size=None)

    monkeypatch.setattr(vllm_corpus, "vllm_engine", engine)
    done: list[int] = []
    _run_vllm(shards, tmp_path / "answers", done)
    assert done == [1, 2, 3]
    rows = _rows(tmp_path / "answers", 0)
    assert [(r["image_id"], r["class_name"], r["question_index"], r["status"]) for r in rows] == [
        ("a", "cat", 0, "ok"),
        ("a", "cat", 1, "ok"),
        ("a", "dog", 0, "ok"),
        ("a", "dog", 1, "ok"),
        ("b", "cat", -1, "error"),
    ]
    assert [r["question"] for r in rows[:2]] == ["what is next to the cat?", "What kind of cat is in the photo?"]
    # The answer of a sentence is its gist; what the model wrote stays beside it.
    assert [(r["raw_answer"], r["answer"]) for r in rows[:2]] == [("A cat?.", "cat?"), ("A photo?.", "photo?")]
    assert "b.png" in rows[4]["error"]
    assert [r["error"] for r in _rows(tmp_path / "answers", 1)] == ["the VQA model failed: ValueError: too long"]
    assert [r["status"] for r in _rows(tmp_path / "answers", 2)] == ["error"]


def test_a_broken_engine_keeps_what_is_published(shards, tmp_path, monkeypatch):
    def breaks(row):
        raise RuntimeError("engine is dead")

    monkeypatch.setattr(vllm_corpus, "vllm_engine", lambda *_: lambda rows: rows.map(breaks))
    with pytest.raises(ResourceError, match="stopped after 0 of 3 shards: RuntimeError: engine is dead"):
        _run_vllm(shards, tmp_path / "answers", [])


def test_the_same_table_by_a_model_of_transformers(shards, tmp_path):
    config = CorpusConfig(
        engine="image_text_to_text",
        model=write_llava(tmp_path / "vlm"),
        prompt="{} answer :",
        num_beams=1,
        max_length=4,
    )
    settings = {"config": config, "questions": QUESTIONS, "class_names": CLASSES}
    run_shards(
        shards,
        decode=_decode,
        actor=CorpusActor,
        actor_kwargs={"model": config.model, **settings},
        write=functools.partial(write_answers, **settings, uri=str(tmp_path / "answers"), plan="plan"),
        num_actors=1,
        gpus_per_actor=0,
    )
    rows = _rows(tmp_path / "answers", 0)
    assert [r["status"] for r in rows] == ["ok"] * 4 + ["error"]
    assert all(r["raw_answer"] for r in rows[:4])
    assert [r["image_id"] for r in _rows(tmp_path / "answers", 1)] == ["c", "c"]


def test_vllm_is_asked_for_what_it_knows(tmp_path):
    """The settings pass ray.data.llm's own checks; the engine itself starts where vLLM and a GPU are."""
    model = write_llava(tmp_path / "vlm")
    config = vllm_corpus.vllm_engine(model, VLLM).config  # type: ignore[attr-defined]
    assert config.engine_kwargs["tensor_parallel_size"] == 1
    assert config.engine_kwargs["limit_mm_per_prompt"] == {"image": 1}
    assert (config.model_source, config.concurrency, config.should_continue_on_error) == (model, 3, True)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_absent_vllm_is_said_before_work():
    config = small_config(
        corpus__engine="vllm", corpus__model="some/model", corpus__gpus_per_actor=1.0, corpus__num_beams=1
    )
    with pytest.raises(ModelError, match=r"no package vllm here.*image_text_to_text"):
        try_networks(config)

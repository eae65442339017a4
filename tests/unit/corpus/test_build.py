import json

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaclims_ray.corpus import build, table
from qaclims_ray.corpus.config import CorpusConfig
from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS, Question
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.shards import shard_name
from qaclims_ray.errors import ConfigError, DataError, ModelError, ResourceError

CLASSES = ("cat", "dog", "person")
QUESTIONS = (
    Question(template="what is under the {}?", kind="background", group="objects"),
    Question(template="What kind of {} is in the photo?", kind="foreground", group="fine_grained"),
)


def record(image_id, labels, uri="none.png"):
    return ImageRecord(image_id=image_id, image_uri=str(uri), width=6, height=4, labels=labels)


def picture(path, value):
    Image.fromarray(np.full((4, 6, 3), value, dtype=np.uint8)).save(path)
    return path


def shard_of(*records, values=None):
    images = torch.stack([torch.full((3, 8, 8), value, dtype=torch.uint8) for value in values or range(len(records))])
    return build.DecodedShard(records=records, images=images, failed=())


def brightness_vqa(images, questions):
    """Answers that depend on the image and the question, as a real model's do."""
    return [
        [f"Dogs {int(image[0, 0, 0])}" if "kind" in text else "Trees" for text in texts]
        for image, texts in zip(images, questions, strict=True)
    ]


@pytest.mark.parametrize(("engine", "answer"), [("blip", "a dog."), ("image_text_to_text", "dog")])
def test_only_models_that_chat_have_their_sentences_taken_off(engine, answer):
    config = CorpusConfig(engine=engine, model="x")
    rows = build.answer_shard(shard_of(record("a", (0,))), lambda *_: [["A dog."] * 2], QUESTIONS, CLASSES, config)
    assert {(r["raw_answer"], r["answer"]) for r in rows} == {("A dog.", answer)}


def test_plan_cuts_the_labelled_images_in_order():
    records = tuple(record(name, () if name == "c" else (0,)) for name in "abcdef")
    shards = build.plan_shards(Manifest(CLASSES, records), 2)
    assert [[item.image_id for item in shard] for shard in shards] == [["a", "b"], ["d", "e"], ["f"]]


def test_decoding_makes_squares_and_keeps_bad_images_as_data(tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    records = (
        record("a", (0,), picture(tmp_path / "a.png", 10)),
        record("bad", (0, 1), tmp_path / "bad.png"),
        record("gone", (2,), tmp_path / "gone.png"),
        record("b", (1,), picture(tmp_path / "b.png", 200)),
    )
    decoded = build.decode_shard(records, 5)
    assert [item.image_id for item in decoded.records] == ["a", "b"]
    assert decoded.images.shape == (2, 3, 5, 5)
    assert decoded.images[:, 0, 0, 0].tolist() == [10, 200]
    assert [item.image_id for item, _ in decoded.failed] == ["bad", "gone"]
    assert "gone.png" in decoded.failed[1][1]


def test_a_shard_of_bad_images_only_gives_error_rows(tmp_path):
    decoded = build.decode_shard([record("gone", (0, 2), tmp_path / "gone.png")], 5)
    rows = build.answer_shard(decoded, brightness_vqa, QUESTIONS, CLASSES, CorpusConfig())
    assert [(r["class_id"], r["question_index"], r["status"]) for r in rows] == [(0, -1, "error"), (2, -1, "error")]
    assert all("gone.png" in r["error"] for r in rows)


def test_rows_hold_question_raw_and_cleaned_answer():
    decoded = shard_of(record("a", (1, 2)), record("b", (0,)), values=[7, 9])
    config = CorpusConfig(class_aliases=(("person", "player"),))
    rows = build.answer_shard(decoded, brightness_vqa, QUESTIONS, CLASSES, config)
    assert [(r["image_id"], r["class_id"], r["question_index"]) for r in rows] == [
        ("a", 1, 0), ("a", 1, 1), ("a", 2, 0), ("a", 2, 1), ("b", 0, 0), ("b", 0, 1),
    ]  # fmt: skip
    assert rows[2]["question"] == "what is under the player?"
    assert rows[2]["class_name"] == "person"
    assert (rows[0]["raw_answer"], rows[0]["answer"]) == ("Trees", "tree")
    assert (rows[1]["raw_answer"], rows[1]["answer"]) == ("Dogs 7", "dogs 7")
    assert rows[5]["raw_answer"] == "Dogs 9"
    assert (rows[1]["kind"], rows[1]["group"]) == ("foreground", "fine_grained")


def test_lemmatising_can_be_switched_off():
    config = CorpusConfig(lemmatise=False)
    rows = build.answer_shard(shard_of(record("a", (0,))), brightness_vqa, QUESTIONS, CLASSES, config)
    assert rows[0]["answer"] == "trees"


def test_all_images_are_asked_about_together():
    calls = []

    def ask(images, questions):
        calls.append(len(images))
        return brightness_vqa(images, questions)

    rows = build.answer_shard(
        shard_of(*[record(name, (0, 1)) for name in "abc"]), ask, OFFICIAL_QUESTIONS, CLASSES, CorpusConfig()
    )
    assert calls == [3]
    assert len(rows) == 3 * 2 * 16


def test_one_image_that_the_model_cannot_take_does_not_cost_the_others():
    def ask(images, questions):
        if (images == 66).any():
            raise ValueError("image 66 is cursed")
        return brightness_vqa(images, questions)

    decoded = shard_of(record("a", (0,)), record("bad", (0, 1)), record("b", (1,)), values=[1, 66, 2])
    rows = build.answer_shard(decoded, ask, QUESTIONS, CLASSES, CorpusConfig())
    good, bad = [r for r in rows if r["status"] == "ok"], [r for r in rows if r["status"] == "error"]
    assert [r["image_id"] for r in good] == ["a", "a", "b", "b"]
    assert good[3]["raw_answer"] == "Dogs 2"
    assert [(r["image_id"], r["class_id"], r["question_index"]) for r in bad] == [("bad", 0, -1), ("bad", 1, -1)]
    assert "ValueError: image 66 is cursed" in bad[0]["error"]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), MemoryError("full")])
def test_exhausted_memory_is_no_bad_image(error):
    def ask(images, questions):
        raise error

    with pytest.raises(ResourceError, match="questions_per_batch"):
        build.answer_shard(shard_of(record("a", (0,))), ask, QUESTIONS, CLASSES, CorpusConfig())


def test_a_broken_model_is_no_bad_image():
    def ask(images, questions):
        raise ModelError("no weights")

    with pytest.raises(ModelError, match="no weights"):
        build.answer_shard(shard_of(record("a", (0,))), ask, QUESTIONS, CLASSES, CorpusConfig())


def test_a_wrong_number_of_answers_is_refused():
    with pytest.raises(ModelError, match=r"gave \[1\] answers, expected \[2\]"):
        build.answer_shard(shard_of(record("a", (0,))), lambda *_: [["x"]], QUESTIONS, CLASSES, CorpusConfig())


def test_an_alias_of_no_class_is_refused():
    with pytest.raises(ConfigError, match="'horse'"):
        build.question_words(CLASSES, (("horse", "pony"),))


def frame(tmp_path):
    """A corpus as the table gives it: images a and b answered, `bad` not."""
    decoded = shard_of(record("a", (0, 1)), record("b", (1,)), values=[1, 2])
    bad = ((record("bad", (0, 1)), "is truncated"),)
    decoded = build.DecodedShard(records=decoded.records, images=decoded.images, failed=bad)
    rows = build.answer_shard(decoded, brightness_vqa, QUESTIONS, CLASSES, CorpusConfig())
    uri = str(tmp_path / "corpus")
    table.missing_shards(uri, 1, "p")
    table.write_shard(f"{uri}/{shard_name(0)}", rows, plan="p")
    return table.read_corpus(uri)


def test_summary_counts_and_is_json(tmp_path):
    summary = build.summarise_corpus(frame(tmp_path))
    assert json.loads(json.dumps(summary)) == summary
    assert summary == {
        "rows": 8,
        "images": 3,
        "pairs": 5,
        "failed_images": 1,
        "failed_fraction": 1 / 3,
        "distinct_answers": 3,
        "empty_answers": 0,
        "distinct_answers_by_group": {"fine_grained": 2, "objects": 1},
        "top_answers": {"tree": 3, "dogs 1": 2, "dogs 2": 1},
    }


def test_summary_of_an_empty_corpus():
    summary = build.summarise_corpus(table.SCHEMA.empty_table().to_pandas())
    assert (summary["rows"], summary["failed_fraction"]) == (0, 0.0)


def test_failures_up_to_the_accepted_share_pass(tmp_path):
    build.check_failures(frame(tmp_path), 3, 1 / 3)


def test_too_many_failures_are_named(tmp_path):
    with pytest.raises(DataError, match=r"1 of 3 images(.|\n)*bad: is truncated"):
        build.check_failures(frame(tmp_path), 3, 0.3)


def test_only_the_first_few_failures_are_named():
    rows = [{"image_id": f"i{n}", "status": "error", "error": "gone"} for n in range(20) for _ in range(2)]
    with pytest.raises(DataError) as caught:
        build.check_failures(pd.DataFrame(rows), 20, 0.0)
    assert "20 of 20" in str(caught.value)
    assert str(caught.value).count("gone") == 5

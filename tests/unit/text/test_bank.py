import dataclasses
import json
import zlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.data.artifacts import read_meta
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import ArtifactError, ConfigError, DataError
from qaclims_ray.text.bank import TextBank, bank_artifact, build_bank, read_bank, write_bank
from qaclims_ray.text.config import TextConfig
from qaclims_ray.text.prompts import pair_prompts

CLASSES = ("cat", "dog", "bus")
DIM = 5


def manifest_of(labels):
    return Manifest(
        CLASSES,
        tuple(ImageRecord(image_id=k, image_uri=f"{k}.png", width=4, height=4, labels=v) for k, v in labels.items()),
    )


def corpus_of(answers):
    """A corpus from {(image, class): (foreground answers, background answers)}."""
    rows = []
    for (image_id, class_id), (foreground, background) in answers.items():
        asked = [("foreground", "alias", a) for a in foreground] + [("background", "objects", a) for a in background]
        if not asked:
            asked = [("background", "objects", CLASSES[class_id])]
        rows += [
            {
                "image_id": image_id,
                "class_id": class_id,
                "class_name": CLASSES[class_id],
                "question_index": index,
                "kind": kind,
                "group": group,
                "answer": answer,
                "status": "ok",
            }
            for index, (kind, group, answer) in enumerate(asked)
        ]
    return pd.DataFrame(rows)


def encode(texts):
    """A unit vector of each text, the same in every call."""
    rows = [np.random.default_rng(zlib.crc32(text.encode())).standard_normal(DIM) for text in texts]
    return F.normalize(torch.tensor(np.stack(rows), dtype=torch.float32), dim=-1)


ANSWERS = {
    ("a", 0): (["kitten", "kitten"], ["sofa", "wall", "sofa"]),
    ("a", 1): (["puppy"], []),
    ("b", 2): ([], ["road"]),
    ("c", 0): (["kitten"], ["sofa"]),
}
LABELS = {"a": (0, 1), "b": (2,), "c": (0,)}


def example_bank(**text):
    return build_bank(corpus_of(ANSWERS), manifest_of(LABELS), TextConfig(**text), encode)


def slow_lookup(prompts, text, image_id, class_id):
    """The texts of one pair, restated in float64: (mean foreground, list of backgrounds)."""
    (pair,) = [pair for pair in prompts if (pair.image_id, pair.class_id) == (image_id, class_id)]
    name, *answers = [encode([prompt])[0].double().numpy() for prompt in pair.foreground]
    if not answers:
        mean = name
    elif text.foreground_mix == "half":
        mean = 0.5 * name + 0.5 * sum(answers) / len(answers)
    else:
        mean = (name + sum(answers)) / (len(answers) + 1)
    if text.renormalise_foreground:
        mean = mean / np.linalg.norm(mean)
    return mean, [encode([prompt])[0].numpy() for prompt in pair.background]


WORDS = st.lists(st.sampled_from(["tree", "grass", "sky", "cat", "dog", "puppy"]), max_size=4)
PAIRS = st.dictionaries(
    st.tuples(st.sampled_from("abcd"), st.integers(0, 2)), st.tuples(WORDS, WORDS), min_size=1, max_size=8
)


@settings(max_examples=40, deadline=None)
@given(answers=PAIRS, mix=st.sampled_from(["half", "uniform"]), renormalise=st.booleans(), order=st.randoms())
def test_lookup_equals_a_slow_restatement(answers, mix, renormalise, order):
    labels = {}
    for image_id, class_id in sorted(answers):
        labels[image_id] = (*labels.get(image_id, ()), class_id)
    text = TextConfig(foreground_mix=mix, renormalise_foreground=renormalise)
    corpus, manifest = corpus_of(answers), manifest_of(labels)
    encoded = []

    def counting(texts):
        encoded.extend(texts)
        return encode(texts)

    bank = build_bank(corpus, manifest, text, counting)
    prompts = pair_prompts(corpus, manifest, text)
    assert sorted(encoded) == sorted({prompt for pair in prompts for prompt in (*pair.foreground, *pair.background)})

    asked = [*answers, *list(answers)[:2]]
    order.shuffle(asked)
    found = bank.lookup([image_id for image_id, _ in asked], [class_id for _, class_id in asked])
    expected = [slow_lookup(prompts, text, *pair) for pair in asked]
    longest = max(len(background) for _, background in expected)
    assert found.background.shape == (len(asked), max(1, longest), DIM)
    for row, (foreground, background) in enumerate(expected):
        np.testing.assert_allclose(found.foreground[row].numpy(), foreground, atol=1e-6)
        assert int(found.is_background[row].sum()) == len(background)
        assert bool(found.has_background[row]) == bool(background)
        for position, feature in enumerate(background):
            assert found.is_background[row, position]
            np.testing.assert_array_equal(found.background[row, position].numpy(), feature)


def test_padding_is_finite_and_never_marked():
    found = example_bank().lookup(["a", "a", "b"], [0, 1, 2])
    assert found.is_background.tolist() == [[True, True], [False, False], [True, False]]
    assert found.has_background.tolist() == [True, False, True]
    assert found.background.isfinite().all()


def test_lookup_is_as_wide_as_its_own_batch():
    assert example_bank().lookup(["b"], [2]).background.shape == (1, 1, DIM)


def test_a_batch_without_any_background_keeps_one_empty_slot():
    found = example_bank().lookup(["a"], [1])
    assert found.is_background.tolist() == [[False]]
    assert found.has_background.tolist() == [False]


def test_an_empty_batch_gives_empty_features():
    found = example_bank().lookup([], [])
    assert found.foreground.shape == (0, DIM)
    assert found.background.shape == (0, 1, DIM)


def test_official_foreground_is_shorter_than_a_unit_and_paper_is_not():
    assert example_bank().lookup(["a"], [0]).foreground.norm() < 0.999
    paper = example_bank(foreground_mix="uniform", renormalise_foreground=True)
    assert paper.lookup(["a"], [0]).foreground.norm() == pytest.approx(1.0, abs=1e-6)


def test_duplicates_in_the_foreground_weigh_more():
    bank = build_bank(
        corpus_of({("a", 0): (["kitten", "kitten", "tom"], ["sofa"])}), manifest_of({"a": (0,)}), TextConfig(), encode
    )
    name, kitten, tom = encode(["a photo of cat.", "a photo of kitten cat.", "a photo of tom cat."])
    expected = 0.5 * name + (2 * kitten + tom) / 6
    torch.testing.assert_close(bank.lookup(["a"], [0]).foreground[0], expected)


def test_a_missing_pair_says_what_the_bank_was_built_from():
    bank = example_bank()
    with pytest.raises(ArtifactError) as caught:
        bank.lookup(["a", "2007_000032", "2007_000033"], [0, 1, 2])
    message = str(caught.value)
    assert '2007_000032 (class 1, "dog"), one of 2 missing' in message
    assert manifest_of(LABELS).fingerprint() in message
    assert "qaclims text" in message


def test_images_and_classes_must_pair_up():
    with pytest.raises(ValueError, match="zip"):
        example_bank().lookup(["a"], [0, 1])


def test_moving_a_bank_moves_features_and_keeps_lookups():
    moved = example_bank().to("meta")
    found = moved.lookup(["a", "b"], [0, 2])
    assert found.background.device.type == found.foreground.device.type == found.is_background.device.type == "meta"
    assert found.background.shape == (2, 2, DIM)


def test_a_manifest_without_labels_is_refused():
    with pytest.raises(DataError, match="none of the 1 images"):
        build_bank(None, manifest_of({"a": ()}), TextConfig(source="class_names"), encode)


def test_summary_counts_pairs_texts_and_what_is_cut(caplog):
    def tokenize(texts):
        return torch.tensor([[1, 2, 0] if len(text) < 20 else [1, 1, 2] for text in texts])

    bank = build_bank(corpus_of(ANSWERS), manifest_of(LABELS), TextConfig(), encode, tokenize=tokenize)
    summary = bank.summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["pairs"] == 4
    assert summary["pairs_without_background"] == 1
    assert summary["mean_background_texts"] == 1.0
    assert summary["texts"] == len(bank.texts) == 8
    assert next(iter(summary["top_background"].items())) == ("a photo of sofa.", 2)
    assert summary["texts_filling_context"] == 2
    assert "2 of 8 texts" in caplog.text


def written(tmp_path, bank: TextBank):
    uri = str(tmp_path / "bank")
    artifact = bank_artifact(uri, {"template": "x"}, {"corpus": "c0ffee", "manifest": "81ab", "clip": "77"})
    write_bank(bank, artifact)
    artifact.complete(bank.summary())
    return uri


def test_round_trip_gives_the_same_lookups(tmp_path):
    bank = example_bank(foreground_mix="uniform", renormalise_foreground=True)
    again = read_bank(written(tmp_path, bank))
    for name in ("texts", "image_ids", "class_ids", "class_names", "renormalise_foreground"):
        assert getattr(again, name) == getattr(bank, name)
    pairs = (["c", "a", "a", "b"], [0, 1, 0, 2])
    for name, value in dataclasses.asdict(bank.lookup(*pairs)).items():
        assert torch.equal(getattr(again.lookup(*pairs), name), value)


def test_files_are_ragged_float32_and_fingerprinted(tmp_path):
    uri = written(tmp_path, example_bank())
    pairs = pq.read_table(f"{uri}/pairs.parquet").to_pydict()
    assert [len(row) for row in pairs["background"]] == [2, 0, 1, 1]
    assert [round(sum(row), 5) for row in pairs["foreground_weights"]] == [1.0] * 4
    assert read_bank(uri).features.dtype == torch.float32
    meta = read_meta(uri)
    assert meta.kind == "text_bank"
    assert meta.inputs["corpus"] == "c0ffee"
    assert meta.summary["texts"] == 8


def test_a_bank_that_was_read_names_its_inputs(tmp_path):
    bank = read_bank(written(tmp_path, example_bank()))
    with pytest.raises(ArtifactError, match=r"built from clip 77, corpus c0ffee, manifest 81ab"):
        bank.lookup(["z"], [0])


def test_reading_refuses_an_absent_bank(tmp_path):
    with pytest.raises(ArtifactError, match="qaclims text"):
        read_bank(str(tmp_path))


@pytest.mark.parametrize("name", ["texts.parquet", "features.safetensors", "pairs.parquet"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_reading_refuses_a_broken_bank(tmp_path, name, damage):
    uri = written(tmp_path, example_bank())
    path = tmp_path / "bank" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:20])
    with pytest.raises(ArtifactError, match=r"is damaged: its .*qaclims text"):
        read_bank(uri)


def test_reading_refuses_broken_numbers(tmp_path):
    bank = example_bank()
    uri = written(tmp_path, replace(bank, features=bank.features * torch.nan))
    with pytest.raises(ArtifactError, match=r"cannot be read .*NaN or infinite numbers in features.*qaclims text"):
        read_bank(uri)


def test_reading_refuses_files_of_two_banks(tmp_path):
    bank = example_bank()
    uri = written(tmp_path, replace(bank, features=bank.features[1:]))
    with pytest.raises(ArtifactError, match="do not belong together"):
        read_bank(uri)


def test_sources_without_a_corpus_need_none():
    bank = build_bank(None, manifest_of(LABELS), TextConfig(source="class_names"), encode)
    found = bank.lookup(["a", "a"], [0, 1])
    torch.testing.assert_close(found.foreground, encode(["a photo of cat.", "a photo of dog."]))
    torch.testing.assert_close(found.background[:, 0], encode(["a photo of no cat.", "a photo of no dog."]))
    with pytest.raises(ConfigError, match="corpus"):
        build_bank(None, manifest_of(LABELS), TextConfig(), encode)

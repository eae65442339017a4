import open_clip
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.errors import ModelError
from qaclims_ray.text.encode import encode_distinct, texts_at_limit

CONTEXT = 6


def encode(texts):
    """Length, first and last letter: enough to tell which text a row belongs to."""
    return torch.tensor([[len(text), ord(text[0]), ord(text[-1])] for text in texts], dtype=torch.float64)


def tokenize(texts):
    """A word tokenizer with start (1), end (2) and padding (0), which cuts at CONTEXT as CLIP's does."""
    rows = [[1, *[3 + len(word) for word in text.split()][: CONTEXT - 2], 2] for text in texts]
    return torch.tensor([row + [0] * (CONTEXT - len(row)) for row in rows])


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1), st.integers(1, 4))
def test_each_text_is_encoded_once_in_batches(texts, batch_size):
    batches = []

    def counting(batch):
        batches.append(list(batch))
        return encode(batch)

    distinct, features = encode_distinct(texts, counting, batch_size=batch_size)
    seen = [text for batch in batches for text in batch]
    assert seen == list(distinct) == list(dict.fromkeys(texts))
    assert max(len(batch) for batch in batches) <= batch_size
    assert features.dtype == torch.float32
    assert torch.equal(features, encode(distinct).float())


def test_progress_is_told_after_each_batch():
    told = []
    encode_distinct(["a", "b", "a", "c"], encode, batch_size=2, on_progress=lambda *counts: told.append(counts))
    assert told == [(2, 3), (3, 3)]


def test_features_carry_no_gradient():
    weight = torch.ones(3, requires_grad=True)
    _, features = encode_distinct(["a"], lambda texts: encode(texts).float() * weight)
    assert not features.requires_grad


def test_an_encoder_that_loses_texts_is_refused():
    with pytest.raises(ModelError, match=r"\(1, 3\) for 2 texts"):
        encode_distinct(["a", "b"], lambda texts: encode(texts)[:1])


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(ModelError, match="not finite for 'b'"):
        encode_distinct(["a", "b"], lambda texts: torch.tensor([[0.0, 1.0], [0.0, float("nan")]]))


def test_texts_that_fill_the_context_are_told(caplog):
    texts = ["one two three", "one two three four", "one two three four five", "one"]
    assert texts_at_limit(texts, tokenize, batch_size=3) == (texts[1], texts[2])
    assert "2 of 4 texts" in caplog.text


def test_texts_that_fit_are_not_logged(caplog):
    assert texts_at_limit(["one", "two"], tokenize) == ()
    assert caplog.text == ""


def test_the_limit_of_the_real_clip_tokenizer():
    real = open_clip.SimpleTokenizer()
    fits, fills = "a photo of " + "dog " * 70 + ".", "a photo of " + "dog " * 71 + "."
    assert texts_at_limit([fits, fills, fills + " cut", "a photo of dog."], real) == (fills, fills + " cut")

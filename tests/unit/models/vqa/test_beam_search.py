"""Search over a decoder whose scores are a fixed random table, so that the best answer can be found by listing all."""

import functools
import itertools

import pytest
import torch

from qaclims_ray.models.vqa.beam_search import STEPS_PER_CHECK, Rules, TokenScorer, search, step

VOCABULARY, START, END, PAD = 5, 0, 1, 4
MAX_LENGTH = 4
BOTH = pytest.mark.parametrize("has_static_shapes", [False, True])


def table_decoder(tokens, position, past, is_own, context):
    """Scores depend on the question and on all tokens so far: those kept and found to be a hypothesis's own."""
    (questions,) = context
    rows = []
    for index, question in enumerate(questions.tolist()):
        for beam, token in enumerate(tokens[index].tolist()):
            before = () if past is None else past[index][is_own[index, beam]].tolist()
            assert len(before) == int(position)
            rows.append(table_logits(question, (*before, token)))
    return torch.stack(rows).view(*tokens.shape, VOCABULARY), tokens


def table_logits(question, prefix):
    number = question
    for token in prefix:
        number = number * (VOCABULARY + 1) + token + 1
    return torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(number)) * 2


def log_probability(question, answer):
    pairs = ((answer[:length], answer[length]) for length in range(1, len(answer)))
    return sum(float(torch.log_softmax(table_logits(question, prefix), -1)[token]) for prefix, token in pairs)


def all_answers():
    for length in range(2, MAX_LENGTH + 1):
        for tail in itertools.product(range(VOCABULARY), repeat=length - 1):
            if END not in tail[:-1] and (tail[-1] == END or length == MAX_LENGTH):
                yield (START, *tail)


def answers(questions, *, has_static_shapes=False, min_length=1, **rules):
    return search(
        functools.partial(step, table_decoder),
        (torch.tensor(list(questions)),),
        Rules(max_length=MAX_LENGTH, min_length=min_length, start_token=START, end_token=END, pad_token=PAD, **rules),
        num_questions=len(questions),
        device="cpu",
        has_static_shapes=has_static_shapes,
    )


def padded(answer):
    return [*answer, *[PAD] * (MAX_LENGTH - len(answer))]


@BOTH
def test_wide_beams_find_the_most_likely_answer(has_static_shapes):
    found = answers(
        range(12), has_static_shapes=has_static_shapes, num_beams=60, length_penalty=0.0, early_stopping="never"
    )
    best = [max(all_answers(), key=lambda answer: log_probability(question, answer)) for question in range(12)]
    assert found.tolist() == [padded(answer) for answer in best]
    assert len({len(answer) for answer in best}) > 1


@BOTH
@pytest.mark.parametrize("min_length", [1, 3])
def test_greedy_takes_the_best_token_at_each_step(min_length, has_static_shapes):
    found = answers(range(12), has_static_shapes=has_static_shapes, num_beams=1, min_length=min_length)
    for question, row in enumerate(found.tolist()):
        answer = (START,)
        while len(answer) < MAX_LENGTH and END not in answer:
            logits = table_logits(question, answer)
            if len(answer) < min_length:
                logits[END] = -torch.inf
            answer = (*answer, int(logits.argmax()))
        assert row == padded(answer)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
@pytest.mark.parametrize("num_beams", [2, 3])
def test_a_question_does_not_see_the_others(early_stopping, num_beams):
    rules = {"num_beams": num_beams, "early_stopping": early_stopping}
    together = answers(range(8), **rules)
    assert answers(range(8), has_static_shapes=True, **rules).tolist() == together.tolist()
    for question in range(8):
        assert answers([question], **rules).tolist() == together[question : question + 1].tolist()


@pytest.mark.parametrize("max_length", [1, 2, 3])
@BOTH
def test_short_answers(max_length, has_static_shapes, monkeypatch):
    monkeypatch.setitem(globals(), "MAX_LENGTH", max_length)
    found = answers(range(4), has_static_shapes=has_static_shapes, num_beams=2)
    assert found.shape == (4, max_length)
    assert (found[:, 0] == START).all()


def test_with_static_shapes_the_search_ends_when_all_questions_have():
    steps = []

    def at_once(tokens, position, past, is_own, context):
        steps.append(tokens.shape)
        logits = torch.zeros(*tokens.shape, VOCABULARY)
        logits[..., END] = 9.0
        return logits, tokens

    rules = Rules(num_beams=1, max_length=12, min_length=1, start_token=START, end_token=END, pad_token=PAD)
    search(functools.partial(step, at_once), (), rules, num_questions=3, device="cpu", has_static_shapes=True)
    assert len(steps) == STEPS_PER_CHECK


def test_min_length_forbids_the_end():
    found = answers(range(8), num_beams=3, min_length=3)
    assert not (found[:, 1:3] == END).any()


def test_decoder_is_the_protocol():
    assert isinstance(table_decoder, TokenScorer)

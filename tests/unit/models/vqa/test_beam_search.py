"""Search over a decoder whose scores are a fixed random table, so that the best answer can be found by listing all."""

import itertools

import pytest
import torch

from qaclims_ray.models.vqa.beam_search import StepDecoder, beam_search, greedy_search

VOCABULARY, START, END, PAD = 5, 0, 1, 4
MAX_LENGTH = 4


class TableDecoder:
    """Scores depend on the question and on all tokens so far."""

    def __init__(self, num_questions: int):
        self.questions = list(range(num_questions))
        self.prefixes = [()] * num_questions

    def advance(self, tokens):
        per_question = len(tokens) // len(self.questions)
        assert len(tokens) == len(self.prefixes)
        self.prefixes = [(*prefix, token) for prefix, token in zip(self.prefixes, tokens.tolist(), strict=True)]
        rows = [table_logits(self.questions[row // per_question], prefix) for row, prefix in enumerate(self.prefixes)]
        return torch.stack(rows)

    def select(self, rows, questions):
        self.prefixes = [self.prefixes[row] for row in rows.tolist()]
        if questions is not None:
            self.questions = [self.questions[question] for question in questions.tolist()]


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


def search_settings(num_questions, min_length=1):
    return {
        "num_questions": num_questions,
        "max_length": MAX_LENGTH,
        "min_length": min_length,
        "start_token": START,
        "end_token": END,
        "pad_token": PAD,
        "device": "cpu",
    }


def padded(answer):
    return [*answer, *[PAD] * (MAX_LENGTH - len(answer))]


def test_wide_beams_find_the_most_likely_answer():
    num_questions = 12
    found = beam_search(
        TableDecoder(num_questions),
        num_beams=60,
        length_penalty=0.0,
        early_stopping="never",
        **search_settings(num_questions),
    )
    best = [max(all_answers(), key=lambda answer: log_probability(question, answer)) for question in range(12)]
    assert found.tolist() == [padded(answer) for answer in best]
    assert len({len(answer) for answer in best}) > 1


@pytest.mark.parametrize("min_length", [1, 3])
def test_greedy_takes_the_best_token_at_each_step(min_length):
    num_questions = 12
    found = greedy_search(TableDecoder(num_questions), **search_settings(num_questions, min_length))
    for question, row in enumerate(found.tolist()):
        answer = (START,)
        while len(answer) < MAX_LENGTH and END not in answer:
            logits = table_logits(question, answer)
            if len(answer) < min_length:
                logits[END] = -torch.inf
            answer = (*answer, int(logits.argmax()))
        assert row == padded(answer)


@pytest.mark.parametrize("early_stopping", [False, True, "never"])
def test_a_question_does_not_see_the_others(early_stopping):
    settings = {"num_beams": 2, "early_stopping": early_stopping, "length_penalty": 1.0}
    together = beam_search(TableDecoder(8), **settings, **search_settings(8))
    for question in range(8):
        decoder = TableDecoder(1)
        decoder.questions = [question]
        assert (
            beam_search(decoder, **settings, **search_settings(1)).tolist()
            == together[question : question + 1].tolist()
        )


def test_min_length_forbids_the_end():
    found = beam_search(TableDecoder(8), num_beams=3, **search_settings(8, min_length=3))
    assert not (found[:, 1:3] == END).any()


def test_decoder_is_the_protocol():
    assert isinstance(TableDecoder(1), StepDecoder)

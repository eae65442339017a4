import re

from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.miniature.vocabulary import (
    ALIASES,
    CLASSES,
    NUM_CLASSES,
    NUM_STUFF,
    PRIMARY_STUFF,
    PUNCTUATION,
    SCENES,
    SECONDARY_STUFF,
    STUFF,
    world_words,
)


def test_tables_are_parallel() -> None:
    assert len(CLASSES) == len(ALIASES) == len(PRIMARY_STUFF) == len(SECONDARY_STUFF) == len(SCENES) == NUM_CLASSES == 8
    assert NUM_STUFF == 24
    assert all(STUFF[class_id] == name for class_id, name in enumerate(PRIMARY_STUFF))


def test_words_cover_the_question_templates() -> None:
    words = set(world_words())
    for question in OFFICIAL_QUESTIONS:
        asked = question.ask("bird").lower()
        assert set(re.findall(r"\w+|[^\w\s]", asked)) <= words, asked


def test_words_are_sorted_lower_case_and_single() -> None:
    words = world_words()
    assert list(words) == sorted(set(words))
    assert all(word == word.lower() and " " not in word for word in words)
    assert set(PUNCTUATION) <= set(words)

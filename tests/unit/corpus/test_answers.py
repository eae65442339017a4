import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.corpus.answers import (
    class_text,
    clean_answer,
    drop_named,
    names_class,
    noun_lemma,
    short_forms_of,
    without_duplicates,
    without_sentence,
)
from qaclims_ray.data.classes import VOC_CLASSES

WORDS = st.text(alphabet="abc dog", max_size=12)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("Dogs", "dog"),
        ("  tree  branch ", "tree branch"),
        ("children", "child"),
        ("leaves", "leaf"),
        ("axes", "ax"),
        ("glasses", "glass"),
        ("grass", "grass"),
        ("bus", "bus"),
        ("dining tables", "dining tables"),
        ("qwertys", "qwertys"),
        ("2", "2"),
        ("", ""),
    ],
)
def test_clean_answer_gives_the_lemma_of_the_whole_string(raw, cleaned):
    assert clean_answer(raw, lemmatise=True) == cleaned


def test_clean_answer_without_lemmatising_only_lower_cases():
    assert clean_answer(" Dogs and  CATS", lemmatise=False) == "dogs and cats"


@pytest.mark.parametrize(
    ("raw", "gist"),
    [
        ("A wooden bench.", "wooden bench"),
        ('"The sky"', "sky"),
        ("\n\n**Grass**\nIt is green.", "Grass"),
        ("an", "an"),
        ("another dog", "another dog"),
        ("wooden bench", "wooden bench"),
        (" . ", ""),
        ("", ""),
    ],
)
def test_an_answer_in_a_sentence_is_brought_to_what_it_names(raw, gist):
    assert without_sentence(raw) == gist


@pytest.mark.parametrize("name", VOC_CLASSES)
def test_class_names_are_their_own_lemmas(name):
    assert noun_lemma(name) == name


@given(WORDS)
def test_cleaning_twice_changes_nothing_without_lemmas(raw):
    once = clean_answer(raw, lemmatise=False)
    assert clean_answer(once, lemmatise=False) == once


@pytest.mark.parametrize(
    ("answer", "rule", "text"),
    [
        ("passenger", "substring", "passenger train"),
        ("freight train", "substring", "freight train"),
        ("trainer", "substring", "trainer"),
        ("trainer", "word", "trainer train"),
        ("two trains", "word", "two trains"),
        ("", "substring", " train"),
        ("", "word", "train"),
    ],
)
def test_class_text_appends_the_class_unless_it_is_named(answer, rule, text):
    assert class_text(answer, "train", short_forms=(), rule=rule) == text


def test_substring_rule_keeps_the_quirks_of_the_released_code():
    assert names_class("catfish", ("cat",), rule="substring")
    assert not names_class("Dog", ("dog",), rule="substring")
    assert class_text("Dog", "dog", short_forms=(), rule="substring") == "Dog dog"


def test_word_rule_mends_them():
    assert not names_class("catfish", ("cat",), rule="word")
    assert names_class("Dog", ("dog",), rule="word")
    assert names_class("hot-dog", ("dog",), rule="word")
    assert not names_class("c.t", ("cat",), rule="word")


@pytest.mark.parametrize("rule", ["substring", "word"])
def test_short_forms_count_as_naming_the_class(rule):
    assert class_text("round table", "dining table", short_forms=("table",), rule=rule) == "round table"
    assert class_text("round table", "dining table", short_forms=(), rule=rule) == "round table dining table"


def test_drop_named_keeps_what_differs_in_any_letter():
    assert drop_named(["dog", "Dog", "", "dogs", "hot dog"], ["dog"]) == ["Dog", "", "dogs", "hot dog"]


def test_drop_named_containing_looks_for_whole_words():
    answers = ["Dog", "dogs", "hot dog", "dogma", "brown cow", "grass"]
    assert drop_named(answers, ("dog", "cow"), containing=True) == ["dogma", "grass"]


def test_short_forms_belong_to_one_class():
    pairs = (("tv monitor", "monitor"), ("tv monitor", "tv"), ("potted plant", "plant"))
    assert short_forms_of("tv monitor", pairs) == ("monitor", "tv")
    assert short_forms_of("dog", pairs) == ()


@given(st.lists(WORDS))
def test_without_duplicates_is_stable(texts):
    kept = without_duplicates(texts)
    assert sorted(kept) == sorted(set(texts))
    assert kept == sorted(kept, key=texts.index)


@given(WORDS, st.sampled_from(["dog", "cab"]), st.sampled_from(["substring", "word"]))
def test_every_foreground_text_names_its_class(answer, name, rule):
    text = class_text(answer, name, short_forms=(), rule=rule)
    assert names_class(text, (name,), rule=rule)
    assert class_text(text, name, short_forms=(), rule=rule) == text

"""Answers of the VQA model as text: clean-up, naming the class, background filters (QA-CLIMS 3.2.3).

The table keeps raw and cleaned answers; the rules that need the class are applied later, when the texts of a pair
are made (``text/prompts.py``). Letters and numbers such as "Q5" name rows of ``docs/method.md``.
"""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Literal

from lemminflect import getLemma

NamingRule = Literal["substring", "word"]
"""When an answer names a class: the name stands anywhere in it (official), or as a whole word."""

_AROUND_ANSWERS = " \t\"'`*.,:;!"
_ARTICLE = re.compile(r"^(?:an?|the)\s+", re.IGNORECASE)


def clean_answer(raw: str, *, lemmatise: bool) -> str:
    """Lower-case an answer, tidy its spaces and, if wanted, bring it to its noun lemma (row Q4)."""
    answer = " ".join(raw.lower().split())
    return noun_lemma(answer) if lemmatise else answer


def without_sentence(raw: str) -> str:
    """Return what an answer that is written as a sentence names: its first line, bare of quotes, stop and article.

    For models that chat; BLIP's answers are bare already, and are left as they are. "A wooden bench." becomes
    "wooden bench".
    """
    line = next((line for line in raw.splitlines() if line.strip()), "")
    bare = line.strip(_AROUND_ANSWERS)
    return _ARTICLE.sub("", bare)


@functools.lru_cache(maxsize=65536)
def noun_lemma(answer: str) -> str:
    """Return the shortest noun lemma of the whole string; what the dictionary does not know passes.

    The released code asks NLTK's WordNet lemmatiser for the whole answer, so that answers of several words pass.
    This dictionary (lemminflect) needs no download and gives the same lemmas but for a few words that are
    nouns in WordNet only ("men" stays there, "has" becomes "ha").

    Args:
        answer: lower case.
    """
    # Without the dictionary's guesses for unknown words: WordNet has none, and "lying down" is no plural.
    lemmas = getLemma(answer, "NOUN", lemmatize_oov=False)
    # Of several lemmas NLTK's lemmatiser takes the shortest too.
    return min(lemmas, key=len) if lemmas else answer


def names_class(answer: str, names: Iterable[str], *, rule: NamingRule) -> bool:
    """Whether an answer already names a class (row Q5).

    Args:
        answer: cleaned answer.
        names: the class name and its accepted short forms.
        rule: "substring" is the released code's test, in which "catfish" names "cat" and "Dog" does not name
            "dog"; "word" asks for a whole word, in any case, alone or with a regular plural ending.
    """
    if rule == "substring":
        return any(name in answer for name in names)
    return any(_word_pattern(name).search(answer) is not None for name in names)


@functools.lru_cache(maxsize=4096)
def _word_pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<!\w){re.escape(name)}(?:s|es)?(?!\w)", re.IGNORECASE)


def class_text(answer: str, class_name: str, *, short_forms: Sequence[str], rule: NamingRule) -> str:
    """Return a foreground answer that names its class: "passenger" of a train becomes "passenger train" (row Q5).

    With the rule "substring" an empty answer becomes " dog", as in the released code (the tokenizer drops the
    space); with "word" it becomes "dog".

    Args:
        answer: cleaned answer.
        class_name: natural name of the class.
        short_forms: other forms that count as naming the class, e.g. "table" for "dining table".
        rule: see `names_class`.
    """
    if names_class(answer, (class_name, *short_forms), rule=rule):
        return answer
    text = f"{answer} {class_name}"
    return text if rule == "substring" else text.strip()


def drop_named(answers: Iterable[str], names: Sequence[str], *, containing: bool = False) -> list[str]:
    """Remove background answers that name what the image is labelled with (row Q9).

    Args:
        answers: cleaned answers.
        names: what counts; the released code has the class name alone.
        containing: remove answers that hold a name as a whole word; else those that equal one to the letter, so that
            "Dog" stays (official).
    """
    if containing:
        return [answer for answer in answers if not names_class(answer, names, rule="word")]
    return [answer for answer in answers if answer not in names]


def without_duplicates(texts: Iterable[str]) -> list[str]:
    """Keep the first of equal texts, in order (row Q8; the released code loses the order in a set)."""
    return list(dict.fromkeys(texts))


def short_forms_of(class_name: str, synonyms: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the short forms of one class from pairs (class, short form)."""
    return tuple(form for name, form in synonyms if name == class_name)

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.errors import ArtifactError, ConfigError
from qaclims_ray.text.config import TextConfig
from qaclims_ray.text.prompts import (
    PairAnswers,
    class_prompts,
    class_words,
    foreground_weights,
    pair_prompts,
    shuffle_within_class,
)

CLASSES = ("cat", "dog", "dining table")
ALL_GROUPS = TextConfig().groups


def manifest_of(**labels):
    return Manifest(
        CLASSES,
        tuple(ImageRecord(image_id=k, image_uri=f"{k}.png", width=4, height=4, labels=v) for k, v in labels.items()),
    )


def rows_of(image_id, class_id, answers):
    """Rows of one pair from (group, answer), asked in this order."""
    kinds = {question.group: question.kind for question in OFFICIAL_QUESTIONS}
    return [
        {
            "image_id": image_id,
            "class_id": class_id,
            "class_name": CLASSES[class_id],
            "question_index": index,
            "kind": kinds[group],
            "group": group,
            "answer": answer,
            "status": "ok",
        }
        for index, (group, answer) in enumerate(answers)
    ]


def error_row(image_id, class_id):
    empty = {"question_index": -1, "kind": "", "group": "", "answer": "", "status": "error"}
    return {"image_id": image_id, "class_id": class_id, "class_name": CLASSES[class_id], **empty}


def words(prompts):
    return [prompt.removeprefix("a photo of ").removesuffix(".") for prompt in prompts]


def texts_of(answers, *, class_id=1, labels=(1,), **settings):
    """Foreground and background words of one pair of image `a`."""
    corpus = pd.DataFrame([row for label in labels for row in rows_of("a", label, answers)])
    prompts = pair_prompts(corpus, manifest_of(a=labels), TextConfig(**settings))
    (pair,) = [pair for pair in prompts if pair.class_id == class_id]
    return words(pair.foreground), words(pair.background)


FULL = [
    ("objects", "grass"), ("objects", "tree"), ("objects", "grass"), ("scene", "park"), ("scene", "grass"),
    ("fine_grained", "terrier"), ("fine_grained", "brown dog"), ("alias", "puppy"), ("alias", "puppy"),
]  # fmt: skip


def test_full_corpus_names_the_class_and_keeps_foreground_duplicates():
    foreground, background = texts_of(FULL)
    assert foreground == ["dog", "terrier dog", "brown dog", "puppy dog", "puppy dog"]
    assert background == ["grass", "tree", "park"]


@pytest.mark.parametrize(
    ("groups", "foreground", "background"),
    [
        ((), ["dog"], ["no dog"]),
        (("fine_grained",), ["dog", "terrier dog", "brown dog"], ["no dog"]),
        (("alias",), ["dog", "puppy dog", "puppy dog"], ["no dog"]),
        (("objects",), ["dog"], ["grass", "tree"]),
        (("scene",), ["dog"], ["park", "grass"]),
        (("fine_grained", "alias"), ["dog", "terrier dog", "brown dog", "puppy dog", "puppy dog"], ["no dog"]),
        (
            ("fine_grained", "alias", "objects"),
            ["dog", "terrier dog", "brown dog", "puppy dog", "puppy dog"],
            ["grass", "tree"],
        ),
        (
            ALL_GROUPS,
            ["dog", "terrier dog", "brown dog", "puppy dog", "puppy dog"],
            ["grass", "tree", "park"],
        ),
    ],
)
def test_every_row_of_table_5(groups, foreground, background):
    assert texts_of(FULL, groups=groups) == (foreground, background)


def test_class_names_source_reads_no_corpus():
    (pair,) = pair_prompts(None, manifest_of(a=(1,)), TextConfig(source="class_names"))
    assert pair.foreground == ("a photo of dog.",)
    assert pair.background == ("a photo of no dog.",)


def test_words_may_stand_for_a_class_in_all_texts():
    text = TextConfig(source="class_names", class_words=(("dog", "hound"),))
    assert class_words(CLASSES, text) == ("cat", "hound", "dining table")
    assert class_prompts(CLASSES, text) == ["a photo of cat.", "a photo of hound.", "a photo of dining table."]
    cat, dog = pair_prompts(None, manifest_of(a=(0, 1)), text)
    assert (words(dog.foreground), words(dog.background)) == (["hound"], ["no hound"])
    assert (words(cat.foreground), words(cat.background)) == (["cat"], ["no cat"])


def test_words_of_a_class_do_not_hide_its_name_from_the_filters():
    fixed = (("*", ("dog", "tree")),)
    text = TextConfig(source="fixed", fixed_background=fixed, class_words=(("dog", "hound"),))
    (pair,) = pair_prompts(None, manifest_of(a=(1,)), text)
    assert words(pair.background) == ["tree"]


def test_answers_get_the_class_s_words_appended():
    assert texts_of([("alias", "puppy"), ("alias", "old hound")], class_words=(("dog", "hound"),))[0] == [
        "hound",
        "puppy hound",
        "old hound",
    ]


def test_the_texts_of_classes_follow_the_template():
    assert class_prompts(("cat",), TextConfig(template="one {}")) == ["one cat"]


def test_words_of_what_is_no_class_are_refused():
    text = TextConfig(source="class_names", class_words=(("horse", "pony"),))
    for make in (class_words, class_prompts):
        with pytest.raises(ConfigError, match=r"class_words names \['horse'\]; expected classes: cat, dog"):
            make(CLASSES, text)
    with pytest.raises(ConfigError, match="class_words"):
        pair_prompts(None, manifest_of(a=(0,)), text)


def test_fixed_source_takes_the_class_list_then_the_shared_one():
    fixed = (("*", ("tree", "river", "cat")), ("dog", ("lawn", "tree")))
    text = TextConfig(source="fixed", fixed_background=fixed)
    cat, dog = pair_prompts(None, manifest_of(a=(0, 1)), text)
    assert words(dog.foreground) == ["dog"]
    assert words(dog.background) == ["lawn", "tree", "river", "cat"]
    assert words(cat.background) == ["tree", "river"]


def test_fixed_source_refuses_what_is_no_class():
    text = TextConfig(source="fixed", fixed_background=(("horse", ("grass",)),))
    with pytest.raises(ConfigError, match=r"\['horse'\]; expected '\*' or classes: cat, dog"):
        pair_prompts(None, manifest_of(a=(0,)), text)


def test_official_rules_keep_their_quirks():
    answers = [("alias", "catfish"), ("alias", ""), ("objects", "Cat"), ("objects", ""), ("objects", "cat")]
    foreground, background = texts_of(answers, class_id=0, labels=(0,))
    assert foreground == ["cat", "catfish", " cat"]
    assert background == ["Cat", ""]


def test_word_rule_names_the_class_once():
    answers = [("alias", "catfish"), ("alias", ""), ("alias", "two cats")]
    assert texts_of(answers, class_id=0, labels=(0,), suffix_rule="word")[0] == [
        "cat",
        "catfish cat",
        "cat",
        "two cats",
    ]


def test_class_synonyms_count_as_the_class():
    answers = [("alias", "round table"), ("alias", "desk"), ("objects", "table")]
    foreground, background = texts_of(answers, class_id=2, labels=(2,))
    assert foreground == ["dining table", "round table", "desk dining table"]
    assert background == ["table"]
    assert texts_of(answers, class_id=2, labels=(2,), class_synonyms=())[0][1] == "round table dining table"


ANSWERS = ("Dog", "dog", "", "cat", "two cats", "table", "small table", "grass", "doghouse")


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ((), ("Dog", "", "cat", "two cats", "table", "small table", "grass", "doghouse")),
        (("empty",), ("Dog", "cat", "two cats", "table", "small table", "grass", "doghouse")),
        (("other_labels",), ("Dog", "", "two cats", "table", "small table", "grass", "doghouse")),
        (("other_labels", "synonyms"), ("Dog", "", "two cats", "small table", "grass", "doghouse")),
        (("containing",), ("", "cat", "two cats", "table", "small table", "grass", "doghouse")),
        (("other_labels", "synonyms", "containing", "empty"), ("grass", "doghouse")),
    ],
)
def test_each_background_filter_drops_what_it_says(filters, kept):
    answers = [("objects", name) for name in ANSWERS]
    found = texts_of(answers, class_id=1, labels=(0, 1, 2), background_filters=filters)[1]
    assert tuple(found) == kept


def test_a_pair_without_background_is_left_empty_or_given_no_class():
    answers = [("objects", "dog"), ("alias", "puppy")]
    assert texts_of(answers) == (["dog", "puppy dog"], [])
    assert texts_of(answers, empty_background="no_class") == (["dog", "puppy dog"], ["no dog"])


def test_the_template_is_filled_once():
    (pair,) = pair_prompts(None, manifest_of(a=(1,)), TextConfig(source="class_names", template="{} {x} itself"))
    assert pair.foreground == ("dog {x} itself",)


def test_answers_are_taken_in_asking_order_whatever_the_row_order():
    corpus = pd.DataFrame(rows_of("a", 1, FULL)).iloc[::-1]
    (pair,) = pair_prompts(corpus, manifest_of(a=(1,)), TextConfig())
    assert words(pair.background) == ["grass", "tree", "park"]
    assert words(pair.foreground)[1] == "terrier dog"


def test_a_failed_image_has_its_class_name_and_no_background(caplog):
    corpus = pd.DataFrame([*rows_of("a", 1, FULL), error_row("bad", 0)])
    pairs = pair_prompts(corpus, manifest_of(bad=(0,), a=(1,)), TextConfig())
    assert [(pair.image_id, pair.class_id) for pair in pairs] == [("bad", 0), ("a", 1)]
    assert (words(pairs[0].foreground), pairs[0].background) == (["cat"], ())
    assert "1 of 2 pairs have no answers" in caplog.text


def test_a_corpus_of_other_images_is_refused():
    corpus = pd.DataFrame(rows_of("a", 1, FULL))
    with pytest.raises(ArtifactError, match=r'1 of 2 pairs, e.g. b \(class "dog"\).*qaclims corpus'):
        pair_prompts(corpus, manifest_of(a=(1,), b=(1,)), TextConfig())


def test_a_corpus_of_other_classes_is_refused():
    corpus = pd.DataFrame(rows_of("a", 1, FULL))
    other = Manifest(("cat", "horse"), manifest_of(a=(1,)).records)
    with pytest.raises(ArtifactError, match=r"calls class 1 'dog', the manifest 'horse'"):
        pair_prompts(corpus, other, TextConfig())


def test_qape_without_a_corpus_is_refused():
    with pytest.raises(ConfigError, match="reads the corpus"):
        pair_prompts(None, manifest_of(a=(1,)), TextConfig())


def test_shuffled_answers_come_from_another_image_of_the_class():
    images = {name: (0, 1) for name in "abcdef"}
    rows = [row for name in images for label in (0, 1) for row in rows_of(name, label, [("objects", f"{name}{label}")])]
    pairs = pair_prompts(pd.DataFrame(rows), manifest_of(**images), TextConfig(shuffle_answers=True, seed=3))
    givers = {(pair.image_id, pair.class_id): words(pair.background)[0] for pair in pairs}
    assert all(giver[0] != image_id and giver[1] == str(class_id) for (image_id, class_id), giver in givers.items())
    assert sorted(givers.values()) == sorted(f"{name}{label}" for name in images for label in (0, 1))


def test_shuffled_answers_are_filtered_for_the_image_that_gets_them():
    rows = [*rows_of("a", 0, [("objects", "grass")]), *rows_of("b", 0, [("objects", "dog")]), *rows_of("a", 1, FULL)]
    text = TextConfig(shuffle_answers=True, background_filters=("synonyms", "other_labels", "containing", "empty"))
    pairs = pair_prompts(pd.DataFrame(rows), manifest_of(a=(0, 1), b=(0,)), text)
    background = {(pair.image_id, pair.class_id): words(pair.background) for pair in pairs}
    assert background["a", 0] == []
    assert background["b", 0] == ["grass"]
    assert background["a", 1] == ["grass", "tree", "park"]


@given(st.sets(st.tuples(st.text("abc", min_size=1, max_size=3), st.integers(0, 2))), st.integers(0, 5))
def test_shuffling_is_a_derangement_within_each_class(pairs, seed):
    answers = {pair: PairAnswers(background=(f"{pair}",)) for pair in sorted(pairs)}
    shuffled = shuffle_within_class(answers, seed)
    assert shuffled.keys() == answers.keys()
    sizes = [sum(class_id == other for _, other in pairs) for _, class_id in shuffled]
    for (pair, given_answers), size in zip(shuffled.items(), sizes, strict=True):
        (giver,) = [other for other, own in answers.items() if own is given_answers]
        assert giver[1] == pair[1]
        assert (giver == pair) == (size == 1)
    backwards = dict(reversed(answers.items()))
    assert shuffle_within_class(backwards, seed) == shuffled


def test_another_seed_shuffles_otherwise():
    answers = {(f"{index}", 0): PairAnswers(background=(f"{index}",)) for index in range(20)}
    assert shuffle_within_class(answers, 0) != shuffle_within_class(answers, 1)


@pytest.mark.parametrize(
    ("num_texts", "mix", "weights"),
    [
        (1, "half", (1.0,)),
        (1, "uniform", (1.0,)),
        (3, "half", (0.5, 0.25, 0.25)),
        (4, "uniform", (0.25, 0.25, 0.25, 0.25)),
    ],
)
def test_foreground_weights(num_texts, mix, weights):
    assert foreground_weights(num_texts, mix) == weights


@given(st.integers(1, 40), st.sampled_from(["half", "uniform"]))
def test_foreground_weights_sum_to_one(num_texts, mix):
    weights = foreground_weights(num_texts, mix)
    assert len(weights) == num_texts
    assert sum(weights) == pytest.approx(1.0)

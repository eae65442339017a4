import json

import pytest

from qaclims_ray.corpus.questions import (
    HISTOLOGY_QUESTIONS,
    OFFICIAL_QUESTIONS,
    PAPER_QUESTIONS,
    load_questions,
    question_set,
    questions_fingerprint,
)
from qaclims_ray.errors import ConfigError


def write(path, entries):
    path.write_text(json.dumps(entries))
    return path


def test_sixteen_templates_in_order():
    assert [question.group for question in OFFICIAL_QUESTIONS] == (
        ["objects"] * 7 + ["scene"] * 3 + ["fine_grained"] * 2 + ["alias"] * 4
    )
    assert [question.kind for question in OFFICIAL_QUESTIONS] == ["background"] * 10 + ["foreground"] * 6
    assert OFFICIAL_QUESTIONS[5].template == "what is the left side of {}?"
    assert OFFICIAL_QUESTIONS[6].template == "what is the right side of {}?"


def test_official_capitals_follow_the_kind():
    for question in OFFICIAL_QUESTIONS:
        assert question.template[0].isupper() == (question.kind == "foreground")


def test_the_paper_capitalises_all():
    assert [question.template.lower() for question in PAPER_QUESTIONS] == [
        question.template.lower() for question in OFFICIAL_QUESTIONS
    ]
    assert all(question.template.startswith("What ") for question in PAPER_QUESTIONS)


def test_tissue_is_asked_of_by_every_group_and_not_as_in_photographs():
    assert question_set("histology") is HISTOLOGY_QUESTIONS
    assert {question.group for question in HISTOLOGY_QUESTIONS} == {question.group for question in OFFICIAL_QUESTIONS}
    asked = [question.ask("stroma") for question in HISTOLOGY_QUESTIONS]
    assert len(set(asked)) == len(asked) and all("stroma" in text and text.endswith("?") for text in asked)
    words = " ".join(asked).lower().split()
    assert not {"photo", "above", "under", "left", "right", "behind"} & set(words)


def test_ask_puts_the_class_in():
    assert OFFICIAL_QUESTIONS[10].ask("dining table") == "What kind of dining table is in the photo?"


def test_sets_by_name_and_file(tmp_path):
    assert question_set("official") is OFFICIAL_QUESTIONS
    assert question_set("paper") is PAPER_QUESTIONS
    entries = [{"template": "where is the {}?", "kind": "background", "group": "scene"}]
    path = write(tmp_path / "own.json", entries)
    assert question_set(str(path)) == load_questions(path)
    assert load_questions(path)[0].ask("cat") == "where is the cat?"
    with pytest.raises(ConfigError, match="official, paper, histology or the path"):
        question_set("offical")


def test_every_fault_is_reported_at_once(tmp_path):
    entries = [
        {"template": "what is above?", "kind": "background", "group": "objects"},
        {"template": "what {} {x}?", "kind": "sky", "group": "objects"},
        {"template": "what kind of {}?", "kind": "background", "group": "fine_grained"},
        {"template": "what is {}?", "kind": "background"},
        {"template": "what is {}?", "kind": "background", "group": "scene", "weight": 2},
        "what is under the {}?",
        {"template": 3, "kind": "background", "group": ["scene"]},
    ]
    with pytest.raises(ConfigError) as caught:
        load_questions(write(tmp_path / "bad.json", entries))
    message = str(caught.value)
    for fault in (
        "entry 0: template 'what is above?' has 0 {}",
        "entry 1: kind is 'sky', expected one of foreground, background",
        "entry 1: template 'what {} {x}?' has a brace outside {}",
        "entry 2: group fine_grained asks for the foreground, but kind is background",
        "entry 3: lacks group",
        "entry 4: has unknown key(s) weight",
        "entry 5: found a str",
        "entry 6: group is ['scene'], expected one of",
        "entry 6: template is a int",
        "template 'what is {}?' is given more than once",
    ):
        assert fault in message


@pytest.mark.parametrize(
    ("text", "found"), [("{", "is not JSON"), ("{}", "holds a JSON dict"), ("[]", "holds an empty list")]
)
def test_files_of_another_form(tmp_path, text, found):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=found):
        load_questions(path)


def test_absent_file(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_questions(tmp_path / "absent.json")


def test_fingerprint_follows_wording_and_order():
    official = questions_fingerprint(OFFICIAL_QUESTIONS)
    assert official == questions_fingerprint(list(OFFICIAL_QUESTIONS))
    assert len({official, questions_fingerprint(PAPER_QUESTIONS), questions_fingerprint(OFFICIAL_QUESTIONS[::-1])}) == 3

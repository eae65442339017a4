"""Label files of many forms, generated from labels that are known: read as they are, refused, or told, never else."""

import csv
import io
import json
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaclims_ray.data.label_files import LabelTable, read_label_file
from qaclims_ray.errors import DataError

Labels = dict[str, tuple[str, ...]]
CLEAR_MARKS = (";", "|", ",", ", ", "/", " / ", "+", "&", "#", ":", "\t", "\n", "; ", " | ")
JOINING_MARKS = (" ", "_", "-")
NAMES = ("cat", "dog", "traffic light", "fire hydrant", "t-shirt", "Zebra", "hot_dog", "\xe9l\xe9phant", "7up", "x ray")
SINGLE_WORDS = ("cat", "dog", "bird", "horse", "sheep", "7")
DECORATED = (
    *("tumor, malignant", "tumor, benign", "ER+", "C#", "R&D", "AC/DC", "left: upper", "stop sign", "hot dog", "dog"),
    *("[b]", "50 % grey", "a*b", "plant (potted)", "and/or"),
)


def read(content: str, name: str, **options: Any) -> LabelTable:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_text(content, encoding="utf-8", newline="")
        return read_label_file(str(path), **options)


def table(header: list[str], rows: list[list[str]], delimiter: str = ",") -> str:
    text = io.StringIO()
    csv.writer(text, delimiter=delimiter).writerows([header, *rows])
    return text.getvalue()


def labels_of(rng: random.Random, names: tuple[str, ...], *, alone: bool, most: int = 3) -> Labels:
    """Draw labels of some images; `alone` shows every class once by itself and some images nothing."""
    names = tuple(rng.sample(names, rng.randint(2, min(5, len(names)))))
    shown = [(name,) for name in names] if alone else []
    shown += [tuple(rng.sample(names, rng.randint(1, min(most, len(names))))) for _ in range(rng.randint(4, 20))]
    shown += [()] * rng.randint(0, 2)
    rng.shuffle(shown)
    return {f"img_{number:03d}": found for number, found in enumerate(shown)}


def as_sets(labels: Labels) -> dict[str, set[str]]:
    return {image: set(names) for image, names in labels.items()}


def assert_same(found: LabelTable, expected: Labels) -> None:
    assert not found.faults
    assert {name: set(names) for name, names in found.labels.items()} == {
        n: set(found) for n, found in expected.items()
    }


@pytest.mark.parametrize("mark", CLEAR_MARKS)
@pytest.mark.parametrize("seed", range(6))
def test_lists_with_any_mark_are_read_where_every_class_is_seen_alone(mark: str, seed: int) -> None:
    rng = random.Random(f"{mark} {seed}")
    labels = labels_of(rng, NAMES, alone=True)
    rows = [[f"{name}{rng.choice(('', '.jpg'))}", mark.join(found)] for name, found in labels.items()]
    header = [
        rng.choice(("image", "File Name", "image_id", "IMG")),
        rng.choice(("labels", "Class", "tags", "Category")),
    ]
    delimiter = rng.choice((",", ";", "\t"))
    assert_same(read(table(header, rows, delimiter), "a.csv"), labels)


@pytest.mark.parametrize("mark", JOINING_MARKS)
@pytest.mark.parametrize("seed", range(4))
def test_marks_that_join_words_part_lists_of_words_that_are_seen_alone(mark: str, seed: int) -> None:
    labels = labels_of(random.Random(seed), SINGLE_WORDS, alone=True)
    assert_same(read(table(["image", "labels"], [[n, mark.join(f)] for n, f in labels.items()]), "a.csv"), labels)


@pytest.mark.parametrize("seed", range(12))
def test_one_name_in_a_cell_stays_one_name(seed: int) -> None:
    rng = random.Random(seed)
    labels = labels_of(rng, (*NAMES, "stop sign", "plant (potted)"), alone=True, most=1)
    assert_same(read(table(["image", "label"], [[n, *(f or ("",))] for n, f in labels.items()]), "a.csv"), labels)


@settings(max_examples=150, deadline=None)
@given(
    rng=st.randoms(use_true_random=False),
    mark=st.sampled_from((*CLEAR_MARKS, *JOINING_MARKS)),
    names=st.sampled_from((NAMES, SINGLE_WORDS, DECORATED)),
    most=st.integers(1, 3),
)
def test_nothing_is_read_as_other_classes_without_a_word(
    rng: random.Random, mark: str, names: tuple[str, ...], most: int
) -> None:
    labels = labels_of(rng, names, alone=False, most=most)
    try:
        found = read(table(["image", "labels"], [[n, mark.join(f)] for n, f in labels.items()]), "a.csv")
    except DataError as error:
        assert "data.label_separator" in str(error) or "brackets" in str(error), str(error)
        return
    told = any("data.label_separator" in note or "parted by" in note for note in found.notes)
    assert told or as_sets(found.labels) == as_sets(labels) or one_phrase_each(labels, mark)


def one_phrase_each(labels: Labels, mark: str) -> bool:
    """Whether blanks join the names and no word is in two cells: "cat dog" is as much a name as "hot dog"."""
    cells = {mark.join(found) for found in labels.values() if found}
    words = [word for cell in cells for word in set(cell.split(mark))]
    return mark in JOINING_MARKS and len(words) == len(set(words))


@settings(max_examples=60, deadline=None)
@given(rng=st.randoms(use_true_random=False), mark=st.sampled_from((";", ",", ", ", "|", "/", " ")))
def test_class_names_settle_every_list(rng: random.Random, mark: str) -> None:
    names = NAMES if mark == " " else (*NAMES, "tumor, malignant", "tumor, benign", "AC/DC")
    labels = labels_of(rng, names, alone=False)
    rows = [[name, mark.join(found)] for name, found in labels.items()]
    assert_same(read(table(["image", "labels"], rows), "a.csv", known_names=names), labels)


STYLES = (("1", "0"), ("1.0", "0.0"), ("True", "False"), ("yes", "no"), ("x", ""), ("1", "-1"), ("1", ""), ("Y", "N"))


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_column_per_class_in_any_style(style: tuple[str, str], delimiter: str) -> None:
    rng = random.Random(f"{style}{delimiter}")
    labels = labels_of(rng, NAMES, alone=True)
    names = sorted({name for found in labels.values() for name in found})
    rows = [
        [str(number), f"images\\{image}.PNG", "640", *(style[name not in found] for name in names), "2020-01-02"]
        for number, (image, found) in enumerate(labels.items())
    ]
    found = read(table(["Unnamed: 0", "path", "width", *names, "date"], rows, delimiter), "a.tsv")
    assert_same(found, labels)
    assert set(found.classes) == set(names)
    assert any('"Unnamed: 0", "width", "date"' in note for note in found.notes)


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps,
        str,
        lambda names: str(tuple(names)),
        lambda names: "{" + ", ".join(map(repr, names)) + "}",
        lambda names: "[" + " ".join(map(repr, names)) + "]",
        lambda names: "[" + ", ".join(names) + "]",
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_lists_in_brackets(cell: Any, seed: int) -> None:
    labels = labels_of(random.Random(seed), (*NAMES, "don't"), alone=True)
    rows = [[name, cell(list(found))] for name, found in labels.items()]
    assert_same(read(table(["image", "labels"], rows), "a.csv"), labels)


@pytest.mark.parametrize("seed", range(4))
def test_forms_of_json(seed: int) -> None:
    rng = random.Random(seed)
    labels = {name: list(found) for name, found in labels_of(rng, (*NAMES, "a, b", "[b]"), alone=True).items()}
    names = {name for found in labels.values() for name in found}
    expected = {image: tuple(found) for image, found in labels.items()}
    records = [{"width": 3, "file_name": f"x/{image}.jpg", "labels": found} for image, found in labels.items()]
    long = [{"image": image, "label": name} for image, found in labels.items() for name in found or [None]]
    columns = {"image": list(labels), "labels": list(labels.values())}
    by_index = {key: {str(n): value for n, value in enumerate(values)} for key, values in columns.items()}
    tables = {image: {name: int(name in found) for name in names} for image, found in labels.items()}
    keyed = {image: {"size": 3, "labels": found} for image, found in labels.items()}
    for value in (labels, records, columns, by_index, tables, keyed, {"annotations": records}):
        assert_same(read(json.dumps(value), "a.json"), expected)
    assert_same(read("\n".join(json.dumps(record) for record in records), "a.jsonl"), expected)
    if not any("," in name for name in names):
        assert_same(read(json.dumps(long), "a.json"), expected)
    by_class = {name: [f"{image}.jpg" for image, found in labels.items() if name in found] for name in names}
    shown = {image: found for image, found in expected.items() if found}
    assert_same(read(json.dumps(by_class), "a.json"), shown)


@pytest.mark.parametrize("header", [["image", "label"], None])
@pytest.mark.parametrize("seed", range(3))
def test_one_row_for_each_class_of_an_image(header: list[str] | None, seed: int) -> None:
    labels = labels_of(random.Random(seed), NAMES, alone=True)
    rows = [[f"{image}.jpg", name] for image, found in labels.items() for name in found or ("",)]
    text = table(header or rows[0], rows if header else rows[1:])
    assert_same(read(text, "a.csv"), labels)

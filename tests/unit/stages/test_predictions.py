"""What `predict` says of many images: linear in their number, and empty masks counted and named."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data import label_files
from qaclims_ray.errors import ConfigError, DataError
from qaclims_ray.stages import predict
from qaclims_ray.stages.predictions import (
    LISTED,
    areas_by_class,
    areas_table,
    class_areas,
    closing_line,
    doubled,
    empty_masks,
    predictions_csv,
    remarkable,
    shown_classes,
)
from qaclims_ray.stages.requests import PredictArguments


class Counted(str):
    """A name that counts how often names are compared or hashed."""

    calls = 0

    def __eq__(self, other: object) -> bool:
        Counted.calls += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        Counted.calls += 1
        return str.__hash__(self)


@pytest.fixture(autouse=True)
def fresh_count() -> Iterator[None]:
    Counted.calls = 0
    yield


@given(st.lists(st.sampled_from("abcdef")))
def test_doubled_names_are_those_that_stand_for_several_images(names: list[str]) -> None:
    assert doubled(names) == sorted({name for name in names if names.count(name) > 1})


@pytest.mark.parametrize("labels", ["", "labels.json"])
def test_finding_the_targets_asks_of_each_name_a_few_times_however_many_there_are(labels, monkeypatch) -> None:
    """Where every name was compared with every other, 100,000 images took two minutes before anything began."""
    asked = []
    for number in (2_000, 4_000):
        uris = [f"images/{i:06d}.png" for i in range(number)]
        table = label_files.LabelTable({f"{i:06d}": ("cat",) for i in range(number)}, None, (), ())
        monkeypatch.setattr(predict, "_images_at", lambda _, uris=uris: uris)
        monkeypatch.setattr(predict, "image_id_of", lambda uri: Counted(uri[-10:-4]))
        monkeypatch.setattr(predict, "read_label_file", lambda *_, table=table, **__: table)
        Counted.calls = 0
        arguments = PredictArguments(run="run", images=("images",), out="out", labels=labels)
        targets, _ = predict._targets(arguments, ["cat"])
        assert len(targets) == number and targets[-1].labels == ((0,) if labels else None)
        asked.append(Counted.calls)
    assert asked[1] < 2.2 * asked[0] and asked[1] < 20 * 4_000


def test_two_images_of_one_name_and_images_without_labels_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(predict, "_images_at", lambda uri: [f"{uri}/a.png"])
    arguments = PredictArguments(run="run", images=("one", "two"), out="out")
    with pytest.raises(ConfigError, match="two images are called a: their masks would overwrite each other"):
        predict._targets(arguments, ["cat"])
    table = label_files.LabelTable({"b": ("cat",)}, None, (), ())
    monkeypatch.setattr(predict, "read_label_file", lambda *_, **__: table)
    with pytest.raises(DataError, match=r"1 images have no labels \(a\)"):
        predict._targets(PredictArguments(run="run", images=("one",), out="out", labels="x.csv"), ["cat"])


def test_background_and_left_out_pixels_show_nothing() -> None:
    assert shown_classes(torch.tensor([[0, 255]], dtype=torch.uint8)) == []
    assert shown_classes(torch.tensor([[0, 3, 1, 255]], dtype=torch.uint8)) == [0, 2]


def row(name: str, *labels: str, source: str = "final network", is_empty: bool = False) -> dict:
    return {"image": name, "labels": list(labels), "labels_from": source, "is_empty": is_empty}


ROWS = [
    *(row(f"{i}.png", "cat") for i in range(4)),
    row("none.png", is_empty=True),
    row("[b]low.png", source="classifier", is_empty=True),
    row("high.png", "cat", "dog", source="file", is_empty=True),
    {"image": "bad.png", "error": "bad.png is no image"},
]


def test_empty_masks_are_counted_and_named_with_the_reason() -> None:
    assert closing_line(ROWS, "CAMs", "out") == (
        "7 masks by CAMs, 3 images show none of the classes, 1 image skipped -> out"
    )
    assert empty_masks(ROWS) == ["none.png", "[b]low.png", "high.png"]
    assert list(remarkable(ROWS)) == [
        "skipped  bad.png is no image",
        "empty    none.png (the network finds no class)",
        "empty    [b]low.png (no class is probable enough, see --label-threshold)",
        "empty    high.png (no pixel of cat, dog above the threshold)",
    ]


def test_one_empty_mask_reads_as_one_and_none_is_not_spoken_of() -> None:
    assert closing_line(ROWS[:5], "CAMs", "out").startswith(
        "5 masks by CAMs, 1 image shows none of the classes, 0 images"
    )
    assert "none of the classes" not in closing_line(ROWS[:4], "CAMs", "out") and list(remarkable(ROWS[:4])) == []


def test_the_console_names_some_and_says_where_all_are() -> None:
    lines = list(remarkable([row(f"{i}.png", is_empty=True) for i in range(LISTED + 5)]))
    assert len(lines) == LISTED + 1 and lines[-1] == "empty    ... and 5 more, all in predictions.json"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "a,cat\nb,dog\n"),
        ("labels.tsv", "a\tcat\nb\tdog\n"),
        ("labels.csv", ",cat,dog\na,1,0\nb,0,1\n"),
        ("labels.json", '{"cat": ["a"], "dog": ["b"]}'),
    ],
)
def test_labels_of_targets_are_read_as_those_of_a_data_set(tmp_path, monkeypatch, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    monkeypatch.setattr(predict, "_images_at", lambda uri: [f"{uri}/a.png", f"{uri}/b.png"])
    arguments = PredictArguments(run="run", images=("one",), out="out", labels=str(tmp_path / name))
    targets, notes = predict._targets(arguments, ["cat", "dog"])
    assert [target.labels for target in targets] == [(0,), (1,)]
    assert bool(notes) == (not text.startswith(",cat"))


def test_areas_are_shares_of_all_pixels_the_largest_first() -> None:
    assert class_areas(torch.tensor([[0, 3, 3, 255], [1, 3, 0, 0]], dtype=torch.uint8)) == {2: 0.375, 0: 0.125}
    assert class_areas(torch.tensor([[0, 255]], dtype=torch.uint8)) == {}


PAINTED = [
    {**row("a.png", "cat"), "areas": {"cat": 0.5}},
    {**row("b,c.png", "cat", "dog"), "areas": {"cat": 0.1, "dog": 0.3}},
    {**row("none.png", is_empty=True), "areas": {}},
    {"image": "bad.png", "error": "bad.png is no image"},
]


def test_areas_by_class_are_over_all_masks_and_tables_also_over_those_that_show_it() -> None:
    found = areas_by_class(PAINTED, ["cat", "dog", "cow"])
    assert found["cat"] == {"images": 2, "mean_area": pytest.approx(0.2)} and found["cow"]["images"] == 0
    assert areas_table(PAINTED, ["cat", "dog", "cow"]).plain_rows() == [
        ["cat", "2", "30.0", "20.0"], ["dog", "1", "30.0", "10.0"],
    ]  # fmt: skip


def test_the_csv_has_a_column_for_each_class_and_names_errors() -> None:
    assert predictions_csv(PAINTED, ["cat", "dog"]).splitlines() == [
        "image,labels,empty,cat,dog,error",
        "a.png,cat,0,0.5,0,",
        '"b,c.png",cat;dog,0,0.1,0.3,',
        "none.png,,1,0,0,",
        "bad.png,,,,,bad.png is no image",
    ]

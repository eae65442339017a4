"""The share of a data set without splits that is held out."""

from collections import Counter
from pathlib import Path

import pytest

from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.held_out import MOST_HELD_OUT, held_out_images
from qaclims_ray.errors import ConfigError
from tests.unit.data.tiny_data_sets import folder_config, image_bytes


def labels_of(counts: dict[str, int]) -> dict[str, tuple[str, ...]]:
    return {f"{name}{number}": (name,) for name, count in counts.items() for number in range(count)}


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_every_class_of_five_images_is_in_both(share: float) -> None:
    labels = labels_of({"cat": 5, "dog": 60, "owl": 9, "rare": 2})
    held = Counter(labels[image][0] for image in held_out_images(labels, share))
    assert all(
        1 <= held[name] <= len([n for n in labels if labels[n][0] == name]) - 4 for name in ("cat", "dog", "owl")
    )
    assert held["rare"] == 0


def test_the_share_holds_over_all_and_in_each_class() -> None:
    labels = labels_of({"cat": 50, "dog": 100})
    held = Counter(labels[image][0] for image in held_out_images(labels, 0.2))
    assert held == {"cat": 10, "dog": 20}
    assert len(held_out_images(labels_of({"cat": 5000, "dog": 5000}), 0.2)) == MOST_HELD_OUT


def test_names_alone_decide() -> None:
    labels = labels_of({"cat": 40, "dog": 40})
    assert held_out_images(dict(reversed(labels.items())), 0.2) == held_out_images(labels, 0.2)


def test_few_images_and_a_share_of_0_hold_out_none() -> None:
    assert held_out_images(labels_of({"cat": 3, "dog": 3}), 0.2) == frozenset()
    assert held_out_images(labels_of({"cat": 50}), 0.0) == frozenset()
    with pytest.raises(ConfigError, match="held_out_share is 1"):
        DataConfig(dataset="folder", held_out_share=1.0)


def test_images_that_show_nothing_are_held_out_too() -> None:
    labels = {**labels_of({"cat": 20}), **{f"empty{n}": () for n in range(20)}}
    assert sum(not labels[image] for image in held_out_images(labels, 0.2)) == 4


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(image_bytes(number))
    write(tmp_path, "")
    return tmp_path


def write(root: Path, split: str) -> None:
    rows = [f"{n},{'cat' if n % 2 else 'dog'}{split and f',{split}'}" for n in range(12)]
    (root / "labels.csv").write_text("\n".join([f"image,labels{',split' * bool(split)}", *rows]))


def splits_in(root: Path, **settings: object) -> Counter[tuple[str, ...]]:
    return Counter(record.splits for record in read_folder(folder_config(root, **settings)).records)


def test_a_folder_without_splits_holds_some_out_and_says_so(twelve: Path) -> None:
    manifest = read_folder(folder_config(twelve))
    assert Counter(record.splits for record in manifest.records) == {("train",): 10, ("val",): 2}
    line = "no split is named: 2 of 12 images, chosen by name and class, are held out as val and not trained on"
    assert any(note.startswith(line) for note in manifest.notes)


def test_the_split_all_has_every_image(twelve: Path) -> None:
    assert splits_in(twelve, eval_split="all") == {("train", "all"): 10, ("all", "val"): 2}
    write(twelve, "train")
    assert splits_in(twelve, eval_split="all") == {("train", "all"): 12}


def test_splits_that_are_said_win_and_a_test_split_in_use_holds_none_out(twelve: Path) -> None:
    assert splits_in(twelve, test_split="train") == {("train",): 12}
    assert splits_in(twelve, held_out_share=0.0) == {("train",): 12}
    write(twelve, "train")
    assert splits_in(twelve) == {("train",): 12}

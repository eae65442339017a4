"""Masks whose background is another number or colour than 0 and black: refused, and mended by what is printed."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.validation import RawImage
from tests.unit.data.made_masks import MadeSet, advised, inspect, make_set, write_set

COLOURS = np.array([(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 99, 200)], np.uint8)


def table(*values: int) -> Callable[[np.ndarray, Path], None]:
    return lambda one, path: Image.fromarray(np.array(values, np.uint8)[one]).save(path)


def one_bit(one: np.ndarray, path: Path) -> None:
    Image.fromarray(one == 0).save(path)


def coloured(one: np.ndarray, path: Path) -> None:
    Image.fromarray(COLOURS[one]).save(path)


def indexed(one: np.ndarray, path: Path) -> None:
    picture = Image.fromarray((4 - one).astype(np.uint8), "P")
    picture.putpalette(COLOURS[::-1].ravel().tolist())
    picture.save(path)


def some_empty(num_classes: int, seed: int = 0) -> MadeSet:
    """Draw a set of which each third image shows nothing, and has no label."""
    made = make_set(np.random.default_rng(seed), num_classes, 24, most=2)
    maps = tuple(np.zeros_like(one) if n % 3 == 0 else one for n, one in enumerate(made.maps))
    return replace(made, maps=maps, labels=tuple(() if n % 3 == 0 else one for n, one in enumerate(made.labels)))


def report_of(made: MadeSet, images: list[RawImage], folder: Path, **settings: object) -> str:
    return "\n".join(f"{one.sort}: {one.detail}" for one in inspect(made, images, folder, **settings).faults)


def options(report: str) -> list[tuple[str, ...]]:
    lines = [line.strip() for line in report.splitlines()]
    return [tuple(shlex.split(line)[1:]) for line in lines if line.startswith("--data.mask-values")]


KINDS = {
    "255, one class": (1, table(255, 1)),
    "255": (3, table(255, 1, 2, 3)),
    "255, other order": (3, table(255, 3, 1, 2)),
    "255, other numbers": (3, table(255, 17, 21, 18)),
    "255, like VOC": (20, table(255, *range(1, 21))),
    "255, counted from 0": (3, table(255, 0, 1, 2)),
    "255, counted from 2": (3, table(255, 2, 3, 4)),
    "inverted 255": (1, table(255, 0)),
    "inverted 1": (1, table(1, 0)),
    "inverted 1 bit": (1, one_bit),
    "the number of classes": (3, table(3, 0, 1, 2)),
    "the number of classes, other order": (3, table(3, 2, 1, 0)),
    "white": (4, coloured),
    "white, indexed": (4, indexed),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("drawn", [some_empty, lambda count: make_set(np.random.default_rng(1), count, 24, most=2)])
def test_the_first_option_gives_the_masks_that_were_meant(tmp_path: Path, kind: str, drawn: Callable) -> None:
    num_classes, save = KINDS[kind]
    made = drawn(num_classes)
    images = write_set(made, tmp_path, save)
    report = report_of(made, images, tmp_path)
    if drawn is not some_empty and kind.startswith("inverted"):
        return  # each mask holds both numbers, and each image the label: nothing tells which is the background
    typed = options(report)
    assert typed, report
    found = inspect(made, images, tmp_path, mask_values=typed[0])
    assert not found.faults, (typed[0], found.faults[0].detail)
    for record, one in zip(found.records, made.maps, strict=True):
        assert np.array_equal(load_mask(str(record.mask_uri)).numpy(), one), typed[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labelled", [True, False])
def test_every_option_is_accepted_or_answered(tmp_path: Path, kind: str, labelled: bool) -> None:
    num_classes, save = KINDS[kind]
    made = some_empty(num_classes)
    images = [one if labelled else replace(one, labels=None) for one in write_set(made, tmp_path, save)]
    waiting, seen = options(report_of(made, images, tmp_path)), set()
    while waiting:
        values = waiting.pop()
        if values in seen or any(entry.endswith("=CLASS") for entry in values):
            continue
        seen.add(values)
        report = report_of(made, images, tmp_path, mask_values=values)
        assert not report or set(options(report)) - seen, (values, report)
        waiting += options(report)


@pytest.mark.parametrize("labelled", [True, False])
def test_255_for_the_background_is_refused(tmp_path: Path, labelled: bool) -> None:
    for num_classes in (1, 3, 20):
        made = make_set(np.random.default_rng(0), num_classes, 20)
        images = write_set(made, tmp_path / str(num_classes), table(255, *range(1, num_classes + 1)))
        images = [one if labelled else replace(one, labels=None) for one in images]
        report = report_of(made, images, tmp_path)
        assert "No mask holds 0" in report and advised(report)[-1] == "255=background"
        plain = tuple(f"{n + 1}={name}" for n, name in enumerate(made.class_names))
        assert "No mask holds 0" in report_of(made, images, tmp_path, mask_values=plain)
        assert not report_of(made, images, tmp_path, mask_values=options(report)[1])  # 255=ignore, said aloud


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15])
def test_images_wholly_covered_by_objects_and_void_are_right(tmp_path: Path, share: float) -> None:
    made = make_set(np.random.default_rng(0), 4, 20, background=False)
    rng = np.random.default_rng(1)
    void = made.changed(lambda one: np.where(rng.random(one.shape) < share, 255, one).astype(np.uint8))
    images = write_set(void, tmp_path)
    for given in (images, [replace(one, labels=None) for one in images]):
        assert not report_of(void, given, tmp_path)


def test_void_borders_in_white_are_ignored_by_the_option(tmp_path: Path) -> None:
    made = make_set(np.random.default_rng(0), 3, 20, borders=True)
    colours = np.array([(0, 0, 0), *COLOURS[1:4], *[(255, 255, 255)] * 252], np.uint8)
    images = write_set(made, tmp_path, lambda one, path: Image.fromarray(colours[one]).save(path))
    values = advised(report_of(made, images, tmp_path))
    assert "#ffffff=ignore" in values and not report_of(made, images, tmp_path, mask_values=values)


def test_a_wrong_choice_is_answered_with_the_right_one(tmp_path: Path) -> None:
    made = some_empty(1)
    images = write_set(made, tmp_path, table(255, 0))
    report = report_of(made, images, tmp_path, mask_values=("255=class 0",))
    assert advised(report) == ("255=background", "0=class 0")
    assert not report_of(made, images, tmp_path, mask_values=advised(report))


def test_no_label_at_all_is_no_fault_of_the_masks(tmp_path: Path) -> None:
    made = make_set(np.random.default_rng(0), 2, 6)
    report = report_of(replace(made, labels=((),) * 6), write_set(replace(made, labels=((),) * 6), tmp_path), tmp_path)
    assert "None of the 6 images with a mask has a label" in report and "remove" not in report

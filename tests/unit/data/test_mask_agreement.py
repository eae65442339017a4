"""Generated sets with a known disturbance are refused with the right diagnosis, undisturbed ones are accepted."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from qaclims_ray.data.mask_agreement import judge_masks
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.validation import RawImage
from tests.unit.data.made_masks import (
    MadeSet,
    advised,
    inspect,
    make_set,
    save_bits,
    save_colours,
    save_grey,
    save_numbered_anew,
    save_palette,
    write_set,
)

SEEDS = range(6)


def rng_of(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def report_of(made: MadeSet, images: list[RawImage], folder: Path, **settings: object) -> str:
    return "\n".join(
        f"{one.sort}: {one.subject}: {one.detail}" for one in inspect(made, images, folder, **settings).faults
    )


def unlabelled(images: list[RawImage]) -> list[RawImage]:
    return [replace(image, labels=None) for image in images]


# --- right sets, none of which may be refused

RIGHT: dict[str, Callable[[np.random.Generator], MadeSet]] = {
    "plain": lambda rng: make_set(rng, int(rng.integers(2, 21)), int(rng.integers(4, 50))),
    "one class": lambda rng: make_set(rng, 1, int(rng.integers(1, 30))),
    "one class with void borders": lambda rng: make_set(rng, 1, 12, borders=True, void=0.2),
    "rare classes": lambda rng: make_set(rng, 12, 40, chances=[0.6**n for n in range(12)]),
    "one class in nearly all": lambda rng: make_set(rng, 3, 40, most=2, chances=[20, 1, 1]),
    "tiny": lambda rng: make_set(rng, int(rng.integers(1, 6)), int(rng.integers(1, 4))),
    "like VOC": lambda rng: make_set(rng, 20, 60, borders=True, void=0.05, unlabelled=0.02),
    "much void": lambda rng: make_set(rng, 20, 60, borders=True, void=0.3),
    "much void, few": lambda rng: make_set(rng, 3, 14, borders=True, void=0.3),
    "no background": lambda rng: make_set(rng, 4, 20, background=False),
    "as if counted": lambda rng: make_set(rng, 3, 20, most=3, chances=[8, 4, 1]),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_right_sets_are_accepted(tmp_path: Path, kind: str) -> None:
    for seed in SEEDS:
        made = RIGHT[kind](rng_of(seed))
        images = write_set(made, tmp_path / str(seed), save_palette if seed % 2 else save_grey)
        found = inspect(made, images, tmp_path)
        assert not found.faults, (seed, found.faults[0].detail)
        assert len(found.notes) <= 1
        if "void" not in kind and kind != "like VOC":
            assert not found.notes
        assert not inspect(made, unlabelled(images), tmp_path).faults


def test_masks_of_some_images_are_enough(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 6, 30)
        images = write_set(made, tmp_path / str(seed))
        few = [image if n % 5 == 0 else replace(image, mask_uri=None) for n, image in enumerate(images)]
        assert not inspect(made, few, tmp_path).faults


def test_masks_may_tell_a_class_that_only_some_labels_name(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 2, 30, most=2)
        # The second class alone is labelled wherever both are seen.
        fewer = replace(made, labels=tuple((1,) if one == (0, 1) else one for one in made.labels))
        found = inspect(fewer, write_set(fewer, tmp_path / str(seed)), tmp_path)
        assert not found.faults, found.faults[0].detail
        assert "held unlabelled by" in found.notes[0]


def test_images_without_label_agree_with_empty_masks(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 2, 10)
    empty = replace(
        made,
        maps=(*made.maps, *[np.zeros_like(made.maps[0])] * 5),
        labels=(*made.labels, *[()] * 5),
    )
    found = inspect(empty, write_set(empty, tmp_path), tmp_path)
    assert not found.faults and not found.notes


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp", ".gif"])
def test_every_container_is_accepted(tmp_path: Path, ending: str) -> None:
    made = make_set(rng_of(1), 20, 12)
    # GIF and BMP keep the numbers of a palette picture whose palette is whole and in use.
    images = write_set(made, tmp_path, lambda one, path: Image.fromarray(one).save(path), ending)
    if ending != ".gif":
        assert not inspect(made, images, tmp_path).faults


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_few_bits_are_enough_for_few_classes(tmp_path: Path, bits: int) -> None:
    made = make_set(rng_of(bits), 2**bits - 1, 12)
    images = write_set(made, tmp_path, lambda one, path: save_bits(one, path, bits))
    assert not inspect(made, images, tmp_path).faults and not inspect(made, unlabelled(images), tmp_path).faults


def test_a_little_disagreement_is_one_remark_with_counts(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 5, 40, most=2)
        maps = [*made.maps]
        maps[3] = np.zeros_like(maps[3])
        maps[7] = np.where(maps[7] == 0, made.labels[7][0] % 4 + 2, maps[7]).astype(np.uint8)
        noisy = replace(made, maps=tuple(maps))
        found = inspect(noisy, write_set(noisy, tmp_path / str(seed)), tmp_path)
        assert not found.faults
        (note,) = found.notes
        assert "masks and image labels differ in" in note and "of 40 images" in note and "003" in note


# --- wrong sets


def check_mended(
    made: MadeSet, images: list[RawImage], folder: Path, report: str, *, same: bool = True, **settings: object
) -> None:
    """What the report advises is accepted, and gives the masks that were meant."""
    values = advised(report)
    assert values, report
    found = inspect(made, images, folder, mask_values=values, **settings)
    assert not found.faults, (values, found.faults[0].detail)
    if same:
        for record, one in zip(found.records, made.maps, strict=True):
            assert np.array_equal(load_mask(str(record.mask_uri)).numpy(), one)


def test_0_and_255_mean_the_one_class(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 1, int(rng_of(seed).integers(1, 20)))
        images = write_set(made.changed(lambda one: one * np.uint8(255)), tmp_path / str(seed))
        for given in (images, unlabelled(images)):
            report = report_of(made, given, tmp_path)
            assert "255 means ignored here" in report and advised(report) == ("255=class 0",)
            check_mended(made, given, tmp_path, report)


def test_0_and_255_cannot_tell_classes_apart(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 3, 12)
    images = write_set(made.changed(lambda one: np.where(one > 0, 255, 0).astype(np.uint8)), tmp_path)
    for given in (images, unlabelled(images)):
        assert "do not tell 3 classes apart" in report_of(made, given, tmp_path)


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_value(tmp_path: Path, value: int) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), seed + 1, 6)
        images = write_set(made.changed(lambda one: np.full_like(one, value)), tmp_path / str(seed))
        for given in (images, unlabelled(images)):
            assert f"Every pixel of every mask is {value}" in report_of(made, given, tmp_path)


def test_one_class_everywhere_where_others_are_labelled(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 4, 20, most=1)
        images = write_set(made.changed(lambda one: np.full_like(one, 2)), tmp_path / str(seed))
        report = report_of(made, images, tmp_path)
        assert "masks contradict the image labels" in report and "there masks hold 2" in report


@pytest.mark.parametrize("save", [save_grey, save_palette])
def test_permuted_classes(tmp_path: Path, save: Callable) -> None:
    for seed in range(10):
        rng = rng_of(seed)
        num_classes = int(rng.integers(2, 9))
        made = make_set(rng, num_classes, 8 + 5 * num_classes, most=2, void=0.05, unlabelled=0.02)
        order = np.arange(256, dtype=np.uint8)
        order[1 : num_classes + 1] = np.roll(order[1 : num_classes + 1], int(rng.integers(1, num_classes)))
        images = write_set(made.changed(lambda one, order=order: order[one]), tmp_path / str(seed), save)
        report = report_of(made, images, tmp_path)
        assert "in another order than the classes" in report, (seed, report)
        if seed < 3:
            check_mended(made, images, tmp_path / str(seed), report)


def test_two_images_with_each_others_class(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 2, 2, most=1)
    swapped = replace(made, labels=((0,), (1,)), maps=(np.full((16, 16), 2, np.uint8), np.full((16, 16), 1, np.uint8)))
    report = report_of(swapped, write_set(swapped, tmp_path), tmp_path)
    assert advised(report) == ("1=class 1", "2=class 0")


def test_all_numbers_one_too_high(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), seed + 2, 8 + 4 * seed)
        images = write_set(made.changed(lambda one: one + np.uint8(1)), tmp_path / str(seed))
        for given in (images, unlabelled(images)):
            report = report_of(made, given, tmp_path)
            assert "one too high" in report, report
            check_mended(made, given, tmp_path / str(seed), report)


def test_classes_counted_from_0(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), seed + 2, 16 + 4 * seed)
        images = write_set(
            made.changed(lambda one: np.where(one > 0, one - 1, 255).astype(np.uint8)), tmp_path / str(seed)
        )
        report = report_of(made, images, tmp_path)
        assert "count from 0" in report and "255=background" in report
        check_mended(made, images, tmp_path / str(seed), report, same=False)


def instances(made: MadeSet, rng: np.random.Generator) -> MadeSet:
    """Number the objects of each image from 1, one to three for each class."""
    maps = []
    for one in made.maps:
        numbered, count = np.zeros_like(one), 0
        for value in sorted(set(one.ravel().tolist()) - {0}, key=lambda _: rng.random()):
            places = np.flatnonzero(one.ravel() == value)
            for part in np.array_split(places, int(rng.integers(1, 4))):
                count += 1
                numbered.ravel()[part] = count
        maps.append(numbered)
    return replace(made, maps=tuple(maps))


def test_numbers_of_objects(tmp_path: Path) -> None:
    for seed in range(10):
        made = make_set(rng_of(seed), 3 + seed, 30, most=3)
        images = write_set(instances(made, rng_of(seed)), tmp_path / str(seed))
        report = report_of(made, images, tmp_path)
        assert "instances" in report, (seed, report)
    report = report_of(made, unlabelled(images), tmp_path)
    assert "instances" in report


def test_numbers_of_objects_of_one_class(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 1, 20)
        images = write_set(instances(made, rng_of(seed)), tmp_path / str(seed))
        for given in (images, unlabelled(images)):
            report = report_of(made, given, tmp_path)
            assert "instances" in report and advised(report) == ("nonzero=class 0",)
            check_mended(made, given, tmp_path / str(seed), report)


def test_numbers_of_objects_in_16_bits(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 3, 20)
    counter = iter(range(256, 9999))
    images = write_set(
        made, tmp_path, lambda one, path: Image.fromarray(one.astype(np.uint16) * next(counter)).save(path)
    )
    for given in (images, unlabelled(images)):
        assert "probably numbers of single objects (instances)" in report_of(made, given, tmp_path)


@pytest.mark.parametrize("save", [save_numbered_anew, save_colours])
def test_vocs_colours_under_other_numbers(tmp_path: Path, save: Callable) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 20, 24, borders=True, void=0.05)
        images = write_set(made, tmp_path / str(seed), save)
        for given in (images, unlabelled(images)):
            report = report_of(made, given, tmp_path)
            assert ("numbered the palette anew" in report) == (save is save_numbered_anew), report
            assert advised(report) == ("voc-colours",)
            check_mended(made, given, tmp_path / str(seed), report)


def test_other_colours_are_matched_with_the_labels(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 4, 30, most=2)
        colours = rng_of(seed).integers(1, 255, (256, 3)).astype(np.uint8)
        colours[0] = 0
        images = write_set(
            made, tmp_path / str(seed), lambda one, path, colours=colours: Image.fromarray(colours[one]).save(path)
        )
        report = report_of(made, images, tmp_path)
        assert "masks in colours" in report
        check_mended(made, images, tmp_path / str(seed), report)


@pytest.mark.parametrize("bits", [1, 2])
def test_too_few_bits_for_the_classes(tmp_path: Path, bits: int) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 3 * 2**bits, 40, most=1)
        images = write_set(
            made.changed(lambda one: np.minimum(one, 2**bits - 1)),
            tmp_path / str(seed),
            lambda one, path: save_bits(one, path, bits),
        )
        for given in (images, unlabelled(images)):
            report = report_of(made, given, tmp_path)
            assert "instances" in report or f"have {bits} bit" in report, report


def test_values_spread_to_be_seen(tmp_path: Path) -> None:
    for seed, (num_classes, step) in enumerate([(1, 128), (2, 127), (2, 100), (3, 85), (5, 50), (4, 60), (10, 25)]):
        made = make_set(rng_of(seed), num_classes, 6 * num_classes, most=2)
        images = write_set(made.changed(lambda one, step=step: one * np.uint8(step)), tmp_path / str(seed))
        for given in (images, unlabelled(images)):
            report = report_of(made, given, tmp_path)
            check_mended(made, given, tmp_path / str(seed), report)


def test_0_128_255(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 1, 10)
    table = np.array([0, 255], np.uint8)
    maps = []
    for one in made.maps:
        grey = table[one]
        grey[0] = 128
        maps.append(grey)
    images = write_set(replace(made, maps=tuple(maps)), tmp_path)
    report = report_of(made, images, tmp_path)
    assert set(advised(report)) == {"128=ignore", "255=class 0"}
    check_mended(made, images, tmp_path, report, same=False)


def test_smoothed_masks(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 1, 10)

    def save(one: np.ndarray, path: Path) -> None:
        Image.fromarray(one * np.uint8(255)).filter(ImageFilter.GaussianBlur(3)).save(path)

    report = report_of(made, write_set(made, tmp_path, save), tmp_path)
    assert "smoothing" in report and advised(report) == ("nonzero=class 0",)


def test_masks_of_other_images(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 6, 40, most=2)
        order = rng_of(seed + 1).permutation(40)
        other = replace(made, maps=tuple(made.maps[n] for n in order))
        report = report_of(made, write_set(other, tmp_path / str(seed)), tmp_path)
        assert "masks of other images" in report, report


def test_masks_that_nobody_drew(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 4, 40)
    maps = [one if n % 8 == 0 else np.zeros_like(one) for n, one in enumerate(made.maps)]
    report = report_of(made, write_set(replace(made, maps=tuple(maps)), tmp_path), tmp_path)
    assert "35 of 40 masks hold no class though their images are labelled" in report


def test_a_class_that_no_mask_holds(tmp_path: Path) -> None:
    for seed in SEEDS:
        made = make_set(rng_of(seed), 5, 60, most=2)
        images = write_set(made.changed(lambda one: np.where(one == 3, 0, one).astype(np.uint8)), tmp_path / str(seed))
        report = report_of(made, images, tmp_path)
        assert "no mask holds class 2, which is labelled" in report, report


def test_a_few_values_beyond_the_classes(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 3, 30)
    made.maps[4][0] = 9
    images = write_set(made, tmp_path)
    for given in (images, unlabelled(images)):
        report = report_of(made, given, tmp_path)
        assert "1 of 30 masks hold numbers of no class: 9 in 1 (e.g. 004)" in report
        assert advised(report) == ("1=class 0", "2=class 1", "3=class 2", "9=ignore")
        check_mended(made, given, tmp_path, report, same=False)


# --- what a user decides


def test_a_contradiction_may_be_remarked_alone(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 1, 6)
    images = write_set(made.changed(lambda one: one * np.uint8(255)), tmp_path)
    found = inspect(made, images, tmp_path, mask_check="warn")
    assert not found.faults and "255 means ignored here" in found.notes[0] and len(found.records) == 6


def test_wrong_mask_values_are_found_and_mended(tmp_path: Path) -> None:
    made = make_set(rng_of(0), 3, 30)
    images = write_set(made, tmp_path)
    report = report_of(made, images, tmp_path, mask_values=("1=class 1", "2=class 2", "3=class 0"))
    assert set(advised(report)) == {"1=class 0", "2=class 1", "3=class 2"}


def test_without_the_check_a_sample_is_held_against_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_set(rng_of(0), 1, 40)
    images = write_set(made.changed(lambda one: one * np.uint8(255)), tmp_path)
    monkeypatch.setattr("qaclims_ray.data.inspection.MASK_SAMPLE", 10)
    (fault,) = inspect(made, images, tmp_path, check_images=False).faults
    assert fault.subject == "10 masks" and "255 means ignored" in fault.detail


def test_nothing_is_said_of_no_masks() -> None:
    from qaclims_ray.data.config import DataConfig

    assert judge_masks([], ("a",), DataConfig(dataset="folder")).refusals == ()

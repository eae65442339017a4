from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.inspection import inspect_images
from qaclims_ray.data.validation import (
    MAX_LISTED_FAULTS,
    Fault,
    RawImage,
    check_splits,
    fail_on,
    unknown_label,
    unscored_note,
)
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import image_bytes, mask_bytes

FOLDER = DataConfig(dataset="folder")


def faults_of(sort: str, count: int) -> list[Fault]:
    return [Fault(sort, f"{sort}-{n}", "wrong") for n in range(count)]


def report_of(faults: list[Fault]) -> str:
    with pytest.raises(DataError) as caught:
        fail_on(faults, "/data")
    return str(caught.value)


def test_without_faults_nothing_happens() -> None:
    fail_on([], "/data")


def test_faults_are_grouped_counted_and_told_once() -> None:
    report = report_of([*faults_of("red", 2), *faults_of("blue", 1), *faults_of("red", 2)])
    assert report.splitlines() == [
        "the data set at /data has 3 faults; mend all of them before a run:",
        "red (2):",
        "  red-0: wrong",
        "  red-1: wrong",
        "blue (1):",
        "  blue-0: wrong",
    ]


@pytest.mark.parametrize("counts", [(4000,), (4000, 3), (30, 30, 30), (1, 2, 49), tuple([2] * 80)])
def test_a_long_report_is_cut_but_every_sort_is_shown(counts: tuple[int, ...]) -> None:
    report = report_of([fault for sort, count in enumerate(counts) for fault in faults_of(f"sort{sort}", count)])
    listed = [line for line in report.splitlines() if line.endswith(": wrong")]
    assert f"has {sum(counts)} faults" in report
    assert len(listed) <= max(MAX_LISTED_FAULTS, len(counts))
    assert len(listed) >= min(MAX_LISTED_FAULTS - 2, sum(counts))
    for sort, count in enumerate(counts):
        assert f"sort{sort} ({count}):" in report and f"  sort{sort}-0: wrong" in report
    assert ("more" in report) == (len(listed) < sum(counts))


def test_a_rare_sort_is_shown_whole_beside_a_frequent_one() -> None:
    report = report_of([*faults_of("frequent", 4000), *faults_of("rare", 5)])
    assert report.count("rare-") == 5 and "... and 3955 more" in report


def test_an_unknown_label_comes_with_its_likely_spelling() -> None:
    known = [f"class{n}" for n in range(30)] + ["dining table"]
    assert unknown_label("a", ["dinning table", "x"], known).detail == (
        "'dinning table', 'x'; did you mean 'dining table'?"
    )
    assert unknown_label("a", ["zzz"], known[:9]).detail.endswith("the classes are " + ", ".join(known[:8]) + ", ...")
    assert unknown_label("a", ["zzz"], known[:2]).detail.endswith("the classes are class0, class1")


def raw(folder: Path, image_id: str, **changes: object) -> RawImage:
    values: dict = {"labels": (0,), "mask_uri": None, "context_uri": None, "splits": ("train",), **changes}
    return RawImage(image_id, f"{folder}/{image_id}.jpg", **values)


def test_sound_images_become_records_and_broken_ones_faults(tmp_path: Path) -> None:
    (tmp_path / "good.jpg").write_bytes(image_bytes())
    records, faults, notes = inspect_images([raw(tmp_path, "good"), raw(tmp_path, "gone")], ("a",), FOLDER)
    assert notes == []
    assert [(r.image_id, r.width, r.height, r.labels) for r in records] == [("good", 24, 16, (0,))]
    assert [(fault.sort, fault.subject) for fault in faults] == [("unreadable image", "gone")]


def test_image_and_mask_are_judged_apart(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"")
    (tmp_path / "a.png").write_bytes(mask_bytes([3]))
    images = [raw(tmp_path, "a", mask_uri=f"{tmp_path}/a.png", context_uri=f"{tmp_path}/absent.png")]
    faults = inspect_images(images, ("a", "b"), FOLDER).faults
    assert {fault.sort for fault in faults} == {
        "unreadable image",
        "mask values beyond the classes",
        "unreadable context map",
    }


@pytest.mark.parametrize(("class_id", "is_fault"), [(0, False), (1, False), (2, True), (253, True), (254, False)])
def test_mask_values_go_up_to_the_last_class_and_255_is_void(tmp_path: Path, class_id: int, is_fault: bool) -> None:
    (tmp_path / "a.jpg").write_bytes(image_bytes())
    (tmp_path / "a.png").write_bytes(mask_bytes([class_id]))
    image = raw(tmp_path, "a", labels=(min(class_id, 1),), mask_uri=f"{tmp_path}/a.png")
    sorts = {fault.sort for fault in inspect_images([image], ("a", "b"), FOLDER).faults}
    assert ("mask values beyond the classes" in sorts) == is_fault


def test_labels_from_a_mask_leave_out_background_and_void(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(image_bytes())
    (tmp_path / "a.png").write_bytes(mask_bytes([4, 1]))
    for decode in (True, False):
        images = [raw(tmp_path, "a", labels=None, mask_uri=f"{tmp_path}/a.png")]
        config = DataConfig(dataset="folder", check_images=decode)
        assert inspect_images(images, tuple("abcde"), config).records[0].labels == (1, 4)


def turned(folder: Path, orientation: int, mask_size: tuple[int, int], size: tuple[int, int] = (24, 16)) -> RawImage:
    """Write a photograph, stored at a size with an EXIF orientation, and a mask."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", size).save(folder / "a.jpg", exif=exif)
    (folder / "a.png").write_bytes(mask_bytes([0], size=mask_size))
    return raw(folder, "a", mask_uri=f"{folder}/a.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("decode", [True, False])
def test_a_mask_of_the_upright_photograph_fits_and_turned_ones_are_noted(
    tmp_path: Path, orientation: int, decode: bool
) -> None:
    upright = (16, 24) if orientation >= 5 else (24, 16)
    (record,), faults, notes = inspect_images(
        [turned(tmp_path, orientation, upright)], ("a",), DataConfig(dataset="folder", check_images=decode)
    )
    assert (record.width, record.height) == upright and not faults
    assert bool(notes) == (orientation != 1)
    if notes:
        assert notes[0].startswith("1 photographs with masks are turned upright by their EXIF orientation (a); look")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_of_the_stored_pixels_is_called_so(tmp_path: Path, orientation: int) -> None:
    stored = (24, 16)
    faults = inspect_images([turned(tmp_path, orientation, stored)], ("a",), FOLDER)[1]
    assert bool(faults) == (orientation >= 5)
    if faults:
        assert faults[0].sort == "mask of a photograph that is turned"
        assert f"EXIF orientation {orientation} turns the photograph to 16 x 24: turn the mask" in faults[0].detail


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_mask_that_a_tag_of_its_own_turns_is_called_so(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (24, 16), 1).save(tmp_path / f"m.{ending}", exif=exif)
    image = replace(turned(tmp_path, 1, (24, 16)), mask_uri=f"{tmp_path}/m.{ending}")
    faults = inspect_images([image], ("a",), FOLDER)[1]
    assert [one.sort for one in faults] == (["mask that is turned"] if orientation >= 5 else [])
    if faults:
        assert f"its own EXIF orientation {orientation} turns it to 16 x 24: remove the tag" in faults[0].detail


def test_a_mask_of_another_size_is_a_plain_mismatch(tmp_path: Path) -> None:
    for orientation in (1, 6):
        (fault,) = inspect_images([turned(tmp_path, orientation, (20, 20))], ("a",), FOLDER)[1]
        assert fault.sort == "size mismatch" and "mask is 20 x 20, the image is" in fault.detail


def test_splits_need_images_and_those_without_a_mask_are_not_scored() -> None:
    images = [
        RawImage("a", "a.jpg", (), "a.png", None, ("train", "val")),
        RawImage("b", "b.jpg", (), None, None, ("train",)),
    ]
    assert check_splits(["train", "val"], images) == []
    assert [f.sort for f in check_splits(["train", "test"], images)] == ["empty split"]
    assert unscored_note(images, "val") == []
    (some,), (none,) = unscored_note(images, "train"), unscored_note(images[1:], "train")
    assert some.startswith("1 of 2 images of the scored split train have a mask") and "(without one: b)" in some
    assert none == "no image of split train has a mask: nothing can be scored"

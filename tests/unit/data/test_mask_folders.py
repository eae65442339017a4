"""Masks as people call them."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_folders import MASK_SUFFIXES, find_masks
from qaclims_ray.data.voc import read_voc
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import folder_config, image_bytes, mask_bytes, voc_config

MakeFolder = Callable[..., Path]
MakeVoc = Callable[..., Path]
IDS = ("a", "b", "c")
PATTERNS = (
    "{id}", "{id}.jpg", "{id}.JPEG", "{id}_mask", "{id}-mask", "{id}.mask", "{id} mask", "{id}_Mask", "{id}_MASK",
    "{id}_masks", "{id}mask", "{id}_seg", "{id}_segmentation", "{id}_label", "{id}_labels", "{id}_lbl", "{id}_gt",
    "{id}_GT", "{id}-groundtruth", "{id}_ground_truth", "{id}_annotation", "{id}_labelIds", "{id}_gtFine_labelTrainIds",
    "{id}_seg_mask", "{id}.jpg_mask", "{id}_mask.jpg", "mask_{id}", "Mask-{id}", "seg_{id}", "label_{id}", "gt_{id}",
    "mask_{id}.jpg",
)  # fmt: skip
"""Names of a mask, without the ending."""
image_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.\- ]{0,6}(_mask|-seg|_gt|_label)?", fullmatch=True).filter(
    lambda name: (
        not name.lower().endswith((".jpg", ".png", ".jpeg")) and name == name.strip() and not name.endswith(".")
    )
)


def masks_of(manifest: Manifest) -> dict[str, str | None]:
    return {record.image_id: record.mask_uri and Path(record.mask_uri).name for record in manifest.records}


def put(folder: Path, *names: str, content: bytes = b"") -> str:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(content or mask_bytes([0]))
    return str(folder)


def rename(folder: Path, pattern: str, ending: str) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(folder / f"{pattern.format(id=path.stem)}{ending}")


def report_of(read: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        read()
    return str(caught.value)


# --- names that are understood


@given(
    ids=st.lists(image_ids, min_size=1, max_size=6, unique_by=str.casefold),
    pattern=st.sampled_from(PATTERNS),
    ending=st.sampled_from([form for suffix in MASK_SUFFIXES for form in (suffix, suffix.upper(), suffix.title())]),
)
def test_each_mask_finds_its_image(
    tmp_path_factory: pytest.TempPathFactory, ids: Sequence[str], pattern: str, ending: str
) -> None:
    names = {name: f"{pattern.format(id=name)}{ending}" for name in ids}
    folder = put(tmp_path_factory.mktemp("masks"), *names.values(), content=b"x")
    found = find_masks(folder, ids)
    assert {name: Path(uri).name for name, uri in found.by_image.items()} == names and not found.faults


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("ending", [".png", ".PNG", ".tif", ".bmp"])
def test_both_readers_find_them(make_folder: MakeFolder, make_voc: MakeVoc, pattern: str, ending: str) -> None:
    folder = make_folder(masks={"a": (0, 1), "b": (2,), "c": ()})
    rename(folder / "masks", pattern, ending)
    read = read_folder(folder_config(folder, check_images=False))
    assert masks_of(read) == {name: f"{pattern.format(id=name)}{ending}" for name in IDS}
    assert "masks: 3 of 3 images have one" in read.notes
    voc = make_voc()
    rename(voc / "SegmentationClass", pattern, ending)
    read = read_voc(voc_config(voc, check_images=False))
    assert all(mask == f"{pattern.format(id=name)}{ending}" for name, mask in masks_of(read).items())
    if pattern == "{id}_mask":
        assert any("4 masks in" in note and "are called IMAGE_mask" in note for note in read.notes)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["img_1", "img_2"], ["mask_1.png", "mask_2.png"]),
        (["1_image", "2_image"], ["1_mask.png", "2_mask.png"]),
        (["1_sat", "2_sat"], ["1_mask.png", "2_mask.png"]),
        (["aachen_0_leftImg8bit"], ["aachen_0_gtFine_labelIds.png"]),
        (["IMG_1", "IMG_2"], ["img_1.png", "img_2_mask.png"]),
        (["caf\u00e9"], ["cafe\u0301.png"]),  # one letter, and a letter with its accent apart
    ],
)
def test_marks_of_images_letters_and_accents_do_not_matter(
    tmp_path: Path, images: Sequence[str], masks: Sequence[str]
) -> None:
    found = find_masks(put(tmp_path / "masks", *masks), images)
    assert [Path(found.by_image[name]).name for name in images] == masks and not found.faults


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        (["a", "a_mask"], ["a.png", "a_mask.png"], {"a": "a.png", "a_mask": "a_mask.png"}),
        (["a", "a_mask"], ["a_mask.png", "a_mask_mask.png"], {"a": "a_mask.png", "a_mask": "a_mask_mask.png"}),
        (["a", "a_mask"], ["a_mask.png"], {"a_mask": "a_mask.png"}),
        (["a", "mask_a"], ["mask_a.png", "mask_mask_a.png"], {"a": "mask_a.png", "mask_a": "mask_mask_a.png"}),
        (["img_1", "photo_1"], ["img_1.png", "mask_1.png"], {"img_1": "img_1.png"}),
        (["a", "A"], ["a.png", "A.png"], {"a": "a.png", "A": "A.png"}),
        (
            ["a", "b", "a_mask_1"],
            ["a.png", "b_mask_1.png", "a_mask_1.png"],
            {"a": "a.png", "b": "b_mask_1.png", "a_mask_1": "a_mask_1.png"},
        ),
        (["a", "a_mask"], ["a_mask_1.png"], {"a": "a_mask_1.png"}),
    ],
)
def test_ids_that_look_like_masks_are_kept_apart(
    tmp_path: Path, images: Sequence[str], masks: Sequence[str], expected: dict[str, str]
) -> None:
    found = find_masks(put(tmp_path / "masks", *masks), images)
    assert {name: Path(uri).name for name, uri in found.by_image.items()} == expected and not found.faults


@pytest.mark.parametrize("mark", ["IMAGE_P", "IMAGE_manual1", "ann-IMAGE", "IMAGE.part.1"])
def test_a_mark_that_all_masks_share_is_understood_and_told(make_folder: MakeFolder, mark: str) -> None:
    root = make_folder(masks={"a": (0, 1), "b": (2,), "c": ()})
    rename(root / "masks", mark.replace("IMAGE", "{id}"), ".png")
    read = read_folder(folder_config(root))
    assert masks_of(read) == {name: f"{mark.replace('IMAGE', name)}.png" for name in IDS}
    assert any(note.endswith(f"are called {mark}") for note in read.notes)


@pytest.mark.parametrize(
    "names",
    [
        ("a_P.png", "b_Q.png", "c_P.png"),  # no one mark
        ("a_0.png", "a_1.png", "b_0.png"),  # two of one image
        ("a_color.png", "b_color.png", "c_color.png"),  # pictures made of masks
        ("aP.png", "bP.png", "cP.png"),
    ],
)
def test_a_mark_is_not_guessed(make_folder: MakeFolder, names: Sequence[str]) -> None:
    root = make_folder()
    put(root / "masks", *names)
    assert "masks of no image (1):" in report_of(lambda: read_folder(folder_config(root)))


@pytest.mark.parametrize("name", ["masks", "Masks", "MASKS", "mask", "Mask"])
def test_the_folder_may_be_spelled_in_any_case(make_folder: MakeFolder, name: str) -> None:
    root = make_folder(masks={"a": (0, 1), "b": (2,), "c": ()})
    (root / "masks").rename(root / name)
    assert set(masks_of(read_folder(folder_config(root))).values()) == {"a.png", "b.png", "c.png"}


@pytest.mark.parametrize("name", ["images", "Images", "imgs", "image", "JPEGImages"])
@pytest.mark.parametrize("ending", [".JPG", ".Jpeg", ".jpe", ".jfif", ".PNG", ".TIFF", ".WEBP"])
def test_images_may_have_any_ending_and_folder(make_folder: MakeFolder, name: str, ending: str) -> None:
    root = make_folder()
    (root / name).mkdir()
    for path in [*root.glob("*.jpg"), *root.glob("*.png")]:
        path.rename(root / name / f"{path.stem}{ending}")
    assert [record.image_id for record in read_folder(folder_config(root)).records] == list(IDS)


def test_hidden_files_are_no_pictures(make_folder: MakeFolder) -> None:
    root = make_folder(masks={"a": (0, 1), "b": (2,), "c": ()})
    for name in ("._a.jpg", ".DS_Store", "masks/._a.png"):
        (root / name).write_bytes(b"resource fork")
    read = read_folder(folder_config(root))
    assert len(read.records) == 3 and not any("not used" in note for note in read.notes)


# --- what is refused, or told


def test_two_masks_of_one_image(make_folder: MakeFolder, make_voc: MakeVoc) -> None:
    root = make_folder(masks={"a": (0,), "b": (2,), "c": ()})
    put(root / "masks", "a_mask.png", "b.tif")
    report = report_of(lambda: read_folder(folder_config(root)))
    assert (
        "two masks (2):" in report
        and "masks has a.png, a_mask.png: merge them into one" in report
        and "b.png, b.tif" in report
    )
    voc = make_voc()
    put(voc / "SegmentationClass", "2007_01_mask.png")
    assert "two masks (1):\n  2007_01" in report_of(lambda: read_voc(voc_config(voc)))


@pytest.mark.parametrize("second", ["a_mask_1", "a_mask1", "a_mask (2)", "a_mask(2)", "a-seg-02"])
def test_numbered_masks_are_several_of_one_image(make_folder: MakeFolder, second: str) -> None:
    root = make_folder(masks={"b": (2,), "c": ()})
    put(root / "masks", "a_mask.png", f"{second}.png")
    report = report_of(lambda: read_folder(folder_config(root)))
    assert "two masks (1):\n  a: " in report and second in report and "merge them into one" in report


def test_an_empty_folder_of_masks_is_told(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "masks").mkdir()
    assert f"{root / 'masks'} is there and empty: it gives no masks" in read_folder(folder_config(root)).notes


def test_a_preview_beside_a_mask_is_no_second_one(make_folder: MakeFolder) -> None:
    root = make_folder(masks={"a": (0, 1), "b": (2,), "c": ()})
    put(root / "masks", "a.jpg", "b_color.png", "notes.txt")
    notes = read_folder(folder_config(root)).notes
    assert any("3 files in" in note and "a.jpg, b_color.png, notes.txt" in note for note in notes)


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".jfif"])
def test_masks_compressed_with_loss(make_folder: MakeFolder, ending: str) -> None:
    root = make_folder()
    put(root / "masks", *(f"{name}{ending}" for name in IDS))
    report = report_of(lambda: read_folder(folder_config(root, check_images=False)))
    assert "masks compressed with loss (3):" in report and "changes label values; expected a PNG" in report


def test_masks_of_no_image_at_all(make_folder: MakeFolder, make_voc: MakeVoc) -> None:
    root = make_folder()
    put(root / "masks", "0001.png", "0002.png", "0003.png", "0004.png")
    report = report_of(lambda: read_folder(folder_config(root)))
    assert "none of the 4 masks (0001.png, 0002.png, 0003.png, ...) belongs to one of the 3 images (a, b, c)" in report
    voc = make_voc()
    rename(voc / "SegmentationClass", "other{id}x", ".png")
    assert "masks of no image (1):" in report_of(lambda: read_voc(voc_config(voc)))


def test_masks_of_some_images_that_are_not_there_are_told(make_folder: MakeFolder) -> None:
    root = make_folder(masks={"a": (0, 1), "b": (2,), "c": (), "d": (), "e": ()})
    notes = read_folder(folder_config(root)).notes
    assert any("2 files in" in note and "belong to no image, and are not used: d.png, e.png" in note for note in notes)


@pytest.mark.parametrize("name", ["a.npy", "a.txt", "train/a.png"])
def test_a_folder_of_masks_without_any(make_folder: MakeFolder, name: str) -> None:
    root = make_folder()
    (root / "masks" / name).parent.mkdir(parents=True)
    (root / "masks" / name).write_bytes(b"x")
    report = report_of(lambda: read_folder(folder_config(root)))
    assert "no mask found (1):" in report and (Path(name).suffix if "/" not in name else "train") in report


@pytest.mark.parametrize("name", ["labels", "annotations", "Segmentations", "SegmentationClassPNG", "gt"])
def test_masks_in_a_folder_of_another_name_are_told(make_folder: MakeFolder, make_voc: MakeVoc, name: str) -> None:
    root = make_folder()
    put(root / name, "a.png", "b_mask.png")
    notes = read_folder(folder_config(root)).notes
    assert any(re.search(rf"{name} is not read, .* masks of 2 images \(a\.png\)", note) for note in notes)
    assert any("nothing can be scored" in note for note in notes)
    voc = make_voc()
    put(voc / name, "2007_01.png")
    assert any(f"{name} is not read" in note for note in read_voc(voc_config(voc)).notes)


def test_masks_among_the_images(make_folder: MakeFolder) -> None:
    root = make_folder()
    put(root, "a_mask.png", "b_mask.png", content=image_bytes(suffix=".png"))
    report = report_of(lambda: read_folder(folder_config(root)))
    assert "2 files are called as masks of other images (a_mask.png, b_mask.png); move them to a folder masks" in report


def test_an_image_without_labels_is_not_called_a_mask(make_folder: MakeFolder) -> None:
    root = make_folder()
    put(root, "a_2.png", content=image_bytes(suffix=".png"))
    report = report_of(lambda: read_folder(folder_config(root)))
    assert "missing labels (1):" in report and "masks among the images" not in report


def test_photographs_that_are_not_read_are_told(make_folder: MakeFolder) -> None:
    root = make_folder()
    put(root, "IMG_1.HEIC", "IMG_2.heic", "d.dng", content=b"x")
    (note,) = [note for note in read_folder(folder_config(root)).notes if "not read" in note]
    assert "3 pictures in" in note and ".heic 2, .dng 1" in note and "convert them" in note
    (root / "labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,dog\nc.png,\nIMG_1.HEIC,cat\n")
    assert "unread pictures (1):" in report_of(lambda: read_folder(folder_config(root)))


def test_a_folder_without_images_says_what_it_has(tmp_path: Path) -> None:
    put(tmp_path, "labels.csv", content=b"image,labels\na.jpg,cat\n")
    put(tmp_path / "train", "a.jpg")
    put(tmp_path, "a.heic", content=b"x")
    report = report_of(lambda: read_folder(folder_config(tmp_path)))
    assert "there is no image in" in report and ".heic 1" in report and "folders train" in report


# --- VOC's two sorts of masks, and its labels


def test_masks_of_both_sorts_are_counted(make_voc: MakeVoc) -> None:
    root = make_voc()
    for name in ("2007_01", "2007_02", "2007_03"):
        put(root / "SegmentationClassAug", f"{name}.png", content=(root / f"SegmentationClass/{name}.png").read_bytes())
    (root / "SegmentationClass/2007_01.png").unlink()
    (root / "SegmentationClass/2007_04.png").unlink()
    (note,) = [note for note in read_voc(voc_config(root)).notes if note.startswith("masks:")]
    assert "2 from SegmentationClass, 1 from SegmentationClassAug, 1 images have none" in note and "E4" in note


def test_an_empty_folder_of_clean_masks_is_not_replaced_silently(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "SegmentationClass").rename(root / "SegmentationClassAug")
    assert all(record.mask_uri for record in read_voc(voc_config(root)).records)
    (root / "SegmentationClass").mkdir()
    report = report_of(lambda: read_voc(voc_config(root)))
    assert "no mask found (1):" in report and "SegmentationClassAug holds other masks of 4 images" in report
    put(root / "SegmentationClass", "2007_01.npy", content=b"x")
    assert "there are 1 files (.npy 1), but no mask" in report_of(lambda: read_voc(voc_config(root)))


def test_annotations_in_capitals_are_read(make_voc: MakeVoc) -> None:
    root = make_voc()
    before = read_voc(voc_config(root))
    for path in (root / "Annotations").iterdir():
        path.rename(path.with_suffix(".XML"))
    after = read_voc(voc_config(root))
    assert (after.records, after.notes) == (before.records, before.notes)


def test_annotations_that_give_nothing_are_told(make_voc: MakeVoc) -> None:
    root = make_voc(annotations=False)
    put(root / "Annotations", "2007_01.txt", content=b"x")
    report = report_of(lambda: read_voc(voc_config(root)))
    assert "holds no XML file (it has .txt 1)" in report and "set data.labels to masks" in report
    put(
        root,
        "image_labels.csv",
        content=b"image,labels\n2007_01,aeroplane\n2007_02,person;diningtable\n2007_03,person\n2007_04,\n",
    )
    notes = read_voc(voc_config(root)).notes
    assert any("holds no XML file (it has .txt 1): it gives no labels" in note for note in notes)
    assert any("labels from the file" in note for note in notes)

from pathlib import Path

import pytest

from qaclims_ray.data.class_folders import find_class_folders
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import DataError
from tests.unit.data.tiny_data_sets import folder_config, image_bytes, mask_bytes


def put(root: Path, *names: str, seed: int | None = None) -> Path:
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes(number if seed is None else seed, suffix=path.suffix))
    return root


def labels_of(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    return {r.image_id: tuple(manifest.class_names[label] for label in r.labels) for r in manifest.records}


@pytest.mark.parametrize("top", ["", "images/"])
def test_one_folder_per_class(tmp_path: Path, top: str) -> None:
    root = put(tmp_path, f"{top}cat/a.jpg", f"{top}hot dog/b.jpg", f"{top}cat/c.png")
    manifest = read_folder(folder_config(root))
    assert manifest.class_names == ("cat", "hot dog")
    assert labels_of(manifest) == {"a": ("cat",), "b": ("hot dog",), "c": ("cat",)}
    assert all(record.splits == ("train",) for record in manifest.records)
    assert any(note == "labels from the names of the images' folders" for note in manifest.notes)


def test_one_folder_per_split_and_class(tmp_path: Path) -> None:
    root = put(tmp_path, "train/cat/a.jpg", "train/dog/b.jpg", "val/cat/c.jpg", "test/dog/d.jpg")
    manifest = read_folder(folder_config(root, eval_split="val", test_split="test"))
    assert labels_of(manifest) == {"a": ("cat",), "b": ("dog",), "c": ("cat",), "d": ("dog",)}
    splits = {record.image_id: record.splits for record in manifest.records}
    assert splits == {"a": ("train",), "b": ("train",), "c": ("val",), "d": ("test",)}


def test_the_class_train_among_other_classes_is_no_split(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/a.jpg", "train/b.jpg")
    assert labels_of(read_folder(folder_config(root))) == {"a": ("cat",), "b": ("train",)}
    with pytest.raises(DataError, match="lie in no folder of a class"):
        read_folder(folder_config(put(tmp_path / "other", "cat/a.jpg", "test/b.jpg")))


def test_one_file_in_two_folders_shows_both_classes(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/a.jpg", "dog/a.jpg", seed=1)
    assert labels_of(read_folder(folder_config(root))) == {"a": ("cat", "dog")}


def test_different_files_of_one_name_are_told_apart_by_their_class(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/001.jpg", "dog/001.jpg", "dog/002.jpg")
    root = put(root, "bird/001.jpg", seed=0)  # the very picture of cat/001.jpg
    manifest = read_folder(folder_config(root))
    assert labels_of(manifest) == {"bird_cat_001": ("bird", "cat"), "dog_001": ("dog",), "002": ("dog",)}
    assert any("1 file names stand in several folders" in note for note in manifest.notes)
    root = put(tmp_path / "splits", "train/cat/1.jpg", "val/cat/1.jpg", "val/dog/2.jpg")
    images = find_class_folders(str(root))
    assert images is not None and set(images.images) == {"train_cat_1", "val_cat_1", "2"}


def test_names_that_cannot_be_told_apart_are_a_fault(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/a.jpg", "cat/a.png", "dog/b.jpg")
    with pytest.raises(DataError, match=r"cat_a: .*cat/a.jpg and .*cat/a.png would both have this name"):
        read_folder(folder_config(root))


@pytest.mark.parametrize("place", ["masks/cat", "masks"])
def test_masks_lie_in_folders_of_classes_or_together(tmp_path: Path, place: str) -> None:
    root = put(tmp_path, "cat/a.jpg")
    (root / place).mkdir(parents=True)
    (root / place / "a.png").write_bytes(mask_bytes([0]))
    assert read_folder(folder_config(root)).records[0].mask_uri == str(root / place / "a.png")


def test_a_mask_of_a_name_that_several_images_have_is_taken_from_their_class_alone(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/1.jpg", "dog/1.jpg")
    (root / "masks/dog").mkdir(parents=True)
    for name in ("1.png", "dog/1.png"):
        (root / "masks" / name).write_bytes(mask_bytes([1]))
    found = find_class_folders(str(root))
    assert found is not None and found.masks.by_image == {"dog_1": str(root / "masks/dog/1.png")}
    assert not found.masks.faults and "none of the 1 masks (1.png) belongs to one of" in found.masks.notes[0]


def test_folders_of_the_background_show_no_class_and_empty_ones_are_none(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/a.jpg", "background/b.jpg")
    (root / "notes").mkdir()
    manifest = read_folder(folder_config(root))
    assert labels_of(manifest) == {"a": ("cat",), "b": ()}
    assert any("read as images without any class" in note for note in manifest.notes)
    assert any("notes holds no image and is no class" in note for note in manifest.notes)


def test_folders_that_say_no_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="deeper than one sub-folder per class"):
        read_folder(folder_config(put(tmp_path / "deep", "cat/a.jpg", "cat/more/b.jpg")))
    with pytest.raises(DataError, match="which split they belong to, but not what they show"):
        read_folder(folder_config(put(tmp_path / "splits", "train/a.jpg", "val/b.jpg")))
    with pytest.raises(DataError, match="no sub-folder of images"):
        read_folder(folder_config(put(tmp_path / "flat", "a.jpg"), labels="folders"))


def test_a_label_file_beside_folders_is_a_choice_for_the_user(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/a.jpg", "dog/b.jpg")
    (root / "labels.csv").write_text("image,labels\na,cat\nb,dog\n")
    with pytest.raises(DataError, match=r'sub-folders \("cat", "dog"\).* set data.labels to folders'):
        read_folder(folder_config(root))
    assert labels_of(read_folder(folder_config(root, labels="folders"))) == {"a": ("cat",), "b": ("dog",)}


def test_a_flat_folder_with_other_folders_beside_is_none_of_classes(tmp_path: Path) -> None:
    root = put(tmp_path, "a.jpg", "old/b.jpg")
    with pytest.raises(DataError, match="has no image-level labels"):
        read_folder(folder_config(root))


def put_masks(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(mask_bytes([0]))
    return root


@pytest.mark.parametrize("top", ["", "train/"])
@pytest.mark.parametrize("mark", ["_mask", "_gt", "_seg", "_mask_1"])
def test_masks_beside_the_images_of_a_class_are_refused(tmp_path: Path, top: str, mark: str) -> None:
    root = put(tmp_path, f"{top}benign/benign (1).png", f"{top}normal/normal (1).png")
    put_masks(root, f"{top}benign/benign (1){mark}.png")
    with pytest.raises(DataError, match=r"1 files are called as masks of other images") as caught:
        read_folder(folder_config(root, eval_split="train"))
    assert f"benign (1){mark}.png); move them to masks/{top}benign, or rename" in str(caught.value)


@pytest.mark.parametrize(
    "names", [("with_mask/1.jpg", "with_mask/with_mask_1.jpg"), ("face/1.jpg", "covered/1_mask.jpg")]
)
def test_photographs_of_masks_are_classes_as_others(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = put(tmp_path, *names, "other/2.jpg")
    assert len(read_folder(folder_config(root)).records) == 3


@pytest.mark.parametrize(
    "name", ["gt", "ground_truth", "seg", "SegmentationClass", "labels", "Annotations", "labelmaps"]
)
@pytest.mark.parametrize(
    "inner", ["{name}/{id}.png", "{name}/{id}_mask.png", "{name}/cat/{id}.png", "cat/{name}/{id}.png"]
)
def test_a_folder_that_holds_masks_is_no_class(tmp_path: Path, name: str, inner: str) -> None:
    root = put(tmp_path, "cat/a.jpg", "dog/b.jpg")
    put_masks(root, inner.format(name=name, id="a"))
    manifest = read_folder(folder_config(root))
    assert manifest.class_names == ("cat", "dog") and len(manifest.records) == 2
    (note,) = [note for note in manifest.notes if "not read" in note]
    assert f"{name} is not read, though it holds what looks like masks of 1 images" in note
    assert note.endswith(f"call the folder {root / 'masks'}")


@pytest.mark.parametrize(
    ("images", "mask"),
    [
        (("images/cat/a.jpg", "images/dog/b.jpg"), "gt/a.png"),
        (("train/cat/a.jpg", "train/dog/b.jpg"), "train/masks/a.png"),
        (("cat/1.jpg", "dog/1.jpg"), "cat/gt/1.png"),
        (("train/good/1.jpg", "train/bad/1.jpg"), "ground_truth/bad/1_mask.png"),
    ],
)
def test_masks_at_other_places_are_told(tmp_path: Path, images: tuple[str, ...], mask: str) -> None:
    root = put_masks(put(tmp_path, *images), mask)
    notes = read_folder(folder_config(root)).notes
    assert any("is not read, though it holds what looks like masks of 1 images" in note for note in notes)


@pytest.mark.parametrize("names", [("cat/a.jpg", "target/c.jpg"), ("cat/1.jpg", "dog/1.jpg", "target/1.jpg")])
def test_a_folder_that_may_be_masks_or_a_class_is_a_choice(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"target is called as folders of masks are.* if it is a class, rename"):
        read_folder(folder_config(put(tmp_path, *names)))


def test_pictures_made_of_images_are_no_class(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/a.png", "dog/b.png", "overlays/a.jpg", "overlays/b.jpg", "edges/c.jpg")
    manifest = read_folder(folder_config(root))
    assert labels_of(manifest) == {"a": ("cat",), "b": ("dog",), "c": ("edges",)}
    assert any("overlays is not read" in note and "all 2 files" in note for note in manifest.notes)


def test_masks_inside_the_folders_of_classes_are_read(tmp_path: Path) -> None:
    root = put(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
    put_masks(root, "cat/masks/1.png", "dog/Mask/1_mask.png")
    masks = {record.image_id: record.mask_uri for record in read_folder(folder_config(root, mask_check="warn")).records}
    assert masks == {"cat_1": str(root / "cat/masks/1.png"), "dog_1": str(root / "dog/Mask/1_mask.png"), "2": None}


def test_images_one_level_too_deep_say_where_they_lie(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images lie in .*cat/images, deeper than one sub-folder per class"):
        read_folder(folder_config(put(tmp_path, "cat/images/a.jpg", "dog/images/b.jpg")))


def test_one_image_in_two_splits_is_told(tmp_path: Path) -> None:
    root = put(tmp_path, "train/cat/a.jpg", "val/cat/a.jpg", seed=1)
    notes = read_folder(folder_config(put(root, "train/dog/b.jpg", "val/dog/c.jpg"), eval_split="val")).notes
    assert any("1 images lie in train and val, byte for byte the same (e.g. a)" in note for note in notes)

"""BCSS-WSSS and LUAD-HistoSeg in their true layouts, and all that can be wrong with them."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qaclims_ray.data import storage
from qaclims_ray.data.classes import BCSS_CLASSES, LUAD_CLASSES, Classes
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.histology import labels_of_name, read_histology
from qaclims_ray.data.manifest import Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import ConfigError, DataError
from tests.tiny_tissue import WHITE, save_mask, write_luad

BCSS = "TCGA-A1-A0SK-DX1_xmin45749_ymin25055_MPP-0.2500"


def read(root: Path, masks: Path, dataset: Any = "luad_histoseg", **changes) -> Manifest:
    settings = {"train_split": "train", "eval_split": "val", "test_split": "test", **changes}
    return read_histology(DataConfig(dataset=dataset, root=str(root), **settings), str(masks))


def faults(root: Path, tmp_path: Path, **changes) -> str:
    with pytest.raises(DataError) as caught:
        read(root, tmp_path / "masks", **changes)
    return str(caught.value)


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), 100, np.uint8)).save(path)


@pytest.mark.parametrize("name", ["a[1101]", f"{BCSS}+0[1101]", "1-2-3-[1 1 0 1]", "x-[1, 1, 0, 1]", "[0000] b [1101]"])
def test_labels_stand_at_the_end_of_a_name(name: str) -> None:
    assert labels_of_name(name, 4) == (0, 1, 3)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("1-2-3", "ends without labels, expected .*1000.* or .*1 0 0 0"),
        ("[1101]-2", "ends without labels"),
        ("a[110]", "ends with 3 labels"),
        ("a[11011]", "ends with 5 labels"),
        ("a[0000]", "no class"),
        ("a[12 0 1]", "expected 0 and 1"),
        ("a[]", "expected 0 and 1"),
    ],
)
def test_other_names_are_refused(name: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        labels_of_name(name, 4)


def test_luad_as_published(tmp_path: Path) -> None:
    manifest = read(write_luad(tmp_path / "LUAD-HistoSeg"), tmp_path / "masks")
    assert manifest.classes == Classes(LUAD_CLASSES, has_background=False)
    train = manifest.subset("train").records
    assert [record.labels for record in train[:5]] == [(0,), (1,), (2,), (3,), (0, 3)]
    assert train[4].image_id == "1031280-2304-27920-[1 0 0 1]" and train[4].mask_uri is None
    assert len(manifest.subset("val").records) == 4 and len(manifest.subset("test").records) == 2
    assert any("train: 8 images, published are 16678" in note for note in manifest.notes)


def test_masks_come_into_the_packages_form_and_labels_from_them(tmp_path: Path) -> None:
    root = write_luad(tmp_path / "data")
    values = np.array([[0, 1, 2], [3, WHITE, 255]], np.uint8).repeat(8, 0).repeat(8, 1)[:16, :16]
    save_mask(root / "val" / "mask" / "385277-1000-46781.png", values)
    manifest = read(root, tmp_path / "masks")
    record = next(record for record in manifest.records if record.image_id == "385277-1000-46781")
    assert record.mask_uri is not None and record.mask_uri == str(tmp_path / "masks" / "val" / "385277-1000-46781.png")
    labels = load_mask(record.mask_uri).numpy()
    assert {(int(raw), int(label)) for raw, label in zip(values.flat, labels.flat, strict=True)} == {
        (0, 1), (1, 2), (3, 4), (WHITE, 255)
    }  # fmt: skip
    assert record.labels == (0, 1, 3)


def test_bcss_in_the_other_folders_that_copies_have(tmp_path: Path) -> None:
    root = tmp_path / "download"
    inner = root / "BCSS-WSSS"
    picture(inner / "training" / "img" / f"{BCSS}+0[1001].png")
    for split in ("valid", "test"):
        picture(inner / split / "img" / f"{BCSS}+{split}.png")
        save_mask(inner / split / "mask" / f"{BCSS}+{split}.png", np.full((16, 16), 3))
    manifest = read(root, tmp_path / "masks", dataset="bcss_wsss")
    assert manifest.class_names == BCSS_CLASSES
    assert {record.splits: record.labels for record in manifest.records} == {
        ("train",): (0, 3), ("val",): (3,), ("test",): (3,)
    }  # fmt: skip


def test_a_bucket_is_read_and_its_masks_are_written_beside_the_run(tmp_path: Path) -> None:
    local = write_luad(tmp_path / "data")
    storage.upload_tree(str(local), "memory://tissue/LUAD-HistoSeg")
    config = DataConfig(dataset="luad_histoseg", root="memory://tissue", eval_split="val", test_split="test")
    manifest = read_histology(config, "memory://tissue-run/masks")
    here = read(local, tmp_path / "masks")
    assert [(r.image_id, r.labels) for r in manifest.records] == [(r.image_id, r.labels) for r in here.records]
    for there, one in zip(manifest.records[8:], here.records[8:], strict=True):
        assert str(there.mask_uri).startswith("memory://tissue-run/masks/")
        assert load_mask(str(there.mask_uri)).equal(load_mask(str(one.mask_uri)))


def test_the_test_split_may_be_absent_the_others_not(tmp_path: Path) -> None:
    root = write_luad(tmp_path / "data")
    shutil.rmtree(root / "test")
    assert {split for record in read(root, tmp_path / "masks").records for split in record.splits} == {"train", "val"}
    shutil.rmtree(root / "val" / "mask")
    shutil.rmtree(root / "train")
    text = faults(root, tmp_path)
    assert "2 faults" in text and "train: there is no image in" in text and "val: there is no file in" in text


def test_a_limit_holds_for_each_split(tmp_path: Path) -> None:
    manifest = read(write_luad(tmp_path / "data"), tmp_path / "masks", limit=2)
    assert [len(manifest.subset(split).records) for split in ("train", "val", "test")] == [2, 2, 2]


def test_all_faults_come_in_one_report(tmp_path: Path) -> None:
    root = write_luad(tmp_path / "data", num_val=6)
    train, masks = sorted((root / "train").iterdir()), sorted((root / "val" / "mask").iterdir())
    shutil.copy(train[4], train[4].with_name("1031280-2304-27920-[1 0 0 0].png"))
    train[0].rename(root / "train" / "plain.png")
    train[1].rename(root / "train" / "a-[1 0 1].png")
    train[2].rename(root / "train" / "b-[0 0 0 0].png")
    train[3].write_bytes(b"")
    masks[0].unlink()
    (root / "val" / "img" / masks[1].name).unlink()
    save_mask(masks[2], np.full((8, 16), 1))
    save_mask(masks[3], np.full((16, 16), 9))
    Image.open(masks[4]).convert("RGB").save(masks[4])
    shutil.copy(root / "val" / "img" / masks[5].name, root / "test" / "img" / masks[5].name)
    shutil.copy(masks[5], root / "test" / "mask" / masks[5].name)
    text = faults(root, tmp_path)
    assert "11 faults" in text
    for part in (
        "unreadable labels (3)", "plain: the name ends without labels", "a-[1 0 1]: the name ends with 3 labels",
        "b-[0 0 0 0]", "contradicting labels (1)", "unreadable image (1)", "is empty (0 bytes)",
        f"missing mask (1):\n  {masks[0].stem}", f"missing image (1):\n  {masks[1].stem}",
        "mask is 16 x 8, the image is 16 x 16", "holds 9; expected 0 to 3 for the classes, 4 for white",
        "is in colours, not in numbers", f"duplicate id (1):\n  {masks[5].stem}: 2 images",
    ):  # fmt: skip
        assert part in text, part


def test_a_mask_of_white_alone_labels_nothing_and_is_told(tmp_path: Path) -> None:
    root = write_luad(tmp_path / "data")
    save_mask(root / "val" / "mask" / "385277-1000-46781.png", np.full((16, 16), WHITE))
    manifest = read(root, tmp_path / "masks")
    assert next(r for r in manifest.records if r.image_id == "385277-1000-46781").labels == ()
    assert any("1 masks hold white pixels only" in note for note in manifest.notes)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"root": ""}, "data.root is empty"),
        ({"eval_split": "trainval"}, "no split trainval; .* some of train, val, test"),
        ({"class_names": ("a",)}, "has its own: leave it empty"),
        ({"labels": "masks"}, "set data.labels to auto"),
        ({"label_file": "x.csv"}, "leave data.label_file empty"),
    ],
)
def test_settings_that_contradict_the_layout_are_refused(tmp_path: Path, changes: dict, what: str) -> None:
    settings = {"root": str(tmp_path), "eval_split": "val", "test_split": "test", **changes}
    with pytest.raises(ConfigError, match=what):
        read_histology(DataConfig(dataset="bcss_wsss", **settings), str(tmp_path / "masks"))


def test_another_folder_is_none_of_the_two(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    assert "there is no LUAD-HistoSeg at" in faults(tmp_path / "photos", tmp_path)


def test_a_manifest_remembers_that_there_is_no_background(tmp_path: Path) -> None:
    manifest = read(write_luad(tmp_path / "data"), tmp_path / "masks")
    write_manifest(manifest, manifest_artifact(str(tmp_path / "manifest"), {}))
    found = read_manifest(str(tmp_path / "manifest"))
    assert found == manifest and not found.classes.has_background
    assert found.fingerprint() != Manifest(found.class_names, found.records).fingerprint()

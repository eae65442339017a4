import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from qaclims_ray.data import storage
from qaclims_ray.data.classes import VOC_CLASSES, VOC_FILE_NAMES
from qaclims_ray.data.manifest import Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.data.voc import VOC_COUNTS, read_voc
from qaclims_ray.errors import ConfigError, DataError
from tests.unit.data.tiny_data_sets import IMAGES, annotation, image_bytes, mask_bytes, voc_config

MakeVoc = Callable[..., Path]


def labels_of(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    return {record.image_id: record.labels for record in manifest.records}


def report_of(root: object, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        read_voc(voc_config(root, **changes))
    return str(caught.value)


def test_it_reads_images_labels_masks_and_splits(make_voc: MakeVoc) -> None:
    root = make_voc()
    manifest = read_voc(voc_config(root, train_split="train", eval_split="val"))
    assert manifest.class_names == VOC_CLASSES
    assert labels_of(manifest) == IMAGES
    by_id = {record.image_id: record for record in manifest.records}
    assert by_id["2007_01"].splits == ("train",)
    assert by_id["2007_03"].splits == ("train", "val")
    assert by_id["2007_04"].splits == ("val",)
    assert (by_id["2007_01"].width, by_id["2007_01"].height) == (24, 16)
    assert by_id["2007_02"].mask_uri == f"{root}/SegmentationClass/2007_02.png"
    assert "labels from Annotations, objects marked difficult included" in manifest.notes
    assert "train: 3 images, the official list has 1464" in manifest.notes


def test_val_is_there_even_when_no_stage_asks_for_it(make_voc: MakeVoc) -> None:
    manifest = read_voc(voc_config(make_voc()))
    assert [record.image_id for record in manifest.subset("val").records] == ["2007_03", "2007_04"]


def test_the_test_split_is_read_with_its_masks_and_needs_none(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/test.txt").write_text("2007_04\n2007_02\n")
    (root / "SegmentationClass/2007_04.png").unlink()
    manifest = read_voc(voc_config(root, test_split="test"))
    assert {record.image_id: record.splits for record in manifest.records} == {
        "2007_01": ("train",),
        "2007_02": ("train", "test"),
        "2007_03": ("train",),
        "2007_04": ("test",),
    }
    masks = {record.image_id: record.mask_uri for record in manifest.subset("test").records}
    assert masks == {"2007_02": f"{root}/SegmentationClass/2007_02.png", "2007_04": None}


def test_val_may_be_absent_but_a_test_split_that_was_named_may_not(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/val.txt").unlink()
    manifest = read_voc(voc_config(root))
    assert [record.splits for record in manifest.records] == [("train",)] * 3
    with pytest.raises(DataError, match=r"no image .* split 'val'; its splits are \['train'\]: set .*data.test_split"):
        manifest.subset("val")
    report = report_of(root, test_split="test")
    assert "no list for split test in" in report and "it has ['train']" in report


def test_an_empty_test_split_and_its_broken_images_are_faults(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/test.txt").write_text("")
    assert "test: no image belongs to it" in report_of(root, test_split="test")
    (root / "ImageSets/Segmentation/test.txt").write_text("2007_04\n")
    (root / "JPEGImages/2007_04.jpg").write_bytes(b"")
    assert "2007_04.jpg is empty" in report_of(root, test_split="test")


@pytest.mark.parametrize("above", ["", "VOC2012", "VOCdevkit/VOC2012"])
def test_the_root_may_be_the_folder_or_one_that_holds_it(make_voc: MakeVoc, tmp_path: Path, above: str) -> None:
    outer = tmp_path / "outer"
    outer.mkdir()
    shutil.copytree(make_voc(), outer / above, dirs_exist_ok=True)
    manifest = read_voc(voc_config(outer))
    assert manifest.notes[0] == f"read {str(outer / above).rstrip('/')}"


def test_png_images_other_classes_and_context_maps(make_voc: MakeVoc) -> None:
    root = make_voc(annotations=False, images={"a": (0,), "b": (1,), "c": ()})
    (root / "JPEGImages/a.jpg").unlink()
    (root / "JPEGImages/a.png").write_bytes(image_bytes(suffix=".png"))
    (root / "SegmentationContext").mkdir()
    (root / "SegmentationContext/a.png").write_bytes(mask_bytes([40]))
    names = ("boat", "train")
    manifest = read_voc(voc_config(root, labels="masks"), class_names=names, file_names=names)
    assert labels_of(manifest) == {"a": (0,), "b": (1,), "c": ()}
    assert manifest.records[0].image_uri.endswith("a.png")
    assert manifest.records[0].context_uri == f"{root}/SegmentationContext/a.png"
    assert manifest.records[1].context_uri is None
    assert not any("official" in note for note in manifest.notes)


def test_the_clean_mask_is_preferred_to_the_augmented_one(make_voc: MakeVoc) -> None:
    root = make_voc()
    shutil.copytree(root / "SegmentationClass", root / "SegmentationClassAug")
    (root / "SegmentationClass/2007_01.png").unlink()
    by_id = {r.image_id: r for r in read_voc(voc_config(root, train_split="train", eval_split="val")).records}
    assert "/SegmentationClassAug/" in str(by_id["2007_01"].mask_uri)
    assert "/SegmentationClass/" in str(by_id["2007_02"].mask_uri)


def test_the_augmented_list_is_read_as_it_is_published(make_voc: MakeVoc) -> None:
    root = make_voc()
    lines = [f"/JPEGImages/{i}.jpg /SegmentationClassAug/{i}.png" for i in IMAGES]
    (root / "ImageSets/Segmentation/train_aug.txt").write_text("\r\n".join(lines))
    manifest = read_voc(voc_config(root, train_split="train_aug"))
    assert [record.image_id for record in manifest.subset("train_aug").records] == list(IMAGES)


def test_official_counts_are_recognised(make_voc: MakeVoc, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (VOC_COUNTS["train"], VOC_COUNTS["val"], VOC_COUNTS["train_aug"]) == (1464, 1449, 10582)
    monkeypatch.setattr("qaclims_ray.data.voc.VOC_COUNTS", {"train": 3})
    assert "train: the official 3 images" in read_voc(voc_config(make_voc())).notes


def test_limit_applies_to_each_split(make_voc: MakeVoc) -> None:
    manifest = read_voc(voc_config(make_voc(), limit=1, eval_split="val"))
    assert [(r.image_id, r.splits) for r in manifest.records] == [("2007_01", ("train",)), ("2007_03", ("val",))]


def test_without_the_check_only_headers_of_images_are_read(make_voc: MakeVoc) -> None:
    root = make_voc()
    whole = (root / "JPEGImages/2007_01.jpg").read_bytes()
    (root / "JPEGImages/2007_01.jpg").write_bytes(whole[:-200])
    assert labels_of(read_voc(voc_config(root, check_images=False))) == IMAGES
    (root / "SegmentationClass/2007_02.png").write_bytes(b"broken")
    assert "unreadable mask (1)" in report_of(root, check_images=False)  # of a few masks, all are looked at
    assert "has 2 faults" in report_of(root)


def test_progress_counts_every_image(make_voc: MakeVoc) -> None:
    seen: list[tuple[int, int]] = []
    read_voc(voc_config(make_voc()), on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


# --- where labels come from


def test_labels_may_come_from_a_file_in_either_spelling(make_voc: MakeVoc) -> None:
    root = make_voc(annotations=False)
    (root / "image_labels.json").write_text(
        '{"2007_01": ["aeroplane"], "2007_02.jpg": ["dining table", "person"], "2007_03": ["person"], "2007_04": []}'
    )
    assert labels_of(read_voc(voc_config(root))) == IMAGES
    natural = {"2007_05": (10, 15, 19)}
    for names in (VOC_CLASSES, VOC_FILE_NAMES):
        text = "image,labels\n2007_05," + ";".join(names[c] for c in natural["2007_05"])
        other = make_voc(annotations=False, images={**IMAGES, **natural})
        (other / "image_labels.json").unlink(missing_ok=True)
        (other / "ImageSets/Segmentation/one.txt").write_text("2007_05")
        (other / "ImageSets/Segmentation/val.txt").unlink()
        (other / "mine.csv").write_text(text)
        config = voc_config(other, train_split="one", eval_split="one", label_file="mine.csv")
        assert labels_of(read_voc(config)) == natural


def test_labels_come_from_masks_where_that_is_said(make_voc: MakeVoc) -> None:
    root = make_voc(annotations=False)
    report = report_of(root)
    assert "has no image-level labels" in report and "set data.labels to masks" in report
    manifest = read_voc(voc_config(root, labels="masks"))
    assert labels_of(manifest) == IMAGES
    assert any("pixel labels" in note for note in manifest.notes)


def test_auto_prefers_annotations_and_a_named_file_most(make_voc: MakeVoc) -> None:
    root = make_voc()
    text = "image,labels\n" + "".join(f"{image_id},cow\n" for image_id in IMAGES)
    (root / "image_labels.csv").write_text(text)
    assert labels_of(read_voc(voc_config(root))) == IMAGES
    assert labels_of(read_voc(voc_config(root, labels="masks"))) == IMAGES
    for changes in ({"labels": "file"}, {"label_file": "image_labels.csv"}):
        assert "no mask holds cow, which is labelled" in report_of(root, **changes)
        manifest = read_voc(voc_config(root, mask_check="warn", **changes))
        assert set(labels_of(manifest).values()) == {(9,)} and "no mask holds cow" in manifest.notes[-1]


@pytest.mark.parametrize("labels", ["annotations", "masks"])
def test_a_label_file_that_would_not_be_read_is_refused(make_voc: MakeVoc, labels: str) -> None:
    with pytest.raises(ConfigError, match=f"data.labels is {labels}"):
        read_voc(voc_config(make_voc(), labels=labels, label_file="x.csv"))


def test_vocs_colours_as_rgb_pictures_are_translated(make_voc: MakeVoc, tmp_path: Path) -> None:
    root = make_voc()
    for file in (root / "SegmentationClass").iterdir():
        Image.open(file).convert("RGB").save(file)
    assert "--data.mask-values voc-colours" in report_of(root)
    for labels in ("auto", "masks"):
        config = voc_config(root, mask_values=("voc-colours",), labels=labels)
        manifest = read_voc(config, masks_uri=str(tmp_path / "masks"))
        assert labels_of(manifest) == IMAGES
        for record in manifest.records:
            held = {value - 1 for value in load_mask(str(record.mask_uri)).unique().tolist()} - {-1, 254}
            assert held == set(record.labels)


# --- misuse


def test_all_faults_come_in_one_report(make_voc: MakeVoc) -> None:
    root = make_voc(images={f"im_{n}": (n % 3,) for n in range(12)})
    (root / "ImageSets/Segmentation/train.txt").write_text("\n".join(f"im_{n}" for n in range(12)) + "\nim_3\nghost\n")
    (root / "JPEGImages/im_0.jpg").write_bytes(b"")
    (root / "JPEGImages/im_1.jpg").write_bytes(image_bytes()[:300])
    (root / "JPEGImages/im_2.jpg").write_bytes(image_bytes(size=(20, 20)))
    (root / "SegmentationClass/im_3.png").write_bytes(image_bytes(suffix=".png"))
    (root / "SegmentationClass/im_4.png").write_bytes(mask_bytes([0, 30]))
    (root / "Annotations/im_6.xml").write_text(annotation(["cat", "unicorn"]))
    (root / "Annotations/im_7.xml").unlink()
    (root / "JPEGImages/im_7.jpg").write_bytes(b"not an image")
    (root / "Annotations/im_8.xml").write_text("<annotation><object>")
    (root / "JPEGImages/im_9.png").write_bytes(image_bytes(suffix=".png"))
    report = report_of(root)
    for expected in (
        "12 faults",
        "im_3: stands twice in split list train",
        "ghost: listed in train, but JPEGImages has no such file",
        "im_0.jpg is empty (0 bytes)",
        "im_1.jpg is truncated or broken",
        "im_2: mask is 24 x 16, the image is 20 x 20",
        "im_3: each holds 384 colours",
        "masks hold numbers of no class: 31 in 1 (e.g. im_4); expected 0 to 20",
        "im_6: 'unicorn'; the classes are aeroplane",
        "im_7: the label source has no entry",
        "im_7.jpg is not an image",
        "unreadable annotation (1):\n  im_8",
        "im_9: there are im_9.jpg, im_9.png",
    ):
        assert expected in report
    assert report.count("ghost") == 1  # an image that is not there has no further faults


def test_a_root_without_images_says_where_it_looked(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "absent"):
        assert f"expected the folder JPEGImages in one of {root}, {root}/VOC2012" in report_of(root)
    with pytest.raises(ConfigError, match=r"data\.root is empty"):
        read_voc(voc_config(""))


def test_an_absent_list_names_those_that_are_there(make_voc: MakeVoc) -> None:
    report = report_of(make_voc(), train_split="train_aug")
    assert "no list for split train_aug" in report and "['train', 'val']" in report


def test_a_root_without_any_list(make_voc: MakeVoc) -> None:
    root = make_voc()
    shutil.rmtree(root / "ImageSets")
    assert "it has []" in report_of(root)


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_list_is_a_fault(make_voc: MakeVoc, content: bytes) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/train.txt").write_bytes(content)
    assert "empty split (1):\n  train: no image belongs to it" in report_of(root)


def test_a_list_that_is_not_utf8_is_a_fault_beside_others(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/train.txt").write_bytes("2007_01\nb\xe4r\n".encode("latin-1"))
    (root / "Annotations/2007_04.xml").unlink()
    report = report_of(root)
    assert "train.txt is not UTF-8 text" in report and "2007_04: the label source has no entry" in report


def test_a_list_with_a_byte_order_mark_and_windows_ends_is_fine(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/train.txt").write_bytes(b"\xef\xbb\xbf2007_01\r\n2007_02\r\n")
    assert len(read_voc(voc_config(root)).subset("train").records) == 2


def test_a_list_of_another_kind_is_a_fault(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "ImageSets/Segmentation/train.txt").write_text("2007_01  1\n2007_02 -1\n")
    assert "train, line 2: '2007_02 -1', expected one image id" in report_of(root)


def test_an_id_cannot_leave_the_folder(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root.parent / "secret.jpg").write_bytes(image_bytes())
    (root / "ImageSets/Segmentation/train.txt").write_text("../../secret\n")
    assert "secret: listed in train, but JPEGImages has no such file" in report_of(root)


def test_no_label_source_at_all(make_voc: MakeVoc) -> None:
    assert "has no image-level labels: expected Annotations" in report_of(make_voc(annotations=False, masks=False))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("annotations", "there is no XML file"), ("file", "there is no label file"), ("masks", "there is no file in")],
)
def test_the_named_label_source_is_absent(make_voc: MakeVoc, labels: str, expected: str) -> None:
    assert expected in report_of(make_voc(annotations=False, masks=False), labels=labels)


def test_a_named_label_file_is_absent(make_voc: MakeVoc) -> None:
    assert "there is no label file" in report_of(make_voc(), label_file="nowhere.csv")


def test_an_empty_annotation_file_is_a_fault_and_one_without_object_is_not(make_voc: MakeVoc) -> None:
    root = make_voc()
    (root / "Annotations/2007_01.xml").write_text("")
    report = report_of(root)
    assert "has 1 fault;" in report and "unreadable annotation (1):\n  2007_01" in report
    (root / "Annotations/2007_01.xml").write_text(annotation([]))
    assert labels_of(read_voc(voc_config(root)))["2007_01"] == ()


def test_labels_from_masks_need_every_mask(make_voc: MakeVoc) -> None:
    root = make_voc(annotations=False)
    (root / "SegmentationClass/2007_01.png").unlink()
    assert "missing labels (1):\n  2007_01: no label and no mask" in report_of(root, eval_split="val", labels="masks")


def test_a_data_set_without_masks_can_be_trained_on_but_not_scored(make_voc: MakeVoc) -> None:
    manifest = read_voc(voc_config(make_voc(masks=False)))
    assert "no image of split train has a mask: nothing can be scored" in manifest.notes


def test_class_settings_that_contradict_are_refused(make_voc: MakeVoc) -> None:
    root = make_voc()
    with pytest.raises(ConfigError, match="class_names is for the folder layout"):
        read_voc(voc_config(root, class_names=("cat",)))
    with pytest.raises(ConfigError, match="2 class names but 1 file names"):
        read_voc(voc_config(root), class_names=("a", "b"), file_names=("a",))
    with pytest.raises(ConfigError, match="more than once"):
        read_voc(voc_config(root), class_names=("a", "a"), file_names=("a", "b"))


# --- remote, and real photographs


def test_it_reads_s3_as_it_reads_a_folder(make_voc: MakeVoc, s3_bucket: str) -> None:
    root = make_voc()
    storage.upload_tree(str(root), f"{s3_bucket}/sets/VOC2012")
    remote = read_voc(voc_config(f"{s3_bucket}/sets"))
    assert labels_of(remote) == labels_of(read_voc(voc_config(root)))
    assert remote.records[0].image_uri == f"{s3_bucket}/sets/VOC2012/JPEGImages/2007_01.jpg"
    assert load_mask(str(remote.records[0].mask_uri)).shape == (16, 24)
    write_manifest(remote, manifest_artifact(f"{s3_bucket}/voc-run/manifest", {}))
    assert read_manifest(f"{s3_bucket}/voc-run/manifest") == remote


def test_a_bucket_that_is_not_there(s3_bucket: str) -> None:
    assert "there is no VOC data set at s3://qaclims-absent" in report_of("s3://qaclims-absent/voc")
    assert s3_bucket


@pytest.fixture
def voc_sample() -> str:
    default = Path(__file__).resolve().parents[4] / "shared/data/voc_sample"
    sample = Path(os.environ.get("QACLIMS_VOC_SAMPLE", default))
    if not (sample / "JPEGImages").is_dir():
        pytest.skip("no real photographs here (QACLIMS_VOC_SAMPLE)")
    return str(sample)


def test_real_photographs(voc_sample: str) -> None:
    manifest = read_voc(voc_config(voc_sample))
    assert len(manifest.subset("train").records) == 120 and len(manifest.subset("val").records) == 60
    assert all(record.mask_uri and record.labels for record in manifest.records)
    # The shipped labels and the masks agree: 0-based ids, label values and names are the same classes.
    assert labels_of(read_voc(voc_config(voc_sample, labels="masks"))) == labels_of(manifest)
    assert not [note for note in manifest.notes if "differ" in note]
    for limit in (1, 2, 5, 20):
        assert read_voc(voc_config(voc_sample, limit=limit)).records

from collections.abc import Callable
from pathlib import Path

import pytest

from qaclims_ray.data import inspection, storage
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.mask_files import load_mask
from qaclims_ray.errors import ConfigError, DataError
from tests.unit.data.tiny_data_sets import folder_config, image_bytes

MakeFolder = Callable[..., Path]
CLASSES = ("cat", "dining table", "dog")
EXPECTED = {"a": (0, 1), "b": (2,), "c": ()}


def labels_of(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    return {record.image_id: record.labels for record in manifest.records}


def report_of(root: object, **changes: object) -> str:
    with pytest.raises(DataError) as caught:
        read_folder(folder_config(root, **changes))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels.csv", "image,labels\na.jpg,cat;dining table\nb.jpg,dog\nc.png,\n"),
        ("labels.csv", "image;labels\na;cat|dining table\nb;dog\nc;\n"),
        ("labels.tsv", "File Name\tClass\na\tcat\na\tdining table\nb\tdog\nc\t\n"),
        ("labels.jsonl", '{"id": "a", "labels": ["cat", "dining table"]}\n{"id": "b", "labels": "dog"}\n{"id": "c"}\n'),
        ("labels.csv", "filename,note,labels\na.jpg,,dining table; cat;\nb.jpg,,dog\nc.png,,\n"),
        ("labels.csv", "image,cat,dining table,dog\na.jpg,1,1,0\nb.jpg,0,0,1.0\nc.png,0,0,0\n"),
        ("labels.csv", "image,dog,dining table,cat\na.jpg,false,true,True\nb.jpg,TRUE,0,0\nc.png,0,0,0\n"),
        ("labels.csv", "\ufeffimage,labels\r\na.jpg,cat;dining table\r\nb.jpg,dog\r\n\r\nc.png,\r\n"),
        ("labels.json", '{"a.jpg": ["cat", "dining table", "cat"], "b": ["dog"], "c.png": []}'),
        ("image_labels.json", '{"a.jpg": ["dining table", "cat"], "b.jpg": ["dog"], "c": []}'),
    ],
)
@pytest.mark.parametrize("class_names", [(), CLASSES])
def test_every_form_of_label_file_gives_the_same(
    make_folder: MakeFolder, name: str, text: str, class_names: tuple[str, ...]
) -> None:
    manifest = read_folder(folder_config(make_folder(name, text), class_names=class_names))
    assert manifest.class_names == CLASSES
    assert labels_of(manifest) == EXPECTED
    assert all(record.splits == ("train",) for record in manifest.records)


def test_a_column_that_is_always_0_is_a_class_too(make_folder: MakeFolder) -> None:
    text = "image,cat,zebra\na.jpg,1,0\nb.jpg,0,0\nc.png,1,0\n"
    assert read_folder(folder_config(make_folder(text=text))).class_names == ("cat", "zebra")


def test_labels_separated_by_spaces_know_the_given_classes(make_folder: MakeFolder) -> None:
    text = "image,labels\na.jpg,dining table\nb.jpg,cat dog\nc.png,dog\n"
    manifest = read_folder(folder_config(make_folder(text=text), class_names=CLASSES))
    assert labels_of(manifest) == {"a": (1,), "b": (0, 2), "c": (2,)}


def test_the_order_of_given_classes_is_kept_and_taken_classes_are_noted(make_folder: MakeFolder) -> None:
    root = make_folder()
    manifest = read_folder(folder_config(root, class_names=("dog", "cat", "dining table")))
    assert labels_of(manifest) == {"a": (1, 2), "b": (0,), "c": ()}
    assert any("1 cat, 2 dining table, 3 dog" in note for note in read_folder(folder_config(root)).notes)


def test_images_may_lie_in_a_folder_of_their_own(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.png"):
        (root / name).rename(root / "images" / name)
    manifest = read_folder(folder_config(root))
    assert labels_of(manifest) == EXPECTED
    assert manifest.records[0].image_uri == f"{root}/images/a.jpg"


def test_masks_are_found_and_checked(make_folder: MakeFolder) -> None:
    root = make_folder(masks={"a": (0, 1), "b": (2,), "c": ()})
    manifest = read_folder(folder_config(root))
    assert all(record.mask_uri == f"{root}/masks/{record.image_id}.png" for record in manifest.records)
    assert "1 of 3 masks hold numbers of no class: 3 in 1 (e.g. b); expected 0 to 2" in report_of(
        root, class_names=("cat", "dining table"), labels="masks"
    )


def test_masks_are_translated_once_and_each_translation_has_its_place(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(masks={"a": (1, 0), "b": (2,), "c": ()})
    swapped = ("1=dining table", "2=cat", "3=dog")
    found = read_folder(folder_config(root, mask_values=swapped), masks_uri=str(tmp_path / "masks"))
    assert labels_of(found) == EXPECTED
    masks = [load_mask(str(record.mask_uri)).unique().tolist() for record in found.records]
    assert masks == [[0, 1, 2, 255], [0, 3, 255], [0, 255]]
    assert str(found.records[0].mask_uri).startswith(str(tmp_path / "masks"))
    other = ("1=dining table", "2=cat", "3=dog", "255=background")
    again = read_folder(folder_config(root, mask_values=other), masks_uri=str(tmp_path / "masks"))
    assert again.fingerprint() != found.fingerprint()
    assert load_mask(str(again.records[2].mask_uri)).unique().tolist() == [0]


def test_what_the_translation_does_not_list_is_counted(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(masks={"a": (0, 6), "b": (2, 6), "c": ()})
    for labels in ("auto", "masks"):
        config = folder_config(root, class_names=CLASSES, labels=labels, mask_values=("1=cat", "3=dog"))
        with pytest.raises(DataError) as caught:
            read_folder(config, masks_uri=str(tmp_path / "masks"))
        assert "has 1 fault" in str(caught.value)
        assert "7 in 2 masks (48 pixels; e.g. a). data.mask_values lists 1=cat 3=dog; add an entry" in str(caught.value)


def test_translated_masks_need_a_folder(make_folder: MakeFolder) -> None:
    with pytest.raises(ConfigError, match="masks_uri"):
        read_folder(folder_config(make_folder(masks={"a": (0,)}), mask_values=("1=cat",)))


def test_labels_may_come_from_masks(make_folder: MakeFolder) -> None:
    root = make_folder(None, masks=EXPECTED)
    assert "set data.labels to masks" in report_of(root, class_names=CLASSES)
    manifest = read_folder(folder_config(root, class_names=CLASSES, labels="masks"))
    assert labels_of(manifest) == EXPECTED
    with pytest.raises(ConfigError, match=r"data\.class_names is empty"):
        read_folder(folder_config(root, labels="masks"))


def test_a_split_column_decides(make_folder: MakeFolder) -> None:
    text = "image,labels,split\na.jpg,cat,train\nb.jpg,dog,train;val\nc.png,dog,\n"
    manifest = read_folder(folder_config(make_folder(text=text), eval_split="val"))
    assert {r.image_id: r.splits for r in manifest.records} == {"a": ("train",), "b": ("train", "val")}
    assert any(note.startswith("1 images belong to no split in use") for note in manifest.notes)


def test_images_of_the_test_split_are_read_where_the_data_set_has_one(make_folder: MakeFolder) -> None:
    text = "image,labels,split\na.jpg,cat,train\nb.jpg,dog,train;held_out\nc.png,dog,held_out\n"
    manifest = read_folder(folder_config(make_folder(text=text, masks={"c": (1,)}), test_split="held_out"))
    assert {r.image_id: r.splits for r in manifest.records} == {
        "a": ("train",),
        "b": ("train", "held_out"),
        "c": ("held_out",),
    }
    assert [bool(r.mask_uri) for r in manifest.subset("held_out").records] == [False, True]


def test_a_folder_without_test_split_is_read_and_says_so_when_asked(make_folder: MakeFolder) -> None:
    manifest = read_folder(folder_config(make_folder()))
    assert all(record.splits == ("train",) for record in manifest.records)
    with pytest.raises(DataError, match=r"split 'val'; its splits are \['train'\]: set .*data.test_split"):
        manifest.subset("val")


def test_limit_applies_to_each_split(make_folder: MakeFolder) -> None:
    text = "image,labels,split\na.jpg,cat,train\nb.jpg,dog,train\nc.png,dog,val\n"
    manifest = read_folder(folder_config(make_folder(text=text), eval_split="val", limit=1))
    assert {r.image_id: r.splits for r in manifest.records} == {"a": ("train",), "c": ("val",)}


def test_the_label_file_may_lie_anywhere(make_folder: MakeFolder, tmp_path: Path) -> None:
    root = make_folder(None)
    (tmp_path / "elsewhere.csv").write_text("image,labels\na.jpg,cat\nb.jpg,dog\nc.png,\n")
    assert len(read_folder(folder_config(root, label_file=str(tmp_path / "elsewhere.csv"))).records) == 3


def test_it_reads_an_fsspec_store(make_folder: MakeFolder) -> None:
    storage.upload_tree(str(make_folder(masks=EXPECTED)), "memory://folder-test/photos")
    manifest = read_folder(folder_config("memory://folder-test/photos"))
    assert labels_of(manifest) == EXPECTED
    assert manifest.records[0].image_uri == "memory://folder-test/photos/a.jpg"


# --- misuse


def test_all_faults_come_in_one_report(make_folder: MakeFolder) -> None:
    text = "image,labels\na.jpg,cat;unicorn\na.png,cat\nghost.jpg,dog\nb.jpg,dog\n"
    root = make_folder(text=text, masks={"b": (7,)})
    (root / "b.jpg").write_bytes(b"")
    (root / "d.jpg").write_bytes(image_bytes()[:200])
    report = report_of(root, class_names=CLASSES)
    for expected in (
        "a: 'unicorn'; the classes are cat, dining table, dog",
        "a: has more than one entry in the label file",
        "ghost: has an entry in the label file, but no image file",
        "c: the label file has no entry",
        "d: the label file has no entry",
        "b.jpg is empty (0 bytes)",
        "1 of 1 masks hold numbers of no class: 8 in 1 (e.g. b); expected 0 to 3",
        "d.jpg is truncated or broken",
    ):
        assert expected in report
    assert "8 faults" in report


def test_wrong_labels_of_a_large_set_are_told_without_decoding(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(text="image,labels\na.jpg,cat\nb.jpg,unicorn\nc.png,\n")
    (root / "b.jpg").write_bytes(image_bytes()[:-20])
    assert "b.jpg is truncated" in report_of(root, class_names=CLASSES)
    monkeypatch.setattr(inspection, "SOON_DECODED", 2)
    report = report_of(root, class_names=CLASSES)
    assert "'unicorn'" in report and "b.jpg is truncated" not in report
    (root / "labels.csv").write_text("image,labels\na.jpg,cat\nb.jpg,dog\nc.png,\n")
    assert "b.jpg is truncated" in report_of(root, class_names=CLASSES)


def test_two_images_of_one_name(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "a.png").write_bytes(image_bytes(suffix=".png"))
    assert "duplicate id (1):\n  a: there are a.jpg, a.png" in report_of(root)


def test_classes_that_differ_in_case_only(make_folder: MakeFolder) -> None:
    text = "image,labels\na.jpg,Cat\nb.jpg,cat\nc.png,dog\n"
    assert "Cat / cat: differ in case only" in report_of(make_folder(text=text))


def test_classes_that_differ_in_blanks_and_marks_only(make_folder: MakeFolder) -> None:
    text = "image,labels\na.jpg,dining table\nb.jpg,dining_table\nc.png,HER2-\n"
    report = report_of(make_folder(text=text))
    assert "dining table / dining_table: differ in case only, or in blanks and marks" in report
    assert "HER2" not in report


def test_names_of_images_that_lost_their_zeros_or_case(tmp_path: Path) -> None:
    for name in ("001.jpg", "002.jpg", "IMG_7.jpg"):
        (tmp_path / name).write_bytes(image_bytes())
    (tmp_path / "labels.csv").write_text("image,labels\n1,cat\n2.0,dog\nimg_7,dog\n")
    report = report_of(tmp_path)
    assert "1: has an entry in the label file, but no image file; there is 001: the file lost its leading" in report
    assert "2.0: has an entry in the label file, but no image file; there is 002" in report
    assert "img_7: has an entry in the label file, but no image file; there is IMG_7, in another case" in report


def test_notes_tell_what_was_decided_and_what_is_not_read(make_folder: MakeFolder) -> None:
    root = make_folder(text="image,labels\na.jpg,cat/dog\nb.jpg,dog\nc.png,cat\n")
    (root / "labels.json").write_text("{}")
    (root / "labels.json").rename(root / "labels.jsonl")
    notes = "\n".join(read_folder(folder_config(root)).notes)
    assert 'labels of an image are parted by "/"' in notes
    assert "not read, because the labels come from elsewhere: labels.jsonl" in notes
    assert "no split is named, and no image is held out as val" in notes
    every = read_folder(folder_config(root, held_out_share=0.0)).notes
    assert "no split is named: every image is in train" in every
    with pytest.raises(DataError, match="may be one name each, or lists"):
        (root / "labels.csv").write_text("image,labels\na.jpg,cat/dog\nb.jpg,dog\nc.png,\n")
        read_folder(folder_config(root))
    assert labels_of(read_folder(folder_config(root, label_separator="/")))["a"] == (0, 1)
    assert read_folder(folder_config(root, label_separator="none")).class_names == ("cat/dog", "dog")


def test_a_label_file_of_another_name_is_pointed_at(make_folder: MakeFolder) -> None:
    root = make_folder("train_labels.csv", "image,labels\n")
    assert '"train_labels.csv" may be one: name it in data.label_file' in report_of(root)


def test_labels_are_judged_before_pixels_are_decoded(make_folder: MakeFolder) -> None:
    root = make_folder()
    (root / "c.png").write_bytes(b"no picture")

    def refuse(class_names: object, images: object) -> None:
        raise DataError("nothing to learn")

    with pytest.raises(DataError, match="nothing to learn"):
        read_folder(folder_config(root), check_labels=refuse)


def test_a_root_that_is_absent_a_file_or_empty(make_folder: MakeFolder, tmp_path: Path) -> None:
    assert "there is no folder" in report_of(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    assert "there is no image in" in report_of(tmp_path / "empty")
    assert "there is no image in" in report_of(make_folder() / "a.jpg")
    with pytest.raises(ConfigError, match=r"data\.root is empty"):
        read_folder(folder_config(""))


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("image,labels\na.jpg,cat\n")
    assert "there is no image in" in report_of(tmp_path)


def test_label_sources_that_do_not_fit(make_folder: MakeFolder) -> None:
    root = make_folder(None)
    assert "has no image-level labels" in report_of(root)
    assert "there is no label file" in report_of(root, labels="file")
    assert "there is no folder masks in" in report_of(root, labels="masks", class_names=CLASSES)
    assert "there is no label file" in report_of(root, label_file="absent.csv")
    assert "there is no file of annotations called as an image" in report_of(root, labels="annotations")
    with pytest.raises(ConfigError, match=r"data\.labels is masks"):
        read_folder(folder_config(root, labels="masks", label_file="x.csv"))


def test_an_empty_split(make_folder: MakeFolder) -> None:
    text = "image,labels,split\na.jpg,cat,train\nb.jpg,dog,train\nc.png,dog,train\n"
    report = report_of(make_folder(text=text), eval_split="val")
    assert "empty split (1):\n  val: no image belongs to it" in report
    assert "val: data.eval_split; the data set has train: set data.eval_split to one of them" in report


@pytest.mark.parametrize(
    ("class_names", "expected"),
    [
        (("cat", "cat"), "holds a class twice"),
        (("background", "cat"), "implied as label value 0"),
        (("cat", " "), "a class name is empty"),
        (tuple(f"c{n}" for n in range(255)), "at most 254"),
    ],
)
def test_class_names_that_label_nothing(make_folder: MakeFolder, class_names: tuple[str, ...], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_folder(folder_config(make_folder(), class_names=class_names))


def test_labels_that_are_all_empty(make_folder: MakeFolder) -> None:
    assert "names no class at all" in report_of(make_folder(text="image,labels\na.jpg,\nb.jpg,\nc.png,\n"))


@pytest.mark.parametrize("value", ["1", "true", "[0]"])
def test_entries_that_cannot_be_read_are_told_before_that_no_class_is_named(
    make_folder: MakeFolder, value: str
) -> None:
    report = report_of(make_folder("labels.json", f'{{"a.jpg": {value}, "b.jpg": {value}, "c.png": {value}}}'))
    assert "unreadable label entry (3)" in report and f"found {value}, expected a list of class names" in report


def test_scores_are_over_the_images_with_a_mask(make_folder: MakeFolder) -> None:
    manifest = read_folder(folder_config(make_folder(masks={"a": (0, 1)})))
    assert [record.mask_uri is not None for record in manifest.records] == [True, False, False]
    assert sum("1 of 3 images of the scored split train have a mask" in note for note in manifest.notes) == 1


def test_names_that_differ_in_case_only_are_said(make_folder: MakeFolder) -> None:
    root = make_folder(masks={"a": (0, 1)})
    (root / "B.jpg").write_bytes(image_bytes(7))
    report = report_of(root)
    assert "b / B: two images differ in case only" in report and "masks among the images" not in report

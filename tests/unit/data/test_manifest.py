import dataclasses
from collections import Counter
from pathlib import Path

import fsspec
import pandas
import pyarrow.parquet as pq
import pytest
import torch

from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.datasets import label_matrix
from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, read_manifest, summarise, write_manifest
from qaclims_ray.errors import ArtifactError, DamagedError, DataError, ResourceError

CLASSES = ("cat", "dining table")


def record(image_id: str, *labels: int, splits: tuple[str, ...] = ("train",), mask: str | None = None) -> ImageRecord:
    return ImageRecord(image_id, f"/data/{image_id}.jpg", 30, 20, labels, mask, None, splits)


@pytest.fixture
def manifest() -> Manifest:
    records = (record("a", 0), record("b", 0, 1, splits=("train", "val"), mask="/data/b.png"), record("c"))
    return Manifest(CLASSES, records, ("read /data",))


def test_it_comes_back_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(manifest, manifest_artifact(str(tmp_path / "manifest"), {"root": "/data"}))
    again = read_manifest(str(tmp_path / "manifest"))
    assert again == manifest
    assert again.notes == manifest.notes
    assert again.fingerprint() == manifest.fingerprint()


def in_run(out: str) -> Manifest:
    """Return a manifest with images inside and outside of a run's folder, and one in a neighbour of its name."""
    uris = (f"{out}/data/a [1].jpg", f"{out}2/b.jpg", "/data/c.jpg", "s3://bucket/d.jpg")
    records = tuple(
        dataclasses.replace(record(f"i{number}", 0), image_uri=uri, mask_uri=f"{out}/data/masks/{number}.png")
        for number, uri in enumerate(uris)
    )
    return Manifest(CLASSES, records, (f"read {out}/data", f"labels from {out}/data/x.csv, not {out}2/x.csv"))


@pytest.mark.parametrize("scheme", ["", "memory:/"])
def test_it_goes_on_working_where_its_folder_is_moved(tmp_path: Path, scheme: str) -> None:
    one, two = f"{scheme}{tmp_path}/one", f"{scheme}{tmp_path}/x/two"
    meta = write_manifest(in_run(one), manifest_artifact(f"{one}/manifest", {}))
    for name in ("manifest.parquet", "files.json", "meta.json"):
        content = storage.read_bytes(f"{one}/manifest/{name}")
        assert one.encode() + b"/" not in content
        storage.write_bytes(f"{two}/manifest/{name}", content)
    here, there = read_manifest(f"{one}/manifest"), read_manifest(f"{two}/manifest")
    assert here == in_run(one) and here.notes == in_run(one).notes
    assert there.records[0].image_uri == f"{two}/data/a [1].jpg" and there.records[1].image_uri == f"{one}2/b.jpg"
    assert there.notes == (f"read {two}/data", f"labels from {two}/data/x.csv, not {one}2/x.csv")
    assert here.fingerprint() == there.fingerprint() == meta.summary["content"]
    assert here.subset("train").fingerprint() == there.subset("train").fingerprint()
    changed = dataclasses.replace(there, records=there.records[1:])
    assert changed.fingerprint() != there.fingerprint()


def test_its_fingerprint_is_the_one_that_run_folders_hold() -> None:
    """The value was taken before records were hashed slice by slice."""
    found = Manifest(CLASSES, (record("a", 0), record("b", 0, 1, splits=("train", "val"), mask="/data/b.png")))
    rows = [
        ["a", "/data/a.jpg", 30, 20, [0], None, None, ["train"]],
        ["b", "/data/b.jpg", 30, 20, [0, 1], "/data/b.png", None, ["train", "val"]],
    ]
    assert found.fingerprint() == artifacts.fingerprint_of([list(CLASSES), rows]) == "dccc4dd611815302"
    images = artifacts.fingerprint_of([list(CLASSES), True, [row[:5] for row in rows]])
    assert found.images_fingerprint() == images
    assert found.truth_fingerprint() == artifacts.fingerprint_of([images, [row[5:7] for row in rows]])


@pytest.mark.parametrize("records", [(), (record("only"),)])
def test_empty_and_unlabelled_manifests_come_back(records: tuple[ImageRecord, ...], tmp_path: Path) -> None:
    manifest = Manifest(CLASSES, records)
    write_manifest(manifest, manifest_artifact(str(tmp_path), {}))
    assert read_manifest(str(tmp_path)) == manifest
    assert label_matrix(manifest).shape == (len(records), 2)


def test_it_lives_in_an_fsspec_store(manifest: Manifest) -> None:
    uri = "memory://bucket/run/manifest"
    write_manifest(manifest, manifest_artifact(uri, {}))
    assert read_manifest(uri) == manifest
    assert {
        path.rsplit("/", 1)[-1] for path in fsspec.filesystem("memory").ls("/bucket/run/manifest", detail=False)
    } == {
        "manifest.parquet",
        "files.json",
        "meta.json",
    }


def test_it_lives_in_s3(manifest: Manifest, s3_bucket: str) -> None:
    uri = f"{s3_bucket}/run/manifest"
    write_manifest(manifest, manifest_artifact(uri, {"root": s3_bucket}))
    assert read_manifest(uri) == manifest
    assert manifest_artifact(uri, {"root": s3_bucket}).current() is not None
    filesystem, path = storage.arrow_filesystem(f"{uri}/manifest.parquet")
    assert pq.read_table(path, filesystem=filesystem).num_rows == 3


def test_a_person_can_read_the_table(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(manifest, manifest_artifact(str(tmp_path), {}))
    table = pandas.read_parquet(tmp_path / "manifest.parquet")
    assert table["image_id"].tolist() == ["a", "b", "c"]
    assert [list(labels) for labels in table["labels"]] == [[0], [0, 1], []]


def test_the_meta_counts_what_is_there(manifest: Manifest, tmp_path: Path) -> None:
    meta = write_manifest(manifest, manifest_artifact(str(tmp_path), {}))
    assert meta.summary == summarise(manifest)
    assert meta.summary["images_by_split"] == {"train": 3, "val": 1}
    assert meta.summary["images_by_class"] == {"cat": 2, "dining table": 1}
    assert (meta.summary["images_without_label"], meta.summary["images_with_mask"]) == (1, 1)
    assert meta.summary["notes"] == ["read /data"]


def test_label_matrix_is_multi_hot(manifest: Manifest) -> None:
    assert torch.equal(label_matrix(manifest), torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]))


def test_subset_takes_a_split_in_order(manifest: Manifest) -> None:
    assert [r.image_id for r in manifest.subset("train").records] == ["a", "b", "c"]
    assert [r.image_id for r in manifest.subset("val").records] == ["b"]
    with pytest.raises(DataError, match=r"split 'test'; its splits are \['train', 'val'\]"):
        manifest.subset("test")


@pytest.mark.parametrize(
    "change",
    [{"image_id": "z"}, {"image_uri": "/z"}, {"width": 31}, {"labels": (1,)}, {"mask_uri": "/m"}, {"splits": ()}],
)
def test_the_fingerprint_follows_every_field(manifest: Manifest, change: dict) -> None:
    first, *others = manifest.records
    changed = Manifest(CLASSES, (dataclasses.replace(first, **change), *others))
    assert changed.fingerprint() != manifest.fingerprint()


def test_hashes_of_what_stages_read_are_computed_once(manifest: Manifest, monkeypatch) -> None:
    expected = (manifest.images_fingerprint(), manifest.truth_fingerprint())
    monkeypatch.setattr(artifacts, "fingerprint_of", lambda content: pytest.fail("computed again"))
    assert (manifest.images_fingerprint(), manifest.truth_fingerprint()) == expected
    monkeypatch.undo()
    changed = dataclasses.replace(manifest, records=manifest.records[:2])
    assert changed.images_fingerprint() != expected[0], "a changed copy has its own"


def test_the_fingerprint_follows_names_and_order_but_not_notes(manifest: Manifest) -> None:
    prints = [
        manifest.fingerprint(),
        Manifest(("dog", "dining table"), manifest.records).fingerprint(),
        Manifest(CLASSES, manifest.records[::-1]).fingerprint(),
        Manifest(CLASSES, manifest.records).fingerprint(),
    ]
    assert Counter(prints)[prints[0]] == 2 and prints[3] == prints[0] and len(set(prints)) == 3


@pytest.mark.parametrize("labels", [(2,), (-1,), (1, 0), (0, 0)])
def test_impossible_labels_are_refused(labels: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="expected ascending class ids from 0 to 1"):
        Manifest(CLASSES, (record("a", *labels),))


def test_duplicate_ids_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 image ids stand more than once .*\['a'\]"):
        Manifest(CLASSES, (record("a"), record("b"), record("a", 0)))


def test_reading_nothing_names_the_verb(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"no complete manifest .* `qaclims data`"):
        read_manifest(str(tmp_path / "absent"))


def test_a_half_written_manifest_does_not_count(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(manifest, manifest_artifact(str(tmp_path), {}))
    (tmp_path / "meta.json").unlink()
    with pytest.raises(ArtifactError, match="no complete manifest"):
        read_manifest(str(tmp_path))


@pytest.mark.parametrize("damage", ["remove", "cut", "text", "foreign"])
def test_a_broken_table_is_refused(manifest: Manifest, tmp_path: Path, damage: str) -> None:
    write_manifest(manifest, manifest_artifact(str(tmp_path), {}))
    path = tmp_path / "manifest.parquet"
    match damage:
        case "remove":
            path.unlink()
        case "cut":
            path.write_bytes(path.read_bytes()[:-20])
        case "text":
            path.write_text("image_id,labels\n")
        case "foreign":
            pandas.DataFrame({"image_id": ["a"]}).to_parquet(path)
    with pytest.raises(
        ArtifactError,
        match=r"its manifest\.parquet (is missing|has \d+ bytes, .*); `qaclims data` makes it again",
    ):
        read_manifest(str(tmp_path))


def test_a_table_with_a_flipped_bit_is_refused(manifest: Manifest, tmp_path: Path) -> None:
    write_manifest(manifest, manifest_artifact(str(tmp_path / "one"), {}))
    path = tmp_path / "one/manifest.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="is not the file that was written"):
        read_manifest(str(tmp_path / "one"))


@pytest.mark.parametrize(
    ("change", "is_seen"),
    [({"splits": ("val",)}, (False, False)), ({"mask_uri": "/m.png"}, (False, True)), ({"labels": (1,)}, (True, True))],
)
def test_trainings_see_images_and_labels_and_scores_see_masks(
    manifest: Manifest, change: dict, is_seen: tuple[bool, bool]
) -> None:
    first, *others = manifest.records
    changed = Manifest(CLASSES, (dataclasses.replace(first, **change), *others))
    known = [manifest.images_fingerprint(), manifest.truth_fingerprint()]
    seen = [changed.images_fingerprint(), changed.truth_fingerprint()]
    assert tuple(a != b for a, b in zip(seen, known, strict=True)) == is_seen


def test_another_artefact_is_refused(tmp_path: Path) -> None:
    artifacts.Artifact(uri=str(tmp_path), kind="corpus", settings={}, verb="corpus").complete()
    with pytest.raises(ArtifactError, match="holds a corpus, expected a manifest"):
        read_manifest(str(tmp_path))


def test_a_place_that_cannot_be_written_is_named(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="a file lies there"):
        write_manifest(manifest, manifest_artifact(str(tmp_path / "file"), {}))

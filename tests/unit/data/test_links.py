"""Symbolic links, everywhere that files are found by listing a folder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, cast

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from qaclims_ray.data import storage
from qaclims_ray.data.coco import read_coco
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder import read_folder
from qaclims_ray.data.histology import read_histology
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.data.voc import read_voc
from qaclims_ray.errors import DataError
from qaclims_ray.methods.given.files import files_by_image, given_files, given_fingerprint
from qaclims_ray.stages.predict import _images_at
from tests.tiny_coco import write_coco
from tests.tiny_tissue import write_luad
from tests.unit.data.tiny_data_sets import folder_config, image_bytes, voc_config

KINDS = ("absolute links", "relative links", "links to links", "folder links", "a link as root")


def link_all(root: Path, kind: str) -> Path:
    """Put a data set's files aside and links in their place; return where it is read."""
    store = root.with_name(f"{root.name}-store")
    root.rename(store)
    if kind == "a link as root":
        root.symlink_to(store)
    elif kind == "folder links":
        root.mkdir()
        for path in store.iterdir():
            (root / path.name).symlink_to(path)
    else:
        for path in sorted(path for path in store.rglob("*") if path.is_file()):
            link = root / path.relative_to(store)
            link.parent.mkdir(parents=True, exist_ok=True)
            target: Any = path if kind == "absolute links" else os.path.relpath(path, link.parent)
            if kind == "links to links":
                between = store.with_name(f"{root.name}-between") / path.relative_to(store)
                between.parent.mkdir(parents=True, exist_ok=True)
                between.symlink_to(path)
                target = between
            link.symlink_to(target)
    return root


def without_places(manifest: Manifest, *places: str) -> str:
    text = repr((manifest.class_names, manifest.records, manifest.notes))
    for place in places:
        text = text.replace(place, "")
    return text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["folder", "voc12", "coco14", "luad_histoseg"])
def test_a_data_set_of_links_reads_as_the_data_set(
    tmp_path: Path, make_voc: Callable[..., Path], make_folder: Callable[..., Path], layout: str, kind: str
) -> None:
    masks = str(tmp_path / "masks-made")
    config = DataConfig(dataset=cast("Any", layout), train_split="train", eval_split="val", test_split="val")
    match layout:
        case "folder":
            root, read = (
                make_folder(masks={"a": (0, 1), "b": (2,), "c": ()}),
                lambda root: read_folder(folder_config(root)),
            )
        case "voc12":
            root, read = make_voc(), lambda root: read_voc(voc_config(root))
        case "coco14":
            root = tmp_path / "coco"
            write_coco(root)
            read = lambda root: read_coco(_with(config, root), masks).manifest  # noqa: E731
        case _:
            root = write_luad(tmp_path / "luad")
            read = lambda root: read_histology(_with(config, root), masks)  # noqa: E731
    before = read(root)
    assert before.records
    assert without_places(read(link_all(root, kind))) == without_places(before)


def _with(config: DataConfig, root: Path) -> DataConfig:
    return DataConfig(dataset=config.dataset, root=str(root), train_split="train", eval_split="val", test_split="val")


@pytest.mark.parametrize("kind", KINDS)
def test_given_cams_and_pictures_to_predict_may_be_links(tmp_path: Path, kind: str) -> None:
    for folder, names in (("cams", ("a.npz", "b.NPZ")), ("photos", ("a.jpg", "b.JPEG", "c.heic"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).write_bytes(b"x")
        link_all(tmp_path / folder, kind)
    assert list(files_by_image(given_files(str(tmp_path / "cams")))) == ["a", "b"]
    assert given_fingerprint(str(tmp_path / "cams"))
    assert [Path(uri).name for uri in _images_at(str(tmp_path / "photos"))] == ["a.jpg", "b.JPEG", "c.heic"]


# --- the fingerprint


@pytest.mark.parametrize("kind", KINDS)
def test_a_changed_target_changes_the_fingerprint(tmp_path: Path, kind: str) -> None:
    (tmp_path / "set/deep").mkdir(parents=True)
    (tmp_path / "set/deep/a.txt").write_text("1")
    root = str(link_all(tmp_path / "set", kind))
    before = storage.listing_fingerprint(root)
    assert storage.listing_fingerprint(root) == before
    (tmp_path / "set-store/deep/a.txt").write_text("22")
    assert storage.listing_fingerprint(root) != before


def test_a_link_that_points_elsewhere_changes_the_fingerprint(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text("same")
        os.utime(tmp_path / name, (1, 1))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a").symlink_to(tmp_path / "one")
    before = storage.listing_fingerprint(str(tmp_path / "set"))
    (tmp_path / "set/a").unlink()
    (tmp_path / "set/a").symlink_to(tmp_path / "two")
    assert storage.listing_fingerprint(str(tmp_path / "set")) != before


def test_folders_that_hold_themselves_are_walked_once(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").write_text("x")
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    (tmp_path / "a/self").symlink_to(tmp_path / "a")
    for number in range(40):  # each doubles the ways to the file
        (tmp_path / f"a/b/{number}").symlink_to(tmp_path / "a/b")
    assert storage.listing_fingerprint(str(tmp_path / "a"))


def test_a_tree_without_links_keeps_its_fingerprint_of_before(tmp_path: Path) -> None:
    """Runs made before links were followed must be found again: name, size and time of each file, sorted."""
    import hashlib

    (tmp_path / "b").mkdir()
    for name in ("b/file", "a file", "b.txt"):
        (tmp_path / name).write_text(name)
    lines = [f"{path} {path.stat().st_size} {path.stat().st_mtime}\n" for path in tmp_path.rglob("*") if path.is_file()]
    digest = hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()[:16]
    assert storage.listing_fingerprint(str(tmp_path)) == digest


# --- links that lead nowhere


def test_a_lost_image_is_a_fault_that_names_the_link(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "b.jpg").unlink()
    (root / "b.jpg").symlink_to("/gone/by/now.jpg")
    with pytest.raises(
        DataError, match=r"b\.jpg is a symbolic link to /gone/by/now\.jpg, where nothing is; .*dvc pull"
    ):
        read_folder(folder_config(root))


def test_a_loop_is_one_fault(make_folder: Callable[..., Path]) -> None:
    root = make_folder()
    (root / "b.jpg").unlink()
    (root / "b.jpg").symlink_to(root / "other.jpg")
    (root / "other.jpg").symlink_to(root / "b.jpg")
    with pytest.raises(
        DataError, match=r"b\.jpg is a symbolic link to .*other\.jpg, which leads back to itself"
    ) as caught:
        storage.read_bytes(str(root / "b.jpg"))
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="leads back to itself"):
        read_folder(folder_config(root))


@pytest.mark.parametrize("name", ["masks", "labels.csv", "images"])
def test_a_lost_folder_or_label_file_is_not_taken_for_an_absent_one(
    make_folder: Callable[..., Path], name: str
) -> None:
    root = make_folder()
    (root / name).unlink(missing_ok=True)
    (root / "image_labels.csv").write_text("image,labels\na,cat\nb,dog\nc,dog\n")
    (root / name).symlink_to(root / "gone")
    with pytest.raises(DataError, match=rf"{name} is a symbolic link to .*gone, where nothing is"):
        read_folder(folder_config(root, label_file="labels.csv" if name == "labels.csv" else ""))


@pytest.mark.parametrize("name", ["JPEGImages", "Annotations", "SegmentationClass", "ImageSets"])
def test_a_lost_folder_of_voc_is_named(make_voc: Callable[..., Path], name: str) -> None:
    root = make_voc()
    (root / name).rename(root / "elsewhere")
    (root / name).symlink_to(root / "gone")
    with pytest.raises(DataError, match=rf"{name}.* is a symbolic link to .*gone, where nothing is"):
        read_voc(voc_config(root))


def test_a_root_that_is_lost(tmp_path: Path) -> None:
    (tmp_path / "set").symlink_to(tmp_path / "disk")
    for call in (storage.exists, storage.list_files, storage.list_folders, storage.listing_fingerprint, storage.size):
        for uri in (tmp_path / "set", tmp_path / "set/below"):
            with pytest.raises(DataError, match=r"set is a symbolic link to .*disk, where nothing is"):
                call(str(uri))


def test_pipes_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").symlink_to(tmp_path / "a.jpg")
    assert storage.list_files(str(tmp_path)) == storage.list_folders(str(tmp_path)) == []


# --- stores whose listings know links


class LinkingStore(MemoryFileSystem):
    """A store that lists links as links, as SFTP does."""

    protocol = "linking"
    store: ClassVar[dict[str, Any]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]
    links: ClassVar[dict[str, str]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("linking://", "memory://"))

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        entries = super().ls(path, detail=True, **options)
        below = [name for name in self.links if name.rpartition("/")[0] == self._strip_protocol(path)]
        entries += [{"name": name, "size": 1, "type": "link", "destination": self.links[name]} for name in below]
        return entries if detail else [entry["name"] for entry in entries]

    def info(self, path: str, **options: Any) -> Any:
        path = self._strip_protocol(path)
        if path in self.links:
            return {"name": path, "size": 1, "type": "link", "destination": self.links[path]}
        return super().info(path, **options)


def test_links_in_a_store_count_as_what_they_point_to(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("linking", LinkingStore, clobber=True)
    store = LinkingStore()
    store.pipe({"/real/a.jpg": image_bytes(), "/real/sub/b.jpg": image_bytes()})
    monkeypatch.setattr(
        LinkingStore,
        "links",
        {
            "/set/file.jpg": "/real/a.jpg", "/set/near": "../real/sub", "/set/folder": "/real/sub",
            "/set/chain.jpg": "/set/file.jpg", "/set/lost.jpg": "/real/none.jpg", "/set/loop.jpg": "/set/loop.jpg",
        },
    )  # fmt: skip
    store.pipe("/set/plain.jpg", b"x")
    files = [uri.rsplit("/", 1)[-1] for uri in storage.list_files("linking://set")]
    assert files == ["chain.jpg", "file.jpg", "loop.jpg", "lost.jpg", "plain.jpg"]
    assert storage.list_folders("linking://set") == ["linking://set/folder", "linking://set/near"]

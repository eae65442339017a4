import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs
import pytest
import s3fs

from qaclims_ray.data import storage
from qaclims_ray.errors import DataError, ResourceError


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each sort of store."""
    match request.param:
        case "memory":
            return f"memory://{tmp_path.name}"
        case "s3":
            return f"{request.getfixturevalue('s3_bucket')}/{tmp_path.name}"
        case _:
            return str(tmp_path / "place")


def test_what_is_written_is_read_listed_found_and_removed(place: str) -> None:
    uri = storage.join(place, "deep", "a.txt")
    assert not storage.exists(uri) and storage.list_files(storage.join(place, "deep")) == []
    storage.write_bytes(uri, b"one")
    storage.write_bytes(uri, b"two")
    storage.write_bytes(storage.join(place, "deep/b.bin"), b"")
    storage.write_bytes(storage.join(place, "deep/deeper/c.txt"), b"")
    assert storage.read_bytes(uri) == b"two"
    assert storage.exists(uri) and storage.exists(storage.join(place, "deep"))
    assert storage.list_files(storage.join(place, "deep")) == [uri, storage.join(place, "deep/b.bin")]
    assert storage.list_files(storage.join(place, "deep/"), ".txt") == [uri]
    storage.remove_tree(place)
    storage.remove_tree(place)
    assert not storage.exists(uri)


def test_a_missing_file_is_named(place: str) -> None:
    with pytest.raises(DataError, match=r"there is no file .*absent\.txt"):
        storage.read_bytes(storage.join(place, "absent.txt"))
    with pytest.raises(DataError, match="there is nothing at"), storage.local_copy(storage.join(place, "absent")):
        pass


def test_a_failed_write_leaves_nothing_and_keeps_the_old(place: str) -> None:
    uri = storage.join(place, "a.txt")
    storage.write_bytes(uri, b"old")
    with pytest.raises(RuntimeError, match="killed"), storage.publishing(uri) as local_path:
        Path(local_path).write_bytes(b"ne")
        raise RuntimeError("killed")
    assert storage.read_bytes(uri) == b"old"
    assert storage.list_files(place) == [uri]


def test_folders_travel_whole(place: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub/b.txt").write_text("b")
    storage.upload_tree(str(source), storage.join(place, "copy"))
    with storage.local_copy(storage.join(place, "copy")) as local:
        assert (Path(local) / "a.txt").read_text() + (Path(local) / "sub/b.txt").read_text() == "ab"
    with storage.local_copy(storage.join(place, "copy/a.txt")) as local:
        assert Path(local).read_text() == "a"


def test_writable_places_pass_and_stay_empty(place: str) -> None:
    storage.check_writable(place)
    assert storage.list_files(place) == []


def test_arrow_sees_the_same_files(place: str) -> None:
    storage.write_bytes(storage.join(place, "a.txt"), b"content")
    filesystem, path = storage.arrow_filesystem(storage.join(place, "a.txt"))
    assert isinstance(filesystem, pyarrow.fs.FileSystem)
    with filesystem.open_input_stream(path) as stream:
        assert stream.read() == b"content"


def test_a_partial_file_is_never_seen_under_its_final_name(tmp_path: Path) -> None:
    with storage.publishing(str(tmp_path / "a.txt")) as local_path:
        Path(local_path).write_bytes(b"half")
        assert not (tmp_path / "a.txt").exists()
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("a", ("b", "c"), "a/b/c"),
        ("/a/", ("/b/", "c.txt"), "/a/b/c.txt"),
        ("/", ("a",), "/a"),
        ("s3://bucket", ("a",), "s3://bucket/a"),
        ("s3://bucket/", ("a/b",), "s3://bucket/a/b"),
        ("memory://", ("a",), "memory://a"),
        ("s3://bucket/a", (), "s3://bucket/a"),
    ],
)
def test_join(base: str, parts: tuple[str, ...], joined: str) -> None:
    assert storage.join(base, *parts) == joined


def test_local_paths_become_absolute_and_uris_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert storage.absolute("a/b") == str(tmp_path / "a/b")
    assert storage.absolute("~/a") == "/home/somebody/a"
    assert storage.absolute("file:///a") == storage.absolute("local:///a") == "/a"
    assert storage.absolute("s3://bucket/a") == "s3://bucket/a"
    assert not storage.is_remote("file:///a") and not storage.is_remote("a") and storage.is_remote("gs://b")


# --- misuse


@pytest.mark.parametrize("uri", ["nonsense://a/b", "http9://a"])
def test_an_unknown_protocol_is_refused(uri: str) -> None:
    for function in (storage.exists, storage.read_bytes, storage.list_files):
        with pytest.raises(ResourceError, match=r"cannot open .* Local paths, s3:// and gs://"):
            function(uri)


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for write in (lambda uri: storage.write_bytes(uri, b""), storage.check_writable):
        with pytest.raises(ResourceError, match="cannot be written"):
            write(str(tmp_path / "file/below"))
    with pytest.raises(ResourceError, match="cannot be written"):
        storage.write_bytes(str(tmp_path), b"")
    with pytest.raises(DataError, match="cannot be read"):
        storage.read_bytes(str(tmp_path / "file/below"))
    assert storage.list_files(str(tmp_path / "file")) == []
    assert storage.list_files(str(tmp_path / "file/below")) == []


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"No space left.*free space"), storage.publishing(str(tmp_path / "a")):
        raise OSError(28, "No space left on device")
    assert os.listdir(tmp_path) == []


def test_too_little_space_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match="MiB free, the run needs at least"):
        storage.check_writable(str(tmp_path), min_free_mib=1 << 40)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="cannot be written"):
        storage.check_writable(str(tmp_path))


def test_a_bucket_that_is_not_there(s3_bucket: str) -> None:
    absent = "s3://qaclims-absent/a"
    assert s3_bucket and not storage.exists(absent) and storage.list_files(absent) == []
    with pytest.raises(ResourceError, match="bucket does not exist"):
        storage.write_bytes(absent, b"")


@pytest.fixture
def no_credentials(s3_bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "absent"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "absent"))
    s3fs.S3FileSystem.clear_instance_cache()
    yield f"{s3_bucket}/a"
    s3fs.S3FileSystem.clear_instance_cache()


def test_absent_credentials_are_named(no_credentials: str) -> None:
    calls = (storage.exists, storage.read_bytes, storage.list_files, lambda uri: storage.write_bytes(uri, b""))
    for call in calls:
        with pytest.raises(ResourceError, match=r"Unable to locate credentials.*AWS_ACCESS_KEY_ID"):
            call(no_credentials)


def test_sizes_and_folders(place: str) -> None:
    storage.write_bytes(f"{place}/top/one/file", b"12345")
    storage.write_bytes(f"{place}/top/two/file", b"")
    storage.write_bytes(f"{place}/top/file", b"")
    assert storage.size(f"{place}/top/one/file") == 5
    assert storage.list_folders(f"{place}/top") == [f"{place}/top/one", f"{place}/top/two"]
    assert storage.list_files(f"{place}/top") == [f"{place}/top/file"]
    assert storage.list_folders(f"{place}/nowhere") == []
    with pytest.raises(DataError, match="there is no file"):
        storage.size(f"{place}/nowhere")

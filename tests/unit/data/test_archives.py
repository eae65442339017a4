"""Unpacking archives of others: nothing outside the folder, whole or not at all."""

import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from qaclims_ray.data.archives import unpack
from qaclims_ray.errors import DataError

Make = Callable[[Path, dict[str, bytes]], Path]


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


@pytest.mark.parametrize("make", [tar, zipped])
def test_the_wanted_folder_appears_beside_what_is_there(make: Make, tmp_path: Path) -> None:
    (tmp_path / "kit/old").mkdir(parents=True)
    archive = make(tmp_path / "a.bin", {"kit/new/1.txt": b"1", "kit/new/sub/2.txt": b"2"})
    seen: list[tuple[int, int]] = []
    assert unpack(archive, tmp_path, "kit/new", lambda done, of: seen.append((done, of))) == tmp_path / "kit/new"
    assert (tmp_path / "kit/new/sub/2.txt").read_bytes() == b"2" and (tmp_path / "kit/old").is_dir()
    assert seen == [(1, 2), (2, 2)] and sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "kit"]


@pytest.mark.parametrize("make", [tar, zipped])
@pytest.mark.parametrize("name", ["../out.txt", "/tmp/out.txt", "kit/../../out.txt", "..\\out.txt", "C:\\out.txt"])
def test_paths_that_lead_out_are_refused(make: Make, name: str, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    archive = make(tmp_path / "a.bin", {"kit/1.txt": b"1", name: b"evil"})
    with pytest.raises(DataError, match="leads out of the folder"):
        unpack(archive, folder, "kit")
    assert list(folder.iterdir()) == [] and not (tmp_path / "out.txt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("kit/link")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="holds a link or device"):
        unpack(tmp_path / "a.tar", tmp_path / "in", "kit")


def test_links_in_a_zip_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("kit/link")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match="holds a link"):
        unpack(tmp_path / "a.zip", tmp_path / "in", "kit")


def test_what_a_mac_adds_is_left_out(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"kit/1.txt": b"1", "__MACOSX/kit/._1.txt": b"?"})
    unpack(archive, tmp_path, "kit")
    assert [path.name for path in (tmp_path / "kit").iterdir()] == ["1.txt"]


@pytest.mark.parametrize("make", [tar, zipped])
def test_a_damaged_archive_leaves_nothing(make: Make, tmp_path: Path) -> None:
    archive = make(tmp_path / "a.bin", {f"kit/{i}.txt": bytes(2000) for i in range(20)})
    archive.write_bytes(archive.read_bytes()[:10_000])
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(archive, tmp_path / "in", "kit")
    assert list((tmp_path / "in").iterdir()) == []


def test_an_archive_of_something_else_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds other, expected kit"):
        unpack(tar(tmp_path / "a.tar", {"other/1.txt": b"1"}), tmp_path / "in", "kit")

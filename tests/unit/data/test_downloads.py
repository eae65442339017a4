"""Bringing files: going on, holding to checksums, falling back, and saying what to do by hand."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qaclims_ray.data import downloads
from qaclims_ray.data.downloads import Checksum, Wanted, bring_file
from qaclims_ray.errors import ResourceError
from tests.unit.web import Site, serving

CONTENT = os.urandom(300_000)
SHA256 = Checksum("sha256", hashlib.sha256(CONTENT).hexdigest())
MD5 = Checksum("md5", hashlib.md5(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(downloads, "_CHUNK_BYTES", 1 << 14)


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site({"big.bin": CONTENT})) as found:
        yield found


def _wanted(folder: Path, *urls: str, checksum: Checksum | None = SHA256) -> Wanted:
    return Wanted(folder / "big.bin", urls, checksum, by_hand="https://example.org/page")


def _left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("checksum", [SHA256, MD5, Checksum("sha256", SHA256.digits[:8]), None])
def test_a_file_is_brought_once_and_told_of(site: Site, tmp_path: Path, checksum: Checksum | None) -> None:
    seen: list[tuple[int, int]] = []
    wanted = _wanted(tmp_path / "new", site.at("big.bin"), checksum=checksum)
    assert bring_file(wanted, lambda done, total: seen.append((done, total)))
    assert wanted.path.read_bytes() == CONTENT and _left(tmp_path / "new") == ["big.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and len(seen) > 10
    assert not bring_file(wanted) and len(site.asked) == 1


def test_a_broken_connection_is_gone_on_with_at_once(site: Site, tmp_path: Path) -> None:
    site.breaks_after = [98_304, 49_152]
    bring_file(_wanted(tmp_path, site.at("big.bin")))
    assert (tmp_path / "big.bin").read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == ["", "bytes=98304-", "bytes=147456-"]


@pytest.mark.parametrize("checksum", [SHA256, None])
def test_a_later_call_goes_on_with_what_is_there(site: Site, tmp_path: Path, checksum: Checksum | None) -> None:
    wanted = _wanted(tmp_path, site.at("big.bin"), checksum=checksum)
    site.breaks_after = [98_304, 0]
    with pytest.raises(ResourceError, match="the connection broke"):
        bring_file(wanted)
    assert not wanted.path.exists() and (tmp_path / "big.bin.unfinished").stat().st_size == 98_304
    site.asked.clear()
    assert bring_file(wanted) and wanted.path.read_bytes() == CONTENT
    assert site.asked == [("/big.bin", "bytes=98304-")] and _left(tmp_path) == ["big.bin"]


def test_a_file_that_changed_meanwhile_is_brought_anew(site: Site, tmp_path: Path) -> None:
    wanted = _wanted(tmp_path, site.at("big.bin"), checksum=None)
    site.breaks_after = [98_304, 0]
    with pytest.raises(ResourceError):
        bring_file(wanted)
    site.files["big.bin"], site.tag = CONTENT[::-1], '"v2"'
    assert bring_file(wanted) and wanted.path.read_bytes() == CONTENT[::-1]


def test_a_server_without_ranges_sends_it_all_again(site: Site, tmp_path: Path) -> None:
    site.has_ranges, site.breaks_after = False, [98_304]
    bring_file(_wanted(tmp_path, site.at("big.bin")))
    assert (tmp_path / "big.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("content", [CONTENT, CONTENT + b"more", b"x" * 400_000])
def test_what_lay_there_whole_or_wrong_does_no_harm(site: Site, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "big.bin.unfinished").write_bytes(content)
    (tmp_path / "big.bin.unfinished.json").write_text("{")
    wanted = _wanted(tmp_path, site.at("big.bin"), site.at("big.bin"))
    assert bring_file(wanted) and wanted.path.read_bytes() == CONTENT


def test_a_wrong_start_is_found_by_the_checksum_and_brought_anew(site: Site, tmp_path: Path) -> None:
    (tmp_path / "big.bin.unfinished").write_bytes(b"x" * 1000)
    wanted = _wanted(tmp_path, site.at("big.bin"))
    assert bring_file(wanted) and wanted.path.read_bytes() == CONTENT
    assert [asked for _, asked in site.asked] == ["bytes=1000-", ""]


def test_the_next_mirror_is_asked(site: Site, tmp_path: Path) -> None:
    site.files["damaged.bin"] = CONTENT[:-1] + b"?"
    urls = ("http://127.0.0.1:9/big.bin", site.at("gone.bin"), site.at("damaged.bin"), site.at("big.bin"))
    assert bring_file(_wanted(tmp_path, *urls))
    assert (tmp_path / "big.bin").read_bytes() == CONTENT and _left(tmp_path) == ["big.bin"]


def test_another_mirror_goes_on_where_the_first_broke(site: Site, tmp_path: Path) -> None:
    site.breaks_after = [98_304, 0]
    site.files["mirror.bin"] = CONTENT
    assert bring_file(_wanted(tmp_path, site.at("big.bin"), site.at("mirror.bin")))
    assert site.asked[-1] == ("/mirror.bin", "bytes=98304-")


def test_without_a_checksum_another_mirror_begins_anew(site: Site, tmp_path: Path) -> None:
    site.breaks_after = [98_304, 0]
    with serving(Site({"mirror.bin": CONTENT[::-1]}, tag='"other"')) as other:
        assert bring_file(_wanted(tmp_path, site.at("big.bin"), other.at("mirror.bin"), checksum=None))
    assert (tmp_path / "big.bin").read_bytes() == CONTENT[::-1]


def test_where_all_fail_one_error_says_what_to_do_by_hand(site: Site, tmp_path: Path) -> None:
    site.files["page"] = b"<html>sign in</html>"
    site.headers = {"Content-Type": "text/html; charset=utf-8"}
    urls = ("http://127.0.0.1:9/big.bin", site.at("gone.bin"), site.at("page"), "http://nowhere.invalid/big.bin")
    with pytest.raises(ResourceError) as failed:
        bring_file(_wanted(tmp_path, *urls))
    said = str(failed.value)
    for words in ("it refuses connections", "answered 404", "a web page", "not known here", str(tmp_path / "big.bin"),
                  "https://example.org/page", SHA256.digits):  # fmt: skip
        assert words in said, words
    assert _left(tmp_path) == []


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path) -> None:
    site.files["big.bin"] = CONTENT + b"!"
    with pytest.raises(ResourceError, match="another sha256 than"):
        bring_file(_wanted(tmp_path, site.at("big.bin")))
    assert _left(tmp_path) == []


def test_the_servers_own_word_for_the_hash_is_held_to(site: Site, tmp_path: Path) -> None:
    site.headers = {"X-Linked-Etag": f'"{SHA256.digits}"'}
    assert bring_file(_wanted(tmp_path / "a", site.at("big.bin"), checksum=None))
    site.headers = {"X-Linked-Etag": f'"{"0" * 64}"'}
    with pytest.raises(ResourceError, match="another sha256 than 000"):
        bring_file(_wanted(tmp_path / "b", site.at("big.bin"), checksum=None))


def test_no_mirror_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(
        ResourceError, match=r"cannot be brought from here: take it by hand from https://example\.org/page, and put"
    ):
        bring_file(_wanted(tmp_path))


def test_another_file_of_its_name_is_not_taken_for_it(site: Site, tmp_path: Path) -> None:
    (tmp_path / "big.bin").write_bytes(b"mine")
    with pytest.raises(ResourceError, match="lies there already, but its sha256 is not"):
        bring_file(_wanted(tmp_path, site.at("big.bin")))
    assert (tmp_path / "big.bin").read_bytes() == b"mine" and site.asked == []


def test_a_disk_without_room_is_told_before(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = downloads.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(ResourceError, match=r"the disk is full: .* has 0\.0 GB free"):
        bring_file(_wanted(tmp_path, site.at("big.bin")))


def test_a_disk_that_fills_up_meanwhile_is_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "big.bin.unfinished").symlink_to("/dev/full")
    with pytest.raises(ResourceError, match=r"the disk is full: .* no room for the rest of big\.bin"):
        bring_file(_wanted(tmp_path, site.at("big.bin")))
    assert not (tmp_path / "big.bin").exists()


def test_two_do_not_bring_one_file(site: Site, tmp_path: Path) -> None:
    with open(tmp_path / "big.bin.unfinished", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ResourceError, match="another process is bringing"):
            bring_file(_wanted(tmp_path, site.at("big.bin")))

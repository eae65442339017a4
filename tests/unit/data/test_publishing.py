"""How an artefact takes its place: whole or not at all, whatever stops it, and never with a changed file unseen."""

import builtins
import hashlib
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qaclims_ray.data import artifacts, storage, trees, whole_files
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.errors import DamagedError, ResourceError

NAMES = ("part-00000.bin", "part-00001.bin", "inner/notes.txt")


class Killed(BaseException):
    """What a power cut looks like from inside."""


def artifact(uri: str, setting: str, kind: str = "cams") -> Artifact:
    return Artifact(uri=uri, kind=kind, settings={"setting": setting}, verb=kind)


def content_of(setting: str, name: str) -> bytes:
    return f"{setting} {name} ".encode() * 40


def make(one: Artifact, *, goes_on: bool = False) -> None:
    """Make an artefact whose files follow from its setting."""
    one.begin(goes_on=goes_on)
    for name in NAMES:
        path = storage.join(one.workshop, name)
        if not storage.exists(path):
            storage.write_bytes(path, content_of(one.settings["setting"], name))
    one.complete({"files": len(NAMES)})


def assert_whole(one: Artifact) -> None:
    meta = one.current()
    assert meta is not None and meta.summary == {"files": 3}
    for name in NAMES:
        assert whole_files.read_whole(storage.join(one.uri, name)) == content_of(one.settings["setting"], name)


def folders(uri: str) -> list[str]:
    return sorted(found.rsplit("/", 1)[-1] for found in storage.list_folders(uri.rsplit("/", 1)[0]))


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder on the disk, and one in a store that knows no renaming."""
    return str(tmp_path / "run[1]" / "cams") if request.param == "disk" else f"memory://{tmp_path.name}/run[1]/cams"


def test_it_appears_with_its_list_and_its_meta_and_leaves_nothing_beside_it(place: str) -> None:
    one = artifact(place, "A")
    make(one)
    assert_whole(one)
    assert set(trees.sizes_below(place)) == {*NAMES, "files.json", "meta.json"}
    assert folders(place) == ["cams"]


def test_another_takes_its_place_and_only_when_it_is_whole(place: str) -> None:
    old, new = artifact(place, "A"), artifact(place, "B")
    make(old)
    new.begin()
    storage.write_bytes(storage.join(new.workshop, NAMES[0]), b"half")
    assert_whole(old)
    assert new.current() is None
    make(new)
    assert_whole(new)
    assert old.current() is None and folders(place) == ["cams"]


def test_what_was_stopped_is_still_there_when_its_settings_come_back(place: str) -> None:
    first, second = artifact(place, "A"), artifact(place, "B")
    make(first)
    second.begin(goes_on=True)
    storage.write_bytes(storage.join(second.workshop, NAMES[0]), content_of("B", NAMES[0]))
    assert_whole(first)  # A again, and nothing is made
    second.begin(goes_on=True)
    assert storage.exists(storage.join(second.workshop, NAMES[0]))
    second.begin()
    assert not storage.exists(second.workshop), "where a stage does not go on, it starts afresh"


def counted_steps(monkeypatch: pytest.MonkeyPatch, stop_at: int) -> Callable[[], int]:
    """Stop before a step that changes the disk; returns how many there were."""
    done = 0

    def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **options: Any) -> Any:
            nonlocal done
            if done == stop_at:
                raise Killed
            done += 1
            return function(*args, **options)

        return step

    for module, name in ((os, "rename"), (os, "replace"), (os, "remove"), (os, "unlink"), (os, "rmdir")):
        monkeypatch.setattr(module, name, wrapped(getattr(module, name)))
    monkeypatch.setattr(storage, "remove_tree", wrapped(storage.remove_tree))
    monkeypatch.setattr(Path, "write_bytes", wrapped(Path.write_bytes))
    monkeypatch.setattr(os, "fsync", wrapped(os.fsync))
    return lambda: done


def test_killed_at_any_step_either_the_old_or_the_new_is_whole_and_both_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stops = 0
    while True:
        uri = str(tmp_path / str(stops) / "cams")
        old, new = artifact(uri, "A"), artifact(uri, "B")
        make(old)
        with monkeypatch.context() as patch:
            steps = counted_steps(patch, stops)
            try:
                make(new)
            except Killed:
                was_killed = True
            else:
                was_killed = False
        if not was_killed:
            assert steps() == stops
            break
        whole = [one for one in (old, new) if one.current() is not None]
        assert whole, f"nothing is whole after a stop before step {stops}"
        assert_whole(whole[-1])  # of a stop before the last step both are, and looking for the new one puts it in place
        for one in (old, new, old):
            if one.current() is None:
                make(one)
            assert_whole(one)
        assert folders(uri) == ["cams"]
        stops += 1
    assert stops > 15, "there are that many steps to be killed at"


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    match how:
        case "truncated":
            path.write_bytes(content[:-1])
        case "flipped":
            content[len(content) // 2] ^= 4
            path.write_bytes(content)
        case "missing":
            path.unlink()


@pytest.mark.parametrize("name", [*NAMES, "files.json", "meta.json"])
@pytest.mark.parametrize("how", ["truncated", "flipped", "missing"])
@pytest.mark.parametrize("goes_on", [False, True])
def test_what_is_damaged_is_seen_when_it_is_looked_at_or_read_and_made_again(
    tmp_path: Path, name: str, how: str, goes_on: bool
) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    make(one)
    untouched = tmp_path / "cams" / NAMES[0]
    kept = untouched.stat().st_ino
    damage(tmp_path / "cams" / name, how)
    if how == "flipped" and name in NAMES:
        assert one.current() is not None, "hashes are looked at when a file is read"
        with pytest.raises(DamagedError, match=name):
            whole_files.read_whole(storage.join(one.uri, name))
    assert one.current() is None
    assert (how == "missing" and name == "meta.json") or name in one.differs()
    make(one, goes_on=goes_on)
    assert_whole(one)
    is_part = name in NAMES[1:]
    if goes_on and is_part:
        assert untouched.stat().st_ino == kept, "parts that are whole are kept"
    aside = tmp_path / "cams.damaged-1"
    assert aside.exists() == (not (goes_on and name in NAMES) and (name, how) != ("meta.json", "missing"))


def test_a_second_damage_is_set_aside_under_another_name(tmp_path: Path) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    for _ in range(2):
        make(one)
        damage(tmp_path / "cams" / NAMES[0], "truncated")
    make(one)
    assert folders(one.uri) == ["cams", "cams.damaged-1", "cams.damaged-2"]


def test_files_of_folders_within_are_held_to_the_list_too(tmp_path: Path) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    make(one)
    with whole_files.whole_copy(f"{one.uri}/inner/notes.txt") as path:
        assert Path(path).read_bytes() == content_of("A", "inner/notes.txt")
    damage(tmp_path / "cams/inner/notes.txt", "flipped")
    with pytest.raises(DamagedError), whole_files.whole_copy(f"{one.uri}/inner/notes.txt"):
        pass


def test_many_files_are_held_to_the_list_at_once(tmp_path: Path) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    make(one)
    whole_files.check_files(one.uri, NAMES)
    damage(tmp_path / "cams" / NAMES[1], "flipped")
    with pytest.raises(DamagedError, match=NAMES[1]):
        whole_files.check_files(one.uri, NAMES)


def test_a_remote_folder_is_held_to_its_list_when_it_is_copied(tmp_path: Path) -> None:
    one = artifact(f"memory://{tmp_path.name}/a[1]/net", "A")
    make(one)
    with whole_files.whole_copy(one.uri) as folder:
        assert Path(folder, NAMES[0]).read_bytes() == content_of("A", NAMES[0])
    storage.write_bytes(storage.join(one.uri, NAMES[0]), content_of("B", NAMES[0]))
    with pytest.raises(DamagedError), whole_files.whole_copy(one.uri):
        pass
    assert one.current() is None


def test_files_that_no_list_names_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(b"mine")
    assert whole_files.read_whole(str(tmp_path / "own.txt")) == b"mine"
    one = artifact(str(tmp_path / "cams"), "A")
    make(one)
    (tmp_path / "cams/own.txt").write_bytes(b"mine")
    assert whole_files.read_whole(str(tmp_path / "cams/own.txt")) == b"mine"
    assert_whole(one)


def test_the_error_says_what_and_what_to_do_and_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(DamagedError("/run/cams", "part-00000.bin")))
    assert (error.folder, error.name) == ("/run/cams", "part-00000.bin")
    assert "/run/cams/part-00000.bin is not the file that was written" in str(error)


def test_what_a_killed_writer_left_half_written_does_not_go_in(tmp_path: Path) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    one.begin()
    storage.write_bytes(f"{one.workshop}/x.bin", b"x")
    Path(one.workshop, "x.bin.partial-0123").write_bytes(b"half")
    one.complete()
    assert set(trees.sizes_below(one.uri)) == {"x.bin", "files.json", "meta.json"}


def test_an_artefact_of_a_version_without_lists_still_serves(tmp_path: Path) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    make(one)
    meta = artifacts.read_meta(one.uri)
    assert meta is not None
    values = {**vars(meta)}
    for name in ("seal", "content", "took_s"):
        del values[name]
    storage.write_bytes(f"{one.uri}/meta.json", artifacts.json.dumps(values).encode())
    (tmp_path / "cams/files.json").unlink()
    assert one.current() is not None and one.require().fingerprint == one.fingerprint


def test_hashes_are_those_that_sha256sum_prints(tmp_path: Path) -> None:
    one = artifact(str(tmp_path / "cams"), "A")
    make(one)
    listed = artifacts.json.loads((tmp_path / "cams/files.json").read_text())
    assert listed[NAMES[0]] == {
        "bytes": len(content_of("A", NAMES[0])),
        "sha256": hashlib.sha256(content_of("A", NAMES[0])).hexdigest(),
    }


def test_a_file_in_the_way_stays_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "cams").write_text("mine")
    with pytest.raises(ResourceError, match="a file lies there"):
        make(artifact(str(tmp_path / "cams"), "A"))
    assert (tmp_path / "cams").read_text() == "mine"


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = artifact(str(tmp_path / "cams"), "A"), artifact(str(tmp_path / "cams"), "B")
    make(old)
    real = builtins.open

    def full(file: Any, mode: str = "r", *args: Any, **options: Any) -> Any:
        if "w" in mode and "files.json" in str(file):
            raise OSError(28, "No space left on device")
        return real(file, mode, *args, **options)

    monkeypatch.setattr("io.open", full)
    with pytest.raises(ResourceError, match="No space left on device"):
        make(new)
    monkeypatch.undo()
    assert_whole(old)
    make(new)
    assert_whole(new)


def test_a_link_to_a_folder_elsewhere_is_replaced_and_what_it_led_to_stays(tmp_path: Path) -> None:
    make(artifact(str(tmp_path / "elsewhere"), "A"))
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "kept")
    os.symlink(tmp_path / "elsewhere", tmp_path / "cams")
    new = artifact(str(tmp_path / "cams"), "B")
    make(new)
    assert_whole(new)
    assert trees.sizes_below(str(tmp_path / "elsewhere")) == trees.sizes_below(str(tmp_path / "kept"))
    assert not list(tmp_path.glob("cams.old-*"))


def test_a_file_may_have_the_longest_name_that_a_disk_takes(tmp_path: Path) -> None:
    for name in ("x" * 255, "\u732b" * 85):
        storage.write_bytes(str(tmp_path / name), b"x")
        assert (tmp_path / name).read_bytes() == b"x"


class _OldListings:
    """A store of which all listings are those of some moment before."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from fsspec.implementations.memory import MemoryFileSystem

        self.original, self.kept = MemoryFileSystem.find, {}
        monkeypatch.setattr(MemoryFileSystem, "find", lambda *given, **more: self._find(*given, **more))

    def _find(self, filesystem: Any, path: str, *given: Any, **more: Any) -> Any:
        if path not in self.kept:
            self.kept[path] = self.original(filesystem, path, *given, **more)
        return self.kept[path]


def test_what_an_old_listing_of_a_bucket_lacks_is_not_lost_and_what_it_has_too_much_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = artifact(f"memory://{tmp_path.name}/cams", "A")
    one.begin()
    for name in (*NAMES[:1], "passing.bin"):
        storage.write_bytes(storage.join(one.workshop, name), content_of("A", name))
    old = _OldListings(monkeypatch)
    assert set(trees.sizes_below(one.workshop)) == {NAMES[0], "passing.bin"}
    storage.resolve(one.workshop)[0].rm_file(storage.resolve(storage.join(one.workshop, "passing.bin"))[1])
    for name in NAMES[1:]:
        storage.write_bytes(storage.join(one.workshop, name), content_of("A", name))
    one.complete({"files": len(NAMES)})
    old.kept.clear()
    assert set(trees.sizes_below(one.uri)) == {*NAMES, "files.json", "meta.json"}
    assert_whole(one)


def test_a_file_that_an_old_listing_of_a_bucket_lacks_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = artifact(f"memory://{tmp_path.name}/cams", "A")
    make(one)
    old = _OldListings(monkeypatch)
    old.kept[storage.resolve(one.uri)[1]] = {}
    assert_whole(one)
    storage.resolve(one.uri)[0].rm_file(storage.resolve(storage.join(one.uri, NAMES[0]))[1])
    assert one.current() is None


def test_a_file_that_another_process_has_removed_since_it_was_written_here_is_not_listed(tmp_path: Path) -> None:
    uri = f"memory://{tmp_path.name}/cams"
    storage.write_bytes(f"{uri}/a", b"a")
    storage.write_bytes(f"{uri}/b", b"b")
    storage.resolve(uri)[0].rm_file(storage.resolve(f"{uri}/a")[1])
    assert trees.sizes_below(uri) == {"b": 1}

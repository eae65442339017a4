"""Names in the files of a data set: they pick among the files of its folders, and open nothing else."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qaclims_ray.data.manifest import ImageRecord, Manifest, manifest_artifact, read_manifest, write_manifest
from qaclims_ray.data.xml_text import parse_xml
from qaclims_ray.errors import ArtifactError, DataError, QaclimsError
from tests.fuzz.readers import READERS
from tests.unit.data.tiny_data_sets import image_bytes

NAMES = (
    "../secret.jpg",
    "../../secret.jpg",
    "x/../../secret.jpg",
    "..\\secret.jpg",
    "{place}/secret.jpg",
    "file://{place}/secret.jpg",
    "local://{place}/secret.jpg",
    "filecache::file://{place}/secret.jpg",
    "http://127.0.0.1:9/secret.jpg",
    "s3://nowhere-of-ours/secret.jpg",
)
FIRST = {"COCO 2014": "COCO_train2014_000000000009.jpg", "labels: JSON lines": '"a"'}
"""What a data set calls one of its images, where it is not a.jpg, or many.jpg of given masks."""
SETS = [name for name in READERS if name.startswith(("labels: ", "given masks: ")) or name == "COCO 2014"]
_heard: list[tuple[str, str]] = []
_is_listening = False


def _hear(event: str, arguments: tuple) -> None:
    if _is_listening and event in ("open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo"):
        _heard.append((event, str(arguments)))


sys.addaudithook(_hear)  # it stays for as long as the process, and costs nothing while nobody listens


@contextmanager
def listening() -> Iterator[list[tuple[str, str]]]:
    """Yield what this process opens and connects to within the context."""
    global _is_listening
    _heard.clear()
    _is_listening = True
    try:
        yield _heard
    finally:
        _is_listening = False


def _first(source: str) -> str:
    return FIRST.get(source, "many.jpg" if source.startswith("given masks: ") else "a.jpg")


def _rename(root: Path, source: str, name: str) -> int:
    """Give the first image another name in the files of a data set, as their format spells it; return how many."""
    pattern, old, changed = READERS[source].changes, _first(source), 0
    for path in sorted(root.glob(pattern if "/" in pattern else f"**/{pattern}")):
        if path.suffix not in (".csv", ".json", ".jsonl", ".xml", ".txt", ".yaml"):
            continue
        text, spelled = path.read_text(), json.dumps(name)[1:-1] if path.suffix.startswith(".json") else name
        path.write_text(text.replace(old, f'"{spelled}"' if old.startswith('"') else spelled))
        changed += path.read_text() != text
    return changed


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", SETS)
def test_a_name_opens_no_file_outside_and_no_connection(source: str, name: str, tmp_path: Path) -> None:
    root, reader = tmp_path / "in" / "set", READERS[source]
    root.mkdir(parents=True)
    reader.write(root)
    for folder in (tmp_path, tmp_path / "in"):
        (folder / "secret.jpg").write_bytes(image_bytes(9))
    _rename(root, source, name.format(place=tmp_path))
    with listening() as heard:
        try:
            found = str(reader.read(root))
        except QaclimsError as error:
            found = ""
            assert "Traceback" not in str(error)
    opened = [line for event, line in heard if event == "open" and "secret" in line]
    connected = [line for event, line in heard if event.startswith("socket")]
    assert any(event == "open" for event, _ in heard), "the hook hears nothing"
    assert not opened and not connected
    assert f"{tmp_path}/secret" not in found and f"{tmp_path}/in/secret" not in found


@pytest.mark.parametrize("source", SETS)
def test_the_names_are_really_written(source: str, tmp_path: Path) -> None:
    """But in forms in which a file is called as its image and says no name."""
    READERS[source].write(tmp_path)
    assert bool(_rename(tmp_path, source, "x.jpg")) != (source in ("given masks: yolo", "given masks: voc"))


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/tmp/x", "a\0b"])
def test_an_image_id_that_is_no_file_name_is_refused(name: str, tmp_path: Path, monkeypatch) -> None:
    """Masks, CAMs and pictures are written under it."""
    good = ImageRecord("a", "/data/a.jpg", 30, 20, (0,))
    with pytest.raises(DataError, match="is no file name"):
        Manifest(("cat",), (good, ImageRecord(name, "/data/b.jpg", 30, 20, (0,))))
    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "__post_init__", lambda self: None)  # as whoever writes the table by hand may do
        manifest = Manifest(("cat",), (ImageRecord(name, "/data/a.jpg", 30, 20, (0,)),))
        write_manifest(manifest, manifest_artifact(str(tmp_path / "manifest"), {}))
    with pytest.raises(ArtifactError, match="is no file name"):
        read_manifest(str(tmp_path / "manifest"))


def test_entities_of_xml_reach_no_file_and_do_not_grow(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    outside = f'<!DOCTYPE a [<!ENTITY b SYSTEM "file://{tmp_path}/secret.txt">]><a>&b;</a>'
    laughs = '<!ENTITY l0 "lolololololololol">' + "".join(
        f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12)
    )
    for text in (outside, f"<!DOCTYPE a [{laughs}]><a>&l11;</a>"):
        with listening() as heard, pytest.raises(DataError, match="no whole XML"):
            parse_xml(text)
        assert not [line for _, line in heard if "secret" in line]

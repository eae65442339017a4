import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from qaclims_ray.data import storage
from qaclims_ray.data.images import save_label_map
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.segmentation.submission import SubmissionCheck, check_submission, write_submission

FOLDER = "results/VOC2012/Segmentation/comp6_test_cls"
IDS = ("2008_000006", "2008_000011", "2008_000012")


def labels(seed: int, height: int = 6, width: int = 9) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 21, (height, width), generator=generator, dtype=torch.uint8)


def test_archive_has_vocs_layout(tmp_path):
    uri = str(tmp_path / "out" / "results.tgz")
    save_label_map(labels(2), str(tmp_path / "third.png"))
    write_submission(uri, zip(IDS, [labels(0), labels(1).numpy(), str(tmp_path / "third.png")], strict=True))
    with tarfile.open(uri, "r:gz") as archive:
        assert archive.getnames() == [f"{FOLDER}/{image_id}.png" for image_id in IDS]
        for seed, entry in enumerate(archive.getmembers()):
            with Image.open(archive.extractfile(entry)) as picture:  # type: ignore[arg-type]
                assert picture.mode == "P" and picture.getpalette()[3:6] == [128, 0, 0]  # type: ignore[index]
                assert np.array_equal(np.array(picture), labels(seed).numpy())
    assert check_submission(uri, IDS, dict.fromkeys(IDS, (6, 9))).is_good
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.tgz"]


def test_grey_pictures_of_label_values_are_taken(tmp_path):
    Image.fromarray(labels(0).numpy()).save(tmp_path / "grey.png")
    write_submission(str(tmp_path / "a.tgz"), [("one", tmp_path / "grey.png")])
    assert check_submission(str(tmp_path / "a.tgz"), ["one"]).is_good


def test_equal_masks_give_equal_bytes(tmp_path, monkeypatch):
    pairs = [(image_id, labels(seed)) for seed, image_id in enumerate(IDS)]
    write_submission(str(tmp_path / "a.tgz"), pairs)
    monkeypatch.setattr("time.time", lambda: 2e9)
    write_submission(str(tmp_path / "b.tgz"), iter(pairs[::-1]))
    assert (tmp_path / "a.tgz").read_bytes() == (tmp_path / "b.tgz").read_bytes()


def test_other_competitions_and_remote_places(tmp_path):
    uri = f"memory://{tmp_path.name}/val.tgz"
    write_submission(uri, [("one", labels(0))], competition="comp5", year="2007", image_set="val")
    with tarfile.open(fileobj=io.BytesIO(storage.read_bytes(uri)), mode="r:gz") as archive:
        assert archive.getnames() == ["results/VOC2007/Segmentation/comp5_val_cls/one.png"]
    assert check_submission(uri, ["one"], competition="comp5", year="2007", image_set="val").is_good
    assert check_submission(uri, ["one"]).missing == ("one",)


def with_value(value: int) -> torch.Tensor:
    mask = labels(0).clone()
    mask[2, 3] = value
    return mask


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([("one", with_value(255))], "one holds 255"),
        ([("one", with_value(21))], "value 21"),
        ([("one", labels(0)), ("one", labels(0))], "twice"),
        ([("a/b", labels(0))], "no image identifier"),
        ([("one", "absent.png")], "cannot be read"),
        ([], "no mask"),
    ],
)
def test_masks_that_the_server_would_not_take(masks, message, tmp_path):
    with pytest.raises(DataError, match=message):
        write_submission(str(tmp_path / "a.tgz"), masks)
    assert list(tmp_path.iterdir()) == []


def test_pictures_that_are_no_label_maps(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "colours.png")
    (tmp_path / "broken.png").write_bytes(png(labels(0, 60, 60).numpy(), mode="L")[:500])
    for name, message in (("colours.png", "mode RGB"), ("broken.png", "cannot be read")):
        with pytest.raises(DataError, match=message):
            write_submission(str(tmp_path / "a.tgz"), [("one", tmp_path / name)])


def archive_of(path: Path, files: dict[str, bytes]) -> str:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return str(path)


def png(values: np.ndarray, mode: str = "P") -> bytes:
    content = io.BytesIO()
    picture = Image.fromarray(values)
    if mode == "P":
        picture.putpalette([0, 0, 0] * 256)
    picture.save(content, format="PNG")
    return content.getvalue()


def test_check_names_every_kind_of_fault(tmp_path):
    good = np.zeros((4, 5), np.uint8)
    bad = good + 255
    uri = archive_of(
        tmp_path / "a.tgz",
        {
            f"{FOLDER}/good.png": png(good),
            f"{FOLDER}/ignored.png": png(bad),
            f"{FOLDER}/beyond.png": png(good + 21),
            f"{FOLDER}/grey.png": png(good, mode="L"),
            f"{FOLDER}/broken.png": png(good)[:40],
            f"{FOLDER}/turned.png": png(good.T.copy()),
            f"{FOLDER}/unknown.png": png(good),
            "good.png": png(good),
            "readme.txt": b"hello",
        },
    )
    ids = ["good", "ignored", "beyond", "grey", "broken", "turned", "absent"]
    check = check_submission(uri, ids, {image_id: (4, 5) for image_id in ids})
    assert check == SubmissionCheck(
        missing=("absent",),
        surplus=("good.png", "readme.txt", f"{FOLDER}/unknown.png"),
        wrong_size=("turned",),
        wrong_values=("beyond", "broken", "grey", "ignored"),
    )
    assert not check.is_good
    assert check_submission(uri, ids).wrong_size == ()


def test_a_file_twice_is_surplus(tmp_path):
    path, name = tmp_path / "a.tgz", f"{FOLDER}/one.png"
    content = png(np.zeros((2, 2), np.uint8))
    with tarfile.open(path, "w:gz") as archive:
        for _ in range(2):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert check_submission(str(path), ["one"]).surplus == (name,)


def test_absent_and_broken_archives(tmp_path):
    with pytest.raises(ArtifactError, match="there is no submission"):
        check_submission(str(tmp_path / "a.tgz"), IDS)
    write_submission(str(tmp_path / "a.tgz"), [("one", labels(0, 200, 300))])
    content = (tmp_path / "a.tgz").read_bytes()
    for broken in (content[: len(content) // 2], b"no archive", b"", content[:1000] + bytes(50) + content[1050:]):
        (tmp_path / "b.tgz").write_bytes(broken)
        with pytest.raises(ArtifactError, match="gzipped tar"):
            check_submission(str(tmp_path / "b.tgz"), ["one"])


def test_a_link_is_no_mask(tmp_path):
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        for name, kind in ((f"{FOLDER}", tarfile.DIRTYPE), (f"{FOLDER}/one.png", tarfile.SYMTYPE)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "elsewhere.png"
            archive.addfile(entry)
    check = check_submission(str(tmp_path / "a.tgz"), ["one"])
    assert check.surplus == (f"{FOLDER}/one.png",) and check.missing == ("one",)

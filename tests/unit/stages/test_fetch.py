"""`qaclims fetch`: weights and data sets from a mirror of one's own, and what is said where nothing can be had."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from qaclims_ray.data import public_sets
from qaclims_ray.data.downloads import Checksum
from qaclims_ray.data.public_sets import PUBLIC_SETS
from qaclims_ray.errors import ConfigError, DataError, ResourceError
from qaclims_ray.models.known_weights import find
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS, weight_named
from qaclims_ray.stages import fetch
from qaclims_ray.stages.fetch import run_fetch
from qaclims_ray.stages.requests import FetchArguments
from tests.unit.web import Site, serving


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as found:
        yield found


def fetched(*names: str, **options: str) -> str:
    console = Console(file=io.StringIO(), width=300)
    run_fetch(FetchArguments(names=names, **options), console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_list_names_all_with_licence_and_says_what_is_here(home: Path) -> None:
    file = home / "weights" / weight_named("resnet50").files[0].name  # type: ignore[union-attr]
    file.parent.mkdir()
    file.write_bytes(b"x")
    said = fetched()
    for one in (*KNOWN_WEIGHTS, *PUBLIC_SETS):
        assert f" {one.name} " in said
    assert "* resnet50 " in said and "* miniature " in said and "  resnet101 " in said
    assert "CC-BY-NC-4.0, NON-COMMERCIAL use only" in said and "1.3 GB" in said


def test_a_single_file_lies_where_it_is_found(site: Site, home: Path) -> None:
    site.files["ovseg_swinbase_vitL14_ft_mpt.pth"] = b"weights"
    said = fetched("ovseg", mirror=site.url)
    assert find("ovseg") == home / "weights/ovseg_swinbase_vitL14_ft_mpt.pth"
    assert "licence  CC-BY-NC-4.0; NON-COMMERCIAL use only" in said and "written " in said
    assert "there " in fetched("ovseg", mirror=site.url) and len(site.asked) == 1


def test_a_model_of_several_files_becomes_a_folder(site: Site, home: Path) -> None:
    names = [file.name for file in weight_named("sam-base").files]  # type: ignore[union-attr]
    site.files = {f"sam-base/{name}": name.encode() for name in names}
    fetched("sam-base", mirror=site.url)
    assert find("facebook/sam-vit-base") == home / "weights/sam-base"
    assert (home / "weights/sam-base/config.json").read_bytes() == b"config.json"


def test_another_folder_is_said_how_to_use(site: Site, home: Path) -> None:
    site.files["ovseg_swinbase_vitL14_ft_mpt.pth"] = b"weights"
    assert f"set QACLIMS_WEIGHTS={home / 'mine'}" in fetched("ovseg", mirror=site.url, to="mine")
    assert find("ovseg") is None


def test_a_mirror_of_the_hub_is_asked_where_the_environment_names_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"{site.url}/")
    file = "timm/vit_base_patch32_clip_224.openai/resolve/main/open_clip_model.safetensors"
    site.files[file] = b"weights"
    fetched("clip-vit-b-32")
    assert site.asked == [(f"/{file}", "")] and find("clip-vit-b-32") is not None


def test_offline_one_error_says_which_file_to_put_where(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "_mirrors", lambda urls, where, mirror: ("http://127.0.0.1:9/x", "http://127.0.0.1:9/y"))
    with pytest.raises(ResourceError) as failed:
        fetched("resnet50")
    said = str(failed.value)
    place = home / "weights/resnet50_a1_0-14fe96d1.pth"
    assert (
        f"put it at {place}" in said
        and "(sha256 begins with 14fe96d1)" in said
        and said.count("refuses connections") == 2
    )


def test_a_damaged_mirror_is_not_believed(site: Site, home: Path) -> None:
    site.files["resnet50_a1_0-14fe96d1.pth"] = b"not it"
    monkeyed = replace(weight_named("resnet50"), files=(replace(weight_named("resnet50").files[0], urls=()),))  # type: ignore
    with pytest.raises(ResourceError, match="another sha256 than 14fe96d1"):
        fetch._fetch_weight(monkeyed, FetchArguments(mirror=site.url), Console(file=io.StringIO()))
    assert find("resnet50") is None


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ovsge", "did you mean 'ovseg'"),
        ("VOC2012", "did you mean 'voc2012'"),
        ("miniature", "lies in this package already"),
        ("smolvlm", "is not fetched here: its library brings it by the name HuggingFaceTB"),
        ("zzz", "known by the name 'zzz'; `qaclims fetch --list`"),
    ],
)
def test_names_that_cannot_be_fetched(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fetched("ovseg", name)  # before anything is brought


def _voc(num_masks: int) -> dict[str, bytes]:
    tar_bytes, zip_bytes = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tar_bytes, mode="w") as archive:
        for name, content in {"JPEGImages/a.jpg": b"i", "ImageSets/Segmentation/val.txt": b"val1\nval2\n"}.items():
            info = tarfile.TarInfo(f"VOCdevkit/VOC2012/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with zipfile.ZipFile(zip_bytes, "w") as archive:
        for name in ["val1", "val2", *(f"x{i}" for i in range(num_masks))]:
            archive.writestr(f"SegmentationClassAug/{name}.png", b"m")
    return {"VOCtrainval_11-May-2012.tar": tar_bytes.getvalue(), "SegmentationClassAug.zip": zip_bytes.getvalue()}


@pytest.fixture
def small_voc(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    site.files = _voc(3)
    md5 = hashlib.md5(site.files["VOCtrainval_11-May-2012.tar"]).hexdigest()
    voc, aug, coco = PUBLIC_SETS
    voc = replace(voc, archives=(replace(voc.archives[0], checksum=Checksum("md5", md5), urls=()),))
    monkeypatch.setattr(fetch, "PUBLIC_SETS", (voc, replace(aug, archives=(replace(aug.archives[0], urls=()),)), coco))
    monkeypatch.setattr(public_sets, "_AUGMENTED", 3)
    return site


def test_a_data_set_is_unpacked_and_its_list_is_written(small_voc: Site, home: Path) -> None:
    said = fetched("voc2012", "voc2012-aug", mirror=small_voc.url, to="sets")
    root = home / "sets/VOCdevkit/VOC2012"
    assert (root / "ImageSets/Segmentation/train_aug.txt").read_text() == "x0\nx1\nx2\n"
    assert (root / "SegmentationClassAug/val1.png").exists() and (root / "JPEGImages/a.jpg").read_bytes() == b"i"
    assert f"qaclims run voc12 --data-root {root}" in said
    assert said.count("fetch voc2012-aug too") == 1  # before that was there
    assert sorted(path.name for path in (home / "sets").iterdir()) == ["VOCdevkit"]  # no archive stays
    asked = len(small_voc.asked)
    assert "there " in fetched("voc2012", mirror=small_voc.url, to="sets") and len(small_voc.asked) == asked


def test_the_list_needs_voc_and_the_right_masks(small_voc: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="fetch voc2012 to the same folder first"):
        fetched("voc2012-aug", mirror=small_voc.url)
    monkeypatch.setattr(public_sets, "_AUGMENTED", 4)
    (Path("data/VOCdevkit/VOC2012/SegmentationClassAug")).rename("aside")
    Path("data/VOCdevkit/VOC2012").rmdir()
    fetched("voc2012", mirror=small_voc.url)
    with pytest.raises(DataError, match="has masks of 3 images that are not of val, expected 4"):
        fetched("voc2012-aug", mirror=small_voc.url)

import dataclasses
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import write_cam_shard
from qaclims_ray.data.artifacts import Artifact
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.errors import ArtifactError, DataError
from qaclims_ray.methods.given.files import files_by_image, given_files, given_fingerprint, import_cams, maps_at
from tests.finished_artifacts import finished

CONFIG = CamConfig(store="both", grid_stride=4)


def _record(name: str, *labels: int) -> ImageRecord:
    return ImageRecord(name, f"/{name}.jpg", 12, 8, labels)


def _import(folder: Path, *records: ImageRecord, config: CamConfig = CONFIG):
    return import_cams(records, files_by_image(given_files(str(folder))), 3, config)


def _save(folder: Path, name: str, keys, maps) -> None:
    np.savez(folder / f"{name}.npz", keys=np.asarray(keys), maps=np.asarray(maps))


def _maps(num: int, height: int = 8, width: int = 12, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, height, width, generator=torch.Generator().manual_seed(seed)) * 0.9


# --- one .npz per image


def test_npz_maps_are_resized_normalised_and_put_in_the_order_of_the_labels(tmp_path: Path) -> None:
    small = torch.tensor([[[0.0, 30.0]], [[7.0, 7.0]], [[1.0, 0.0]]], dtype=torch.float64)  # 1 x 2 cells
    _save(tmp_path, "one", [2, 1, 0], small)
    (cam,), faults = _import(tmp_path, _record("one", 0, 2))
    assert not faults and cam.class_ids == (0, 2) and (cam.height, cam.width) == (8, 12)
    assert cam.full is not None and cam.full.shape == (2, 8, 12) and cam.full.dtype == torch.float32
    # Flat outside the cells' centres, at a quarter and three quarters of the width; a line between them.
    line = ((torch.arange(12) + 0.5) / 6 - 0.5).clamp(0, 1)
    torch.testing.assert_close(cam.full[1], (30 * line / (30 + 1e-5)).expand(8, 12))
    torch.testing.assert_close(cam.full[0], (1 - line).expand(8, 12))
    assert cam.grid is not None and cam.grid.shape == (2, 2, 3) and float(cam.grid.max()) == pytest.approx(1, abs=1e-4)


def test_maps_that_reach_1_stay_as_they_are_and_others_are_divided_by_their_maximum() -> None:
    maps = _maps(4)
    for row, top in enumerate((1.0, 0.9995, 0.5, 4.0)):
        maps[row, 2, 3] = top
        maps[row] = maps[row].clamp(max=top)
    found = maps_at(maps, (8, 12), is_normalised=False)
    assert torch.equal(found[:2], maps[:2])
    torch.testing.assert_close(found[2:], maps[2:] / (torch.tensor([0.5, 4.0]) + 1e-5)[:, None, None])
    ours = maps_at(maps, (8, 12), is_normalised=True)
    assert torch.equal(ours[:3], maps[:3]) and torch.equal(ours[3], found[3])
    assert torch.equal(maps_at(torch.zeros(1, 2, 2), (3, 3), is_normalised=False), torch.zeros(1, 3, 3))


@pytest.mark.parametrize(("store", "has_full", "has_grid"), [("full", True, False), ("grid", False, True)])
def test_what_is_kept_follows_the_settings(tmp_path: Path, store, has_full, has_grid) -> None:
    _save(tmp_path, "one", [0], _maps(1))
    (cam,), _ = _import(tmp_path, _record("one", 0), config=CamConfig(store=store))
    assert (cam.full is not None, cam.grid is not None) == (has_full, has_grid)


def test_an_image_without_labels_needs_no_maps(tmp_path: Path) -> None:
    _save(tmp_path, "one", [0], _maps(1))
    (cam,), faults = _import(tmp_path, _record("bare"))
    assert not faults and cam.class_ids == () and cam.full is not None and cam.full.shape == (0, 8, 12)
    _save(tmp_path, "none", np.zeros(0, int), np.zeros((0, 5, 5)))
    assert _import(tmp_path, _record("none"))[0][0].class_ids == ()


def test_a_fault_of_a_class_that_is_dropped_does_not_count(tmp_path: Path) -> None:
    maps = _maps(2)
    maps[1] = -maps[1]
    _save(tmp_path, "one", [0, 1], maps)
    (cam,), faults = _import(tmp_path, _record("one", 0))
    assert not faults and cam.class_ids == (0,)


@pytest.mark.parametrize(
    ("keys", "maps", "sort", "detail"),
    [
        ([0], [[[0.5]]], "labelled classes without a map", r"classes \[1\], given are \[0\]"),
        ([0, 1, 3], np.ones((3, 2, 2)), "class ids that are none", r"\[3\], expected 0 to 2"),
        ([-1, 0, 1], np.ones((3, 2, 2)), "class ids that are none", r"\[-1\]"),
        ([0, 1, 1], np.ones((3, 2, 2)), "classes given twice", r"\[0, 1, 1\]"),
        ([0, 1], [[[0.5]], [[np.nan]]], "values that are not finite", "class 1"),
        ([0, 1], [[[np.inf]], [[1.0]]], "values that are not finite", "class 0"),
        ([0, 1], [[[0.5]], [[-0.25]]], "negative values", "class 1, down to -0.25"),
        ([0.0, 1.0], np.ones((2, 2, 2)), "files that cannot be read", "keys has shape .* float64"),
        ([0, 1], np.ones((3, 2, 2)), "files that cannot be read", r"maps has shape \(3, 2, 2\)"),
        ([0, 1], np.ones((2, 4)), "files that cannot be read", r"expected numbers \(2, height, width\)"),
        ([0, 1], np.ones((2, 0, 4)), "files that cannot be read", "maps has shape"),
        ([0, 1], np.full((2, 1, 1), "x"), "files that cannot be read", "type <U1"),
    ],
)
def test_every_fault_is_named(tmp_path: Path, keys, maps, sort, detail) -> None:
    _save(tmp_path, "one", keys, maps)
    cams, (fault,) = _import(tmp_path, _record("one", 0, 1))
    assert not cams and fault.sort == sort and "one" in fault.subject
    assert re.search(detail, fault.detail)


def test_faults_come_together_and_good_images_are_still_converted(tmp_path: Path) -> None:
    _save(tmp_path, "good", [0], _maps(1))
    _save(tmp_path, "two_faults", [0, 5], -_maps(2))
    np.savez(tmp_path / "other_arrays.npz", cam=np.ones(3))
    np.savez(tmp_path / "pickled.npz", keys=np.array([0]), maps=np.array([{"a": 1}], dtype=object))
    with open(tmp_path / "plain_array.npz", "wb") as handle:
        np.save(handle, np.ones(3))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps({0: 1}))
    (tmp_path / "empty.npz").write_bytes(b"")
    whole = (tmp_path / "good.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    bad = ["two_faults", "other_arrays", "pickled", "plain_array", "pickle", "empty", "cut", "absent"]
    cams, faults = _import(tmp_path, *(_record(name, 0) for name in ["good", *bad]))
    assert [cam.image_id for cam in cams] == ["good"]
    assert [fault.subject.rsplit("/", 1)[-1].removesuffix(".npz") for fault in faults if "read" in fault.sort] == bad[
        1:7
    ]
    assert sorted(fault.sort for fault in faults if "read" not in fault.sort) == [
        "class ids that are none", "images without CAMs", "negative values",
    ]  # fmt: skip


# --- shards of another run


def test_shards_of_another_run_come_back_as_they_are(tmp_path: Path) -> None:
    weak, strong = _maps(2) * 0.5, _maps(1, seed=1)
    cams = [ImageCam("b", (0, 2), weak, None, 8, 12), ImageCam("a", (1,), strong, None, 8, 12)]
    write_cam_shard(str(tmp_path / "part-00000.parquet"), cams[:1], "float32")
    write_cam_shard(str(tmp_path / "part-00001.parquet"), cams[1:], "float32")
    (one, two), faults = _import(tmp_path, _record("a", 1), _record("b", 2))
    assert not faults and (one.image_id, two.image_id, two.class_ids) == ("a", "b", (2,))
    assert torch.equal(one.full, strong) and torch.equal(two.full, weak[1:])


def test_small_maps_of_another_run_are_enlarged(tmp_path: Path) -> None:
    write_cam_shard(
        str(tmp_path / "part-00000.parquet"), [ImageCam("a", (1,), None, torch.ones(1, 2, 3), 8, 12)], "float16"
    )
    (cam,), faults = _import(tmp_path, _record("a", 1))
    assert not faults and torch.equal(cam.full, torch.ones(1, 8, 12))


def test_faults_in_shards_are_named(tmp_path: Path) -> None:
    uri = str(tmp_path / "part-00000.parquet")
    write_cam_shard(uri, [ImageCam("a", (1,), torch.full((1, 8, 12), torch.nan), None, 8, 12)], "float32")
    _, faults = _import(tmp_path, _record("a", 1), _record("b", 0), _record("c"))
    assert [(fault.sort, fault.subject) for fault in faults] == [
        ("values that are not finite", "a"),
        ("images without CAMs", "b"),
    ]
    Path(uri).write_bytes(Path(uri).read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="not a whole Parquet file"):
        _import(tmp_path, _record("a", 1))


# --- the folder


def test_a_folder_holds_one_layout(tmp_path: Path) -> None:
    for uri in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"given.cams: .* holds no CAMs \(it has nothing\); expected either part"):
            given_files(str(uri))
    _save(tmp_path, "one", [0], _maps(1))
    assert given_files(str(tmp_path)) == [str(tmp_path / "one.npz")]
    write_cam_shard(str(tmp_path / "part-00000.parquet"), [], "float16")
    with pytest.raises(DataError, match="holds both layouts"):
        given_files(str(tmp_path))


def test_the_fingerprint_follows_files_or_the_artefact(tmp_path: Path) -> None:
    _save(tmp_path, "one", [0], _maps(1))
    first = given_fingerprint(str(tmp_path))
    assert given_fingerprint(str(tmp_path)) == first
    _save(tmp_path, "two", [0], _maps(1))
    assert given_fingerprint(str(tmp_path)) != first
    cams = Artifact(uri=str(tmp_path), kind="cams", settings={}, verb="cams")
    meta = finished(cams)
    assert given_fingerprint(str(tmp_path)) == meta.fingerprint
    finished(dataclasses.replace(cams, kind="evaluation"))
    with pytest.raises(ArtifactError, match="holds a evaluation, expected CAMs"):
        given_fingerprint(str(tmp_path))


def test_maps_of_another_size_than_the_image_are_accepted(tmp_path: Path) -> None:
    _save(tmp_path, "one", [0], _maps(1, 16, 5))
    wide = dataclasses.replace(_record("one", 0), width=40)
    (cam,), _ = _import(tmp_path, wide)
    assert cam.full is not None and cam.full.shape == (1, 8, 40)

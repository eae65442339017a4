import dataclasses
from pathlib import Path

import pandas as pd
import pytest
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.cams.store import read_cam_shard, write_cam_shard
from qaclims_ray.errors import ArtifactError


def make_cams() -> list[ImageCam]:
    generator = torch.Generator().manual_seed(1)

    def maps(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    return [
        ImageCam("2007_000032", (0, 14), maps(2, 20, 30), maps(2, 5, 8), 20, 30),
        ImageCam("without_labels", (), maps(0, 7, 9), maps(0, 2, 3), 7, 9),
        ImageCam("grid_only", (3,), None, maps(1, 5, 8), 20, 30),
        ImageCam("full_only", (3,), maps(1, 20, 30), None, 20, 30),
    ]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 0.0), ("float16", 5e-4)])
def test_round_trip(tmp_path: Path, dtype: str, tolerance: float):
    uri = str(tmp_path / "cams" / "part-00000.parquet")
    written = make_cams()
    write_cam_shard(uri, written, dtype)
    read = read_cam_shard(uri)
    assert {p.name for p in (tmp_path / "cams").iterdir()} == {"part-00000.parquet", "part-00000.parquet.sha256"}
    for before, after in zip(written, read, strict=True):
        assert (after.image_id, after.class_ids, after.height, after.width) == (
            before.image_id,
            before.class_ids,
            before.height,
            before.width,
        )
        for name in ("full", "grid"):
            one, other = getattr(before, name), getattr(after, name)
            assert (one is None) == (other is None)
            if one is not None:
                assert other.dtype == torch.float32
                torch.testing.assert_close(other, one, atol=tolerance, rtol=0)


def test_float16_halves_the_file(tmp_path: Path):
    sizes = {}
    noise = torch.rand(3, 100, 100, generator=torch.Generator().manual_seed(2))
    for dtype in ("float16", "float32"):
        write_cam_shard(str(tmp_path / dtype), [ImageCam("noise", (0, 1, 2), noise, None, 100, 100)], dtype)
        sizes[dtype] = (tmp_path / dtype).stat().st_size
    assert sizes["float16"] < 0.6 * sizes["float32"]


def test_is_a_table_that_pandas_reads(tmp_path: Path):
    uri = str(tmp_path / "part.parquet")
    write_cam_shard(uri, make_cams(), "float16")
    table = pd.read_parquet(uri, columns=["image_id", "class_ids", "dtype"])
    assert table.image_id.tolist() == [cam.image_id for cam in make_cams()]
    assert table.class_ids[0].tolist() == [0, 14]


def test_an_empty_shard_reads_as_empty(tmp_path: Path):
    write_cam_shard(str(tmp_path / "part.parquet"), [], "float16")
    assert read_cam_shard(str(tmp_path / "part.parquet")) == []


def test_absent_truncated_and_foreign_files_are_refused(tmp_path: Path):
    with pytest.raises(ArtifactError, match="no stored CAMs"):
        read_cam_shard(str(tmp_path / "absent.parquet"))
    whole = tmp_path / "whole.parquet"
    write_cam_shard(str(whole), make_cams(), "float16")
    content = whole.read_bytes()
    for length in (0, 3, len(content) // 2, len(content) - 1):
        (tmp_path / "cut.parquet").write_bytes(content[:length])
        with pytest.raises(ArtifactError, match="not a whole Parquet file"):
            read_cam_shard(str(tmp_path / "cut.parquet"))
    pd.DataFrame({"question": ["What?"]}).to_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(ArtifactError, match="holds columns question"):
        read_cam_shard(str(tmp_path / "foreign.parquet"))


def test_maps_that_contradict_their_size_are_refused(tmp_path: Path):
    uri = str(tmp_path / "part.parquet")
    write_cam_shard(uri, [dataclasses.replace(make_cams()[0], height=21)], "float16")
    with pytest.raises(ArtifactError, match="2007_000032 do not have the size"):
        read_cam_shard(uri)

"""Class activation maps on disk: one typed, compressed Parquet file for a group of images (row E2).

The released code pickles one .npy per image, which runs foreign code on reading and cannot be listed or queried.
Here a row is an image: sizes, present classes, number type and the maps as plain bytes (C order, little endian).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data import whole_files
from qaclims_ray.errors import ArtifactError, DataError

_NUMPY_TYPES = {"float16": np.dtype("<f2"), "float32": np.dtype("<f4")}
_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("class_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("dtype", pa.string(), nullable=False),
        pa.field("full", pa.large_binary()),
        pa.field("grid_height", pa.int32()),
        pa.field("grid_width", pa.int32()),
        pa.field("grid", pa.large_binary()),
    ],
    metadata={"qaclims_ray.format": "cams/1"},
)


def as_stored(cam: ImageCam, dtype: Literal["float16", "float32"]) -> ImageCam:
    """Return maps as they are stored: another process that writes them is handed half of the bytes."""
    full, grid = (each if each is None else each.to(getattr(torch, dtype)) for each in (cam.full, cam.grid))
    return replace(cam, full=full, grid=grid)


def write_cam_shard(uri: str, cams: Sequence[ImageCam], dtype: Literal["float16", "float32"]) -> None:
    """Write the maps of some images; the file appears whole or not at all.

    Args:
        uri: path or fsspec URI of the Parquet file.
        cams: maps in [0, 1], as they were computed or `as_stored`.
        dtype: stored type; float16 is exact to 0.0005 near 1 and halves the file.

    Raises:
        ResourceError: when the place cannot be written.
    """
    table = pa.Table.from_pylist([_row(cam, dtype) for cam in cams], schema=_SCHEMA)
    with whole_files.publishing_part(uri) as local_path:
        # One row group for a few images, so that a reader need not hold a whole shard.
        # No dictionary, since no two maps are equal.
        pq.write_table(table, local_path, compression="zstd", row_group_size=16, use_dictionary=False)


def read_cam_shard(uri: str) -> list[ImageCam]:
    """Read a file of `write_cam_shard`; the maps come back as float32.

    Raises:
        ArtifactError: when the file is absent, truncated, or something else.
    """
    return [_cam(row, uri) for row in _read_table(uri).to_pylist()]


def read_image_ids(uri: str) -> list[str]:
    """Return the images of a file of `write_cam_shard`, without reading their maps.

    Raises:
        ArtifactError: when the file is absent, truncated, or something else.
    """
    return _read_table(uri, ["image_id"])["image_id"].to_pylist()


def _read_table(uri: str, columns: list[str] | None = None) -> pa.Table:
    try:
        file = pq.ParquetFile(pa.BufferReader(whole_files.read_whole(uri)))
        schema, table = file.schema_arrow, file.read(columns)
    except DataError:
        raise ArtifactError(f"there are no stored CAMs at {uri}; make them with `qaclims cams`") from None
    except (pa.ArrowException, OSError) as error:
        raise ArtifactError(f"{uri} is not a whole Parquet file ({error}); run `qaclims cams` again") from None
    if not schema.equals(_SCHEMA):
        raise ArtifactError(
            f"{uri} holds columns {', '.join(schema.names)}, not the CAMs that `qaclims cams` writes; "
            "remove it and run `qaclims cams` again"
        )
    return table


def _row(cam: ImageCam, dtype: str) -> dict[str, object]:
    return {
        "image_id": cam.image_id,
        "height": cam.height,
        "width": cam.width,
        "class_ids": list(cam.class_ids),
        "dtype": dtype,
        "full": _to_bytes(cam.full, dtype),
        "grid_height": None if cam.grid is None else int(cam.grid.shape[1]),
        "grid_width": None if cam.grid is None else int(cam.grid.shape[2]),
        "grid": _to_bytes(cam.grid, dtype),
    }


def _cam(row: dict, uri: str) -> ImageCam:
    if row["dtype"] not in _NUMPY_TYPES:
        raise ArtifactError(f"{uri} holds maps of type {row['dtype']!r}, expected {' or '.join(_NUMPY_TYPES)}")
    num_classes = len(row["class_ids"])
    try:
        full = _from_bytes(row["full"], row["dtype"], (num_classes, row["height"], row["width"]))
        grid = _from_bytes(row["grid"], row["dtype"], (num_classes, row["grid_height"], row["grid_width"]))
    except (ValueError, TypeError) as error:
        raise ArtifactError(
            f"{uri}: the maps of image {row['image_id']} do not have the size that is stated ({error}); "
            "remove the file and run `qaclims cams` again"
        ) from None
    return ImageCam(row["image_id"], tuple(row["class_ids"]), full, grid, row["height"], row["width"])


def _to_bytes(maps: Float[Tensor, "class height width"] | None, dtype: str) -> bytes | None:
    return None if maps is None else maps.numpy().astype(_NUMPY_TYPES[dtype], copy=False).tobytes()


def _from_bytes(content: bytes | None, dtype: str, shape: tuple) -> Float[Tensor, "class height width"] | None:
    if content is None:
        return None
    # astype copies, so that the tensor does not lie on read-only bytes.
    return torch.from_numpy(np.frombuffer(content, _NUMPY_TYPES[dtype]).reshape(shape).astype(np.float32))

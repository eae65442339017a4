"""CAMs made elsewhere, brought to the form of our own (row S22): any source of CAMs can be scored and learned from.

Two layouts are read: the shards of another run (`cam_store`), and one ``IMAGE_ID.npz`` per image with the arrays
``keys`` (0-based foreground classes) and ``maps`` (class, height, width). Nothing is unpickled.
"""

import io
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qaclims_ray.cams.config import CamConfig
from qaclims_ray.cams.inference import ImageCam, grid_size
from qaclims_ray.cams.store import read_cam_shard, read_image_ids
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.data.picture_files import contents
from qaclims_ray.data.validation import Fault
from qaclims_ray.errors import ArtifactError, DataError

_EPSILON = 1e-5
"""Added to a maximum before it divides, as for our own CAMs (E1)."""
_ROUNDING = 1e-3
"""A maximum this near to 1 is 1, rounded to float16."""
_SHARD_SUFFIX, _IMAGE_SUFFIX = ".parquet", ".npz"
_UNREADABLE = (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class _Given:
    """What is given for one image, as it stands in its file."""

    class_ids: tuple[int, ...]
    maps: Float[Tensor, "class height width"]
    is_ours: bool
    """Whether the maps were normalised by this package."""


def given_files(uri: str) -> list[str]:
    """Return the files of a folder of given CAMs: shards of another run, or one .npz per image.

    Raises:
        DataError: when there are none, or both.
    """
    files = {suffix: storage.list_files(uri, suffix) for suffix in (_SHARD_SUFFIX, _IMAGE_SUFFIX)}
    found = [suffix for suffix, uris in files.items() if uris]
    if len(found) != 1:
        holds = "both layouts" if found else f"no CAMs (it has {contents(uri)})"
        raise DataError(
            f"given.cams: {uri} holds {holds}; expected either part-*.parquet, the folder cams/SYSTEM of another run, "
            "or one IMAGE_ID.npz per image with the arrays keys and maps"
        )
    return files[found[0]]


def given_fingerprint(uri: str) -> str:
    """Return what tells given CAMs apart: the fingerprint of another run's CAMs, or names, sizes and times of files.

    Raises:
        DataError: when there is nothing.
        ArtifactError: when the folder is an artefact, but not of CAMs.
    """
    meta = artifacts.read_meta(uri)
    if meta is None:
        return storage.listing_fingerprint(uri)
    if meta.kind != "cams":
        raise ArtifactError(f"given.cams: {uri} holds a {meta.kind}, expected CAMs; give cams/SYSTEM of another run")
    return meta.fingerprint


def files_by_image(files: Sequence[str]) -> dict[str, str]:
    """Return image id -> the file that holds its maps.

    Raises:
        ArtifactError: when a shard cannot be read.
    """
    named: dict[str, str] = {}
    for uri in files:
        is_shard = uri.lower().endswith(_SHARD_SUFFIX)
        ids = read_image_ids(uri) if is_shard else [uri.rsplit("/", 1)[-1][: -len(_IMAGE_SUFFIX)]]
        named |= dict.fromkeys(ids, uri)
    return named


def import_cams(
    records: Sequence[ImageRecord], files: Mapping[str, str], num_classes: int, config: CamConfig
) -> tuple[list[ImageCam], list[Fault]]:
    """Read, check and convert the given maps of some images.

    Maps are resized bilinearly to the image's size. Each class is divided by its own maximum + 1e-5, unless the map is
    within [0, 1] with a maximum of 1 already, or comes from another run. Classes without a label are dropped; an image
    without labels needs no maps.

    Args:
        records: the images.
        files: image id -> its file.
        num_classes: of the data set.
        config: what is kept.

    Returns:
        The maps of the images without fault, in the order given, and all faults.
    """
    faults: list[Fault] = []
    given = _read(records, files, faults)
    cams = []
    for record in records:
        one = given.get(record.image_id)
        if one is None and not record.labels:
            one = _Given((), torch.zeros(0, 1, 1), is_ours=True)
        if one is None:
            if record.image_id not in files:
                faults.append(Fault("images without CAMs", record.image_id, "labelled, but nothing is given"))
            continue
        if not (found := _faults_of(record, one, num_classes)):
            cams.append(_converted(record, one, config))
        faults += found
    return cams, faults


def _read(records: Sequence[ImageRecord], files: Mapping[str, str], faults: list[Fault]) -> dict[str, _Given]:
    by_file: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if record.image_id in files:
            by_file[files[record.image_id]].append(record.image_id)
    given: dict[str, _Given] = {}
    for uri, image_ids in by_file.items():
        try:
            if uri.lower().endswith(_SHARD_SUFFIX):
                given |= _read_shard(uri, set(image_ids))
            else:
                given[image_ids[0]] = _read_npz(uri)
        except (ArtifactError, DataError) as error:
            faults.append(Fault("files that cannot be read", uri, str(error)))
    return given


def _read_shard(uri: str, image_ids: set[str]) -> dict[str, _Given]:
    given = {}
    for cam in read_cam_shard(uri):
        maps = cam.full if cam.full is not None else cam.grid
        if maps is None:
            raise ArtifactError(f"{uri} holds no maps of image {cam.image_id}")
        if cam.image_id in image_ids:
            given[cam.image_id] = _Given(cam.class_ids, maps, is_ours=True)
    return given


def _read_npz(uri: str) -> _Given:
    content = storage.read_bytes(uri)
    try:
        arrays = np.load(io.BytesIO(content), allow_pickle=False)
        if not isinstance(arrays, np.lib.npyio.NpzFile) or not {"keys", "maps"} <= set(arrays.files):
            raise DataError("expected an .npz with the arrays keys and maps")
        keys, maps = arrays["keys"], arrays["maps"]
    except _UNREADABLE as error:
        raise DataError(f"no .npz of plain numbers ({error}); expected the arrays keys and maps") from None
    if keys.ndim != 1 or keys.dtype.kind not in "iu":
        raise DataError(f"keys has shape {keys.shape} and type {keys.dtype}, expected a row of whole numbers")
    if maps.ndim != 3 or len(maps) != len(keys) or 0 in maps.shape[1:] or maps.dtype.kind not in "fiu":
        raise DataError(
            f"maps has shape {maps.shape} and type {maps.dtype}, expected numbers ({len(keys)}, height, width)"
        )
    return _Given(tuple(int(key) for key in keys), torch.from_numpy(maps.astype(np.float32)), is_ours=False)


def _faults_of(record: ImageRecord, given: _Given, num_classes: int) -> list[Fault]:
    def fault(sort: str, detail: str) -> Fault:
        return Fault(sort, record.image_id, detail)

    found, ids = [], given.class_ids
    if unknown := sorted(set(ids) - set(range(num_classes))):
        found.append(fault("class ids that are none", f"{unknown}, expected 0 to {num_classes - 1}"))
    if len(set(ids)) != len(ids):
        found.append(fault("classes given twice", f"classes {list(ids)}"))
    if missing := sorted(set(record.labels) - set(ids)):
        found.append(fault("labelled classes without a map", f"classes {missing}, given are {sorted(set(ids))}"))
    for class_id, one in zip(ids, given.maps, strict=True):
        if class_id in record.labels and not bool(torch.isfinite(one).all()):
            found.append(fault("values that are not finite", f"class {class_id}"))
        elif class_id in record.labels and float(one.min()) < 0:
            found.append(fault("negative values", f"class {class_id}, down to {float(one.min()):.3g}"))
    return found


def _converted(record: ImageRecord, given: _Given, config: CamConfig) -> ImageCam:
    positions = [given.class_ids.index(label) for label in record.labels]
    maps, size = given.maps[positions], (record.height, record.width)
    full = grid = None
    if config.store != "grid":
        full = maps_at(maps, size, is_normalised=given.is_ours)
    if config.store != "full":
        # Each small map is divided by its own maximum, as those of our own CAMs are.
        grid = maps_at(maps, grid_size(*size, config.grid_stride), is_normalised=False)
    return ImageCam(record.image_id, record.labels, full, grid, record.height, record.width)


def maps_at(
    maps: Float[Tensor, "class height width"], size: tuple[int, int], *, is_normalised: bool
) -> Float[Tensor, "class new_height new_width"]:
    """Resize maps bilinearly, and divide each by its own maximum + 1e-5 unless that is 1 already.

    Args:
        maps: finite, at least 0.
        size: new (height, width).
        is_normalised: leave every map within [0, 1] as it is, whatever its maximum.
    """
    if not len(maps):
        return maps.new_zeros((0, *size))
    if tuple(maps.shape[1:]) != size:
        maps = F.interpolate(maps[None], size, mode="bilinear", align_corners=False)[0]
    maximum = maps.amax((1, 2), keepdim=True)
    is_done = (maximum <= 1) & (is_normalised | (maximum >= 1 - _ROUNDING))
    return torch.where(is_done, maps, maps / (maximum + _EPSILON))

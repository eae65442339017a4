"""The archive that the VOC evaluation server takes: palette PNGs of the test images under its own folder names.

``results/VOC2012/Segmentation/comp6_test_cls/ID.png`` in a gzipped tar; comp5 is for systems trained on VOC's data
alone, comp6 for those that used anything else, pretrained weights included. The server scores every pixel, so a mask
may not hold 255.
"""

import gzip
import io
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from qaclims_ray.data import storage
from qaclims_ray.data.classes import IGNORE_VALUE, VOC_CLASSES, label_value, voc_palette
from qaclims_ray.errors import ArtifactError, DataError

Competition = Literal["comp5", "comp6"]
Labels = UInt8[np.ndarray, "_height _width"] | UInt8[Tensor, "_height _width"]

_HIGHEST = label_value(len(VOC_CLASSES) - 1)
_SUFFIX = ".png"
_NO_PICTURE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, zlib.error)
"""What PIL raises for files that are no picture, or a broken one."""


@dataclass(frozen=True)
class SubmissionCheck:
    """What is wrong with an archive; all empty when nothing is."""

    missing: tuple[str, ...]
    """Images without a mask."""
    surplus: tuple[str, ...]
    """Files that belong to no image, by their path in the archive."""
    wrong_size: tuple[str, ...]
    """Images whose mask has another size than they."""
    wrong_values: tuple[str, ...]
    """Images whose mask is no PNG with a palette, or holds values other than 0 to 20."""

    @property
    def is_good(self) -> bool:
        """Whether the server will take it."""
        return not (self.missing or self.surplus or self.wrong_size or self.wrong_values)


def submission_folder(competition: Competition = "comp6", year: str = "2012", image_set: str = "test") -> str:
    """Return the folder of the masks inside the archive."""
    return f"results/VOC{year}/Segmentation/{competition}_{image_set}_cls"


def write_submission(
    uri: str,
    masks: Iterable[tuple[str, Labels | str | Path]],
    *,
    competition: Competition = "comp6",
    year: str = "2012",
    image_set: str = "test",
) -> None:
    """Write the archive; equal masks give equal bytes, in whatever order they come.

    Args:
        uri: of the archive, local or remote, usually ``*.tgz``.
        masks: image identifier and label values, or the local path of a PNG that holds them. Read one by one; what
            is kept in memory are the compressed PNGs.
        competition: comp5 (only VOC's own data) or comp6.
        year: of the VOC challenge.
        image_set: name of the image set.

    Raises:
        DataError: a mask holds 255 or other values that are no VOC label, is no picture, comes twice, or there is
            none.
        ResourceError: when the place cannot be written.
    """
    pictures: dict[str, bytes] = {}
    for image_id, mask in masks:
        if image_id in pictures:
            raise DataError(f"image {image_id} comes twice in the submission; expected one mask of each")
        if not image_id or "/" in image_id or image_id.startswith("."):
            raise DataError(f"{image_id!r} is no image identifier of VOC (such as 2008_000006)")
        pictures[image_id] = _png(_checked(image_id, _label_values(image_id, mask)))
    if not pictures:
        raise DataError(f"there is no mask for the submission {uri}; predict the images of {image_set} first")
    folder = submission_folder(competition, year, image_set)
    with (
        storage.publishing(uri) as local_path,
        open(local_path, "wb") as file,
        # No name and no time in the header: the same masks give the same bytes.
        gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0, compresslevel=6) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for image_id, content in sorted(pictures.items()):
            entry = tarfile.TarInfo(f"{folder}/{image_id}{_SUFFIX}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def check_submission(
    uri: str,
    image_ids: Sequence[str],
    sizes: Mapping[str, tuple[int, int]] | None = None,
    *,
    competition: Competition = "comp6",
    year: str = "2012",
    image_set: str = "test",
) -> SubmissionCheck:
    """Look an archive through before it is sent.

    Args:
        uri: of the archive.
        image_ids: images that the server expects.
        sizes: height and width of images by identifier; those not listed are taken at any size.
        competition: as it was written.
        year: as it was written.
        image_set: as it was written.

    Raises:
        ArtifactError: when it is not there or no gzipped tar.
        ResourceError: when the store does not answer.
    """
    if not storage.exists(uri):
        raise ArtifactError(f"there is no submission at {uri}; write it first")
    expected = set(image_ids)
    prefix = submission_folder(competition, year, image_set) + "/"
    seen: set[str] = set()
    surplus: list[str] = []
    wrong_size: list[str] = []
    wrong_values: list[str] = []
    for name, content in _entries(uri):
        image_id = name.removeprefix(prefix).removesuffix(_SUFFIX)
        if content is None or name != f"{prefix}{image_id}{_SUFFIX}" or image_id not in expected or image_id in seen:
            surplus.append(name)
            continue
        seen.add(image_id)
        values = _indexed(content)
        if values is None or int(values.max()) > _HIGHEST:
            wrong_values.append(image_id)
        if values is not None and sizes and image_id in sizes and values.shape != tuple(sizes[image_id]):
            wrong_size.append(image_id)
    return SubmissionCheck(
        tuple(sorted(expected - seen)), tuple(sorted(surplus)), tuple(sorted(wrong_size)), tuple(sorted(wrong_values))
    )


def _label_values(image_id: str, mask: Labels | str | Path) -> UInt8[np.ndarray, "height width"]:
    if isinstance(mask, Tensor):
        return mask.cpu().numpy()
    if isinstance(mask, np.ndarray):
        return mask
    try:
        with Image.open(mask) as picture:
            if picture.mode not in ("P", "L"):
                raise DataError(
                    f"the mask {mask} of image {image_id} is a picture of mode {picture.mode}; expected label values, "
                    "as a PNG with a palette or in grey"
                )
            return np.array(picture)
    except _NO_PICTURE as error:
        raise DataError(f"the mask {mask} of image {image_id} cannot be read ({error}); make it again") from None


def _checked(image_id: str, labels: Any) -> UInt8[np.ndarray, "height width"]:
    if labels.ndim != 2 or labels.dtype != np.uint8 or not labels.size:
        raise DataError(
            f"the mask of image {image_id} has shape {labels.shape} and type {labels.dtype}; expected height x width "
            "bytes"
        )
    highest = int(labels.max())
    if highest == IGNORE_VALUE:
        raise DataError(
            f"the mask of image {image_id} holds 255 (ignored), which the server does not know; submit the masks of a "
            "final network, which label every pixel, not pseudo masks"
        )
    if highest > _HIGHEST:
        raise DataError(
            f"the mask of image {image_id} holds the value {highest}; VOC has the labels 0 to {_HIGHEST}. Only masks "
            "of VOC's own class list can be submitted"
        )
    return labels


def _png(labels: UInt8[np.ndarray, "height width"]) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(labels), mode="P")
    picture.putpalette(voc_palette())
    content = io.BytesIO()
    picture.save(content, format="PNG")
    return content.getvalue()


def _entries(uri: str) -> Iterator[tuple[str, bytes | None]]:
    """Yield name and content of what an archive holds, folders aside; None for what is no plain file."""
    try:
        # Whole, because only the end of a gzip stream shows that all before it is right.
        content = gzip.decompress(storage.read_bytes(uri))
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isfile() else None
                if not entry.isdir():
                    yield entry.name, file.read() if file else None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ArtifactError(f"the submission {uri} is no whole gzipped tar ({error}); write it again") from None


def _indexed(content: bytes) -> UInt8[np.ndarray, "height width"] | None:
    """Return the values of a PNG with a palette; None for anything else."""
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return np.array(picture) if picture.format == "PNG" and picture.mode == "P" else None
    except _NO_PICTURE:
        return None

"""Opening picture files with PIL, and saying in words what is wrong with one that cannot be opened."""

import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from qaclims_ray.data import storage
from qaclims_ray.errors import DataError

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What PIL's decoders raise on broken input."""
# ISO media files say what they are by a brand, at byte 8.
_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF",
    b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF", b"crx ": "Canon raw",
}  # fmt: skip
_CONVERT = "convert it to JPEG or PNG"
_BEGINNINGS = (
    (b"version https://git-lfs", "a git-lfs pointer, a text that stands for the file: run `git lfs pull`"),
    (b"/annex/objects", "a git-annex pointer: run `git annex get`"),
    (b"<svg", f"an SVG drawing: {_CONVERT}"),
    (b"<!doctype html", "a web page, perhaps of a download that failed: fetch the image again"),
    (b"<html", "a web page, perhaps of a download that failed: fetch the image again"),
    (b"<?xml", "an XML file"),
    (b"{", "a JSON file"),
    (b"%pdf", f"a PDF: {_CONVERT}"),
    (b"8bps", f"a Photoshop file: {_CONVERT}"),
    (b"\xff\x0a", f"a JPEG XL picture: {_CONVERT}"),
    (b"\0\0\0\x0cjxl ", f"a JPEG XL picture: {_CONVERT}"),
    (b"\x93numpy", "a NumPy array: save it as PNG"),
    (b"pk\x03\x04", "a ZIP archive: unpack it"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
)
"""How files begin that are taken for images, in lower case, and what to say of them."""


def decode(uri: str, content: bytes | None = None) -> Image.Image:
    """Return a picture with its pixels loaded, in the mode that the file has.

    Of several frames or pages it is the first. Orientation is as stored, except that PIL turns TIFFs upright itself.

    Args:
        uri: path or fsspec URI.
        content: the file's bytes, where they have been read.

    Raises:
        DataError: when the file is missing, empty, truncated, too large or no picture.
    """
    content = storage.read_bytes(uri) if content is None else content
    with complaining(uri, content):
        picture = Image.open(io.BytesIO(content))
        picture.load()
        return picture


@contextmanager
def opened(uri: str) -> Iterator[Image.Image]:
    """Yield a picture of which only the header is read.

    Raises:
        DataError: when the file is missing, empty, too large or no picture.
    """
    with storage.open_input(uri) as handle:
        beginning = handle.read(256)
        handle.seek(0)
        with complaining(uri, beginning), Image.open(handle) as picture:
            yield picture


@contextmanager
def complaining(uri: str, content: bytes) -> Iterator[None]:
    """Turn what PIL raises on a bad file into a `DataError` that says what is wrong with it.

    Args:
        uri: for the message.
        content: the file's bytes, or its first few hundred.

    Raises:
        DataError: for a file that is empty, truncated, too large or no picture.
    """
    _accept_large_pictures()
    try:
        yield
    except DECODE_ERRORS as error:
        raise DataError(f"{uri} {_complaint(error, content)}") from None


def _accept_large_pictures() -> None:
    """Silence PIL from 89 megapixels on, where it warns of an attack; from 179 it refuses, which is reported."""
    # Once: a new filter makes Python forget which warnings it has shown.
    if not any(
        action == "ignore" and sort is Image.DecompressionBombWarning for action, _, sort, *_ in warnings.filters
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def _complaint(error: BaseException, content: bytes) -> str:
    if not content:
        return "is empty (0 bytes)"
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(error)
    if isinstance(error, MemoryError):
        return "does not fit into memory: shrink it or cut it into tiles"
    if isinstance(error, UnidentifiedImageError):
        return f"is not an image that can be decoded{_likely_sort(content)}"
    return f"is truncated or broken: {error}"


def _too_large(error: BaseException) -> str:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    found = re.search(r"\((\d+) pixels\)", str(error))
    size = f"has {int(found[1]) / 1e6:,.0f} megapixels" if found else "is too large"
    return f"{size}, and at most {limit / 1e6:,.0f} can be read: shrink it or cut it into tiles"


def _likely_sort(content: bytes) -> str:
    """Return what a file is that PIL does not know, by its first bytes."""
    if content[4:8] == b"ftyp" and (name := _BRANDS.get(content[8:12])):
        return f": it is a {name} picture, {_CONVERT}"
    if content[128:132] == b"DICM":
        return f": it is a DICOM file, {_CONVERT}"
    start = content[:256].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((f": it is {words}" for mark, words in _BEGINNINGS if start.startswith(mark)), "")

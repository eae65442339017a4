"""Opening picture files with PIL, and saying in words what is wrong with one that cannot be opened."""

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from qaclims_ray.data import storage
from qaclims_ray.data.file_kinds import HEAD_BYTES, describe_head
from qaclims_ray.errors import DataError

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""How a PNG begins."""
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, OverflowError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError,
)  # fmt: skip
"""What PIL's decoders raise on broken input."""


@contextmanager
def opened(uri: str) -> Iterator[Image.Image]:
    """Yield a picture of which only the header is read.

    Raises:
        DataError: when the file is missing, empty, too large or no picture.
    """
    with storage.open_input(uri) as handle:
        beginning = handle.read(HEAD_BYTES)
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


def refuse_damaged_png(uri: str, content: bytes) -> None:
    """Compare the checksums of a PNG's parts, which PIL leaves out for pixels; other files pass.

    Args:
        uri: for the message.
        content: the whole file.

    Raises:
        DataError: naming the part that is not as it was written.
    """
    if not content.startswith(PNG_SIGNATURE):
        return
    view, start = memoryview(content), len(PNG_SIGNATURE)
    # A part: length of its data, name, data, checksum of name and data. What follows IEND is no part.
    while start + 12 <= len(view):
        name = bytes(view[start + 4 : start + 8])
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        if end + 4 > len(view):
            return  # cut off, which PIL says
        # The name of a part that pixels do not depend on begins with a small letter.
        if name[:1].isupper() and zlib.crc32(view[start + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise DataError(
                f"{uri} is damaged: the checksum of its part {name.decode('ascii', 'replace')} is wrong; copy it again"
            )
        if name == b"IEND":
            return
        start = end + 4


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
        return f"is not an image that can be decoded: it is {describe_head(content)}"
    return f"is truncated or broken: {error}"


def _too_large(error: BaseException) -> str:
    limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
    found = re.search(r"\((\d+) pixels\)", str(error))
    size = f"has {int(found[1]) / 1e6:,.0f} megapixels" if found else "is too large"
    return f"{size}, and at most {limit / 1e6:,.0f} can be read: shrink it or cut it into tiles"

"""From a picture file to an upright RGB picture of 8 bits: orientation, bit depth, colours.

Training, CAMs, prediction and reports all see a photograph as viewers show it: `data/images.py:load_image` reads
it through this module, and nothing else decodes photographs.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from qaclims_ray.data import storage
from qaclims_ray.data.decoding import PNG_SIGNATURE, complaining, opened, refuse_damaged_png
from qaclims_ray.errors import DataError

_ORIENTATION = 0x0112
_BITS_PER_SAMPLE = 258
# Not ImageOps.exif_transpose: it writes the EXIF block anew, and fails where that is damaged.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation -> what turns the stored pixels upright; 1 is upright."""
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras, scanners and microscopes give a pixel, in files of 16."""


@dataclass(frozen=True)
class PhotoHeader:
    """What a photograph's header says."""

    width: int
    """In pixels, upright."""
    height: int
    orientation: int
    """EXIF's number, 1 to 8; 1 is upright, and 5 to 8 exchange width and height."""

    @property
    def is_turned_sideways(self) -> bool:
        """Whether the stored pixels are height x width."""
        return self.orientation >= 5


def inspect_photograph(uri: str, *, decode: bool) -> PhotoHeader:
    """Return an image's size and orientation.

    Args:
        uri: path or fsspec URI.
        decode: also decode all pixels, to find out whether they are sound; otherwise the header alone is read.

    Raises:
        DataError: when the file is missing, empty, too large or no image, or its pixels cannot be read.
    """
    if decode:
        return _read(uri)[1]
    with opened(uri) as picture:
        return _header(picture)


def read_photograph(uri: str) -> Image.Image:
    """Return a photograph as an upright RGB picture of 8 bits.

    EXIF orientation is applied. Pixels of more than 8 bits are scaled by what they hold: the smallest of 8, 10, 12, 14
    and 16 bits that the largest value fits into (or the bits that a TIFF declares) becomes 0 to 255, so 12-bit pixels
    in a 16-bit file are not black. Grey, palette and CMYK images become RGB; alpha is dropped; of several frames or
    pages the first is taken.

    Args:
        uri: path or fsspec URI.

    Raises:
        DataError: when the file is missing, empty, damaged, too large or no image, or holds pixels that are no
            brightness of at most 16 bits.
    """
    return _read(uri)[0]


def _read(uri: str) -> tuple[Image.Image, PhotoHeader]:
    content = storage.read_bytes(uri)
    refuse_damaged_png(uri, content)
    with complaining(uri, content):
        picture = Image.open(io.BytesIO(content))
        header = _header(picture)
        picture.load()
    upright = _in_rgb(picture, uri, content)
    if header.orientation in _TURNS and not _turns_itself(picture):
        upright = upright.transpose(_TURNS[header.orientation])
    return upright, header


def _header(picture: Image.Image) -> PhotoHeader:
    orientation = _orientation(picture)
    width, height = picture.size
    if orientation >= 5 and not _turns_itself(picture):
        width, height = height, width
    return PhotoHeader(width, height, orientation)


def _turns_itself(picture: Image.Image) -> bool:
    """Whether PIL gives the upright size, and turns the pixels on loading; all but TIFFs it leaves as stored."""
    return picture.format == "TIFF"


def _orientation(picture: Image.Image) -> int:
    try:
        found = picture.getexif().get(_ORIENTATION)
    except Exception:  # a damaged EXIF block raises all sorts; viewers show the stored pixels then
        return 1
    return found if isinstance(found, int) and found in _TURNS else 1


def _in_rgb(picture: Image.Image, uri: str, content: bytes) -> Image.Image:
    if picture.mode == "F":
        raise DataError(
            f"{uri} holds 32-bit fractions, whose black and white the file does not say: save it with 8 or 16 bits"
        )
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise DataError(
                f"{uri} holds values from {values.min()} to {values.max()}; expected at most 16 bits, 0 to 65535: "
                "save it with 8 or 16 bits"
            )
        return Image.fromarray(_in_8_bits(values, _declared_bits(picture))).convert("RGB")
    if content.startswith(PNG_SIGNATURE) and content[24] == 16:  # the bit depth, in the first chunk
        return _deep_png(content)
    _refuse_lost_bits(picture, uri)
    if picture.mode == "P" and "transparency" in picture.info:
        # Straight to RGB, PIL warns of a palette whose transparency is given as bytes.
        picture = picture.convert("RGBA")
    if picture.mode == "La":
        picture = picture.convert("LA")
    try:
        return picture.convert("RGB")
    except ValueError as error:
        raise DataError(f"{uri} has colours of mode {picture.mode} ({error}): convert it to RGB") from None


def _in_8_bits(values: np.ndarray, bits: int | None) -> np.ndarray:
    largest = int(values.max())
    if bits is None or largest >= 2**bits:
        bits = next(depth for depth in _DEPTHS if largest < 2**depth)
    scaled = np.round(np.arange(2**bits) * (255 / (2**bits - 1))).astype(np.uint8)
    return scaled[values]


def _declared_bits(picture: Image.Image) -> int | None:
    """Return the bits of a TIFF whose pixels are packed in less than 16; None says nothing."""
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    bits = bits[0] if isinstance(bits, tuple) and bits else bits
    return bits if isinstance(bits, int) and 8 < bits < 16 else None


def _deep_png(content: bytes) -> Image.Image:
    """Decode a PNG of 16-bit colours, of which PIL keeps the high byte alone: that of 12-bit pixels is black."""
    from torchvision.io import decode_png  # takes two seconds to load

    values = decode_png(torch.frombuffer(bytearray(content), dtype=torch.uint8)).numpy()
    colours = values[:3] if len(values) >= 3 else values[:1].repeat(3, axis=0)
    return Image.fromarray(np.ascontiguousarray(np.moveaxis(_in_8_bits(colours, None), 0, -1)))


def _refuse_lost_bits(picture: Image.Image, uri: str) -> None:
    """Refuse a TIFF of 16-bit colours that hold 12 bits or less: PIL keeps their high byte, which is black."""
    bits = getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    if not isinstance(bits, tuple) or len(bits) < 3 or bits[0] != 16:
        return
    largest = int(np.asarray(picture.convert("RGB")).max())
    if largest < 16:
        raise DataError(
            f"{uri} holds 16-bit colours of at most {256 * largest + 255}, as a 12-bit camera gives them; these cannot "
            "be read from a TIFF: save it as PNG, or with 8 bits"
        )

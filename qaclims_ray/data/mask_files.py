"""Label maps as people's tools write them: the numbers that the pixels hold, never the grey or colour they show.

A label map is a PNG, TIFF, BMP, GIF or grey PGM (or a lossless WebP). Palette pictures are read by index, whatever
their depth. Grey ones of 1, 2 or 4 bits are read as the numbers stored, although decoders stretch these to 0-255 for
viewing. Three equal channels are grey. An EXIF orientation turns a mask as it turns a photograph. `load_mask` is what
everybody uses; `read_mask` also tells what the file looks like, from which `mask_agreement` finds out what went wrong.
"""

import io
import re
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Integer, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from qaclims_ray.data import storage, whole_files
from qaclims_ray.data.classes import Colour, hexadecimal, voc_colours
from qaclims_ray.data.decoding import complaining, refuse_damaged_png
from qaclims_ray.errors import DataError

MAX_VALUE = 255
"""Largest number that a label map of this package holds."""

_FORMATS = ("PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
_LOSSY_FORMATS = ("JPEG", "MPO", "JPEG2000", "AVIF", "HEIF")
_ORIENTATION = 0x0112
_PGM_LARGEST = re.compile(rb"P[25](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d+)")
"""The largest value of a grey PGM, after width and height; there may be comments between."""
_NUMPY = b"\x93NUMPY"
_EXPECTED = "a palette or grey PNG (or TIFF, BMP, GIF) whose pixels are label values"


@dataclass(frozen=True)
class MaskPicture:
    """A decoded mask file; either numbers or colours are there."""

    numbers: Integer[np.ndarray, "height width"] | None
    """What each pixel holds: palette index or grey level, as stored."""
    colours: UInt8[np.ndarray, "height width 3"] | None
    """RGB, where the channels differ."""
    palette: UInt8[np.ndarray, "entry 3"] | None
    """RGB of each index, for a palette picture."""
    bits: int
    """Bits of a pixel: 1, 2, 4, 8, 16 or 32."""
    orientation: int = 1
    """EXIF's number, by which it was turned upright."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        pixels = self.colours if self.numbers is None else self.numbers
        assert pixels is not None
        return pixels.shape[1], pixels.shape[0]

    def values(self) -> dict[int, int]:
        """Return number -> pixels that hold it."""
        return {} if self.numbers is None else _counts(self.numbers)

    def shown_colours(self) -> dict[Colour, int]:
        """Return colour -> pixels that show it; grey counts as a colour."""
        return {unpacked(code): count for code, count in _counts(self.packed_colours()).items()}

    def packed_colours(self) -> Integer[np.ndarray, "height width"]:
        """Return what a viewer shows: red, green and blue as one number of 24 bits."""
        if self.numbers is None:
            assert self.colours is not None
            return _packed(self.colours)
        if self.palette is None:
            return self.numbers.astype(np.int64) * 0x010101
        return _packed(self.palette)[self.numbers]

    def used_palette(self) -> dict[int, Colour]:
        """Return index -> colour of the indices in use; nothing for a picture without a palette."""
        if self.palette is None:
            return {}
        codes = _packed(self.palette)
        return {index: unpacked(int(codes[index])) for index in self.values()}


def load_mask(uri: str) -> UInt8[Tensor, "height width"]:
    """Decode a label map.

    Args:
        uri: path or fsspec URI.

    Raises:
        DataError: when it is missing, broken, compressed with loss, in colours, or holds numbers above 255.
        DamagedError: when it is of a finished artefact, and not what was written.
    """
    with whole_files.laying_blame(uri):
        picture = read_mask(uri)
    if picture.numbers is None:
        raise DataError(f"mask {uri} {colours_complaint(picture.shown_colours())}")
    if picture.numbers.max(initial=0) > MAX_VALUE or picture.numbers.min(initial=0) < 0:
        raise DataError(f"mask {uri} {large_numbers_complaint(list(picture.values()))}")
    return torch.from_numpy(picture.numbers.astype(np.uint8))


def read_mask(uri: str) -> MaskPicture:
    """Decode a mask file, in numbers or in colours.

    Args:
        uri: path or fsspec URI.

    Raises:
        DataError: when it is missing, broken, compressed with loss, transparent, or no single picture.
    """
    content = storage.read_bytes(uri)
    if content.startswith(_NUMPY):
        raise DataError(f"mask {uri} is a NumPy array: expected {_EXPECTED}; save it as one")
    refuse_damaged_png(f"mask {uri}", content)
    with complaining(uri, content):
        picture = Image.open(io.BytesIO(content))
        bits = _bits(picture, content)
        _check_container(picture, content, uri)
        orientation = picture.getexif().get(_ORIENTATION, 1)  # a TIFF turns itself on loading, and forgets it
        picture.load()
        if picture.format == "PPM":
            return MaskPicture(_as_stored(np.array(picture), content), None, None, bits)
        picture = ImageOps.exif_transpose(picture)
    return replace(_taken_apart(picture, bits, uri), orientation=orientation)


def listed_colours(colours: dict[Colour, int]) -> str:
    """Say that a mask holds colours, and which."""
    often = sorted(set(colours) - {(0, 0, 0)}, key=lambda one: -colours[one])
    listed = ", ".join(map(hexadecimal, often[:6])) + (", ..." if len(often) > 6 else "")
    return f"is in colours, not in label values: {listed}"


def colours_complaint(colours: dict[Colour, int], background: Colour | None = None) -> str:
    """Say that a mask holds colours, and which setting reads them.

    Args:
        colours: colour -> pixels.
        background: a colour that seems to be the background, where black is not.
    """
    if len(colours) > MAX_VALUE + 1:
        return (
            f"holds {len(colours)} colours: a photograph, or a mask that was smoothed or compressed; expected "
            f"{_EXPECTED}"
        )
    if set(colours) <= set(voc_colours()):
        return (
            "is in colours, not in label values, and all of them are of VOC's palette, which this reads:\n"
            "      --data.mask-values voc-colours"
        )
    often = sorted(set(colours) - {(0, 0, 0), background}, key=lambda one: -colours[one])
    entries = [f"'{hexadecimal(background)}=background'"] if background is not None else []
    entries += [f"'{hexadecimal(colour)}=CLASS'" for colour in often[:1]]
    return (
        f"{listed_colours(colours)}; say which class each colour is ('=background' or '=ignore' for one of no class), "
        f"as in\n      --data.mask-values {' '.join(entries)}"
    )


def large_numbers_complaint(numbers: list[int]) -> str:
    """Say that a mask holds numbers that are no label values, and what they probably are."""
    strange = sorted(number for number in numbers if not 0 <= number <= MAX_VALUE)
    listed = ", ".join(map(str, strange[:6])) + (", ..." if len(strange) > 6 else "")
    if all(number % 257 == 0 for number in numbers):
        cause = (
            "probably 8-bit values stretched to 16 bits (times 257): save the masks with 8 bits, or give the numbers"
        )
    else:
        cause = "probably numbers of single objects (instances); masks of classes are needed, or the numbers' classes"
    return f"holds {listed}; label values go up to {MAX_VALUE}: {cause} in data.mask_values, as in {strange[0]}=CLASS"


def unpacked(code: int) -> Colour:
    """Return red, green and blue of a number of 24 bits."""
    return code >> 16 & 255, code >> 8 & 255, code & 255


def packed(colour: Colour) -> int:
    """Return a colour as a number of 24 bits."""
    return colour[0] << 16 | colour[1] << 8 | colour[2]


def _packed(colours: UInt8[np.ndarray, "*shape 3"]) -> Integer[np.ndarray, "*shape"]:
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return red << 16 | green << 8 | blue


def _counts(numbers: Integer[np.ndarray, "height width"]) -> dict[int, int]:
    if numbers.dtype == np.uint8:  # four times as fast as sorting
        counts = np.bincount(numbers.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(numbers, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _check_container(picture: Image.Image, content: bytes, uri: str) -> None:
    # The first chunk of a lossless WebP file is called VP8L.
    is_lossy_webp = picture.format == "WEBP" and content[12:16] != b"VP8L"
    is_lossy_tiff = picture.format == "TIFF" and picture.info.get("compression") == "jpeg"
    if picture.format in _LOSSY_FORMATS or is_lossy_webp or is_lossy_tiff:
        detail = "is compressed as JPEG" if is_lossy_tiff else f"is a {picture.format} file"
        raise DataError(f"mask {uri} {detail}, which changes label values: expected {_EXPECTED}; export it anew")
    if picture.format not in _FORMATS or (picture.format == "PPM" and not _PGM_LARGEST.match(content)):
        raise DataError(f"mask {uri} is a {picture.format} file: expected {_EXPECTED}")
    if (frames := getattr(picture, "n_frames", 1)) > 1:
        raise DataError(f"mask {uri} holds {frames} pictures (an animation or a stack): expected a single label map")


def _bits(picture: Image.Image, content: bytes) -> int:
    """Return the bits of a pixel as the file's header says: a decoded picture does not tell."""
    if picture.format == "PNG":
        return content[24]  # IHDR is always the first chunk: width, height, then the depth
    if picture.format == "TIFF":
        told = getattr(picture, "tag_v2", {}).get(258, 1)  # BitsPerSample, which may be left out for 1
        return told[0] if isinstance(told, tuple) else told
    if picture.format == "BMP":
        return min(8, int.from_bytes(content[28:30], "little"))  # of a pixel: 24 for three channels
    if picture.format == "PPM":
        return 8 if _largest_of_pgm(content) <= MAX_VALUE else 16
    return 8


def _largest_of_pgm(content: bytes) -> int:
    found = _PGM_LARGEST.match(content)
    return int(found[1]) if found else MAX_VALUE


def _as_stored(pixels: np.ndarray, content: bytes) -> Integer[np.ndarray, "height width"]:
    """Return a PGM's numbers, which decoders stretch from its own largest value to 255, or to 65535."""
    largest = _largest_of_pgm(content)
    stretched = MAX_VALUE if largest <= MAX_VALUE else 65535
    return np.round(pixels.astype(np.float64) * largest / stretched).astype(
        np.uint8 if largest <= MAX_VALUE else np.int64
    )


def _taken_apart(picture: Image.Image, bits: int, uri: str) -> MaskPicture:
    pixels, mode = np.array(picture), picture.mode
    if bits == 16 and mode in ("LA", "RGB", "RGBA"):  # decoded to the high bytes alone: label values would be 0
        raise DataError(f"mask {uri} has several channels of 16 bits: expected {_EXPECTED}")
    if mode in ("LA", "PA", "RGBA"):
        if (pixels[..., -1] != MAX_VALUE).any():
            share = (pixels[..., -1] != MAX_VALUE).mean()
            raise DataError(
                f"mask {uri} is transparent in {100 * share:.1f}% of its pixels, which hold no class then: save it "
                "without an alpha channel"
            )
        pixels = pixels[..., :-1] if mode == "RGBA" else pixels[..., 0]
    match mode:
        case "1":
            return MaskPicture(pixels.astype(np.uint8), None, None, 1)
        case "L":
            # Decoders stretch 1, 2 and 4 bits to 0-255 (times 255, 85, 17).
            stretch = MAX_VALUE // (2**bits - 1) if bits < 8 else 1
            return MaskPicture(pixels // np.uint8(stretch), None, None, bits)
        case "LA":
            return MaskPicture(pixels, None, None, bits)
        case "P" | "PA":
            return MaskPicture(pixels, None, _whole_palette(picture), bits)
        case "RGB" | "RGBA":
            is_grey = _equal_channels(pixels).all()
            return MaskPicture(pixels[..., 0] if is_grey else None, None if is_grey else pixels, None, bits)
        case "I" | "I;16" | "I;16B" | "I;16L" | "I;16N":
            return MaskPicture(pixels.astype(np.int64), None, None, max(bits, 16))
        case "F" if np.array_equal(pixels, np.round(pixels)):
            return MaskPicture(pixels.astype(np.int64), None, None, 32)
    what = "numbers that are not whole" if mode == "F" else f"pixels of mode {mode}"
    raise DataError(f"mask {uri} holds {what}: expected {_EXPECTED}")


def _equal_channels(pixels: UInt8[np.ndarray, "height width 3"]) -> Bool[np.ndarray, "height width"]:
    return (pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])


def _whole_palette(picture: Image.Image) -> UInt8[np.ndarray, "256 3"]:
    palette = np.zeros((256, 3), np.uint8)  # indices beyond a short palette are black, as viewers show them
    told = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette[: len(told)] = told[:256]
    return palette

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from qaclims_ray.data.images import image_size, load_image
from qaclims_ray.data.photographs import inspect_photograph
from qaclims_ray.errors import DataError

ORIENTATIONS = range(1, 9)
LOSSLESS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}


def scene(width: int = 12, height: int = 8) -> np.ndarray:
    """Return a picture whose eight turns all differ."""
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)


def exif(orientation: int) -> Image.Exif:
    tag = Image.Exif()
    tag[0x0112] = orientation
    return tag


def saved(path: Path, picture: Image.Image, **options: object) -> str:
    picture.save(path, **options)
    return str(path)


def pixels(uri: str) -> np.ndarray:
    return load_image(uri).permute(1, 2, 0).numpy()


def deep_png(values: np.ndarray, colour_type: int) -> bytes:
    """Return a PNG of 16 bits (height, width, channel), which PIL cannot write in colours."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- orientation


@pytest.mark.parametrize("form", LOSSLESS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_photograph_is_seen_as_viewers_show_it(tmp_path: Path, form: str, orientation: int) -> None:
    uri = saved(tmp_path / "a", Image.fromarray(scene()), format=form, exif=exif(orientation), **LOSSLESS[form])
    expected = np.asarray(ImageOps.exif_transpose(Image.open(uri)))
    assert np.array_equal(pixels(uri), expected)
    assert image_size(uri) == (expected.shape[1], expected.shape[0]) == ((8, 12) if orientation >= 5 else (12, 8))
    for decode in (False, True):
        header = inspect_photograph(uri, decode=decode)
        assert (header.width, header.height, header.orientation) == (*image_size(uri), orientation)


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "I;16", "LA", "RGBA"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_every_mode_is_turned(tmp_path: Path, mode: str, orientation: int) -> None:
    grey = Image.fromarray(scene()).convert("L")
    picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    form = "TIFF" if mode == "CMYK" else "PNG"
    plain = pixels(saved(tmp_path / "plain", picture, format=form))
    turned = pixels(saved(tmp_path / "turned", picture, format=form, exif=exif(orientation)))
    assert np.array_equal(turned, np.rot90(plain, 2 if orientation == 3 else -1))


def test_a_jpeg_of_a_phone_is_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(np.repeat(np.repeat(scene(), 8, 0), 8, 1))
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    uri = saved(tmp_path / "a.jpg", lying, exif=exif(6), quality=98, subsampling=0)
    assert image_size(uri) == upright.size
    assert np.abs(pixels(uri).astype(int) - np.asarray(upright)).mean() < 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path, orientation: int) -> None:
    uri = saved(tmp_path / "a.png", Image.fromarray(scene()), exif=exif(orientation))
    assert np.array_equal(pixels(uri), scene()) and inspect_photograph(uri, decode=True).orientation == 1


@pytest.mark.parametrize(
    "block", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"nonsense"]
)
def test_a_damaged_exif_block_does_not_spoil_the_photograph(tmp_path: Path, block: bytes) -> None:
    uri = saved(tmp_path / "a.png", Image.fromarray(scene()), exif=block)
    assert np.array_equal(pixels(uri), scene()) and image_size(uri) == (12, 8)


# --- depth


@given(
    bits=st.sampled_from([8, 10, 12, 14, 16]),
    values=st.lists(st.integers(0, 65535), min_size=5, max_size=11),
    form=st.sampled_from(["grey PNG", "little TIFF", "big TIFF", "32-bit TIFF", "grey and alpha", "RGB", "RGBA"]),
)
def test_deep_pixels_are_scaled_by_the_bits_that_they_fill(
    tmp_path_factory: pytest.TempPathFactory, bits: int, values: list[int], form: str
) -> None:
    white = 2**bits - 1
    row = np.array([[value & white for value in values] + [white]], np.uint16)
    path = tmp_path_factory.mktemp("deep") / "a"
    match form:
        case "grey PNG":
            Image.fromarray(row).save(path, format="PNG")
        case "little TIFF" | "big TIFF":
            Image.fromarray(row.astype("<u2" if form == "little TIFF" else ">u2")).save(path, format="TIFF")
        case "32-bit TIFF":
            Image.fromarray(row.astype(np.int32)).save(path, format="TIFF")
        case "grey and alpha":
            path.write_bytes(deep_png(np.stack([row, np.full_like(row, 65535)], -1), 4))
        case "RGB":
            path.write_bytes(deep_png(np.stack([row] * 3, -1), 2))
        case _:
            path.write_bytes(deep_png(np.stack([*[row] * 3, np.full_like(row, 65535)], -1), 6))
    found = pixels(str(path))
    assert np.array_equal(found, np.round(row[..., None].repeat(3, -1) * (255 / white)).astype(np.uint8))
    assert found.max() == 255, "white is white"


def test_values_of_8_bits_in_16_stay_as_they_are(tmp_path: Path) -> None:
    uri = saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 7, 200]], np.uint16)))
    assert pixels(uri)[0, :, 0].tolist() == [0, 7, 200]


def test_a_dark_picture_of_16_bits_stays_dark(tmp_path: Path) -> None:
    uri = saved(tmp_path / "a.png", Image.fromarray(np.array([[0, 20000]], np.uint16)))
    assert pixels(uri)[0, :, 0].tolist() == [0, 78]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[0.0, 1.0]], np.float32), "32-bit fractions"),
        (np.array([[-5, 3]], np.int32), "values from -5 to 3"),
        (np.array([[0, 70000]], np.int32), "values from 0 to 70000"),
    ],
)
def test_what_is_no_brightness_is_refused(tmp_path: Path, values: np.ndarray, message: str) -> None:
    uri = saved(tmp_path / "a.tif", Image.fromarray(values))
    for read in (load_image, lambda uri: inspect_photograph(uri, decode=True)):
        with pytest.raises(DataError, match=message):
            read(uri)


# --- colours


def test_a_print_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    uri = saved(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (20, 230, 220, 10)), quality=95)
    red, green, blue = pixels(uri)[8, 8].astype(int)
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("mode", ["LA", "RGBA", "PA"])
def test_alpha_is_dropped(tmp_path: Path, mode: str) -> None:
    picture = Image.new("RGBA", (4, 4), (200, 200, 200, 0))
    if mode == "PA":
        uri = saved(
            tmp_path / "a.png",
            Image.new(
                "P",
                (4, 4),
                1,
            ),
            transparency=1,
        )
        assert pixels(uri).shape == (4, 4, 3)
    else:
        assert (pixels(saved(tmp_path / "a.png", picture.convert(mode))) == 200).all()


def test_of_several_frames_the_first_counts(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (6, 4), (shade, 0, 0)) for shade in (250, 10)]
    for name in ("a.gif", "a.tif", "a.webp"):
        uri = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert pixels(uri)[0, 0, 0] > 200 and image_size(uri) == (6, 4)


# --- files that are none


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40, "a HEIC picture: convert it to JPEG or PNG"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + b"\0" * 40, "a Canon raw picture"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"/annex/objects/SHA256E-s9--0.jpg\n", "git annex get"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\xef\xbb\xbf  <svg xmlns='x'/>", "an SVG drawing"),
        (b"%PDF-1.7\n", "a PDF"),
        (b'{"message": "not found"}', "a JSON text"),
        (b"PK\x03\x04" + b"\0" * 30, "a zip archive"),
        (b"\0" * 128 + b"DICM" + b"\0" * 40, "a DICOM file"),
    ],
)
def test_a_file_that_is_no_picture_is_called_what_it_is(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (load_image, image_size):
        with pytest.raises(DataError, match=r"a\.jpg is not an image .*: it is ") as caught:
            read(str(path))
        assert says in str(caught.value)


def test_a_huge_picture_is_refused_by_its_header_with_its_size(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    content[16:24] = struct.pack(">II", 20000, 10000)
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "a.png").write_bytes(content)
    for read in (load_image, image_size):
        with pytest.raises(DataError, match=r"has 200 megapixels, and at most 179 can be read: shrink it or cut it"):
            read(str(tmp_path / "a.png"))


def test_a_large_picture_is_read_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    uri = saved(tmp_path / "a.png", Image.new("1", (10000, 9500)))
    assert image_size(uri) == (10000, 9500)
    assert not [warning for warning in recwarn if issubclass(warning.category, Image.DecompressionBombWarning)]


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    uri = saved(tmp_path / "a.png", Image.fromarray(scene()))
    whole = Path(uri).read_bytes()
    for place in range(whole.index(b"IDAT") + 4, len(whole) - 12, 7):
        Path(uri).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(DataError, match="is damaged: the checksum of its part IDAT is wrong; copy it again"):
            load_image(uri)
    Path(uri).write_bytes(whole + b"\0" * 40)
    assert np.array_equal(pixels(uri), scene())

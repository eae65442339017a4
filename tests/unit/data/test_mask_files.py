"""Label maps of every depth, container and tool are read by the numbers that they hold."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from qaclims_ray.data.classes import voc_palette
from qaclims_ray.data.mask_files import load_mask, read_mask
from qaclims_ray.errors import DataError

VALUES = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 1, 3]], np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> str:
    picture = Image.fromarray(pixels)
    (picture if mode is None else picture.convert(mode)).save(path, **options)
    return str(path)


def packed_rows(values: np.ndarray, bits: int) -> list[bytes]:
    rows = []
    for row in values.tolist():
        digits = "".join(format(value, f"0{bits}b") for value in row)
        digits += "0" * (-len(digits) % 8)
        rows.append(bytes(int(digits[at : at + 8], 2) for at in range(0, len(digits), 8)))
    return rows


def png_bytes(values: np.ndarray, bits: int, palette: bytes = b"") -> bytes:
    """Write a PNG by hand: PIL writes no grey ones of 2 and 4 bits."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 3 if palette else 0, 0, 0, 0)
    pixels = b"".join(b"\0" + row for row in packed_rows(values, bits))
    body = (
        chunk(b"IHDR", header) + (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", zlib.compress(pixels))
    )
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def tiff_bytes(values: np.ndarray, bits: int) -> bytes:
    """Write a grey TIFF of few bits by hand."""
    height, width = values.shape
    pixels = b"".join(packed_rows(values, bits))
    pixels += b"\0" * (len(pixels) % 2)
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1), (273, 4, 8), (277, 3, 1),
        (278, 4, height), (279, 4, len(pixels)),
    ]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(pixels)) + pixels + struct.pack("<H", len(tags)) + directory + bytes(4)
    )


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_grey_and_palette_pictures_of_every_depth_are_read_by_what_they_hold(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bits = data.draw(st.sampled_from([1, 2, 4, 8]))
    width = data.draw(st.integers(1, 9))
    row = st.lists(st.integers(0, 2**bits - 1), min_size=width, max_size=width)
    values = np.array(data.draw(st.lists(row, min_size=1, max_size=5)), np.uint8)
    form = data.draw(st.sampled_from(["grey png", "palette png", "grey tiff"]))
    match form:
        case "grey png":
            content = png_bytes(values, bits)
        case "palette png":
            colours = data.draw(st.binary(min_size=3 * 2**bits, max_size=3 * 2**bits))
            content = png_bytes(values, bits, colours)
        case _:
            content = tiff_bytes(values, bits)
    path = tmp_path_factory.mktemp("mask") / "mask"
    path.write_bytes(content)
    assert np.array_equal(load_mask(str(path)).numpy(), values)
    assert read_mask(str(path)).bits == bits


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "L"), ("a.tif", "L"), ("a.bmp", "L"), ("a.png", "RGB"), ("a.tif", "RGB"), ("a.bmp", "RGB"),
        ("a.png", "RGBA"), ("a.png", "LA"), ("a.tif", "I"), ("a.tif", "F"), ("a.tif", "I;16"),
        ("a.webp", "RGB"),
    ],
)  # fmt: skip
def test_containers_and_channels_do_not_matter(tmp_path: Path, name: str, mode: str) -> None:
    path = tmp_path / name
    picture = Image.fromarray(VALUES.astype(np.uint16)) if mode == "I;16" else Image.fromarray(VALUES).convert(mode)
    picture.save(path, **({"lossless": True} if name.endswith("webp") else {}))
    assert np.array_equal(load_mask(str(path)).numpy(), VALUES)


def test_an_animated_format_with_one_picture(tmp_path: Path) -> None:
    picture = Image.fromarray(VALUES, "P")
    picture.putpalette(voc_palette())
    picture.save(tmp_path / "a.gif", optimize=False)
    assert np.array_equal(load_mask(str(tmp_path / "a.gif")).numpy(), VALUES)


def test_palette_indices_not_colours(tmp_path: Path) -> None:
    values = np.array([[0, 1, 20], [255, 7, 0]], np.uint8)
    picture = Image.fromarray(values, "P")
    picture.putpalette([255, 0, 0] * 256)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(load_mask(str(tmp_path / "a.png")).numpy(), values)
    found = read_mask(str(tmp_path / "a.png"))
    assert found.shown_colours() == {(255, 0, 0): 6} and set(found.used_palette()) == {0, 1, 7, 20, 255}


def test_a_one_bit_mask_holds_0_and_1(tmp_path: Path) -> None:
    for name in ("a.png", "a.tif", "a.bmp"):
        assert load_mask(save(tmp_path / name, np.array([[0, 255]], np.uint8), "1")).tolist() == [[0, 1]]


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_mask_is_turned_as_its_photograph(tmp_path: Path, name: str) -> None:
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    Image.fromarray(VALUES).save(tmp_path / name, exif=exif)
    assert np.array_equal(load_mask(str(tmp_path / name)).numpy(), np.rot90(VALUES, -1))


def test_what_is_lossy_is_refused_whatever_its_name(tmp_path: Path) -> None:
    for number, (kind, options) in enumerate(
        [("JPEG", {}), ("WEBP", {}), ("JPEG2000", {}), ("TIFF", {"compression": "jpeg"})]
    ):
        path = tmp_path / f"{number}.png"
        Image.fromarray(VALUES.repeat(8, 0).repeat(8, 1)).convert("RGB").save(path, kind, **options)
        with pytest.raises(DataError, match="changes label values"):
            load_mask(str(path))


@pytest.mark.parametrize(
    ("mode", "what"),
    [("CMYK", "mode CMYK"), ("F", "not whole"), ("RGBA", "transparent in 25.0%"), ("PPM", "a PPM file")],
)
def test_what_holds_no_label_values_is_refused(tmp_path: Path, mode: str, what: str) -> None:
    if mode == "F":
        picture = Image.fromarray(VALUES.astype(np.float32) / 2)
    elif mode == "RGBA":
        pixels = np.full((4, 4, 4), 255, np.uint8)
        pixels[0, :, 3] = 0
        picture = Image.fromarray(pixels)
    else:
        picture = Image.fromarray(VALUES).convert("RGB" if mode == "PPM" else mode)
    picture.save(tmp_path / "a", "PPM" if mode == "PPM" else "TIFF")
    with pytest.raises(DataError, match=what):
        load_mask(str(tmp_path / "a"))


def test_numbers_above_255_are_refused_with_what_they_are(tmp_path: Path) -> None:
    instances = save(tmp_path / "a.png", np.array([[0, 1001]], np.uint16))
    with pytest.raises(DataError, match=r"holds 1001; .*single objects \(instances\).*1001=CLASS"):
        load_mask(instances)
    stretched = save(tmp_path / "b.png", np.array([[0, 257, 514]], np.uint16))
    with pytest.raises(DataError, match="stretched to 16 bits"):
        load_mask(stretched)


def test_colours_are_refused_with_the_setting_that_reads_them(tmp_path: Path) -> None:
    colours = np.asarray(voc_palette(), np.uint8).reshape(-1, 3)
    with pytest.raises(DataError, match=r"--data\.mask-values voc-colours"):
        load_mask(save(tmp_path / "a.png", colours[VALUES]))
    with pytest.raises(DataError, match=r"(?s)#ff8000; .*'#ff8000=CLASS'"):
        load_mask(save(tmp_path / "b.png", np.array([[[255, 128, 0], [0, 0, 0]]], np.uint8)))
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    with pytest.raises(DataError, match="a photograph, or a mask that was smoothed"):
        load_mask(save(tmp_path / "c.png", noise))


def test_several_channels_of_16_bits_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(png_bytes(np.zeros((1, 12), np.uint8), 8))
    content = bytearray(buffer.getvalue())
    content[16:20], content[24], content[25] = struct.pack(">I", 2), 16, 2  # two pixels of 3 x 16 bits
    content[29:33] = struct.pack(">I", zlib.crc32(bytes(content[12:29])))
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match="several channels of 16 bits"):
        load_mask(str(tmp_path / "a.png"))


def test_stacks_and_arrays_are_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(VALUES)
    picture.save(tmp_path / "a.tif", save_all=True, append_images=[picture])
    with pytest.raises(DataError, match="holds 2 pictures"):
        load_mask(str(tmp_path / "a.tif"))
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(DataError, match="is a NumPy array"):
        load_mask(str(tmp_path / "a.npy"))


@pytest.mark.parametrize("content", [b"", b"not an image", png_bytes(VALUES, 2)[:36]])
def test_what_is_broken_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.png is (empty|not an image|truncated)"):
        load_mask(str(tmp_path / "a.png"))
    with pytest.raises(DataError, match="there is no file"):
        load_mask(str(tmp_path / "no.png"))


@pytest.mark.parametrize("largest", [3, 20, 255, 400, 65535])
@pytest.mark.parametrize("kind", ["P2", "P5"])
def test_a_grey_pgm_is_read_by_the_numbers_that_it_holds(tmp_path: Path, kind: str, largest: int) -> None:
    wide = ">u2" if largest > 255 else "u1"
    pixels = " ".join(map(str, VALUES.ravel())).encode() if kind == "P2" else VALUES.astype(wide).tobytes()
    (tmp_path / "a.pgm").write_bytes(f"{kind}\n# made by hand\n4 3\n{largest}\n".encode() + pixels)
    assert np.array_equal(load_mask(str(tmp_path / "a.pgm")).numpy(), VALUES)


def test_a_damaged_png_is_refused(tmp_path: Path) -> None:
    whole = png_bytes(VALUES, 8)
    start = whole.index(b"IDAT") + 4
    for place in range(start, len(whole) - 12):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "a.png").write_bytes(damaged)
        with pytest.raises(DataError, match=r"^mask .* is damaged: the checksum of its part IDAT is wrong; copy it"):
            load_mask(str(tmp_path / "a.png"))
    (tmp_path / "b.png").write_bytes(whole + b"anything after the end")
    assert np.array_equal(load_mask(str(tmp_path / "b.png")).numpy(), VALUES)

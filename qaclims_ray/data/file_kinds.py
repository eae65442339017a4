"""What a file really is, told by its first bytes: names lie, and so do servers that answer with a page.

Used to say what stands in the place of weights, annotations or images that cannot be read.
"""

import zipfile
from pathlib import Path

SAFETENSORS = "a safetensors file"
TORCH = "a torch file"
LEGACY_TORCH = "a torch file of before version 1.6"
TORCHSCRIPT = "a TorchScript archive"

HEAD_BYTES = 512
"""So many bytes tell what a file is."""
_QUOTED_CHARS = 60

_CONVERT = "convert it to JPEG or PNG"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "a git-lfs pointer, the name of a file and not the file: fetch it with `git lfs pull`",
    ),
    (b"/annex/objects/", "a git-annex pointer, the name of a file and not the file: fetch it with `git annex get`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras, TensorFlow and Matlab write them"),
    (b"GGUF", "a GGUF file of llama.cpp"),
    (b"\x93NUMPY", "one numpy array (.npy)"),
    (b"MATLAB 5.0", "a Matlab file"),
    (b"PK\x03\x04", "a zip archive: unpack it first"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\x1f\x8b", "compressed by gzip: unpack it first"),
    (b"BZh", "compressed by bzip2: unpack it first"),
    (b"\xfd7zXZ\x00", "compressed by xz: unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: unpack it first"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", f"a PDF document: {_CONVERT}"),
    (b"8BPS", f"a Photoshop file: {_CONVERT}"),
    (b"\xff\x0a", f"a JPEG XL picture: {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL picture: {_CONVERT}"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", LEGACY_TORCH),
    (b"\x80", "a Python pickle that torch.save did not write"),
)
"""First bytes -> what such a file is."""
_TAR_MAGIC = slice(257, 262)
_TFLITE_MAGIC = slice(4, 8)
_DICOM_MAGIC = slice(128, 132)
# ISO media files say what they are by a brand, at byte 8.
_BRANDS = {
    b"heic": "HEIC", b"heix": "HEIC", b"heim": "HEIC", b"heis": "HEIC", b"hevc": "HEIC", b"mif1": "HEIF",
    b"msf1": "HEIF", b"avif": "AVIF", b"avis": "AVIF", b"crx ": "Canon raw",
}  # fmt: skip
_TEXT = (
    ("<!doctype html", "a web page"), ("<html", "a web page"), ("<svg", f"an SVG drawing: {_CONVERT}"),
    ("<?xml", "an XML answer"), ("<", "an XML answer"),
)  # fmt: skip
"""Beginning of a text, in lower case -> what it is."""


def describe_file(path: Path | str) -> str:
    """Return in words what lies at a path, e.g. "a web page (it begins with '<!doctype html>')"."""
    path = Path(path)
    if path.is_dir():
        return _describe_folder(path)
    if not path.is_file():
        return "absent"
    with open(path, "rb") as handle:
        head = handle.read(HEAD_BYTES)
    return _describe_zip(path) if head.startswith(b"PK\x03\x04") else describe_head(head, path.name)


def describe_head(content: bytes, name: str = "") -> str:
    """Return in words what a file is that begins so, or is this as a whole."""
    head = content[:HEAD_BYTES]
    if not head:
        return "empty (0 bytes)"
    # First of all: the length of the header, with which safetensors begins, may look like any other two bytes.
    if head[4:9] == b"\0\0\0\0{":
        return SAFETENSORS
    for magic, kind in _MAGIC:
        if head.startswith(magic):
            return kind
    return _by_structure(head, name) or _as_text(head) or f"of no known kind (it begins with {head[:12]!r})"


def zip_names(path: Path | str) -> list[str] | None:
    """Return the names in a zip archive, or None where it is no whole one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError):
        return None


def _describe_folder(path: Path) -> str:
    names = sorted(child.name for child in path.iterdir())
    if "data.pkl" in names:
        return "a folder, a torch file that was unpacked: take the file itself, which is a zip archive"
    return f"a folder ({', '.join(names[:4]) or 'empty'}{', ...' * (len(names) > 4)}): give one file"


def _describe_zip(path: Path) -> str:
    names = zip_names(path)
    if names is None:
        return f"a truncated or damaged zip archive ({path.stat().st_size} bytes): copy it again"
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        return TORCHSCRIPT
    if any(name.endswith("data.pkl") for name in names):
        return TORCH
    if names and all(name.endswith(".npy") for name in names):
        return "a numpy archive (.npz)"
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"a zip archive of other things ({listed or 'empty'}): unpack it first if one of them is meant"


def _by_structure(head: bytes, name: str) -> str | None:
    """Recognise what has no fixed first bytes."""
    if head[_TAR_MAGIC] == b"ustar":
        return "a tar archive: unpack it first"
    if head[4:8] == b"ftyp" and (brand := _BRANDS.get(head[8:12])):
        return f"a {brand} picture: {_CONVERT}"
    if head[_DICOM_MAGIC] == b"DICM":
        return f"a DICOM file: {_CONVERT}"
    if head[_TFLITE_MAGIC] == b"TFL3":
        return "a TensorFlow Lite model"
    # A protobuf whose first field is a small version number and whose second is the producer's name.
    if name.endswith(".onnx") or (head[:1] == b"\x08" and head[2:3] == b"\x12" and head[4:8].isalpha()):
        return "an ONNX model"
    if name.endswith((".pb", ".ckpt.index")) or ".ckpt.data-" in name:
        return "a TensorFlow model"
    return None


def _as_text(head: bytes) -> str | None:
    try:
        # The last character may be cut in two.
        text = head.decode("utf-8-sig") if len(head) < HEAD_BYTES else head[:-4].decode("utf-8-sig", "ignore")
    except UnicodeDecodeError:
        return None
    if any(ord(char) < 32 and char not in "\t\n\r\f" for char in text):
        return None
    begin = " ".join(text.split())[:_QUOTED_CHARS]
    low = begin.lower()
    kind = next((kind for start, kind in _TEXT if low.startswith(start)), None)
    kind = kind or ("a JSON text" if low[:1] in ("{", "[") else "a text")
    return f"{kind} (it begins with {begin!a})"

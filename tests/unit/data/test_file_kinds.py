"""What files say they are, by their first bytes and not by their names."""

import gzip
import io
import re
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from qaclims_ray.data.file_kinds import describe_file


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pt"), io.BytesIO())
    return buffer.getvalue()


def _zip(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def _npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, weight=np.zeros(3))
    return buffer.getvalue()


KINDS = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3500\n", "git-lfs pointer.*git lfs"),
    "annex": (b"/annex/objects/SHA256E-s1--00.pt\n", "git-annex pointer"),
    "page": (b"<!DOCTYPE html><html>sign in</html>", "a web page .*sign in"),
    "page in lower case": (b"\n  <html lang=en>" + b"x" * 900, "a web page"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "an XML answer .*Error"),
    "json": (b'{"error": "gated repository"}', "a JSON text .*gated repository"),
    "text": (b"404: Not Found", "a text .*404"),
    "text of other signs": ("über".encode(), "a text"),
    "empty": (b"", r"empty \(0 bytes\)"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\x00\x00", "HDF5 file, as Keras"),
    "gguf": (b"GGUF\x03\x00\x00\x00", "GGUF"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.0.0", "an ONNX model"),
    "tflite": (b"\x1c\x00\x00\x00TFL3\x00", "TensorFlow Lite"),
    "npy": (b"\x93NUMPY\x01\x00", "numpy array"),
    "npz": (_npz(), "numpy archive"),
    "matlab": (b"MATLAB 5.0 MAT-file", "Matlab"),
    "gzip": (gzip.compress(b"weights"), "compressed by gzip: unpack"),
    "tar": (_tar(), "tar archive: unpack"),
    "zip": (_zip("weights/a.pth", "README"), r"zip archive of other things \(weights/a.pth, README\)"),
    "empty zip": (_zip(), "an empty zip archive"),
    "cut zip": (_zip("a/data.pkl")[:-30], "truncated or damaged zip archive"),
    "torchscript": (_zip("a/constants.pkl", "a/code/__torch__.py", "a/data.pkl"), "TorchScript archive"),
    "pickle": (b"\x80\x04\x95\x10", "pickle that torch.save did not write"),
    "picture": (b"\x89PNG\r\n\x1a\n", "PNG picture"),
    "noise": (bytes([0, 255, 3, 200]) * 9, "of no known kind"),
    "huge header": (struct.pack("<Q", 1 << 40) + b"{" + b"\x00" * 30, "of no known kind"),
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ""])
def test_what_a_file_is_is_told_by_its_content(tmp_path: Path, name: str, suffix: str) -> None:
    content, told = KINDS[name]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    assert re.search(told, describe_file(path)), describe_file(path)


def test_weight_files_are_known_under_any_name(tmp_path: Path) -> None:
    state = {"weight": torch.zeros(3)}
    save_file(state, tmp_path / "a.pt")
    torch.save(state, tmp_path / "b.safetensors")
    torch.save(state, tmp_path / "c.onnx", _use_new_zipfile_serialization=False)
    kinds = [describe_file(tmp_path / name) for name in ("a.pt", "b.safetensors", "c.onnx")]
    assert kinds == ["a safetensors file", "a torch file", "a torch file of before version 1.6"]


@pytest.mark.parametrize("length", [0x4B50, 0x8B1F, 0x80, 0x5A42, 0x3C, 0x7B, 0xD8FF])
def test_a_safetensors_header_of_any_length_is_one(tmp_path: Path, length: int) -> None:
    """The length comes first, and these are the first bytes of zip, gzip, pickle, bzip2, XML, JSON and JPEG."""
    (tmp_path / "a").write_bytes(struct.pack("<Q", length) + b"{" + b" " * length)
    assert describe_file(tmp_path / "a") == "a safetensors file"


def test_folders_say_what_is_in_them(tmp_path: Path) -> None:
    assert describe_file(tmp_path) == "a folder (empty): give one file"
    (tmp_path / "model.safetensors").touch()
    assert "model.safetensors" in describe_file(tmp_path)
    (tmp_path / "data.pkl").touch()
    assert "a torch file that was unpacked" in describe_file(tmp_path)
    assert describe_file(tmp_path / "absent") == "absent"

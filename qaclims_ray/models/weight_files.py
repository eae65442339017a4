"""The one reader of weight files: safetensors and torch, told apart by content, whatever the file is called.

Nothing in a file is ever run. Torch files are read with `weights_only=True`; classes that they name beside the
weights (settings, numpy numbers, paths) are replaced by objects that do nothing, so such a file needs no trust. Every
other module of the package reads weights through here, which a test holds.
"""

import pickle
import pickletools
import re
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.serialization import get_safe_globals, safe_globals

from qaclims_ray.data.file_kinds import LEGACY_TORCH, SAFETENSORS, TORCH, TORCHSCRIPT, describe_file
from qaclims_ray.errors import ModelError

_LEGACY_PICKLES = 4
"""Magic number, protocol, system, content; then come the names of the storages and their bytes."""
_MAIN_ENTRIES = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "net_state_dict", "module", "params",
    "weights", "state",
)  # fmt: skip
"""Entries under which checkpoints hold the trained network itself; beside them lie averages, optimisers and others."""
_MAX_DEPTH = 8
_CHUNK_BYTES = 1 << 24
_RUNS_CODE = {"os", "posix", "nt", "sys", "subprocess", "runpy", "importlib", "socket", "pty", "ctypes"}
"""Modules that no weights file has a reason to name."""
_RUNNING_BUILTINS = {"eval", "exec", "compile", "open", "input", "breakpoint", "__import__"}
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_ADVICE = re.compile(
    r"weights_only|weights only load|safe_globals|torch\.load|trust|arbitrary code|documentation|please|"
    r"two options|still be loaded",
    re.IGNORECASE,
)
_MAX_CAUSE_CHARS = 300
_STORE_ALONE = (
    "Where the file was made, store the tensors alone: torch.save(network.state_dict(), new_path), or "
    "safetensors.torch.save_file(network.state_dict(), new_path)"
)


class _MatchesDict(type):
    """Makes torch accept its classes where it asks for exactly `dict`: settings are often a subclass of it."""

    def __eq__(cls, other: object) -> bool:
        return cls is other or other is dict

    __hash__ = type.__hash__


class _Inert(metaclass=_MatchesDict):
    """Stands for an object of a class that a file names; takes what it is given and does nothing."""

    kind = ""
    """Full name of the class that the file names."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        # torch appends to exact lists alone.
        return [] if cls.kind == "collections.deque" else object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass

    def __setitem__(self, _: Any, __: Any) -> None:
        pass

    def __hash__(self) -> int:
        return id(self)


def read_weights(path: Path | str, *, named: str = "") -> dict[str, Tensor]:
    """Read the names and tensors of a weights file, without wrappers and without the prefixes of DDP and compilation.

    Args:
        path: local file.
        named: what messages call it; by default "the weights file PATH".

    Raises:
        ModelError: says what the file is, where it holds no weights, is damaged, or holds several networks.
    """
    named = named or f"the weights file {path}"
    return _without_wrapper_names(_unwrapped(read_stored(path, named=named), named))


def read_stored(path: Path | str, *, named: str = "") -> Any:
    """Read all that a safetensors or torch file holds; of classes that it names only placeholders.

    Args:
        path: local file.
        named: what messages call it; by default "the weights file PATH".

    Raises:
        ModelError: says what the file is, where it cannot be read.
    """
    named = named or f"the weights file {path}"
    path = Path(path)
    if not path.exists():
        raise ModelError(f"{named} does not exist. Give the path of a safetensors or torch file")
    kind = describe_file(path)
    if kind == SAFETENSORS:
        return _read_safetensors(path, named)
    if kind == TORCH:
        _check_zip(path, named)
    if kind in (TORCH, LEGACY_TORCH):
        return _read_torch(path, named, is_zip=kind == TORCH)
    if kind == TORCHSCRIPT:
        raise ModelError(
            f"{named} is a TorchScript archive (as OpenAI publishes its CLIP), which is code and is not loaded here. "
            "Convert it once on a machine you trust: "
            "torch.save(torch.jit.load(path, map_location='cpu').state_dict(), new_path)"
        )
    raise ModelError(f"{named} is no weights file: it is {kind}. Expected a safetensors file, or one of torch.save")


def cause_of(error: Exception) -> str:
    """Return the cause that a foreign error names, on one line, without its advice.

    torch tells to load without protection where a file is not plain data. That is no advice for a file from elsewhere.
    """
    sentences = [part.strip() for part in _SENTENCE_END.split(str(error)) if not _ADVICE.search(part)]
    cause = " ".join(" ".join(sentences).split()).removeprefix("WeightsUnpickler error: ")
    return cause[:_MAX_CAUSE_CHARS].rstrip(" .") or type(error).__name__


def _read_safetensors(path: Path, named: str) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OSError, OverflowError) as error:
        raise ModelError(
            f"{named} ({path.stat().st_size} bytes) is no complete safetensors file: {cause_of(error)}. Copy it again"
        ) from None


def _check_zip(path: Path, named: str) -> None:
    """Refuse an archive of which a part is damaged: torch does not compare checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            parts = [info.filename for info in archive.infolist() if info.file_size]
            broken = [name for name in parts if not _is_sound(archive, name)]
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, RuntimeError, zlib.error) as error:
        raise ModelError(f"{named} is a damaged torch file: {cause_of(error)}. Copy it again") from None
    # torch can be told to write no checksums; then all of them are wrong.
    if broken and len(broken) < len(parts):
        raise ModelError(f"{named} is a damaged torch file: the checksum of {broken[0]} in it is wrong. Copy it again")


def _is_sound(archive: zipfile.ZipFile, name: str) -> bool:
    try:
        with archive.open(name) as part:
            while part.read(_CHUNK_BYTES):
                pass
    except zipfile.BadZipFile:
        return False
    return True


def _read_torch(path: Path, named: str, *, is_zip: bool) -> Any:
    try:
        classes = list(dict.fromkeys(_named_classes(path, is_zip=is_zip)))
    except Exception as error:  # whatever a damaged pickle sets off
        raise ModelError(f"{named} is a damaged torch file: {cause_of(error)}. Copy it again") from None
    if code := [name for name in classes if _runs_code(name)]:
        raise ModelError(
            f"{named} names {', '.join(code[:4])}, which weights have no need of and which could run commands; it is "
            "not read. Take the file from its source again"
        )
    known = {f"{each.__module__}.{each.__qualname__}" for each in get_safe_globals() if not isinstance(each, tuple)}
    try:
        placeholders: list[Any] = [(_placeholder(name), name) for name in classes if name not in known]
        with warnings.catch_warnings(), safe_globals(placeholders):
            warnings.simplefilter("ignore")  # of pickle protocols and old storages
            # Given a path, torch goes by its ending.
            with open(path, "rb") as handle:
                return torch.load(handle, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle sets off
        foreign = [name for name in classes if not name.startswith(("torch.", "collections.", "_codecs."))]
        holds = f" It holds objects of {', '.join(foreign[:4])}." if foreign else ""
        raise ModelError(
            f"{named} ({path.stat().st_size} bytes) cannot be read as tensors: {cause_of(error)}.{holds} Copy it "
            f"again if it may be damaged. {_STORE_ALONE}"
        ) from None


def _placeholder(name: str) -> type[_Inert]:
    module, _, last = name.rpartition(".")
    contents = {"kind": name, "__module__": module, "__qualname__": last}
    return _MatchesDict(last, (_Inert,), contents)  # pyrefly: ignore[bad-return]


def _named_classes(path: Path, *, is_zip: bool) -> Iterator[str]:
    """Yield the full names of what a torch file's pickle would look up, without looking up anything."""
    if is_zip:
        with zipfile.ZipFile(path) as archive:
            pickled = next(info for info in archive.infolist() if info.filename.endswith("data.pkl"))
            # Checksums were compared, where there are any; zipfile compares none that it does not know.
            del pickled.CRC
            yield from _globals_of(pickletools.genops(archive.read(pickled)))
        return
    with open(path, "rb") as handle:
        for _ in range(_LEGACY_PICKLES):
            yield from _globals_of(pickletools.genops(handle))


def _globals_of(operations: Iterator[tuple[pickletools.OpcodeInfo, Any, int | None]]) -> Iterator[str]:
    for operation, argument, _ in operations:
        if operation.name == "GLOBAL":
            module, _, name = argument.partition(" ")
            # Python 2's names, as every pickle of protocol 2 has them.
            module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
            yield f"{module}.{name}"
        elif operation.name == "STACK_GLOBAL":
            raise pickle.UnpicklingError("it was written with pickle protocol 4 or higher, torch.save's own is 2")


def _runs_code(name: str) -> bool:
    module, _, last = name.rpartition(".")
    return module.split(".")[0] in _RUNS_CODE or (module == "builtins" and last in _RUNNING_BUILTINS)


def _unwrapped(content: Any, named: str) -> dict[str, Tensor]:
    """Return the state dict in what a file holds, which may lie under an entry, or under several in turn."""
    for _ in range(_MAX_DEPTH):
        if not isinstance(content, dict):
            break
        tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
        inside = {name: value for name, value in content.items() if isinstance(name, str) and _count_tensors(value) > 0}
        wrapped = [name for name in _MAIN_ENTRIES if name in inside]
        if not wrapped and len(tensors) < sum(map(_count_tensors, inside.values())):
            wrapped = list(inside)
        if not wrapped:
            if not tensors:
                break
            return {str(name): value for name, value in tensors.items()}
        if len(wrapped) > 1:
            raise ModelError(
                f"{named} holds several networks: {', '.join(wrapped[:8])}. Store the one you mean alone, e.g. "
                f"torch.save(torch.load(path, weights_only=True)[{wrapped[0]!r}], new_path)"
            )
        content = inside[wrapped[0]]
    raise ModelError(f"{named} holds {_in_words(content)}, expected a state dict of tensors. {_STORE_ALONE}")


def _count_tensors(value: Any, depth: int = _MAX_DEPTH) -> int:
    """Count the tensors in a dict whose names are all texts; an optimiser's are numbers. A pickle may hold itself."""
    if depth == 0 or not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return 0
    return sum(1 if isinstance(part, Tensor) else _count_tensors(part, depth - 1) for part in value.values())


def _in_words(content: Any) -> str:
    """Say what stands where tensors were expected."""
    if isinstance(content, dict):
        kinds = sorted({_kind(value) for value in content.values()})
        return f"a dict of {', '.join(kinds[:6])}" if kinds else "an empty dict"
    if isinstance(content, _Inert):
        return f"an object of {content.kind}, a whole network or the like"
    return f"a {_kind(content)}"


def _kind(value: Any) -> str:
    if isinstance(value, _Inert):
        return "numpy arrays" if value.kind.endswith("._reconstruct") else value.kind
    return type(value).__name__


def _without_wrapper_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take off what DDP (`module.` before all names) and torch.compile (`_orig_mod.` anywhere) put into names."""
    plain = {".".join(part for part in name.split(".") if part != "_orig_mod"): each for name, each in weights.items()}
    if len(plain) < len(weights):
        return weights
    while plain and all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): value for name, value in plain.items()}
    return plain

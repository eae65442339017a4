"""Ways in which a file goes wrong: cut, flipped, spliced, emptied, exchanged; of JSON and text also other values."""

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

_STRANGE_TEXTS = (
    "", " ", "\x00", "\n", "nan", "-1", "1e999", "../../etc/passwd", "/", "~", "%s", "{}", "<script>", "[red]",
    "\u202eabc", "\U0001f408", "a" * 5000, "null", "true", "__ignore__", "background", "'; --", "\ud800",
)  # fmt: skip
_STRANGE_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", [], {}, [[]],
    [None], {"": None}, "0", [1, "a"], *_STRANGE_TEXTS[:12],
)  # fmt: skip
_TOKEN = re.compile(rb"[\w.+-]+|[^\w\s]")


def changed(content: bytes, rng: random.Random, others: Sequence[bytes] = ()) -> bytes:
    """Return a file's content after one to three changes.

    Args:
        content: of a good file.
        rng: decides everything.
        others: contents of other files, one of which may take its place.
    """
    ways: list[Callable[[bytes, random.Random], bytes]] = [_cut, _flipped, _spliced, _repeated, _overwritten]
    if _is_text(content):
        ways += [_other_token, _other_token, _without_line, _other_encoding]
    if _json_of(content) is not None:
        ways += [_other_value] * 6
    if others and rng.random() < 0.03:
        return rng.choice(list(others))
    if rng.random() < 0.02:
        return b""
    content = rng.choice(ways)(content, rng)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        content = rng.choice((_cut, _flipped, _spliced, _overwritten))(content, rng)
    return content


def _is_text(content: bytes) -> bool:
    try:
        return bool(content.strip()) and "\x00" not in content.decode()
    except UnicodeDecodeError:
        return False


def _json_of(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _place(content: bytes, rng: random.Random) -> int:
    """Return a position; one of three times near the start, where headers are."""
    most = max(1, len(content))
    return rng.randrange(min(most, 64)) if rng.random() < 0.3 else rng.randrange(most)


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: _place(content, rng)]


def _flipped(content: bytes, rng: random.Random) -> bytes:
    found = bytearray(content)
    for _ in range(rng.choice((1, 1, 4, 32)) if found else 0):
        found[_place(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(found)


def _overwritten(content: bytes, rng: random.Random) -> bytes:
    start, length = _place(content, rng), rng.choice((1, 4, 100))
    part = bytes([rng.choice((0, 255, 127))]) * length if rng.random() < 0.5 else rng.randbytes(length)
    return content[:start] + part + content[start + length :]


def _spliced(content: bytes, rng: random.Random) -> bytes:
    start, end = sorted((_place(content, rng), _place(content, rng)))
    at = _place(content, rng)
    return content[:at] + content[start:end] + content[at:]


def _repeated(content: bytes, rng: random.Random) -> bytes:
    return content * rng.choice((2, 3))


def _without_line(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    return b"".join(lines[:at] + rng.choice(([], [lines[at]] * 2, [b"\n"])) + lines[at + 1 :])


def _other_encoding(content: bytes, rng: random.Random) -> bytes:
    text = content.decode(errors="replace")
    if rng.random() < 0.3:
        return text.replace("\n", rng.choice(("\r\n", "\r", "\n\n"))).encode()
    return text.encode(rng.choice(("utf-16", "utf-8-sig", "latin-1", "utf-32-le")), errors="replace")


def _other_token(content: bytes, rng: random.Random) -> bytes:
    tokens = list(_TOKEN.finditer(content))
    if not tokens:
        return content
    token = rng.choice(tokens)
    strange = rng.choice(_STRANGE_TEXTS).encode("utf-8", errors="surrogatepass")
    instead = rng.choice((strange, b"", rng.choice(tokens)[0], token[0] * 2))
    return content[: token.start()] + instead + content[token.end() :]


def _other_value(content: bytes, rng: random.Random) -> bytes:
    """Put something else in a random place of a JSON value, take it out, call it otherwise, or wrap it."""
    value = _json_of(content)
    holders = list(_holders(value))
    if not holders:
        return json.dumps(rng.choice(_STRANGE_VALUES)).encode()
    holder = rng.choice(holders)
    key = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    match rng.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(_STRANGE_TEXTS[:-1])] = holder.pop(key)
        case 2:
            holder[key] = [holder[key]] if rng.random() < 0.5 else {str(key): holder[key]}
        case 3:
            other = rng.choice(holders)
            taken = rng.choice(list(other.values()) if isinstance(other, dict) else other)
            holder[key] = json.loads(json.dumps(taken))
        case _:
            holder[key] = rng.choice(_STRANGE_VALUES)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")


def _holders(value: Any) -> list[Any]:
    """Return the objects and lists within a JSON value that hold something."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        inner = list(one.values()) if isinstance(one, dict) else one if isinstance(one, list) else []
        if inner:
            found.append(one)
        waiting += inner
    return found

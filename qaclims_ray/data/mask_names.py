"""What the name of a mask says of the image it belongs to.

People call the mask of ``i1.jpg`` ``i1.png``, ``i1_mask.png``, ``i1.jpg.png``, ``mask_i1.tif``, ``I1_GT.PNG`` and more.
"""

import itertools
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence

from qaclims_ray.data.image_ids import image_id_of
from qaclims_ray.data.picture_files import ending_of, file_name

_WORDS = (
    r"(?:masks?|seg(?:m|mask|mentations?)?|labels?|label[_-]?(?:maps?|ids|trainids)|lbl|gts?|gtfine|gtcoarse"
    r"|ground[_-]?truth|truth|anno(?:t|tation)?s?|targets?)"
)
_MASK_MARKS = (
    # One separator, then several: ids may end or begin with one themselves.
    re.compile(rf"^(?P<core>.+?)[_\-. ]{_WORDS}$", re.IGNORECASE),
    re.compile(rf"^{_WORDS}[_\-. ](?P<core>.+)$", re.IGNORECASE),
    re.compile(rf"^(?P<core>.+?)[_\-. ]+{_WORDS}$", re.IGNORECASE),
    re.compile(rf"^{_WORDS}[_\-. ]+(?P<core>[^_\-. ].*)$", re.IGNORECASE),
    re.compile(r"^(?P<core>.+)masks?$", re.IGNORECASE),
)
"""What stands after or before an image's id in the name of its mask."""
_NUMBERED = re.compile(rf"^(?P<marked>.+[_\-. ]+{_WORDS})[_\-. ]*(?:\d{{1,3}}|\(\d{{1,3}}\))$", re.IGNORECASE)
"""The mark of one mask of several: ``i1_mask_1``, ``i1_mask2``, ``i1_mask (3)``."""
_IMAGE_MARKS = (
    re.compile(r"^(?P<core>.+?)[_\-. ]+(?:images?|imgs?|photos?|rgb|sat|input|leftImg8bit)$", re.IGNORECASE),
    re.compile(r"^(?:images?|imgs?|photos?|rgb|sat|input)[_\-. ]+(?P<core>.+)$", re.IGNORECASE),
)
"""What an image's name has where that of its mask has a mark: ``img_1.jpg`` and ``mask_1.png``."""
_NO_MASKS = re.compile(
    r"colou?r|vis|overlay|blend|instance|object|depth|edge|contour|boundar|image|photo|rgb|feature", re.IGNORECASE
)
"""What the names of other pictures hold, that are made of masks or lie beside them."""


def match_masks(
    files: Sequence[str], image_ids: Collection[str], *, any_mark: bool = False, marked: bool = False
) -> tuple[dict[str, list[str]], Counter[str]]:
    """Return image id -> its masks, and how many masks are called by which pattern.

    A name may have several readings: ``a_mask.png`` is the mask of ``a_mask``, or of ``a``. The reading that fits most
    files counts, and of equals the plainer one.

    Args:
        files: URIs of the masks of a folder.
        image_ids: of the images.
        any_mark: where no known reading fits any file, take whatever all of them have beside an image's id for the
            mark of a mask, such as ``_P`` or ``_manual1``.
        marked: leave out files that are called as an image is, without any mark of a mask.
    """
    known = _Known(image_ids)
    readings = {uri: _found_readings(file_name(uri), known, marked=marked) for uri in files}
    fits = Counter(pattern for found in readings.values() for pattern in found)
    matched: dict[str, list[str]] = defaultdict(list)
    patterns: Counter[str] = Counter()
    for uri, found in readings.items():
        if found:
            # Of equals, max takes the first: the plainest reading.
            pattern = max(found, key=lambda pattern: fits[pattern])
            matched[found[pattern]].append(uri)
            patterns[pattern] += 1
    if any_mark and not matched:
        return _match_by_common_mark(files, known)
    return dict(matched), patterns


def _found_readings(name: str, known: "_Known", *, marked: bool) -> dict[str, str]:
    """Return the readings of a mask's name that lead to an image: pattern -> its id."""
    # A number after the mark is read where nothing else fits: an image may be called i1_mask_1 itself.
    for is_numbered in (False, True):
        found = {}
        for pattern, core in itertools.islice(_readings(name, is_numbered=is_numbered), marked or is_numbered, None):
            if (image_id := known.find(core)) is not None:
                found[pattern] = image_id
        if found:
            return found
    return {}


def _match_by_common_mark(files: Sequence[str], known: "_Known") -> tuple[dict[str, list[str]], Counter[str]]:
    """Match by the one thing that stands beside the id in the names of all files."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for uri in files:
        stem = file_name(uri)[: -len(ending_of(uri))]
        for separator in re.finditer(r"[_\-. ]", stem):
            before, after = stem[: separator.start()], stem[separator.end() :]
            for core, pattern in ((before, f"IMAGE{separator[0]}{after}"), (after, f"{before}{separator[0]}IMAGE")):
                if (name := known.exact.get(core)) is not None and not _NO_MASKS.search(pattern.replace("IMAGE", "")):
                    found[pattern][uri] = name
    complete = [
        (pattern, names) for pattern, names in found.items() if len(set(names.values())) == len(names) == len(files)
    ]
    if len(complete) != 1:
        return {}, Counter()
    ((pattern, names),) = complete
    return {name: [uri] for uri, name in names.items()}, Counter({pattern: len(names)})


def _readings(name: str, *, is_numbered: bool) -> Iterator[tuple[str, str]]:
    """Yield what a mask's name may say, the plainest first: a pattern, and the image's id or name in it."""
    waiting = [("IMAGE", name[: -len(ending_of(name))])]
    if is_numbered:
        if (match := _NUMBERED.match(waiting[0][1])) is None:
            return
        tail = waiting[0][1][len(match["marked"]) :]
        waiting = [(f"IMAGE{re.sub('[0-9]+', 'N', tail)}", match["marked"])]
    seen = set()
    while waiting:
        pattern, core = waiting.pop(0)
        if core in seen:
            continue
        seen.add(core)
        yield pattern, core
        if (stem := image_id_of(core)) != core and stem:
            waiting.append((pattern.replace("IMAGE", f"IMAGE{core[len(stem) :].lower()}"), stem))
        for mark in _MASK_MARKS:
            if match := mark.match(core):
                start, end = match.span("core")
                waiting.append(
                    (pattern.replace("IMAGE", f"{core[:start].lower()}IMAGE{core[end:].lower()}"), match["core"])
                )


class _Known:
    """Image ids as masks may spell them: as they are, else in other letters, else without a mark of their own."""

    def __init__(self, image_ids: Collection[str]) -> None:
        self.exact = {name: name for name in image_ids}
        self.alike = _unique((_folded(name), name) for name in image_ids)
        cores = (
            (_folded(match["core"]), name) for name in image_ids for mark in _IMAGE_MARKS if (match := mark.match(name))
        )
        self.cores = _unique(cores)

    def find(self, core: str) -> str | None:
        """Return the image of this name, or None."""
        folded = _folded(core)
        return self.exact.get(core) or self.alike.get(folded) or self.cores.get(folded)


def _folded(name: str) -> str:
    # File systems of macOS keep accents apart from their letters, others together.
    return unicodedata.normalize("NFC", name).casefold()


def _unique(pairs: Iterator[tuple[str, str]]) -> dict[str, str]:
    """Return the keys that lead to one value only."""
    found: dict[str, set[str]] = defaultdict(set)
    for key, value in pairs:
        found[key].add(value)
    return {key: next(iter(values)) for key, values in found.items() if len(values) == 1}

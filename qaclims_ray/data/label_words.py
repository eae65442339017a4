"""Single words of label files: names of classes, words for "no label", and yes or no."""

import re
import unicodedata
from collections.abc import Collection, Mapping

NOTHING: tuple[str, ...] = ("", "nan", "none", "null", "na", "n/a", "<na>", "-", "--", "background")
"""Words that name no class, in lower case: what tables write for an empty cell, and the background."""
TRUE: tuple[str, ...] = ("1", "true", "yes", "t", "y", "x", "present", "\u2713", "\u2714", "\u2611", "\u2705")
"""What a column of its own says where an image shows the class, as `mark_of` gives it; the last are check marks."""
FALSE: tuple[str, ...] = ("0", "false", "no", "f", "n", "-1", "absent", "\u2717", "\u2718", "\u2610", "\u274c")
"""The same where it does not; -1 stands for "no" in CelebA and in VOC's lists."""
SIGNS: Mapping[str, str] = {"positive": "1", "negative": "0", "pos": "1", "neg": "0", "on": "1", "off": "0", "+": "1"}
"""Words that say yes and no in a column that is a class, and are names of classes in any other."""
MARKS_READ = "0 or 1 (or yes/no, true/false, present/absent, positive/negative, on/off, x or a check mark, 1/-1)"
"""What columns of classes may hold, for messages."""
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)(e[+-]?\d+)?")


def tidy(name: str) -> str:
    """Return a name with single blanks, none at its ends, and letters with accents in one form."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def folded(name: str) -> str:
    """Return what two spellings of one name have in common: case, blanks and marks between words do not count."""
    # Between words only: "HER2-" is another name than "HER2".
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", unicodedata.normalize("NFKC", name).casefold())


def mark_of(cell: object) -> str:
    """Return a cell in the form of `TRUE` and `FALSE`: lower case, and 0, 1 and -1 however they are written."""
    word = str(cell).strip().casefold()
    if not _NUMBER.fullmatch(word):
        return word
    value = float(word.replace(",", "."))
    return str(int(value)) if value in (0, 1, -1) else word


def is_nothing(word: str, known: Collection[str] = ()) -> bool:
    """Whether a word names no class; one that is a class of the data set does."""
    return word.casefold() in NOTHING and word not in known


def quoted(words: Collection[str], limit: int = 3) -> str:
    """Return the first of some words in quotes, for a message."""
    listed = [f'"{word}"' for word in words]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")

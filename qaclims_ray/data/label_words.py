"""Single words of label files: names of classes, words for "no label", and yes or no."""

import re
import unicodedata
from collections.abc import Collection

NOTHING: tuple[str, ...] = ("", "nan", "none", "null", "na", "n/a", "<na>", "-", "--", "background")
"""Words that name no class, in lower case: what tables write for an empty cell, and the background."""
TRUE: tuple[str, ...] = ("1", "1.0", "true", "yes", "t", "y", "x")
"""What a column of its own says where an image shows the class, in lower case."""
FALSE: tuple[str, ...] = ("0", "0.0", "false", "no", "f", "n", "-1", "-1.0")
"""The same where it does not; -1 stands for "no" in CelebA and in VOC's lists."""


def tidy(name: str) -> str:
    """Return a name with single blanks, none at its ends, and letters with accents in one form."""
    return " ".join(unicodedata.normalize("NFC", name).split())


def folded(name: str) -> str:
    """Return what two spellings of one name have in common: case, blanks and marks between words do not count."""
    # Between words only: "HER2-" is another name than "HER2".
    return re.sub(r"(?<=[^\W_])[\s_-]+(?=[^\W_])", " ", unicodedata.normalize("NFKC", name).casefold())


def is_nothing(word: str, known: Collection[str] = ()) -> bool:
    """Whether a word names no class; one that is a class of the data set does."""
    return word.casefold() in NOTHING and word not in known


def quoted(words: Collection[str], limit: int = 3) -> str:
    """Return the first of some words in quotes, for a message."""
    listed = [f'"{word}"' for word in words]
    return ", ".join(listed[:limit]) + (f" and {len(listed) - limit} more" if len(listed) > limit else "")

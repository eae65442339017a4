"""Names of images: what identifies one in lists, label files and folders."""

import unicodedata

IMAGE_SUFFIXES: tuple[str, ...] = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif", ".jp2", ".ppm", ".pgm",
)  # fmt: skip
"""Endings, in lower case, by which an image file is known."""


def image_id_of(name: str) -> str:
    """Return the image id of a file name: its last part, without an image suffix."""
    # One form for letters with accents: some systems write "e" and the accent apart in names of files.
    last = unicodedata.normalize("NFC", name.strip()).replace("\\", "/").rsplit("/", 1)[-1]
    stem, dot, suffix = last.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else last


def is_image_name(name: str) -> bool:
    """Whether a name ends as an image file does."""
    return name.strip().lower().endswith(IMAGE_SUFFIXES)

"""How many images show each class, for the first lines of a run."""

from collections import Counter
from collections.abc import Sequence

from qaclims_ray.data.manifest import Manifest

FEW = 3
"""A class with fewer training images than this is remarked: nothing general is learned from one or two."""
_MANY_CLASSES = 24
"""Up to so many classes each split is counted apart."""
_LISTED = 8
_LINE_LENGTH = 110


def class_lines(manifest: Manifest, splits: Sequence[str]) -> list[str]:
    """Return the lines that say which classes there are and how many images show each.

    Args:
        manifest: the data set.
        splits: the training split, then others in use; those that the data set lacks are left out.
    """
    used = [split for split in dict.fromkeys(splits) if any(split in record.splits for record in manifest.records)]
    shown = {split: _counts(manifest, split) for split in used}
    is_alike = all(shown[split] == shown[used[0]] for split in used)
    columns = used[:1] if is_alike or len(manifest.class_names) > _MANY_CLASSES else used
    sizes = {split: sum(split in record.splits for record in manifest.records) for split in used}
    named = " / ".join(f"{split} ({sizes[split]} images)" for split in (used if is_alike else columns))
    counted = [
        f"{name} {'/'.join(str(shown[split][class_id]) for split in columns)}"
        for class_id, name in enumerate(manifest.class_names)
    ]
    head = f"{len(counted)} class{'es' * (len(counted) != 1)}, by images of {named}:"
    return [*_packed([head, *counted]), *class_remarks(manifest, splits[0])]


def _packed(parts: Sequence[str]) -> list[str]:
    """Return the parts in lines of a readable length, none of them cut."""
    lines = [parts[0]]
    for place, part in enumerate(parts[1:], start=1):
        word = part if place == len(parts) - 1 else f"{part},"
        if len(lines[-1]) + len(word) < _LINE_LENGTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return lines


def _counts(manifest: Manifest, split: str) -> Counter[int]:
    return Counter(label for record in manifest.records if split in record.splits for label in record.labels)


def class_remarks(manifest: Manifest, train: str) -> list[str]:
    """Return what is worth a remark about the classes of the training images: rare ones, and those on every image."""
    counts = _counts(manifest, train)
    images = [record for record in manifest.records if train in record.splits]
    rare = [(name, counts[class_id]) for class_id, name in enumerate(manifest.class_names) if counts[class_id] < FEW]
    always = [name for class_id, name in enumerate(manifest.class_names) if counts[class_id] == len(images) > 1]
    lines = []
    if rare:
        listed = _listed([f"{name} ({count})" for name, count in rare])
        lines.append(f"classes with fewer than {FEW} images in {train}, too few to learn from: {listed}")
    if always:
        lines.append(f"on every image of {train}, so that nothing tells the class from the rest: {_listed(always)}")
    if unlabelled := sum(not record.labels for record in images):
        lines.append(f"{unlabelled} images of {train} show none of the classes")
    return lines


def _listed(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(words[:_LISTED]) + more

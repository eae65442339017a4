"""Image-level labels out of "CVAT for images 1.1": an image's tags, and the labels of what is drawn on it."""

from collections import Counter

from qaclims_ray.data.label_rows import LabelRows
from qaclims_ray.data.label_words import quoted
from qaclims_ray.data.validation import Fault
from qaclims_ray.data.xml_text import parse_xml
from qaclims_ray.errors import DataError

_DEFAULT_SUBSET = "default"


def cvat_rows(uri: str, text: str) -> LabelRows:
    """Return the labels, and subsets as splits, of every image of an export.

    Args:
        uri: the file, for messages.
        text: its content.

    Raises:
        DataError: when it is no XML, of another form, or holds no image.
    """
    try:
        tree = parse_xml(text)
    except DataError as error:
        raise DataError(f"label file {uri} is {error}: export it again") from None
    if tree.tag != "annotations":
        raise DataError(
            f'label file {uri} is XML whose outermost element is <{tree.tag}>; expected <annotations>, as "CVAT for '
            "images 1.1\" writes it; a folder of VOC's XML files is read as a folder (data.label_file)"
        )
    images = tree.findall("image")
    if not images:
        what = "tracks of a video" if tree.find("track") is not None else "no image"
        raise DataError(f'label file {uri} holds {what}; export the task as "CVAT for images 1.1"')
    rows, faults = [], []
    for number, image in enumerate(images, start=1):
        name = (image.get("name") or "").strip()
        shown = [(child.get("label") or "").strip() for child in image if child.get("label") is not None]
        if not name or not all(shown):
            detail = "a tag or shape without a label" if name else "an image without a name"
            faults.append(Fault("unreadable label entry", name or f"image {number}", f"holds {detail}; export again"))
            continue
        rows.append((name, tuple(dict.fromkeys(shown)), image.get("subset") or _DEFAULT_SUBSET))
    notes = [f"{uri} is an export of CVAT: an image shows its tags and the labels of its shapes"]
    used = Counter(label for _, labels, _ in rows for label in labels)
    declared = [(label.findtext("name") or "").strip() for label in tree.iter("label")]
    if unused := [name for name in dict.fromkeys(declared) if name and name not in used]:
        notes.append(f"labels that no image has are left out: {quoted(unused, 8)}")
    if {subset.casefold() for _, _, subset in rows} == {_DEFAULT_SUBSET}:
        return LabelRows(
            ("image", "labels"), tuple(row[:2] for row in rows), tuple(faults), tuple(notes), may_repeat=False
        )
    return LabelRows(("image", "labels", "split"), tuple(rows), tuple(faults), tuple(notes), may_repeat=False)

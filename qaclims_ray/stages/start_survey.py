"""What `qaclims start` finds in a folder of photographs, and says of it."""

import statistics
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from qaclims_ray.data import storage
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.folder_labels import GatheredFolder, gather_folder
from qaclims_ray.data.label_files import DEFAULT_NAMES, LABEL_SUFFIXES
from qaclims_ray.data.odd_files import MOST_LOOKED_AT, TINY_PX, OddFiles, find_odd_files
from qaclims_ray.data.picture_files import file_name
from qaclims_ray.data.tag_pairs import inseparable_pairs
from qaclims_ray.errors import ConfigError, DataError

_TRAIN_NAMES = ("train", "training", "trainval")
_TEST_NAMES = ("val", "valid", "validation", "test", "testing")
_LISTED = 4
_LINE_LENGTH = 100


@dataclass(frozen=True)
class Survey:
    """A folder that was looked at."""

    data: DataConfig
    """How it is read."""
    gathered: GatheredFolder
    """Images and labels."""
    odd: OddFiles
    """Sizes, and what is odd."""

    @property
    def trained(self) -> int:
        """Images that are trained on."""
        return sum(self.data.train_split in image.splits for image in self.gathered.images)

    @property
    def held_out(self) -> int:
        """Images that are not trained on and judge the networks."""
        return sum(self.data.test_split in image.splits for image in self.gathered.images)

    @property
    def median_side_px(self) -> int:
        """Median of the longer side."""
        return int(statistics.median(max(size) for size in self.odd.sizes))

    @property
    def median_pixels(self) -> int:
        """Median of the area."""
        return int(statistics.median(width * height for width, height in self.odd.sizes))

    def lines(self) -> list[str]:
        """Return what a person should know of the folder."""
        images, names = self.gathered.images, self.gathered.class_names
        shown = Counter(names[class_id] for image in images for class_id in image.labels or ())
        classes = [f"{name} {shown[name]}" for name in names]
        few = [name for name in names if 0 < shown[name] < 5]
        nothing = sum(not image.labels for image in images)
        lines = [
            f"{len(images)} photographs, {_sizes(self.odd.sizes)}",
            f"labels from {self.gathered.source}",
            *_packed(f"{len(names)} classes, by photographs:", classes),
        ]
        lines += [f"{nothing} photographs show none of the classes"] if nothing else []
        lines += [f"few photographs to learn from: {', '.join(few)} (fewer than 5)"] if few else []
        has_masks = any(image.mask_uri for image in images)
        told = ("read ", "labels from ", *(() if has_masks else ("classes taken from the labels",)))
        notes = [note for note in self.gathered.notes if not note.startswith(told)]
        return [*lines, *self._pairs(), *self._odd(), *notes]

    def _pairs(self) -> list[str]:
        names = self.gathered.class_names
        pairs = inseparable_pairs(
            [names[class_id] for class_id in image.labels or ()] for image in self.gathered.images
        )
        lines = [
            f"{pair.name} is with {pair.companion} on {pair.together} of its {pair.images} photographs: tags hardly "
            f"tell them apart; add photographs of {pair.name} without {pair.companion}"
            for pair in pairs[:_LISTED]
        ]
        return lines + ([f"and {len(pairs) - _LISTED} more such pairs"] if len(pairs) > _LISTED else [])

    def _odd(self) -> list[str]:
        odd = self.odd
        lines = []
        if odd.looked_at < len(self.gathered.images):
            lines.append(f"{odd.looked_at} of them were opened to find odd ones (at most {MOST_LOOKED_AT})")
        if odd.copies:
            groups = [" = ".join(names) for names in odd.copies]
            lines.append(f"the same photograph more than once: {_some(groups)}; remove the copies")
        if odd.tiny:
            lines.append(f"tiny, with a side below {TINY_PX} pixels: {_some(odd.tiny)}")
        if odd.grey:
            lines.append(f"without colour: {_some(odd.grey)}")
        return lines


def survey_folder(data: DataConfig) -> Survey:
    """Look at a folder of photographs.

    A label file of another name is taken where it is the only one that may be meant.

    Args:
        data: the data set; layout folder.

    Raises:
        DataError: all faults of the data set in one report.
        ConfigError: when settings contradict each other.
    """
    data = _with_label_file(data)
    gathered = gather_folder(data)
    if (named := _with_named_splits(data, gathered.named_splits)) != data:
        data, gathered = named, gather_folder(named)
    odd = find_odd_files(gathered.images)
    if gathered.faults or odd.unreadable:
        from qaclims_ray.data.folder import read_folder  # brings PyTorch along

        read_folder(data)  # says all that is wrong, in its words
    if not odd.sizes:
        raise DataError(f"no image of {gathered.root} can be opened")
    if not any(data.test_split in image.splits for image in gathered.images):
        # Too few to hold any out: the final network is shown on all, and nothing judges it.
        data = replace(data, test_split=data.eval_split)
        gathered = gather_folder(data)
    return Survey(data, gathered, odd)


def _with_label_file(data: DataConfig) -> DataConfig:
    """Name the label file where the folder says its labels in no known place, and only one file can be meant."""
    try:
        gather_folder(data)
    except (DataError, ConfigError):
        root = storage.absolute(data.root)
        files = [uri for uri in storage.list_files(root) if uri.lower().endswith(LABEL_SUFFIXES)]
        if not data.label_file and len(files) == 1 and file_name(files[0]) not in DEFAULT_NAMES:
            return replace(data, label_file=files[0])
    return data


def _with_named_splits(data: DataConfig, named: Collection[str]) -> DataConfig:
    """Take the splits by the names that the folder has for them."""
    found = {name.casefold(): name for name in named}
    train = next((found[name] for name in _TRAIN_NAMES if name in found), data.train_split)
    test = next((found[name] for name in _TEST_NAMES if name in found), data.test_split)
    return replace(data, train_split=train, test_split=test)


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    sides = sorted(sizes, key=lambda size: size[0] * size[1])
    smallest, middle, largest = (f"{w} x {h}" for w, h in (sides[0], sides[len(sides) // 2], sides[-1]))
    return f"of {middle} pixels" if smallest == largest else f"from {smallest} to {largest} pixels, median {middle}"


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{len(names)} ({', '.join(names[:_LISTED])}{more})"


def _packed(head: str, parts: Sequence[str]) -> list[str]:
    lines = [head]
    for place, part in enumerate(parts, start=1):
        word = part if place == len(parts) else f"{part},"
        if len(lines[-1]) + len(word) < _LINE_LENGTH:
            lines[-1] += f" {word}"
        else:
            lines.append(f"  {word}")
    return lines

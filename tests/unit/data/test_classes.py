import pytest

from qaclims_ray.data.classes import (
    BACKGROUND_VALUE,
    IGNORE_VALUE,
    NO_BACKGROUND,
    VOC_CLASSES,
    VOC_FILE_NAMES,
    Classes,
    class_id,
    label_value,
    require_classes,
    voc_palette,
)
from qaclims_ray.errors import ConfigError


def test_class_ids_and_label_values_are_one_apart_and_miss_background_and_void() -> None:
    values = [label_value(index) for index in range(20)]
    assert [class_id(value) for value in values] == list(range(20))
    assert BACKGROUND_VALUE not in values and IGNORE_VALUE not in values


def test_a_background_is_the_first_label_and_keeps_its_score() -> None:
    classes = Classes(("bird", "boat"))
    assert (len(classes), classes.num_labels, classes.label_names) == (2, 3, ("background", "bird", "boat"))
    assert classes.border(0.3) == 0.3


def test_without_a_background_the_labels_are_the_classes_and_every_score_exceeds_the_border() -> None:
    classes = Classes(("tumor", "stroma"), has_background=False)
    assert (len(classes), classes.num_labels, classes.label_names) == (2, 2, ("tumor", "stroma"))
    assert classes.border(0.3) == NO_BACKGROUND


def test_voc_has_twenty_classes_in_two_spellings() -> None:
    assert len(VOC_CLASSES) == len(set(VOC_CLASSES)) == len(VOC_FILE_NAMES) == len(set(VOC_FILE_NAMES)) == 20
    different = {(f, n) for f, n in zip(VOC_FILE_NAMES, VOC_CLASSES, strict=True) if f != n}
    assert different == {
        ("diningtable", "dining table"), ("pottedplant", "potted plant"), ("tvmonitor", "tv monitor")
    }  # fmt: skip


def test_the_palette_is_vocs() -> None:
    palette = voc_palette()
    colours = [tuple(palette[start : start + 3]) for start in range(0, len(palette), 3)]
    assert len(colours) == len(set(colours)) == 256
    # The published colours of background, aeroplane, cat, person, tv monitor and void.
    assert [colours[value] for value in (0, 1, 8, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (64, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)
    ]  # fmt: skip


def test_names_that_no_class_has_are_refused() -> None:
    require_classes("text.x", ["cat"], ["cat", "dog"])
    require_classes("text.x", ["*", "dog"], ["cat", "dog"], or_all="*")
    with pytest.raises(ConfigError, match=r"text.x names \['cow', 'sow'\]; expected classes: cat, dog$"):
        require_classes("text.x", ["sow", "cat", "cow"], ["cat", "dog"])
    with pytest.raises(ConfigError, match=r"text.x names \['cow'\]; expected '\*' or classes: cat, dog$"):
        require_classes("text.x", ["cow", "*"], ["cat", "dog"], or_all="*")
    with pytest.raises(ConfigError, match=r"names \[''\]"):
        require_classes("text.x", [""], ["cat", "dog"])

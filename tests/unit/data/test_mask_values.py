import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data.classes import VOC_CLASSES
from qaclims_ray.data.config import DataConfig
from qaclims_ray.data.mask_values import Translation, check_entries, translation_of
from qaclims_ray.errors import ConfigError

CLASSES = ("cat", "dining table", "a=b")


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (("255=cat",), Translation({0: 0, 255: 1})),
        (("1=dining table", "2=cat", "7=ignore"), Translation({0: 0, 255: 255, 1: 2, 2: 1, 7: 255})),
        (("0=cat", "255=background"), Translation({0: 1, 255: 0})),
        (("nonzero=cat",), Translation({0: 0}, None, 1)),
        (("nonzero=cat", "255=ignore"), Translation({0: 0, 255: 255}, None, 1)),
        (("1=a=b",), Translation({0: 0, 255: 255, 1: 3})),
        (("70000=cat",), Translation({0: 0, 255: 255, 70000: 1})),
        ((" 3 = cat ",), Translation({0: 0, 255: 255, 3: 1})),
    ],
)
def test_numbers(entries: tuple[str, ...], expected: Translation) -> None:
    assert translation_of(entries, CLASSES) == expected


@pytest.mark.parametrize("colour", ["#800000", "128,0,0", "(128, 0, 0)", "maroon", "rgb(128,0,0)"])
def test_colours(colour: str) -> None:
    assert translation_of((f"{colour}=cat", "white=ignore"), CLASSES).colours == {
        (0, 0, 0): 0,
        (128, 0, 0): 1,
        (255, 255, 255): 255,
    }


def test_vocs_colours_and_an_exception() -> None:
    found = translation_of(("#808000=ignore", "voc-colours"), CLASSES).colours
    assert found == {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2, (128, 128, 0): 255, (224, 224, 192): 255}


def test_vocs_classes_as_its_files_spell_them() -> None:
    assert translation_of(("1=diningtable", "2=dining table"), VOC_CLASSES).numbers == {0: 0, 255: 255, 1: 11, 2: 11}


def test_a_class_called_ignore_comes_first() -> None:
    assert translation_of(("1=ignore",), ("ignore",)).numbers == {0: 0, 255: 255, 1: 1}


@pytest.mark.parametrize("entry", ["255", "=cat", "1=", "cat=1", "300,0,0=cat", "#12=cat", "-1=cat", "1.5=cat", ""])
def test_other_forms_are_refused(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.mask_values"):
        check_entries((entry,))


@pytest.mark.parametrize("entries", [("1=cat", "1=dog"), ("#ff0000=cat", "red=dog"), ("nonzero=a", "nonzero=b")])
def test_contradictions_are_refused(entries: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="says twice"):
        check_entries(entries)


def test_numbers_and_colours_do_not_mix() -> None:
    with pytest.raises(ConfigError, match="has numbers and colours"):
        check_entries(("1=cat", "#ff0000=dog"))


def test_what_is_no_class_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'cow'; expected a class \(cat, dining table, a=b\), background or ignore"):
        translation_of(("1=cow",), CLASSES)


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        check_entries((text,))
    except ConfigError:
        return
    assert "=" in text or text.strip() == "voc-colours"


@pytest.mark.parametrize("dataset", ["coco14", "bcss_wsss", "miniature"])
def test_data_sets_of_a_fixed_form_refuse_it(dataset: str) -> None:
    with pytest.raises(ConfigError, match=f"the masks of {dataset} have a fixed form"):
        DataConfig(dataset=dataset, mask_values=("255=cat",))

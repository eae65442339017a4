"""Fields by their meaning: each form of a value gives that value, and everything else a refusal that shows it."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qaclims_ray.data.json_fields import MISSING, field, flag, numbers, positive_number, printable, text, whole_number
from qaclims_ray.errors import DataError

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


@given(st.integers(-(2**40), 2**40))
def test_a_whole_number_has_four_forms(number: int) -> None:
    for form in (number, float(number), str(number), f" {number}.0 "):
        assert whole_number(form) == number and type(whole_number(form)) is int


@given(ANYTHING)
def test_a_value_is_read_as_itself_or_refused(value: Any) -> None:
    for read in (whole_number, positive_number, flag, text):
        try:
            found = read(value)
        except DataError as error:
            assert "expected" in str(error) or "text" in str(error)
            continue
        assert not isinstance(value, list | dict)
        if read is text:
            assert found == value
        elif isinstance(value, str):
            assert found == {"true": True, "false": False}.get(value.strip().lower(), None) or found == float(value)
        else:
            assert found == value or (read is flag and value is None)
        assert read is flag or type(value) is not bool


@pytest.mark.parametrize("value", [1.7, True, False, "1.7", "", " ", "one", None, [], [1], {}, math.nan, math.inf,
                                   1e300, 2.0**53, "1e3", "0x10", "1_000", MISSING])  # fmt: skip
def test_no_whole_number(value: Any) -> None:
    with pytest.raises(DataError, match="expected a whole number"):
        whole_number(value)


@pytest.mark.parametrize(("value", "meaning"), [
    (0, False), (1, True), (0.0, False), (1.0, True), ("0", False), ("1", True), ("false", False), ("True", True),
    (False, False), (True, True), (None, False), (MISSING, False),
])  # fmt: skip
def test_a_flag_is_read_by_its_meaning(value: Any, meaning: bool) -> None:
    assert flag(value) is meaning


@pytest.mark.parametrize("value", [2, -1, 1.7, 0.5, "2", "yes", "", [], [1], {}, math.nan])
def test_no_flag(value: Any) -> None:
    with pytest.raises(DataError, match="expected 0 or 1"):
        flag(value)


@pytest.mark.parametrize("value", [0, -3, "0", "-1", 0.0])
def test_no_positive_number(value: Any) -> None:
    with pytest.raises(DataError, match="above 0"):
        positive_number(value)


@given(st.lists(st.floats(-1e6, 1e6) | st.integers(-1000, 1000), max_size=8))
def test_numbers_may_be_texts(values: list) -> None:
    for form in (values, [str(value) for value in values], [*values[:1], *map(str, values[1:])]):
        np.testing.assert_allclose(numbers(form), values, rtol=1e-12)


@pytest.mark.parametrize("value", [[1, True], [None], [[1, 2]], ["nan"], ["1,5"], [math.nan], [1, math.inf], [10**400],
                                   "1 2", {}, None, 3])  # fmt: skip
def test_no_numbers(value: Any) -> None:
    with pytest.raises(DataError):
        numbers(value)


def test_a_refusal_names_the_field_and_stays_short() -> None:
    with pytest.raises(DataError, match=r"^width is 'wide', expected a whole number$"):
        field({"width": "wide"}, "width", whole_number)
    with pytest.raises(DataError, match=r"^id is absent, expected"):
        field({}, "id", whole_number)
    assert (
        len(printable([[1] * 10**5])) < 100 and len(printable("x" * 10**5)) < 100 and printable("\ud800") == r"'\ud800'"
    )
    assert "cannot be printed" in printable(10**5000)

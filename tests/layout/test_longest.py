"""The list of long tests holds tests that are there, and says what `make check` leaves out."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import longest

REPOSITORY = Path(__file__).parents[2]


def test_every_test_in_the_list_is_there():
    for test_id in longest.longest():
        file, *_, function = test_id.split("::")
        assert f"def {function}(" in (REPOSITORY / file).read_text(), f"{test_id} is gone: run `make longest`"


def test_functions_are_as_long_as_all_their_cases_and_the_cheapest_are_quick():
    lines = ["1.5\ta.py::long[1]", "0.2\ta.py::quick", "1.0\ta.py::long[2]", "0.1\tb.py::quick"]
    assert longest.beyond(lines, quick_cpu_s=0.31) == ["a.py::long"]
    assert longest.beyond(lines, quick_cpu_s=0.29) == ["a.py::long", "a.py::quick"]


@pytest.mark.parametrize("is_quick", [True, False])
def test_only_the_quick_option_leaves_tests_out(monkeypatch, tmp_path, is_quick):
    monkeypatch.setattr(longest, "LIST", tmp_path / "list.txt")
    longest.LIST.write_text("# head\na.py::long\n")
    items = [SimpleNamespace(nodeid=name) for name in ("a.py::long[1]", "a.py::longer", "b.py::new")]
    left: list[SimpleNamespace] = []
    hook = SimpleNamespace(pytest_deselected=lambda items: left.extend(items))
    config = SimpleNamespace(getoption=lambda _: is_quick, hook=hook)
    longest.pytest_collection_modifyitems(config, items)
    assert [item.nodeid for item in items][-2:] == ["a.py::longer", "b.py::new"]
    assert (len(items), len(left)) == ((2, 1) if is_quick else (3, 0))

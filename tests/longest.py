"""Which tests take long: `make check` leaves them to `make test`.

    make longest    # runs all tests that need no Ray, and writes tests/longest.txt anew

A list and no marks, since a test's place in it follows from all others: the cheapest that together take
`QUICK_CPU_S` are quick. CPU seconds, with those of the processes that a test waits for, mean about the same on a busy
machine. What is not in the list, as a new test, is quick.
"""

import os
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import pytest

QUICK_CPU_S = 80.0
"""What the quick tests together may take, without importing and collecting them."""
LIST = Path(__file__).with_name("longest.txt")
_shared: dict[tuple[str, str], float] = {}
"""Where a fixture is from and its name -> CPU seconds of its last making, with the shared ones that it asks for."""
_HEAD = f"# Tests beyond the cheapest that together take {QUICK_CPU_S:.0f} CPU seconds; written by `make longest`.\n"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the two options."""
    parser.addoption("--quick", action="store_true", help="leave out what tests/longest.txt lists")
    parser.addoption(
        "--cpu-seconds", metavar="FILE", help="add a line to a file for each test: its CPU seconds, its id"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests."""
    if config.getoption("--quick"):
        names = longest()
        config.hook.pytest_deselected(items=[item for item in items if function_of(item.nodeid) in names])
        items[:] = [item for item in items if function_of(item.nodeid) not in names]


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> Generator[None, object, object]:
    """Note what a fixture takes that several tests share."""
    before = _used_s()
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _shared[fixturedef.baseid, fixturedef.argname] = _used_s() - before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note what a test takes: each that uses a shared fixture takes all of it, since it may be the only one."""
    before, known = _used_s(), set(_shared)
    result = yield
    own = _used_s() - before - sum(seconds for name, seconds in _shared.items() if name not in known)
    names = set(getattr(item, "fixturenames", ()))
    used = [s for (place, name), s in _shared.items() if name in names and item.nodeid.startswith(place)]
    if path := item.config.getoption("--cpu-seconds"):
        with open(path, "a") as file:
            file.write(f"{max(own, 0.0) + sum(used):.4f}\t{item.nodeid}\n")
    return result


def _used_s() -> float:
    return time.process_time() + os.times().children_user + os.times().children_system


def longest() -> set[str]:
    """Return the test functions that are not quick."""
    return {line for line in LIST.read_text().splitlines() if not line.startswith("#")}


def function_of(test_id: str) -> str:
    """Return a test's function: its id without its parameters."""
    return test_id.partition("[")[0]


def beyond(lines: list[str], quick_cpu_s: float) -> list[str]:
    """Return the functions that are not among the cheapest, in order of their names.

    Args:
        lines: what ``--cpu-seconds`` wrote.
        quick_cpu_s: what the cheapest may take together.
    """
    taken = defaultdict[str, float](float)
    for line in lines:
        seconds, _, test_id = line.partition("\t")
        taken[function_of(test_id)] += float(seconds)
    sum_s, left = 0.0, []
    for name, seconds in sorted(taken.items(), key=lambda entry: entry[1]):
        sum_s += seconds
        if sum_s > quick_cpu_s:
            left.append(name)
    return sorted(left)


def main(path: str) -> None:
    """Write the list from what ``--cpu-seconds`` wrote, and say what both parts take."""
    lines = Path(path).read_text().splitlines()
    names = beyond(lines, QUICK_CPU_S)
    LIST.write_text(_HEAD + "".join(f"{name}\n" for name in names))
    for word, are_long in (("quick", False), ("longer", True)):
        some = [line for line in lines if (function_of(line.partition("\t")[2]) in names) is are_long]
        print(f"{word}: {len(some)} tests, {sum(float(line.split()[0]) for line in some):.0f} CPU s")


if __name__ == "__main__":
    main(sys.argv[1])

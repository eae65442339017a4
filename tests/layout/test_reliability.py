"""Each promise of docs/reliability.md names tests that hold it, and each test that it names is there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.findall(r"^- `(tests/[\w/]+\.py)::(\w+)`$", PAGE, re.MULTILINE)
TABLE = re.findall(r"^\| `make ([\w-]+)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda word: word.rsplit("/", 1)[-1])
def test_a_test_that_holds_a_promise_is_there(file: str, name: str) -> None:
    tree = ast.parse((ROOT / file).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_promise_has_a_test_and_none_is_named_in_another_form() -> None:
    promises = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(promises) >= 8
    assert not [text.partition("\n")[0] for text in promises if "::test_" not in text]
    assert len(re.findall(r"tests/[\w/]+\.py::\w+", PAGE)) == len(NAMED) == len(set(NAMED))


def test_the_commands_of_the_page_are_targets() -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert len(TABLE) >= 5 and set(TABLE) <= set(targets)

"""The rules of the house that import-linter does not hold: who imports Ray and MLflow, and how long things may be.

Modules are found by folder, so none is forgotten, and imports are seen inside functions too.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "qaclims_ray"
FOLDERS = (PACKAGE, ROOT / "jobs", ROOT / "benchmarks")

HOME = {"ray": "cluster", "mlflow": "tracking"}
"""Package of others -> the only room that may import it."""

MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60


def _modules(*folders: Path) -> Iterator[tuple[str, str]]:
    """Yield path from the repository's root, and text, of every module."""
    for folder in folders:
        for file in sorted(folder.rglob("*.py")):
            yield file.relative_to(folder.parent).as_posix(), file.read_text(encoding="utf-8")


def _imported(source: str) -> set[str]:
    """Return the packages that a module imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def _is_docstring_alone(source: str) -> bool:
    body = ast.parse(source).body
    return len(body) == 1 and ast.get_docstring(ast.parse(source)) is not None


def _unexplained(source: str) -> list[str]:
    """Return the functions that are too long without a comment before their first statement that says why."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0] for token in tokens if token.type == tokenize.COMMENT}
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        first = node.body[1] if ast.get_docstring(node) is not None and len(node.body) > 1 else node.body[0]
        if lines > MAX_FUNCTION_LINES and not comments & {*range(node.lineno, first.lineno + 1)}:
            found.append(f"{node.name} has {lines} lines")
    return found


@pytest.mark.parametrize("package", sorted(HOME))
def test_one_room_alone_imports_it(package):
    places = {path: path.split("/")[1] for path, text in _modules(PACKAGE) if package in _imported(text)}
    elsewhere = [path for path, room in places.items() if room != HOME[package]]
    assert not elsewhere, f"{package} is for {HOME[package]}/ alone"
    assert HOME[package] in places.values(), "the check sees no import at all"


def test_init_modules_hold_a_docstring_and_nothing_else():
    # But for the package's own, which gives Python users `load` without loading what a command line does not need.
    inits = [(path, text) for path, text in _modules(PACKAGE) if path.endswith("/__init__.py")]
    inits = [(path, text) for path, text in inits if path.count("/") > 1]
    assert inits and not [path for path, text in inits if not _is_docstring_alone(text)]


def test_every_folder_of_modules_is_a_package():
    folders = {file.parent for file in PACKAGE.rglob("*.py")}
    assert not [folder.name for folder in folders if not (folder / "__init__.py").is_file()]


def test_no_module_is_too_long():
    lengths = {path: len(text.splitlines()) for path, text in _modules(*FOLDERS)}
    assert not {path: lines for path, lines in lengths.items() if lines > MAX_MODULE_LINES}


def test_no_function_is_too_long_without_saying_why():
    found = [f"{path}: {name}" for path, text in _modules(*FOLDERS) for name in _unexplained(text)]
    assert not found, "split it, or say in a comment before its first statement why it is one piece"


def test_imports_are_seen_inside_functions():
    assert _imported("import a.b\ndef f():\n    from ray.data import c\n    import mlflow as m\n") == {
        "a",
        "ray",
        "mlflow",
    }


@pytest.mark.parametrize("source", ["", "import a\n", '"""Words."""\nX = 1\n'])
def test_more_or_less_than_a_docstring_is_seen(source):
    assert not _is_docstring_alone(source) and _is_docstring_alone('"""Words."""\n')


@pytest.mark.parametrize(
    ("head", "num_found"),
    [
        ('    """Words."""\n', 1),
        ('    """Words."""\n    # One kernel: a split would copy the state.\n', 0),
        ("    # One kernel.\n", 0),
        ("    x = 1\n    # Too late to be found.\n", 1),
        ('    """# Words."""\n', 1),
    ],
)
def test_long_functions_need_a_comment_at_their_head(head, num_found):
    assert len(_unexplained(f"def f():\n{head}" + "    y = 1\n" * MAX_FUNCTION_LINES)) == num_found
    assert not _unexplained("def f():\n" + "    y = 1\n" * (MAX_FUNCTION_LINES - 1))


def test_make_looks_for_tests_that_start_ray_wherever_there_are_some():
    makefile = (ROOT / "Makefile").read_text()
    found = re.search(r"^RAY_TESTS := (.*)$", makefile, re.MULTILINE)
    assert found is not None and "$(RAY_TESTS)" in makefile
    tests = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(r"\bmark\.ray\b", path.read_text())]
    assert len(tests) > 20
    assert not [path for path in tests if not any(path.is_relative_to(ROOT / folder) for folder in found[1].split())]

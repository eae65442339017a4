"""One name, one meaning: no two modules of the package define the same public name or class."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "qaclims_ray"

SAME_ROLE = {
    "logger": "each module's own logger, as the logging module advises",
    "main": "the entry of a module that runs as a command",
}
"""Names that play the same role wherever they stand, with the reason."""

METHOD_CONTRACT = {
    "phases": "the trainings of a method (`Method.phases`)",
    "check": "what a method refuses (`Method.check`)",
}
"""Names that every folder of methods/ must define, with the reason; elsewhere they have no such right."""


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield a module's own statements, those under `if` and `try` too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            handlers = [inner for handler in getattr(statement, "handlers", ()) for inner in handler.body]
            yield from _statements([*statement.body, *handlers, *statement.orelse])


def _defined(source: str) -> set[str]:
    """Return the public names a module defines, and its private classes without their underscore."""
    found: set[str] = set()
    for node in _statements(ast.parse(source).body):
        if isinstance(node, ast.ClassDef):
            found.add(node.name.lstrip("_"))
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name))
        elif type(node).__name__ == "TypeAlias":  # `type X = ...` of Python 3.12
            found.add(node.name.id)  # type: ignore[attr-defined]
    return {name for name in found if not name.startswith("_")}


def _shared(package: Path) -> dict[str, list[str]]:
    """Return name -> modules, for names with more than one module and no right to it."""
    places: dict[str, list[str]] = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package)
        for name in _defined(file.read_text(encoding="utf-8")):
            is_method = path.parts[0] == "methods" and len(path.parts) > 2
            if name not in SAME_ROLE and not (is_method and name in METHOD_CONTRACT):
                places[name].append(path.as_posix())
    return {name: files for name, files in sorted(places.items()) if len(files) > 1}


def test_no_two_public_names_mean_two_things():
    found = [f"{name}: {', '.join(files)}" for name, files in _shared(PACKAGE).items()]
    assert not found, "one name, two meanings; find another word for one of them:\n" + "\n".join(found)


@pytest.mark.parametrize("name", sorted(SAME_ROLE))
def test_every_exception_is_needed(name):
    files = [file for file in PACKAGE.rglob("*.py") if name in _defined(file.read_text(encoding="utf-8"))]
    assert len(files) > 1, f"{name} has one place now; take it off the list"


def test_names_are_found_wherever_a_module_defines_them(tmp_path):
    first = (
        "import both\nSIZE: int = 1\nA, B = 1, 2\n_hidden = 3\nclass _Run: ...\ndef act():\n    inner = 1\nlogger = 1\n"
    )
    second = (
        "from first import act\nif SIZE:\n    SIZE = 2\nelse:\n    B = 2\n_hidden = 1\nclass Run: ...\nlogger = 1\n"
    )
    third = "try:\n    import x\nexcept ImportError:\n    A = None\ninner = 1\nboth = 1\n"
    for name, text in {"first": first, "second": second, "third": third}.items():
        (tmp_path / "room").mkdir(exist_ok=True)
        (tmp_path / "room" / f"{name}.py").write_text(text)
    files = {name: [Path(file).stem for file in found] for name, found in _shared(tmp_path).items()}
    assert files == {
        "A": ["first", "third"],
        "B": ["first", "second"],
        "Run": ["first", "second"],
        "SIZE": ["first", "second"],
    }

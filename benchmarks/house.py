"""Measure the build of the package: how long it is, and how far a reader has to go.

    python benchmarks/house.py [ROOT] [--json]

ROOT is any checkout, by default the one this file stands in. Only the standard library is used, and nothing of the
package is imported, so older checkouts can be measured with the same rule. What each number means:

lines            all lines; comment lines (a comment alone on its line); docstring lines (strings that stand as a
                 statement, so fields' docstrings too); blank lines; code lines are the rest. Trailing comments stand
                 behind code, on lines that count as code.
root modules     modules that lie loose in the package, without ``__init__`` and ``__main__``.
Ray, MLflow      modules with an import of it anywhere, also inside a function, and all lines of these modules.
long functions   functions of more than 40 and of more than 60 lines, from ``def`` to the end.
copies           runs of at least 6 code lines that stand a second time. Indentation and comments do not count; blank
                 lines, docstrings and imports are skipped. A block that stands three times counts twice.
methods          modules that name a way of getting CAMs: the whole word as an identifier, a part of an import, or in
                 a string without spaces. Docstrings, comments and prose do not count. About what adding a method
                 touches; ``given`` and ``classifier`` are common words and count a little too much.
matches          ``match`` statements on a kind or method, and comparisons of one with a constant.
circles          rooms (first-level packages and root modules) that import each other around a circle, and modules
                 in them whose imports are part of one.
journeys         the fewest files from one place to another along imports, both ends counted. The ends are found by
                 what is defined there, so moved files do not matter. From the command imports are followed forwards;
                 from the data to the step they are followed both ways.
farthest         the module that is farthest from the command, and modules that it never imports.
"""

import argparse
import ast
import io
import json
import re
import tokenize
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

PACKAGE = "qaclims_ray"
START = f"{PACKAGE}.cli"
METHODS = {
    "classifier": ("classifier",),
    "ritc / qa_clims": ("ritc", "qa_clims"),
    "clims": ("clims",),
    "semples": ("semples",),
    "given": ("given",),
}
FROM_COMMAND = ("foreground_mask", "foreground_contrast", "ThresholdSweep", "CamActor", "dense_crf")
"""omega acts in the first, the second is FRC."""
THROUGH_DATA = (("run_data", "ritc_step"), ("read_voc", "ritc_step"))
LONG, TOO_LONG = 40, 60
COPY_LINES = 6
NUM_SHOWN = 10

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
Graph = Mapping[str, Iterable[str]]


@dataclass(frozen=True)
class Module:
    """One file of the package."""

    name: str
    path: str
    """From the package's folder."""
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text)

    @cached_property
    def tokens(self) -> list[tokenize.TokenInfo]:
        """The file's tokens."""
        return list(tokenize.generate_tokens(io.StringIO(self.text).readline))

    @cached_property
    def lines(self) -> list[str]:
        """The file's lines."""
        return self.text.splitlines()

    @cached_property
    def docstring_lines(self) -> set[int]:
        """Numbers of lines in strings that stand as a statement."""
        found = (n.value for n in ast.walk(self.tree) if isinstance(n, ast.Expr) and isinstance(n.value, ast.Constant))
        return _spans(node for node in found if isinstance(node.value, str))

    @cached_property
    def comments(self) -> dict[int, int]:
        """Line number -> column of its comment."""
        return {token.start[0]: token.start[1] for token in self.tokens if token.type == tokenize.COMMENT}

    @cached_property
    def code(self) -> dict[int, str]:
        """Line number -> code on it, without indentation and comments."""
        cut = {n: line[: self.comments.get(n, len(line))].strip() for n, line in enumerate(self.lines, 1)}
        return {number: code for number, code in cut.items() if code and number not in self.docstring_lines}

    @cached_property
    def imported(self) -> set[str]:
        """Dotted names of what it imports, anywhere."""
        names: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.update(f"{node.module}.{alias.name}" for alias in node.names)
        return names


def _spans(nodes: Iterable[ast.expr | ast.stmt]) -> set[int]:
    return {line for node in nodes for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}


def read_package(root: Path) -> list[Module]:
    """Return all modules of the package of a checkout, by path."""
    folder = root / PACKAGE
    modules = []
    for file in sorted(folder.rglob("*.py")):
        parts = [PACKAGE, *file.relative_to(folder).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules.append(Module(name, file.relative_to(folder).as_posix(), file.read_text(encoding="utf-8")))
    if not modules:
        raise SystemExit(f"house: found no {PACKAGE}/ in {root}; expected a checkout of the project")
    return modules


def line_counts(modules: Sequence[Module]) -> dict[str, int]:
    """Return the package's lines by kind."""
    counts = dict.fromkeys(("all", "code", "comment", "trailing", "docstring", "blank"), 0)
    for module in modules:
        for number, line in enumerate(module.lines, 1):
            is_docstring = number in module.docstring_lines
            kind = "docstring" if is_docstring else "code" if number in module.code else "comment"
            counts[kind if is_docstring or line.strip() else "blank"] += 1
            counts["trailing"] += number in module.code and number in module.comments
        counts["all"] += len(module.lines)
    return counts


def root_modules(modules: Sequence[Module]) -> list[str]:
    """Return the modules that lie loose in the package."""
    return [m.path for m in modules if "/" not in m.path and m.path not in ("__init__.py", "__main__.py")]


def importers(modules: Sequence[Module], package: str) -> dict[str, int]:
    """Return module -> lines of the modules that import a package anywhere."""
    return {m.path: len(m.lines) for m in modules if any(name.split(".")[0] == package for name in m.imported)}


def long_functions(modules: Sequence[Module]) -> list[tuple[int, str]]:
    """Return (lines, place) of functions above `LONG` lines, the longest first."""
    found = []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(((node.end_lineno or node.lineno) - node.lineno + 1, f"{module.path}: {node.name}"))
    return sorted((entry for entry in found if entry[0] > LONG), key=lambda entry: (-entry[0], entry[1]))


def copies(modules: Sequence[Module]) -> list[tuple[int, str, str]]:
    """Return (lines, first place, second place) of runs of code that stand twice."""
    lines = []
    for module in modules:
        skipped = _spans(node for node in ast.walk(module.tree) if isinstance(node, (ast.Import, ast.ImportFrom)))
        lines += [(module.path, number, code) for number, code in module.code.items() if number not in skipped]
    starts: dict[tuple[str, ...], list[int]] = defaultdict(list)
    found: list[list[int]] = []  # [first, second, lines]
    for here in range(len(lines) - COPY_LINES + 1):
        window = lines[here : here + COPY_LINES]
        if window[0][0] != window[-1][0]:  # across two files
            continue
        key = tuple(code for _, _, code in window)
        earlier = [there for there in starts[key] if there + COPY_LINES <= here]
        first, second, length = found[-1] if found else (0, 0, 0)
        grown = length - COPY_LINES + 1
        if found and second + grown == here and first + grown in earlier:
            found[-1][2] += 1
        elif earlier and here >= second + length:
            found.append([earlier[0], here, COPY_LINES])
        starts[key].append(here)
    return [(n, f"{lines[i][0]}:{lines[i][1]}", f"{lines[j][0]}:{lines[j][1]}") for i, j, n in found]


def words(module: Module) -> set[str]:
    """Return the identifiers of a module and the words of its strings without spaces."""
    found: set[str] = set()
    for token in module.tokens:
        if token.type == tokenize.NAME:
            found.add(token.string)
        elif token.type != tokenize.COMMENT and token.start[0] not in module.docstring_lines:
            if not re.search(r"\s", token.string):
                found.update(re.findall(r"\w+", token.string))
    return found


def method_namers(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Return the modules that name each method."""
    known = {module.path: words(module) for module in modules}
    return {method: [p for p, found in known.items() if found & {*names}] for method, names in METHODS.items()}


def kind_matches(modules: Sequence[Module]) -> tuple[list[str], list[str]]:
    """Return the places of ``match``es on a kind, and of comparisons of one with a constant."""
    matches, comparisons = [], []
    for module in modules:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Match) and _is_kind(node.subject):
                matches.append(f"{module.path}:{node.lineno}")
            elif isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(map(_is_kind, sides)) and any(isinstance(s, (ast.Constant, ast.Tuple)) for s in sides):
                    comparisons.append(f"{module.path}:{node.lineno}")
    return matches, comparisons


def _is_kind(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in ("kind", "method")


def import_graph(modules: Sequence[Module]) -> dict[str, set[str]]:
    """Return module -> modules of the package that it imports."""
    known = {module.name for module in modules}
    graph: dict[str, set[str]] = {}
    for module in modules:
        graph[module.name] = set()
        for name in module.imported:
            # `from a import b` names a module b or something in a.
            target = name if name in known else name.rpartition(".")[0]
            if target in known and target != module.name:
                graph[module.name].add(target)
    return graph


def reach(graph: Graph, start: str) -> dict[str, list[str]]:
    """Return module -> a shortest path to it from the start; by name where several are as short."""
    paths = {start: [start]} if start in graph else {}
    waiting = deque(paths)
    while waiting:
        here = waiting.popleft()
        for there in sorted(graph[here]):
            if there not in paths:
                paths[there] = [*paths[here], there]
                waiting.append(there)
    return paths


def definers(modules: Sequence[Module], symbol: str) -> list[str]:
    """Return the modules that define a class or function at their top."""
    return [m.name for m in modules if any(isinstance(n, Definition) and n.name == symbol for n in m.tree.body)]


def journeys(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Return name -> path of every journey, empty where an end is defined nowhere or cannot be reached."""
    graph = import_graph(modules)
    both_ways = {name: {*graph[name], *(m for m in graph if name in graph[m])} for name in graph}
    found = {f"cli -> {symbol}": _shortest(graph, [START], definers(modules, symbol)) for symbol in FROM_COMMAND}
    for first, last in THROUGH_DATA:
        ends = definers(modules, first), definers(modules, last)
        found[f"{first} - {last}"] = _shortest(both_ways, *ends)
    return found


def _shortest(graph: Graph, starts: Sequence[str], ends: Sequence[str]) -> list[str]:
    paths = [reached[end] for start in starts for reached in [reach(graph, start)] for end in ends if end in reached]
    return min(paths, key=len, default=[])


def farthest(modules: Sequence[Module]) -> tuple[list[str], list[str]]:
    """Return the longest of all shortest paths from the command, and modules that it never imports."""
    paths = reach(import_graph(modules), START)
    names = (m.name for m in modules if not m.path.endswith(("__init__.py", "__main__.py")))
    return max(paths.values(), key=len, default=[]), [name for name in names if name not in paths]


def circles(modules: Sequence[Module]) -> tuple[list[list[str]], list[str]]:
    """Return the groups of rooms in circles, and the modules whose imports are part of one."""
    graph = import_graph(modules)
    rooms: dict[str, set[str]] = defaultdict(set)
    for name, targets in graph.items():
        rooms[_room(name)].update(_room(target) for target in targets)
    reached = {room: set(reach(rooms, room)) for room in rooms}
    groups: list[list[str]] = []
    for room in sorted(rooms):
        group = sorted(other for other in reached[room] if room in reached[other])
        if len(group) > 1 and group not in groups:
            groups.append(group)
    inside = {room: index for index, group in enumerate(groups) for room in group}
    taking_part = [
        name
        for name, targets in graph.items()
        if any(_room(t) != _room(name) and inside.get(_room(t), -1) == inside.get(_room(name)) for t in targets)
    ]
    return groups, taking_part


def _room(name: str) -> str:
    return name.split(".")[1] if "." in name else name


def measure(root: Path) -> dict[str, Any]:
    """Return all numbers of a checkout as plain values."""
    modules = read_package(root)
    functions = long_functions(modules)
    matches, comparisons = kind_matches(modules)
    groups, taking_part = circles(modules)
    path, unreached = farthest(modules)
    return {
        "lines": line_counts(modules),
        "modules": len(modules),
        "root_modules": root_modules(modules),
        "ray_importers": importers(modules, "ray"),
        "mlflow_importers": importers(modules, "mlflow"),
        f"functions_over_{LONG}": len(functions),
        f"functions_over_{TOO_LONG}": sum(lines > TOO_LONG for lines, _ in functions),
        "longest_functions": functions[:NUM_SHOWN],
        "copies": copies(modules),
        "modules_naming": method_namers(modules),
        "kind_matches": matches,
        "kind_comparisons": comparisons,
        "circles": groups,
        "modules_in_circles": taking_part,
        "journeys": journeys(modules),
        "farthest": path,
        "not_reached": unreached,
    }


def table(found: Mapping[str, Any]) -> str:
    """Return the numbers as text."""
    rows = [*_size_rows(found), *_way_rows(found)]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


def _size_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    lines = found["lines"]
    yield "lines, all", f"{lines['all']:,}"
    for kind in ("code", "docstring", "comment", "blank"):
        yield f"  {kind}", f"{lines[kind]:,}"
    both = lines["comment"] + lines["trailing"]
    shares = [
        f"one in {lines['code'] / count:.0f} code lines" if count else "none" for count in (lines["comment"], both)
    ]
    yield "  comments' share", f"{shares[0]}; with the {lines['trailing']} trailing ones {shares[1]}"
    yield "modules", str(found["modules"])
    yield "  in the root", _counted(found["root_modules"])
    for package, name in (("ray", "Ray"), ("mlflow", "MLflow")):
        users = found[f"{package}_importers"]
        yield f"  importing {name}", f"{len(users)}, of {sum(users.values()):,} lines"
    for limit in (LONG, TOO_LONG):
        yield f"functions over {limit} lines", str(found[f"functions_over_{limit}"])
    for count, place in found["longest_functions"]:
        yield "", f"{count:>4}  {place}"
    yield f"copies of {COPY_LINES} lines or more", str(len(found["copies"]))
    for count, first, second in sorted(found["copies"], reverse=True)[:NUM_SHOWN]:
        yield "", f"{count:>4}  {first} = {second}"
    yield "modules naming a method", ""
    for method, users in found["modules_naming"].items():
        yield f"  {method}", str(len(users))
    yield "matches on a kind", _counted(found["kind_matches"])
    yield "comparisons of a kind", str(len(found["kind_comparisons"]))


def _way_rows(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "modules in circles", str(len(found["modules_in_circles"]))
    for group in found["circles"]:
        yield "  rooms", ", ".join(group)
    yield "journeys, in files", ""
    for name, path in found["journeys"].items():
        yield f"  {name}", _way(path)
    yield "  farthest from cli", _way(found["farthest"])
    yield "never imported from cli", _counted([name.removeprefix(f"{PACKAGE}.") for name in found["not_reached"]])


def _counted(names: Sequence[str]) -> str:
    return f"{len(names)}: {', '.join(names)}" if names else "0"


def _way(path: Sequence[str]) -> str:
    steps = " > ".join(name.removeprefix(f"{PACKAGE}.") for name in path)
    return f"{len(path)}: {steps}" if path else "-: an end is not defined, or not reached"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the numbers of one checkout."""
    parser = argparse.ArgumentParser(description="Measure the build of the package.")
    parser.add_argument("root", nargs="?", type=Path, default=Path(__file__).resolve().parents[1], help="a checkout")
    parser.add_argument("--json", action="store_true", help="print JSON with all names")
    options = parser.parse_args(arguments)
    found = measure(options.root)
    print(json.dumps(found, indent=2) if options.json else table(found))


if __name__ == "__main__":
    main()

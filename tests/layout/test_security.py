"""Nothing that is read is run: no pickle of a file, no code out of a text, no shell, no text as part of a page.

What is promised, and what is not, stands in docs/threat_model.md.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("qaclims_ray", "jobs", "benchmarks", "notebooks", "pages")

RUNS_CODE = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "cloudpickle.load", "cloudpickle.loads"),
    *("pandas.read_pickle", "pd.read_pickle", "marshal.load", "marshal.loads", "shelve.open"),
    *("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter", "torch.export.load"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.load_all"),
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput"),
}
"""Calls that run what they are given, or what a file holds."""
ARGUMENTS = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
"""Call -> an argument that it must be given, where leaving it out depends on a library's version."""
NEVER = {"shell": True, "allow_pickle": True, "weights_only": False, "trust_remote_code": True}
"""Arguments that no call is given."""
LIBRARIES = {"joblib", "dill", "cloudpickle", "marshal", "shelve"}
"""Libraries of which nothing is needed."""

OURS_TO_OURS = {
    ("qaclims_ray/cluster/shards.py", "pickle.loads"): "shards between the tasks of one stage, never from a file",
    ("qaclims_ray/cluster/vllm_corpus.py", "pickle.loads"): "the same, of the corpus by vLLM",
    ("qaclims_ray/cluster/workers.py", "cloudpickle.loads"): "the trainings that the driver hands its own workers",
}
"""(module, call) -> what may run there, and why: bytes that a process of the run made, and Ray carried to another."""


def _name(node: ast.expr) -> str:
    """Return the dotted name of what is called; "?" for what it hangs on where that has no name."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{_name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else "?"


def _faults(source: str) -> Iterator[tuple[str, str]]:
    """Yield what a module does that runs what it reads: a short name, and where and what."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            whole = getattr(node, "module", "") or ""
            names = [f"{whole}.{alias.name}".strip(".") for alias in node.names]
            # By another name the calls below would go unseen.
            renamed = {name for name in names if name in RUNS_CODE or name in ARGUMENTS}
            forbidden = {name.split(".")[0] for name in names} & LIBRARIES
            yield from ((name, f"line {node.lineno}: import of {name}") for name in sorted(renamed | forbidden))
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func)
        given = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords if keyword.arg}
        where = f"line {node.lineno}: {name}"
        if name in RUNS_CODE:
            yield name, where
        if name in ARGUMENTS and given.get(ARGUMENTS[name][0]) is not ARGUMENTS[name][1]:
            yield name, f"{where} without {ARGUMENTS[name][0]}={ARGUMENTS[name][1]}"
        for argument, value in NEVER.items():
            if given.get(argument) is value:
                yield name, f"{where} with {argument}={value}"


def _found() -> list[tuple[str, str, str]]:
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    assert len(files) > 300
    texts = [(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")) for file in files]
    return [(path, name, told) for path, text in texts for name, told in _faults(text)]


def test_nothing_that_is_read_is_run():
    assert not [f"{path}, {told}" for path, name, told in _found() if (path, name) not in OURS_TO_OURS]


def test_every_exception_is_needed_and_travels_between_processes_alone():
    found = {(path, name) for path, name, _ in _found()}
    assert OURS_TO_OURS.keys() <= found, "one has gone; take it off the list"
    assert all(path.startswith("qaclims_ray/cluster/") for path, _ in OURS_TO_OURS)


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(data)",
        "from pickle import loads",
        "from ray import cloudpickle\nclass A:\n    def f(self): return cloudpickle.load(self.file)",
        "import joblib",
        "from dill import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "from torch import load",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "pd.read_pickle(path)",
        "yaml.load(text, Loader=yaml.Loader)",
        "eval(text)",
        "exec(compile(text, 'a', 'exec'))",
        "subprocess.run(line, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_it_would_be_seen(source):
    assert list(_faults(source))


@pytest.mark.parametrize(
    "source",
    [
        "network.eval()",
        "build(network).eval()",
        "re.compile(text)",
        "pickle.dumps(value)",
        "torch.load(path, map_location='cpu', weights_only=True)",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "subprocess.run([program, line])",
        "json.load(file)",
    ],
)
def test_what_runs_nothing_passes(source):
    assert not list(_faults(source))


PAGE_PARTS = {
    "qaclims_ray/report/page.py": "charts of matplotlib, which escapes its texts; commands between backticks, escaped",
    "qaclims_ray/report/gallery.py": "JSON in which < is written as a number, and pictures in base64",
    "qaclims_ray/report/run_page.py": "the charts of page.py by their names",
}
"""Modules that say of a text that it is part of a page, with the reason; all others' texts are escaped."""


def test_texts_become_parts_of_pages_in_three_places_alone():
    texts = {file.relative_to(ROOT).as_posix(): file.read_text() for file in (ROOT / "qaclims_ray").rglob("*.py")}
    assert {path for path, text in texts.items() if "Markup" in text} == PAGE_PARTS.keys()
    makers = [path for path, text in texts.items() if "jinja2" in text]
    assert makers == ["qaclims_ray/report/page.py"] and "autoescape=True" in texts[makers[0]]
    assert not [path for path, text in texts.items() if re.search(r"<(p|div|table|html|li)[ >]", text)]


def test_no_template_and_no_script_takes_a_text_as_it_is():
    found = [file for file in (ROOT / "qaclims_ray/report/templates").iterdir() if file.suffix in (".html", ".js")]
    assert len(found) > 8
    for file in found:
        text = file.read_text()
        assert not re.search(
            r"\|\s*safe\b|autoescape\s+false|innerHTML|outerHTML|insertAdjacentHTML|document\.write", text
        )
        assert not re.search(r"\bon\w+\s*=\s*[\"']?\{\{|href=[\"']?javascript", text), file.name

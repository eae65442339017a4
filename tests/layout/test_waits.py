"""No wait without a bound: each call that may block for ever has a time limit, or stands below with the reason.

Waits are found by what is called. A loop that sleeps must look at a clock, or walk through something that ends.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("qaclims_ray", "jobs")

TIMED = {
    "join": 0, "wait": 0, "wait_for": 1, "acquire": None, "result": 0, "communicate": None, "select": 0, "get": None,
    "put": None, "recv": None, "accept": None, "wait_procs": 1,
}  # fmt: skip
"""Method that waits -> at which position it takes its limit; all take it by name too, but for those of sockets."""
CALLS = {
    *("ray.get", "ray.wait", "ray.init", "subprocess.run", "subprocess.call", "subprocess.check_call"),
    *("subprocess.check_output", "socket.create_connection", "urllib.request.urlopen", "urlopen", "fcntl.flock"),
    *("fcntl.lockf", "requests.get", "requests.post", "requests.head", "sqlite3.connect", "_DIRECT.open"),
}
"""Functions that wait."""
WORK = {"fit", "iter_rows", "iter_batches", "take_all", "materialize", "barrier", "all_reduce", "all_gather"}
"""Methods that wait for others' work."""
CLASSES = {"ThreadPoolExecutor", "ProcessPoolExecutor", "DataLoader"}
"""What waits for others' work when it is walked through or left."""
LIMITS = {"timeout", "timeout_s", "timeout_seconds"}
CLOCKS = {"monotonic", "perf_counter", "clock", "deadline"}

WITHOUT = {
    "cluster/private_ray.py: ray.init": "Ray gives its own services a minute; told as one line",
    "cluster/session.py: ray.init": "after `require_answer`, which asks for seconds; then Ray's own minute",
    "cluster/private_ray.py: ray.shutdown": "Ray gives up by itself, and `stop` ends a process that does not close",
    "cluster/session.py: ray.shutdown": "as that of a private Ray",
    "cluster/trials.py: ray.wait": "whole runs, each of whose waits has a bound of its own",
    "cluster/trials.py: ray.get": "of a trial that has ended: `ray.wait` said so",
    "cluster/search.py: _tuner(work, plan).fit": "whole runs, each of whose waits has a bound of its own",
    "cluster/workers.py: trainer.fit": "`news.Reader` ends the training when it is silent for too long",
    "cluster/shards.py: dataset.iter_rows": "Ray Data's own bound, set from cluster.no_progress_minutes",
    "cluster/vllm_corpus.py: answered.iter_rows": "as that of shards",
    "training/context.py: torch.distributed.all_reduce": "the process group has a bound of ten minutes (workers.py)",
    "segmentation/networks/set_loss.py: torch.distributed.all_reduce": "as that of context.py",
    "training/loop.py: DataLoader": "torch tells a dead loading process; a silent one, cluster.no_progress_minutes",
    "methods/semples/prompts.py: DataLoader": "as that of the loop",
    "methods/rating.py: DataLoader": "loads in this process",
    "methods/classifier/calibration.py: DataLoader": "as that of the loop",
    "refine/irn/task.py: DataLoader": "as that of the loop",
    "data/row_tables.py: file.iter_batches": "of bytes that this process holds already",
    "data/slices.py: ThreadPoolExecutor": "reads files, and a file system that hangs would hang a plain read too",
    "data/slices.py: pool.shutdown": "the few reads that have begun",
    "stages/ui.py: process.wait": "the pages are up until the user stops them",
    "stop.py: arrivals.recv": "a daemon thread that listens for signals for as long as the process lives",
    "tracking/spool.py: self._changed.wait_for": "a daemon thread that waits for calls to send; closing wakes it",
    "tracking/store.py: sqlite3.connect": "SQLite's own five seconds",
}
"""Module and call -> why it may wait without a bound that stands beside it."""


def _is_bounded(call: ast.Call, position: int | None) -> bool:
    given = {keyword.arg for keyword in call.keywords}
    in_place = position is not None and len(call.args) > position
    return bool(given & LIMITS) or in_place


def _waits(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield what is called of each wait, and whether a bound stands beside it."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, method = ast.unparse(node.func), node.func.attr if isinstance(node.func, ast.Attribute) else ""
        last = name.rpartition(".")[2]
        if name in CALLS:
            yield name, _is_bounded(node, None) or "LOCK_NB" in ast.unparse(node)
        elif method in WORK and not (method == "fit" and node.args):  # those of the package take a task, and compute
            yield name, False
        elif method == "shutdown":
            yield name, bool({"wait", "force"} & {keyword.arg for keyword in node.keywords})
        elif last in CLASSES:
            yield name, False
        elif method in TIMED and not _is_no_wait(node, method):
            yield name, _is_bounded(node, TIMED[method])
        elif last == "sleep":
            yield name, True  # by its own length; the loops about it are looked at below


def _is_no_wait(call: ast.Call, method: str) -> bool:
    """Whether a call is none of a thread, queue, process or socket: `str.join`, `dict.get` and the like take values."""
    numbers = {"join": 1, "get": 1, "put": 1, "select": 1}
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if method == "put":  # but for one of Ray's queue
        return owner not in ("news",)
    if method in ("join", "select"):  # a limit is a number or a name of one; what is joined is not
        first = call.args[0] if call.args else None
        is_limit = isinstance(first, ast.Constant) and isinstance(first.value, int | float)
        is_limit |= isinstance(first, ast.Name | ast.Attribute) and ast.unparse(first).lower().endswith("_s")
        return first is not None and not is_limit
    return len(call.args) >= numbers.get(method, 99)


def _endless_sleeps(tree: ast.Module) -> Iterator[str]:
    """Yield the loops with a sleep that neither look at a clock nor walk through something."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.While):
            continue
        inner = [one for one in ast.walk(node) if isinstance(one, ast.Call) and ast.unparse(one.func).endswith("sleep")]
        names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        names |= {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
        if inner and not names & CLOCKS:
            yield f"line {node.lineno}: while {ast.unparse(node.test)}"


def _modules() -> Iterator[tuple[str, ast.Module]]:
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT / folder).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def _unbounded() -> set[str]:
    return {f"{path}: {name}" for path, tree in _modules() for name, is_bounded in _waits(tree) if not is_bounded}


def test_every_wait_has_a_bound_or_a_reason():
    assert not sorted(_unbounded() - WITHOUT.keys()), "bound it and say a sentence, or say above why it needs none"


def test_every_reason_is_needed():
    assert not sorted(WITHOUT.keys() - _unbounded()), "it has a bound now, or is gone; take it off the list"


def test_loops_that_sleep_look_at_a_clock():
    assert not [f"{path}, {loop}" for path, tree in _modules() for loop in _endless_sleeps(tree)]


def test_many_waits_are_seen():
    found = [name for _, tree in _modules() for name, _ in _waits(tree)]
    assert len(found) > 40 and {"ray.wait", "thread.join", "is_over.wait", "self.lock.acquire"} <= set(found)


@pytest.mark.parametrize(
    "source",
    [
        "thread.join()", "work.get()", "done.wait()", "ray.get(reference)", "ray.wait(references, num_returns=1)",
        "subprocess.run(line)", "process.communicate()", "process.wait()", "lock.acquire()", "future.result()",
        "fcntl.flock(handle, fcntl.LOCK_EX)", "urllib.request.urlopen(address)", "requests.get(address)",
        "socket.create_connection(address)", "arrivals.recv(1)", "changed.wait_for(lambda: done)", "trainer.fit()",
        "ThreadPoolExecutor(4)", "torch.utils.data.DataLoader(images)", "poll.select()",
    ],
)  # fmt: skip
def test_a_wait_without_a_bound_is_seen(source):
    assert [is_bounded for _, is_bounded in _waits(ast.parse(source))] == [False]


@pytest.mark.parametrize(
    "source",
    [
        "thread.join(5)", "thread.join(timeout=5)", "thread.join(GRACE_S)", "work.get(timeout=2)", "done.wait(RENEW_S)",
        "ray.get(reference, timeout=3)", "ray.wait(references, timeout=1)", "subprocess.run(line, timeout=9)",
        "process.wait(1)", "lock.acquire(timeout=1)", "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "requests.get(address, timeout=60)", "changed.wait_for(lambda: done, 3)",
    ],
)  # fmt: skip
def test_a_bound_is_seen(source):
    assert [is_bounded for _, is_bounded in _waits(ast.parse(source))] == [True]


@pytest.mark.parametrize(
    "source", ["', '.join(words)", "storage.join(root, name)", "values.get(name)", "images.put(x)", "setup.fit(task)"]
)
def test_what_is_no_wait_passes(source):
    assert not list(_waits(ast.parse(source)))


@pytest.mark.parametrize(
    ("source", "num_found"),
    [
        ("while not is_done():\n    time.sleep(1)", 1),
        ("while time.monotonic() < end:\n    time.sleep(1)", 0),
        ("for _ in range(3):\n    time.sleep(1)", 0),
        ("while True:\n    if clock() > end:\n        break\n    time.sleep(1)", 0),
    ],
)
def test_a_loop_without_a_clock_is_seen(source, num_found):
    assert len(list(_endless_sleeps(ast.parse(source)))) == num_found

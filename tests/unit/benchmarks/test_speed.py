"""The table of the product beside the plain way."""

import pytest
import torch

from benchmarks import speed
from benchmarks.clock import in_turn


def test_ways_take_turns() -> None:
    done = []
    ways = {name: lambda name=name: done.append(name) or name.upper() for name in "ab"}
    results, seconds = in_turn(ways, 2)
    assert results == {"a": "A", "b": "B"}
    assert done == ["a", "b", "b", "a", "a", "b"]
    assert [len(times) for times in seconds.values()] == [2, 2]


def test_a_line_holds_both_ways_and_compares_them() -> None:
    same = {"ours": lambda: torch.ones(3), "plain": lambda: torch.ones(3)}
    agreement = lambda ours, theirs: speed._difference(ours, theirs, 1e-3)  # noqa: E731
    found = speed.line(speed.Row("walk", "dense", same, agreement), repeats=3)
    assert found.startswith("| walk | dense | ") and found.endswith("| the same numbers |")
    with pytest.raises(SystemExit, match="differ by"):
        speed.line(speed.Row("walk", "dense", {**same, "plain": lambda: torch.ones(3) * 2}, agreement), repeats=1)


def test_a_row_runs(capsys: pytest.CaptureFixture[str]) -> None:
    threads = torch.get_num_threads()
    speed.main(["walk", "--repeats", "1"])
    torch.set_num_threads(threads)
    assert "of the maximum |" in capsys.readouterr().out

"""A minute of changed files, and every one that was read wrong before: a result or one clear error, nothing else."""

import json
from pathlib import Path

import pytest

from tests.fuzz.readers import READERS
from tests.fuzz.trials import Trials

NUM_INPUTS = 12
"""Of each reader; ``python -m tests.fuzz`` tries thousands."""
SEEDS = json.loads(Path(__file__).with_name("seeds.json").read_text())
"""Reader -> seeds that ended in a fault once."""


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_read_or_refused_with_one_clear_error(name: str, tmp_path: Path) -> None:
    trials = Trials(name, tmp_path / "trials")
    found = [trials.run(seed) for seed in (*range(NUM_INPUTS), *SEEDS.get(name, ()))]
    assert not [trial for trial in found if trial.outcome == "fault"]
    assert any(trial.outcome == "refused" for trial in found), "changes that nobody notices would try nothing"


def test_seeds_are_of_known_readers() -> None:
    assert set(SEEDS) <= set(READERS)

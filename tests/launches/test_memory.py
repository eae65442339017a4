"""Memory of a GPU, counted on tensors without values."""

import contextlib
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.launches.memory import INFERENCE, TRAINING, HalfPrecision, Memory, of_training

RECORD = Path(__file__).parents[2] / "benchmarks" / "gpu_memory.json"


def test_bytes_count_once_from_the_first_name_to_the_last() -> None:
    with Memory() as memory:
        first = torch.empty(1000, device="meta")
        view = first[10:]
        assert memory.now == 4000
        second = torch.empty(500, dtype=torch.bfloat16, device="meta")
        assert memory.now == memory.most == 5000
        del first, second
        assert memory.now == 4000
        del view
    assert memory.now == 0 and memory.most == 5000


def test_what_backward_needs_is_kept_and_in_half_precision_under_the_autocast() -> None:
    layer = nn.Linear(100, 50, device="meta")
    found = []
    for autocast in (contextlib.nullcontext(), HalfPrecision()):
        images = torch.empty(10, 100, device="meta", requires_grad=True)
        with Memory() as memory:
            memory.note([images, *layer.parameters()])
            before = memory.now
            with autocast:
                out = layer(images)
            del autocast
            found.append(memory.now - before)
            del out
    # In half precision also the casts of images, weights and bias.
    assert found == [4 * 10 * 50, 2 * (10 * 100 + 100 * 50 + 50 + 10 * 50)]


@pytest.mark.parametrize(("name", "batch"), [("semples_prompt_step", 128), ("classifier_step", 16)])
def test_the_record_is_what_is_counted(name: str, batch: int) -> None:
    recorded = json.loads(RECORD.read_text())[name][str(batch)]
    assert of_training(name, batch) / 2**30 == pytest.approx(recorded, abs=0.06)


def test_the_record_has_all_and_agrees_with_a_gpu_where_one_was_measured() -> None:
    recorded = json.loads(RECORD.read_text())
    assert {name: set(each) for name, each in recorded.items() if name in TRAINING} == {
        name: {str(batch) for batch in batches} for name, batches in TRAINING.items()
    }
    assert set(INFERENCE) <= set(recorded)
    # A prototype of the same step, and of the same CAMs, on one H200 (docs/results/speed.md).
    assert recorded["ritc_step"]["8"] == pytest.approx(8.0, rel=0.1)
    assert recorded["cams"]["16"] == pytest.approx(2.3, rel=0.1)

"""Damage between two calls, a handful of what ``make chaos`` does: the same command makes good what it did."""

from typing import Any

import pytest

from tests.cluster.small_run import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]

SEEDS: dict[str, Any] = {
    **SMALL,
    "systems": ["baseline"],
    "data.num_images": 12,
    "data.limit": 12,
    "tracking.enabled": True,
}
"""A classifier, its CAMs, their scores and the report."""
DAMAGES = (
    ("run/cams/baseline/part-N.parquet", "cut short"),
    ("run/cams/baseline/meta.json", "one bit flipped"),
    ("run/classifier/network.safetensors", "missing"),
    ("run/classifier/files.json", "filled with zeros"),
    ("run/evaluations/baseline/scores.json", "one bit flipped"),
    ("run/tracking.json", "emptied"),
    ("run/report/report.json", "one bit flipped"),
    ("run/config.json", "missing"),
)
"""Kind of file, and way. What a network's damage leads to is what everything else is made from."""


def test_what_is_damaged_between_two_calls_is_made_again(shared_ray, tmp_path):
    # Not at the top: jaxtyping checks what is imported after it.
    from tests.chaos.sweep import FINISHED, Sweep

    sweep = Sweep(tmp_path, SEEDS)
    found = [sweep.fault(FINISHED, kind, way, seed) for seed, (kind, way) in enumerate(DAMAGES)]
    assert [outcome.ending for outcome in found] == ["repaired"] * len(DAMAGES), "\n".join(map(str, found))

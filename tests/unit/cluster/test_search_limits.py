"""What Ray Tune is told of the trials that may be at work; tests/cluster/test_search.py counts them. Starts no Ray."""

import pytest
from ray.tune.search import BasicVariantGenerator

from qaclims_ray.cluster.search import SearchPlan, _algorithm, _share_of


def _plan(at_once: int) -> SearchPlan:
    return SearchPlan(
        name="search", folder="", space=(), start=None, trials=9, at_once=at_once, epochs=1, algorithm="random", seed=0,
        scheduler="none", grace_epochs=1, reduction_factor=2, tracker=None,
    )  # fmt: skip


def test_tunes_own_generator_is_told_the_limit_itself():
    found = _algorithm(_plan(3))
    assert isinstance(found, BasicVariantGenerator) and found.max_concurrent == 3


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 7, 16, 48, 99])
def test_so_many_shares_fit_into_one_and_no_more(at_once: int):
    units = round(_share_of(at_once) * 10_000)
    assert units == pytest.approx(_share_of(at_once) * 10_000), "Ray counts in units of 1/10,000"
    assert at_once * units <= 10_000 < (at_once + 1) * units

import threading

import pytest

from qaclims_ray.data import slices
from qaclims_ray.data.slices import each_in_threads, in_slices, in_threads


@pytest.mark.parametrize(("number", "lengths"), [(0, []), (3, [3]), (7, [3, 3, 1])])
def test_slices_hold_all_items_in_order(number: int, lengths: list[int]) -> None:
    found = list(in_slices(iter(range(number)), 3))
    assert [len(some) for some in found] == lengths
    assert [item for some in found for item in some] == list(range(number))


def test_threads_keep_the_order_over_many_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_WAITING", 7)
    assert in_threads(lambda number: number * 2, range(50)) == list(range(0, 100, 2))


def test_no_more_calls_wait_than_fit_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "_WAITING", 4)
    taken: list[int] = []
    with each_in_threads(lambda number: number, (taken.append(number) or number for number in range(100))) as results:
        assert taken == []
        assert next(results) == 0 and len(taken) == 4


def test_what_has_not_begun_when_the_context_ends_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "NUM_THREADS", 1)
    begun, goes_on = [], threading.Event()

    def wait(number: int) -> int:
        begun.append(number)
        assert number == 0 or goes_on.wait(60)
        return number

    with pytest.raises(KeyError), each_in_threads(wait, range(50)) as results:
        assert next(results) == 0
        threading.Timer(0.2, goes_on.set).start()
        raise KeyError
    assert begun in ([0], [0, 1])

import copy
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaclims_ray.models import graphs
from qaclims_ray.models.graphs import Captured, CapturedModule
from tests.unit.models.cpu_recorder import CpuRecorder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def recorded_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(graphs.RECORDERS, "cpu", CpuRecorder)


class Counted:
    """A function that knows how often Python ran it."""

    def __init__(self, function: Any) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        self.calls += 1
        return self.function(*arguments, **options)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))


def train(module: nn.Module, wrapped: Any, steps: int = 5, parts: int = 1) -> list[Tensor]:
    """Return the losses of some steps on batches of their own."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        for _ in range(parts):
            loss = wrapped(torch.randn(4, 3, 8, 8, generator=generator)).square().mean()
            loss.backward()
            losses.append(loss.detach())
        optimizer.step()
    return losses


@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_is_that_of_the_plain_way(parts: int) -> None:
    plain, recorded = network(), network()
    wrapped = CapturedModule(recorded)
    expected, found = train(plain, plain, parts=parts), train(recorded, wrapped, parts=parts)
    assert wrapped._captured._recordings, "nothing was recorded"
    assert torch.equal(torch.stack(found), torch.stack(expected))
    for name, value in plain.state_dict().items():  # statistics of the batch norm, too
        assert torch.equal(recorded.state_dict()[name], value), name


def test_a_replay_runs_no_python() -> None:
    function = Counted(torch.sin)
    captured = Captured(function, "it")
    for _ in range(2):
        captured(torch.zeros(3))
    calls = function.calls
    values = torch.arange(3.0)
    assert torch.equal(captured(values), values.sin())
    assert function.calls == calls


def test_results_outlive_the_next_replay() -> None:
    captured = Captured(torch.sin, "it")
    found = [captured(torch.full((2,), float(i))) for i in range(5)]
    assert torch.equal(torch.stack(found)[:, 0], torch.arange(5.0).sin())


def test_gradients_reach_arguments_and_outlive_the_next_replay() -> None:
    captured = Captured(lambda values, factor: (values * factor, values.sum()), "it")
    inputs = [torch.full((2,), float(i), requires_grad=True) for i in range(4)]
    for values in inputs:
        product, total = captured(values, torch.tensor([2.0, 3.0]))
        (product.sum() + 10 * total).backward()
    for values in inputs:
        assert values.grad is not None and values.grad.tolist() == [12, 13]


def test_a_second_pass_before_the_first_went_backward_runs_the_plain_way() -> None:
    module = network()
    wrapped, plain = CapturedModule(module), copy.deepcopy(module)
    images = torch.randn(2, 4, 3, 8, 8)
    for _ in range(2):
        wrapped(images[0]).sum().backward()
        plain(images[0]).sum().backward()
    for each in (module, plain):
        each.zero_grad()
    (wrapped(images[0]).square().sum() + wrapped(images[1]).square().sum()).backward()
    (plain(images[0]).square().sum() + plain(images[1]).square().sum()).backward()
    for found, expected in zip(module.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_a_pass_that_is_given_up_does_not_stop_recordings() -> None:
    function = Counted(lambda values: values.sin())
    captured = Captured(function, "it")
    values = torch.ones(3, requires_grad=True)
    for _ in range(3):
        captured(values)  # no backward
    calls = function.calls
    captured(values)
    assert function.calls == calls


def test_going_backward_twice_is_refused() -> None:
    captured = Captured(torch.sin, "it")
    values = torch.ones(3, requires_grad=True)
    for _ in range(2):
        captured(values).sum().backward()
    loss = captured(values).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="backward already"):
        loss.backward()


def test_each_shape_mode_and_option_has_a_recording_of_its_own() -> None:
    def function(values: Tensor, power: float, *, negative: bool = False) -> Tensor:
        return -(values**power) if negative else values**power

    captured = Captured(function, "it")
    values = torch.arange(4.0)
    for _ in range(3):
        assert torch.equal(captured(values, 2.0), values**2)
        assert torch.equal(captured(values, 3.0), values**3)
        assert torch.equal(captured(values, 2.0, negative=True), -(values**2))
        assert torch.equal(captured(values[:2], 2.0), values[:2] ** 2)
        with torch.inference_mode():
            assert captured(values, 2.0).is_inference()
    assert len(captured._recordings) == 5


def test_evaluation_is_not_training() -> None:
    module = network()
    wrapped, plain = CapturedModule(module), copy.deepcopy(module)
    images = torch.randn(4, 3, 8, 8)
    for is_training in (True, False) * 3:
        with torch.no_grad():
            assert torch.equal(wrapped.train(is_training)(images), plain.train(is_training)(images))
    assert len(wrapped._captured._recordings) == 2


def test_rare_shapes_run_the_plain_way() -> None:
    captured = Captured(torch.sin, "it", most_shapes=2)
    for _ in range(3):
        for length in (1, 2, 3):
            assert captured(torch.ones(length)).shape == (length,)
    assert len(captured._recordings) == 2


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda values: values * float(values.max()), "not permitted when stream is capturing"),
        (lambda values: [values, "a word"], "expected tensors"),
    ],
)
def test_what_cannot_be_recorded_runs_the_plain_way_with_one_remark(
    function: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    captured, values = Captured(function, "the walk"), torch.arange(3.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            found, expected = captured(values), function(values)
            assert found[0] is values or torch.equal(found, expected)
    [remark] = caplog.messages
    assert remark.startswith("the walk goes on without CUDA graphs") and reason in remark


def test_a_recording_that_took_a_row_for_a_constant_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    def function(values: Tensor) -> Tensor:
        return values * torch.tensor(values[0].numpy().tolist())

    captured, values = Captured(function, "it"), torch.arange(1.0, 7).view(3, 2)
    for _ in range(4):
        assert torch.equal(captured(values), function(values))
    assert "would differ" in caplog.text


def test_random_numbers_go_on_as_without_recordings() -> None:
    def draws(called: Any) -> list[Tensor]:
        torch.manual_seed(3)
        return [called(torch.ones(50)) for _ in range(5)]

    expected = draws(lambda values: F.dropout(values))
    captured = Captured(lambda values: F.dropout(values), "it")
    assert torch.equal(torch.stack(draws(captured)), torch.stack(expected))
    assert captured._recordings


def test_autocast_is_recorded_and_weights_may_change() -> None:
    module = network()
    wrapped, plain = CapturedModule(module), copy.deepcopy(module)
    images = torch.randn(4, 3, 8, 8)
    for step in range(4):
        for each in (module, plain):
            with torch.no_grad():
                for parameter in each.parameters():
                    parameter += 0.1 * step
        with torch.autocast("cpu", torch.bfloat16):
            found, expected = wrapped(images), plain(images)
        assert found.dtype == torch.bfloat16 and torch.equal(found, expected)
        found.float().sum().backward()
        expected.float().sum().backward()
    for one, other in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)  # type: ignore[arg-type]
    assert wrapped._captured._recordings


def test_one_variable_switches_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(graphs.SWITCH, "0")
    function = Counted(torch.sin)
    captured = Captured(function, "it")
    for _ in range(4):
        captured(torch.ones(2))
    assert function.calls == 4 and not graphs.are_used(CPU)


def test_nothing_is_recorded_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(graphs.RECORDERS, "cpu")
    assert not graphs.are_used(CPU) and graphs.are_used(torch.device("cuda"))
    function = Counted(torch.sin)
    captured = Captured(function, "it")
    for _ in range(4):
        captured(torch.ones(2))
    assert function.calls == 4


def test_rows_fill_up_buckets() -> None:
    assert [graphs.bucket(number) for number in (0, 1, 4, 5, 20, 63)] == [0, 4, 4, 8, 20, 64]
    assert [graphs.bucket(number) for number in (64, 65, 129, 1000)] == [64, 72, 144, 1024]

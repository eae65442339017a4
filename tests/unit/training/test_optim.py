import math

import pytest
import torch
from torch import nn

from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.optim import build_optimizer, learning_rate_factor, set_learning_rate


def test_poly_follows_the_released_schedule_and_stays_at_its_last_value() -> None:
    optim = OptimConfig(schedule="poly", poly_power=0.9)
    factors = [learning_rate_factor(step, 10, optim) for step in range(12)]
    assert factors[:10] == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)])
    assert factors[10] == factors[11] == factors[9] > 0


def test_cosine_constant_and_warm_up() -> None:
    cosine = OptimConfig(schedule="cosine")
    assert learning_rate_factor(5, 10, cosine) == pytest.approx(0.5)
    assert learning_rate_factor(2, 10, cosine) == pytest.approx((1 + math.cos(math.pi * 0.2)) / 2)
    warm = OptimConfig(schedule="constant", warmup_steps=4)
    assert [learning_rate_factor(step, 10, warm) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["poly", "cosine"])
def test_a_rate_may_move_every_so_many_steps_only(schedule) -> None:
    """Row D1: DeepLab's poly moves every 10 steps, to what it would be there when moving at each."""
    each = OptimConfig(schedule=schedule)
    tenth = OptimConfig(schedule=schedule, schedule_every=10)
    factors = [learning_rate_factor(step, 35, tenth) for step in range(40)]
    assert factors == [learning_rate_factor(min(step // 10 * 10, 30), 35, each) for step in range(40)]
    assert len(set(factors)) == 4 and factors[0] == 1.0


def test_a_warm_up_moves_at_every_step_whatever_the_schedule_does() -> None:
    warm = OptimConfig(schedule="poly", poly_power=1.0, schedule_every=4, warmup_steps=3)
    found = [learning_rate_factor(step, 8, warm) for step in range(6)]
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, 1.0, 0.5, 0.5])


def test_head_learns_faster_and_frozen_parameters_stay_out() -> None:
    backbone, head = nn.Linear(2, 2), nn.Linear(2, 1)
    backbone.bias.requires_grad_(False)
    optimizer = build_optimizer([(backbone.parameters(), 1.0), (head.parameters(), 10.0)], OptimConfig(lr=0.1))
    set_learning_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.5])
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 2]
    set_learning_rate(optimizer, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_update_is_the_formula(momentum) -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    optim = OptimConfig(lr=0.1, momentum=momentum, weight_decay=0.01)
    optimizer = build_optimizer([([weight], 1.0)], optim)
    expected, velocity = 1.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        (weight * 2).sum().backward()
        optimizer.step()
        velocity = momentum * velocity + 2 + 0.01 * expected
        expected -= 0.1 * velocity
    assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_adamw_is_chosen_by_name() -> None:
    optimizer = build_optimizer([([nn.Parameter(torch.ones(1))], 1.0)], OptimConfig(name="adamw", weight_decay=0.3))
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.param_groups[0]["weight_decay"] == 0.3

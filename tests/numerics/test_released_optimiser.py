"""SGD against a loop over numbers that does what the released optimiser really does (row R14), to the last digit.

Its constructor hands the weight decay on in the place of momentum, and the groups bring their own weight decay: so both
are 1e-4. What it calls momentum, 0.9, is the power of the schedule, which moves before every step.
"""

import pytest
import torch
from torch import Tensor, nn

from qaclims_ray.training.config import OptimConfig
from qaclims_ray.training.optim import build_optimizer, learning_rate_factor, set_learning_rate

STEPS = 7
WEIGHT_DECAY = 1e-4


def gradients() -> list[list[float]]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(STEPS + 2, 4, dtype=torch.float64, generator=generator).tolist()


def released(start: list[float], rate: float, weight_decay: float) -> list[float]:
    """The released update, number by number; two steps go beyond the schedule, where the rate stays at its last."""
    momentum, power = weight_decay, 0.9
    weights, velocities, rate_now = list(start), [0.0] * len(start), rate
    for step, gradient in enumerate(gradients()):
        if step < STEPS:
            rate_now = rate * (1 - step / STEPS) ** power
        for i, own in enumerate(gradient):
            velocities[i] = momentum * velocities[i] + (own + weight_decay * weights[i])
            weights[i] -= rate_now * velocities[i]
    return weights


def ours(start: list[float], optim: OptimConfig) -> Tensor:
    parameter = nn.Parameter(torch.tensor(start, dtype=torch.float64))
    optimizer = build_optimizer([([parameter], 1.0)], optim)
    for step, gradient in enumerate(gradients()):
        set_learning_rate(optimizer, learning_rate_factor(step, STEPS, optim))
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
    return parameter.detach()


START = [0.5, -1.25, 3.0, 0.01]


@pytest.mark.parametrize("rate", [0.1, 3.5e-4, 2.5e-4])
def test_the_defaults_are_the_released_optimiser(rate) -> None:
    expected = torch.tensor(released(START, rate, WEIGHT_DECAY), dtype=torch.float64)
    found = ours(START, OptimConfig(lr=rate))
    torch.testing.assert_close(found, expected, rtol=2e-15, atol=0)  # machines may fuse a step
    # What was believed before is visibly another update, and so is what the name of the argument says.
    for momentum in (0.0, 0.9):
        other = ours(START, OptimConfig(lr=rate, momentum=momentum))
        assert (other - expected).abs().max() > 1e-5 * rate


def test_without_momentum_parameters_are_off_by_about_1e_4_at_the_classifier_s_rate() -> None:
    expected = torch.tensor(released(START, 0.1, WEIGHT_DECAY), dtype=torch.float64)
    off = (ours(START, OptimConfig(lr=0.1, momentum=0.0)) - expected).abs().max().item()
    assert 1e-5 < off < 1e-3

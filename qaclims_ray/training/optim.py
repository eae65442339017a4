"""Optimisers and learning rate schedules (rows R14, R15).

The released code's SGD passes weight decay in the place of momentum, so its momentum is in truth none; what it
calls momentum is the power of the poly schedule. Here every number carries its own name.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim import Optimizer

from qaclims_ray.config import OptimConfig


def learning_rate_factor(step: int, total_steps: int, optim: OptimConfig) -> float:
    """Return the share of the base learning rate that a step uses.

    Args:
        step: steps done so far, from 0; at the end and beyond, the last step's factor stays.
        total_steps: steps of the whole training.
        optim: schedule, its power and the warm-up.
    """
    step = min(step, total_steps - 1)
    progress = step / total_steps
    match optim.schedule:
        case "poly":
            factor = (1 - progress) ** optim.poly_power
        case "cosine":
            factor = (1 + math.cos(math.pi * progress)) / 2
        case "constant":
            factor = 1.0
    return factor * min(1.0, (step + 1) / optim.warmup_steps) if optim.warmup_steps else factor


def build_optimizer(backbone: Iterable[nn.Parameter], head: Iterable[nn.Parameter], optim: OptimConfig) -> Optimizer:
    """Make the optimiser, the head learning at a multiple of the base rate; frozen parameters are left out.

    Each group remembers its rate at the start as ``initial_lr``.
    """
    rates = ((backbone, optim.lr), (head, optim.lr * optim.head_lr_factor))
    groups = [
        {"params": [parameter for parameter in parameters if parameter.requires_grad], "lr": rate, "initial_lr": rate}
        for parameters, rate in rates
    ]
    if optim.name == "adamw":
        return torch.optim.AdamW(groups, weight_decay=optim.weight_decay)
    return torch.optim.SGD(groups, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay)


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group to a share of its rate at the start."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor

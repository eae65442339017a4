"""Optimisers and learning rate schedules (rows R14, R15).

The released code's SGD is given the weight decay in the place of momentum, so its momentum is in truth 1e-4; what it
calls momentum is the power of the poly schedule. Here every number carries its own name.
"""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from qaclims_ray.training.config import OptimConfig


def learning_rate_factor(step: int, total_steps: int, optim: OptimConfig) -> float:
    """Return the share of the base learning rate that a step uses.

    Args:
        step: steps done so far, from 0; at the end and beyond, the last step's factor stays.
        total_steps: steps of the whole training.
        optim: schedule, its power, how often it moves, and the warm-up.
    """
    step = min(step, total_steps - 1)
    # In stairs of `schedule_every`: deeplab-pytorch moves its rate every 10 steps (D1).
    progress = step // optim.schedule_every * optim.schedule_every / total_steps
    match optim.schedule:
        case "poly":
            factor = (1 - progress) ** optim.poly_power
        case "cosine":
            factor = (1 + math.cos(math.pi * progress)) / 2
        case "constant":
            factor = 1.0
    return factor * min(1.0, (step + 1) / optim.warmup_steps) if optim.warmup_steps else factor


def build_optimizer(groups: Sequence[tuple[Iterable[nn.Parameter], float]], optim: OptimConfig) -> Optimizer:
    """Make the optimiser; frozen parameters are left out.

    Each group remembers its rate at the start as ``initial_lr``.

    Args:
        groups: parameters, and what multiple of the base rate they learn at.
        optim: kind, rate, momentum, weight decay.
    """
    rated = [
        {
            "params": [parameter for parameter in parameters if parameter.requires_grad],
            "lr": optim.lr * factor,
            "initial_lr": optim.lr * factor,
        }
        for parameters, factor in groups
    ]
    # On a GPU one launch updates all parameters; on a CPU it would round otherwise than recorded figures.
    is_on_gpu = all(parameter.device.type == "cuda" for group in rated for parameter in group["params"])
    fused = True if is_on_gpu else None
    # AdamW's decay is decoupled from the gradient, SGD's is part of it: the same number means another strength.
    if optim.name == "adamw":
        return torch.optim.AdamW(rated, weight_decay=optim.weight_decay, fused=fused)
    return torch.optim.SGD(rated, lr=optim.lr, momentum=optim.momentum, weight_decay=optim.weight_decay, fused=fused)


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group to a share of its rate at the start."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * factor

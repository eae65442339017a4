"""What every training says when its network breaks in the middle."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from qaclims_ray.training import loop
from qaclims_ray.training.divergence import DivergedError


def error_of(monkeypatch: pytest.MonkeyPatch, train: Callable[[], object]) -> DivergedError:
    """Return what a training says whose network becomes NaN with its first update; it has two steps an epoch or more.

    The images that it names must be those of the second step, and beside them it must know those of the first.
    """
    steps: list[list[int]] = []
    take, update = loop._take_step, loop._update

    def watched(task: Any, wrapped: nn.Module, batch: Any, *others: Any) -> Any:
        steps.append(batch["index"].tolist())
        return take(task, wrapped, batch, *others)

    def poisoned(result: Any, network: nn.Module, *others: Any) -> None:
        update(result, network, *others)
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(torch.nan)

    monkeypatch.setattr(loop, "_take_step", watched)
    monkeypatch.setattr(loop, "_update", poisoned)
    with pytest.raises(DivergedError, match=r"the loss became (nan|-?inf) in epoch 1, at step 2.*optim\.lr") as caught:
        train()
    batch = caught.value.batch
    assert (batch["epoch"], batch["step"]) == (1, 2)
    for name, seen in zip(("images_one_step_before", "images"), steps, strict=False):
        named = [str(index) for index in dict.fromkeys(seen)]
        assert named and [name.removeprefix("picture ") for name in batch[name]] == named
    assert all(image in str(caught.value) for image in batch["images"][:8])
    return caught.value

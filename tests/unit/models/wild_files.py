"""A weights file as it comes out of somebody's training: wrapped, prefixed, in half precision, with settings beside."""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


def write_wild(path: Path, weights: dict[str, Tensor], *, prefix: str = "module._orig_mod.") -> Path:
    """Write the weights so; the counters of batch norm are left out, as in old files."""
    stored = {
        prefix + name: value.half() if value.is_floating_point() else value
        for name, value in weights.items()
        if not name.endswith("num_batches_tracked")
    }
    beside = {"args": argparse.Namespace(lr=1), "loss": np.float64(1.0), "epoch": torch.tensor(3)}
    torch.save({"state_dict": stored, **beside}, path)
    return path


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Check that one holds what was written of the other."""
    for name, value in expected.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name].float(), value.float(), rtol=1e-2, atol=1e-3)

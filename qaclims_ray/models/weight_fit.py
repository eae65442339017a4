"""Putting weights into a network: the prefix that makes them fit, every mismatch in one form, no broken number."""

from collections import Counter
from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from qaclims_ray.errors import ModelError

_PLAIN_PARTS = {"module", "model", "net", "network", "backbone", "encoder", "clip", "clip_model", "state_dict"}
"""Names of a whole network or its trunk; preferred to others, such as an average's, under which weights lie too."""
_COUNTER = "num_batches_tracked"
_SHOWN = 8


def put_weights(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    source: str,
    left_out: Collection[str] = (),
    advice: str = "Check that model and weights belong together.",
) -> None:
    """Put weights into a network; every name and every shape must fit.

    Where the names fit behind one prefix (``backbone.``, a training framework's ``model.``), what lies behind it is
    taken. Numbers are brought to the network's own precision. Old files lack batch norm's counter, which is read
    only where its momentum is None; it may be missing.

    Args:
        network: receives them; unchanged when they do not fit.
        weights: names and tensors.
        source: where they are from, for messages.
        left_out: modules of which the file may hold weights that the network has no place for (classifier heads).
        advice: what to do when they do not fit.

    Raises:
        ModelError: lists what is missing, left over, of another shape or kind, or not a finite number.
    """
    own = network.state_dict()
    found = behind_prefix(weights, [name for name in own if not name.endswith(_COUNTER)], source=source)
    unknown = [name for name in found if name not in own and name.rpartition(".")[0] not in left_out]
    missing = [name for name in own if name not in found and not name.endswith(_COUNTER)]
    fitting = {name: value for name, value in found.items() if name in own}
    reshaped = [
        f"{name} {tuple(value.shape)} instead of {tuple(own[name].shape)}"
        for name, value in fitting.items()
        if value.shape != own[name].shape
    ]
    other_kind = [text for name, value in fitting.items() if (text := _other_kind(name, value, own[name]))]
    if missing or unknown or reshaped or other_kind:
        raise ModelError(
            f"{source} does not fit the network. Missing in the file: {_shown(missing)}. "
            f"Unknown to the network: {_shown(unknown)}. Other shape: {_shown(reshaped)}. "
            + (f"Other kind of numbers: {_shown(other_kind)}. " if other_kind else "")
            + advice
        )
    converted = {name: value.to(own[name].dtype) for name, value in fitting.items()}
    require_finite({name: value for name, value in converted.items() if _is_finite(own[name])}, source=source)
    network.load_state_dict(own | converted)


def behind_prefix(weights: Mapping[str, Tensor], names: Collection[str], *, source: str) -> dict[str, Tensor]:
    """Return the weights behind the prefix under which all names are found, or else most of them.

    Args:
        weights: names and tensors.
        names: what must be found.
        source: where they are from, for messages.

    Raises:
        ModelError: when several networks of these names lie in the file.
    """
    wanted, counts = set(names), Counter[str]()
    for name in weights:
        parts = name.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in wanted:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    whole = [prefix for prefix, count in counts.items() if count == len(wanted)]
    if not counts or "" in whole:
        return dict(weights)
    plain = [prefix for prefix in whole if set(prefix.split(".")[:-1]) <= _PLAIN_PARTS]
    chosen = plain if len(plain) == 1 else whole
    if len(chosen) > 1:
        raise ModelError(
            f"{source} holds several networks of this kind, under the names {_shown([f'{p}*' for p in chosen])}. "
            "Store the one you mean alone, without these prefixes"
        )
    # Where none fits whole, messages are about the one that fits for the most part, or the names as they stand.
    prefix = chosen[0] if chosen else next((each for each, count in counts.items() if 2 * count > len(wanted)), "")
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def require_finite(weights: Mapping[str, Tensor], *, source: str) -> None:
    """Refuse tensors that hold NaN or infinity.

    Args:
        weights: names and tensors.
        source: where they are from, for the message.

    Raises:
        ModelError: names the tensors.
    """
    broken = [
        f"{name} ({int((~torch.isfinite(value)).sum())} of {value.numel()})"
        for name, value in weights.items()
        if not _is_finite(value)
    ]
    if broken:
        raise ModelError(
            f"{source} holds NaN or infinite numbers in {_shown(broken)}. The file is damaged or its training "
            "diverged: copy it again, or take another"
        )


def _is_finite(value: Tensor) -> bool:
    return value.is_meta or not value.is_floating_point() or bool(torch.isfinite(_readable(value)).all())


def _readable(value: Tensor) -> Tensor:
    return value.float() if value.element_size() == 1 else value


def _other_kind(name: str, value: Tensor, own: Tensor) -> str | None:
    """Say in words why the numbers of a tensor cannot stand for the network's, or return None."""
    if value.is_meta:
        return f"{name} has a shape but no numbers"
    if value.is_quantized or value.layout != torch.strided:
        return f"{name} is {'quantised' if value.is_quantized else value.layout}"
    if own.is_floating_point() == value.is_floating_point() and not value.is_complex():
        return None
    # A count that was saved in another precision is still one.
    if value.is_floating_point() and _is_finite(value) and torch.equal(value, value.round()):
        return None
    return f"{name} {str(value.dtype).removeprefix('torch.')} instead of {str(own.dtype).removeprefix('torch.')}"


def _shown(items: list[str]) -> str:
    if not items:
        return "none"
    return ", ".join(items[:_SHOWN]) + (f", ... ({len(items)} in all)" if len(items) > _SHOWN else "")

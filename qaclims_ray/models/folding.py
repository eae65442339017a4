"""Networks that only infer, as they are fastest: batch norm folded into convolutions, channels last."""

import copy
import functools
import logging
from collections import defaultdict
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils._pytree import tree_leaves

logger = logging.getLogger(__name__)
_Network = TypeVar("_Network", bound=nn.Module)

_PROBE_PX = 64
_TOLERANCE = 1e-3
"""Share of a response's largest magnitude that folding may move it by: float32 stays three orders below."""


def for_inference(network: _Network, device: torch.device) -> _Network:
    """Bring a network that will not be trained any more to a device, in evaluation mode.

    Its batch norms are folded and its convolutions laid out with channels last: on a CPU too, where photographs go
    through a mobile network in little more than half of the time (benchmarks/cpu_layout.py).

    Args:
        network: on the CPU.
        device: where it will infer.
    """
    return without_batch_norm(network.eval()).to(device).to(memory_format=torch.channels_last)


@torch.no_grad()
def without_batch_norm(network: _Network) -> _Network:
    """Return a network that responds alike, in which convolutions do what the batch norms after them did.

    A batch norm is folded when all that it ever sees is one convolution's output, as a small image shows on its way
    through the network. One whose response would change, because something else reads that output too, is returned as
    it is, with a remark.

    Args:
        network: in evaluation mode, on the CPU, called with images (batch, 3, height, width).
    """
    if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):
        return network
    image = torch.rand(1, 3, _PROBE_PX, _PROBE_PX, generator=torch.Generator().manual_seed(0))
    found = copy.deepcopy(network)
    for norm_name, conv_name in _pairs(found, image).items():
        conv, norm = found.get_submodule(conv_name), found.get_submodule(norm_name)
        assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
        found.set_submodule(conv_name, fuse_conv_bn_eval(conv, norm))
        found.set_submodule(norm_name, _without_norm(norm))
    if _respond_alike(network, found, image):
        return found
    logger.warning("%s keeps its batch norms, more slowly: without them it responds otherwise", type(network).__name__)
    return network


def _without_norm(norm: nn.BatchNorm2d) -> nn.Module:
    """Return what is left of a layer: timm's hold an activation too."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    from timm.layers import BatchNormAct2d

    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    rest: list[Any] = [norm.drop, norm.act]
    return nn.Sequential(*rest)


def _pairs(network: nn.Module, image: Float[Tensor, "1 3 height width"]) -> dict[str, str]:
    """Return the batch norms that see nothing but the output of one convolution, which no other sees: name -> its."""
    made: list[tuple[Any, str]] = []
    """Outputs, kept so that no other tensor takes their place in memory."""
    seen: defaultdict[str, set[str]] = defaultdict(set)

    def note(name: str, _: nn.Module, __: Any, output: Any) -> None:
        made.append((output, name))

    def look(name: str, _: nn.Module, inputs: Any) -> None:
        seen[name].add(next((source for output, source in made if output is inputs[0]), ""))

    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(functools.partial(note, name)))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(functools.partial(look, name)))
    network(image)
    for hook in hooks:
        hook.remove()
    readers = [source for sources in seen.values() for source in sources]
    alone = {norm: next(iter(sources)) for norm, sources in seen.items() if len(sources) == 1}
    return {norm: source for norm, source in alone.items() if source and readers.count(source) == 1}


def _respond_alike(network: nn.Module, found: nn.Module, image: Float[Tensor, "1 3 height width"]) -> bool:
    pairs = zip(tree_leaves(network(image)), tree_leaves(found(image)), strict=True)
    return all(float((one - other).abs().max()) <= _TOLERANCE * float(one.abs().max()) for one, other in pairs)

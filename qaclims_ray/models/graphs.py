"""CUDA graphs: a function's launches are recorded once for each shape of its arguments, and replayed in one.

Small operations take longer to launch than to compute. A graph holds the same kernels, forward and backward, so the
numbers are those of the plain way, which is taken on CPUs, for shapes that come once, and where a recording fails.
A replay runs no Python: a recorded function must not read values of tensors nor upload anything but constants. Every
recording is held against the plain way before it is used.

Not ``torch.compile(backend="cudagraphs")``: PyTorch 2.15's copies all parameters at every call, updates the statistics
of batch norms outside of the graph (three launches each), traces every shape for seconds, and fails in a backward pass,
where nobody can go back to the plain way.
"""

import contextlib
import functools
import logging
import os
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

SWITCH = "QACLIMS_CUDA_GRAPHS"
"""Environment variable: 0 lets everything run the plain way."""
MOST_SHAPES = 16
"""Recordings of a function; further shapes run the plain way."""
_TOLERANCE = 0.02
"""Relative difference of results at which a recording is refused; sums in another order stay far below."""
_Result = TypeVar("_Result")


@runtime_checkable
class Recorder(Protocol):
    """Records and replays on a kind of device."""

    def aside(self) -> contextlib.AbstractContextManager[Any]:
        """Return a context for a run before a recording, in which all happens that happens only once."""
        ...

    def record(self, work: Callable[[], _Result]) -> tuple[Callable[[], None], _Result]:
        """Return what replays the work, and the work's result, whose tensors every replay fills anew."""
        ...


class CudaRecorder:
    """CUDA graphs that share their memory, so that only one of them may be under way."""

    def __init__(self) -> None:
        self._pool, self._stream = torch.cuda.graph_pool_handle(), torch.cuda.Stream()

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Run on the stream of the recordings."""
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.synchronize()

    def record(self, work: Callable[[], _Result]) -> tuple[Callable[[], None], _Result]:
        """Record a CUDA graph."""
        graph = torch.cuda.CUDAGraph()
        # The default mode refuses what other threads do meanwhile, such as a loader's that pins memory.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            result = work()
        return graph.replay, result


RECORDERS: dict[str, Callable[[], Recorder]] = {"cuda": CudaRecorder}
"""Kind of device -> makes a recorder; on others nothing is recorded."""


def are_used(device: torch.device) -> bool:
    """Whether functions are recorded on a device."""
    return device.type in RECORDERS and os.environ.get(SWITCH) != "0"


def bucket(number: int) -> int:
    """Return the number of rows to fill up to, so that few shapes occur: of up to 63 a multiple of 4, then of 8, 16."""
    step = max(4, 2 ** (number.bit_length() - 4))
    return -(-number // step) * step


class Captured:
    """A function whose launches are recorded on a GPU.

    It takes tensors and hashable values, and gives a tensor or a tuple of tensors. Gradients flow to the tensors that
    it takes and, of a module, to the parameters; gradients of gradients there are none. Whatever else it reads must
    stay at its place in memory.
    """

    def __init__(self, function: Callable[..., Any], name: str, *, most_shapes: int = MOST_SHAPES) -> None:
        """Take a function.

        Args:
            function: a module, or a function without parameters that learn and without buffers that change.
            name: of the function, for the remark that it cannot be recorded.
            most_shapes: recordings; each holds its arguments, and further shapes run the plain way.
        """
        self.function, self._name, self._most_shapes = function, name, most_shapes
        self._module = function if isinstance(function, nn.Module) else None
        self._parts = () if self._module is None else tuple(self._module.modules())
        self._seen: Counter[Any] = Counter()
        self._recordings: dict[Any, _Recording] = {}
        self._recorder: Recorder | None = None
        self._last: weakref.ref[_Pass] | None = None
        self._has_failed = False

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Return what the function gives."""
        values = [*arguments, *options.values()]
        tensors = [value for value in values if isinstance(value, Tensor)]
        if not tensors or not are_used(tensors[0].device) or self._is_under_way():
            return self.function(*arguments, **options)
        key = self._key(values, tuple(options), tensors[0].device)
        if key not in self._recordings:
            # Not at the first call: a shape may come once, and the first call makes what is made only once.
            self._seen[key] += 1
            may_be = self._seen[key] > 1 and len(self._recordings) < self._most_shapes and not self._has_failed
            if not may_be or not self._record(key, arguments, options, tensors):
                return self.function(*arguments, **options)
        recording = self._recordings[key]
        if not recording.has_backward:
            return recording.result_of(recording.forward(tensors))
        this = _Pass()
        self._last = weakref.ref(this)
        return recording.result_of(_Replay.apply(recording, this, *tensors, *recording.learned))

    def _is_under_way(self) -> bool:
        """Whether a forward pass waits for its backward pass: another replay would overwrite what that reads."""
        last = self._last() if self._last is not None else None
        return last is not None and not last.is_done

    def _key(self, values: list[Any], names: tuple[str, ...], device: torch.device) -> Any:
        shapes = tuple(
            (value.shape, value.stride(), value.dtype, value.requires_grad) if isinstance(value, Tensor) else value
            for value in values
        )
        modes = tuple(part.training for part in self._parts)
        is_cast = torch.is_autocast_enabled(device.type)
        autocast = torch.get_autocast_dtype(device.type) if is_cast else None
        return shapes, names, modes, autocast, torch.is_grad_enabled(), torch.is_inference_mode_enabled()

    def _record(self, key: Any, arguments: tuple[Any, ...], options: dict[str, Any], tensors: list[Tensor]) -> bool:
        """Record a shape and hold it against the plain way; give up, with a remark, where that fails."""

        def of(given: Sequence[Tensor]) -> Any:
            rest = iter(given)
            filled = [next(rest) if isinstance(value, Tensor) else value for value in (*arguments, *options.values())]
            return self.function(*filled[: len(arguments)], **dict(zip(options, filled[len(arguments) :], strict=True)))

        try:
            with _kept(self._module, tensors[0].device), _without_autocast_cache():
                self._recorder = self._recorder or RECORDERS[tensors[0].device.type]()
                recording = _Recording(of, self._module, tensors, self._recorder)
                difference = recording.difference(tensors)
            if difference <= _TOLERANCE:
                self._recordings[key] = recording
                return True
            self._recordings.clear()
            reason = f"its results would differ by {difference:.1g} of their size"
        except Exception as error:  # whatever it is: the plain way remains
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        self._has_failed = True
        logger.warning("%s goes on without CUDA graphs, more slowly: %s", self._name, reason)
        return False


class CapturedModule(nn.Module):
    """A network whose launches are recorded on a GPU."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self._captured = Captured(network, type(network).__name__)

    def forward(self, *arguments: Any, **options: Any) -> Any:
        """Call the network."""
        return self._captured(*arguments, **options)


class _Pass:
    """A forward pass, alive as long as it may go backward."""

    is_done = False


class _Recording:
    """The graphs of one shape, and the tensors that they read and write."""

    def __init__(
        self,
        function: Callable[[Sequence[Tensor]], Any],
        module: nn.Module | None,
        tensors: Sequence[Tensor],
        recorder: Recorder,
    ) -> None:
        self._function, self._module = function, module
        self.learned = [each for each in module.parameters() if each.requires_grad] if module is not None else []
        # Rows in another order: values of its arguments that a recording held fast would show when it is checked.
        self._inputs = [_leaf(tensor.roll(1, 0) if tensor.ndim else tensor, tensor) for tensor in tensors]
        device = tensors[0].device
        with _kept(module, device), recorder.aside():
            outputs = _tensors(function(self._inputs))
            self._gradients_of(outputs, [torch.ones_like(output) for output in outputs], device)
            del outputs
        self._replay_forward, result = recorder.record(lambda: function(self._inputs))
        self._is_tuple = not isinstance(result, Tensor)
        outputs = _tensors(result)
        self._given = [torch.zeros_like(output) for output in outputs]
        self.has_backward = any(output.requires_grad for output in outputs)
        if self.has_backward:
            work = functools.partial(self._gradients_of, outputs, self._given, device)
            self._replay_backward, self._gradients = recorder.record(work)
        # What only backward read is free for the next recording from here on.
        self._outputs = [output.detach() for output in outputs]

    def forward(self, tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Replay the forward pass; the next one does not touch what is returned."""
        with torch.no_grad():
            for own, value in zip(self._inputs, tensors, strict=True):
                own.copy_(value)
            self._replay_forward()
            return tuple(output.clone() for output in self._outputs)

    def backward(self, given: Sequence[Tensor]) -> list[Tensor | None]:
        """Replay the backward pass: from the results' gradients to those of tensors and parameters."""
        for own, value in zip(self._given, given, strict=True):
            own.copy_(value)
        self._replay_backward()
        # Copies, since gradients of several passes may be added up in place.
        kept = [gradient for gradient in self._gradients if gradient is not None]
        copies = [torch.empty_like(gradient) for gradient in kept]
        torch._foreach_copy_(copies, kept)
        rest = iter(copies)
        return [None if gradient is None else next(rest) for gradient in self._gradients]

    def result_of(self, outputs: tuple[Tensor, ...]) -> Any:
        """Return the result as the function gives it."""
        return outputs if self._is_tuple else outputs[0]

    def difference(self, tensors: Sequence[Tensor]) -> float:
        """Return how much results and gradients differ from the plain way's, relative to their size."""
        device, leaves = tensors[0].device, [_leaf(tensor, tensor) for tensor in tensors]
        with _kept(self._module, device):
            outputs = _tensors(self._function(leaves))
            given = [torch.linspace(-1, 1, output.numel(), device=device).view_as(output) for output in outputs]
            expected = [output.detach() for output in outputs], self._gradients_of(outputs, given, device, leaves)
            del outputs
        with _kept(self._module, device):
            found = list(self.forward(tensors)), self.backward(given) if self.has_backward else []
        return max(_difference(one, other) for one, other in zip(found, expected, strict=True))

    def _gradients_of(
        self, outputs: list[Tensor], given: list[Tensor], device: torch.device, inputs: list[Tensor] | None = None
    ) -> list[Tensor | None]:
        """Return the gradients of inputs and parameters; None for those that have none."""
        surface = [*(self._inputs if inputs is None else inputs), *self.learned]
        wanted = [each for each in surface if each.requires_grad]
        pairs = [(output, gradient) for output, gradient in zip(outputs, given, strict=True) if output.requires_grad]
        if not pairs:
            return []
        with torch.autocast(device.type, enabled=False):
            found = torch.autograd.grad(
                [output for output, _ in pairs],
                wanted,
                [gradient.to(output.dtype) for output, gradient in pairs],
                allow_unused=True,
            )
        rest = iter(found)
        return [next(rest) if each.requires_grad else None for each in surface]


class _Replay(torch.autograd.Function):
    """A recording as one operation of autograd."""

    @staticmethod
    def forward(ctx: Any, recording: _Recording, this: _Pass, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.recording, ctx.this = recording, this
        return recording.forward(tensors[: len(tensors) - len(recording.learned)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *given: Tensor) -> Any:  # pyrefly: ignore[bad-override]
        if ctx.this.is_done:
            raise RuntimeError("a recorded pass went backward already, and the next one has taken its memory")
        ctx.this.is_done = True
        return None, None, *ctx.recording.backward(given)


def _leaf(values: Tensor, like: Tensor) -> Tensor:
    """Return a tensor of these values that is laid out like another, and has a gradient where that has one."""
    own = like.detach().clone()
    return own.copy_(values.detach()).requires_grad_(like.requires_grad)


def _tensors(result: Any) -> list[Tensor]:
    found = [result] if isinstance(result, Tensor) else list(result)
    if not all(isinstance(each, Tensor) for each in found):
        raise TypeError(f"it gives {[type(each).__name__ for each in found]}, expected tensors")
    return found


def _difference(found: Sequence[Tensor | None], expected: Sequence[Tensor | None]) -> float:
    # All together: a gradient that is nothing but rounding has no size of its own to be compared with.
    pairs = [(f, e) for f, e in zip(found, expected, strict=True) if f is not None and e is not None]
    far = sum(float((f.double() - e.double()).square().sum()) for f, e in pairs)
    size = sum(float(e.double().square().sum()) for _, e in pairs)
    return (far / max(size, 1e-30)) ** 0.5


@contextlib.contextmanager
def _kept(module: nn.Module | None, device: torch.device) -> Iterator[None]:
    """Give buffers (batch norm statistics) and random numbers back as they were."""
    buffers = [] if module is None else [(buffer, buffer.clone()) for buffer in module.buffers()]
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


@contextlib.contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Cast weights anew at each use: a replay does not fill the cache, and weights change between replays."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)

"""What a training on Ray Train says to the driver while it lasts: positions, epochs, and who controls it."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.util.queue import Empty, Queue

from qaclims_ray import stop
from qaclims_ray.cluster.patience import out_of_patience, patience_s
from qaclims_ray.cluster.ray_deaths import RAY_LOST

OnPosition = Callable[[int, int], None]
"""Receives the position of the training at work and the optimiser steps that it has done."""
OnEpoch = Callable[[Mapping[str, float]], None]
"""Receives the figures of an epoch, its number as `epoch` among them."""
_FAREWELL_S = 30.0
"""Seconds that what is under way has at the end of a training: its abort, and its last news."""

logger = logging.getLogger(__name__)


class Introduction(ControllerCallback):
    """Sends the controller's handle to the driver, which ends it where the training gives no sign of progress."""

    def __init__(self, news: Queue) -> None:
        self._news: Any = news.actor

    def after_controller_start(self, train_run_context: Any) -> None:
        """Send it; runs in the controller."""
        self._news.put_nowait.remote(ray.get_runtime_context().current_actor)


class NewsReader:
    """Hands on what workers say; ends the training when they say nothing for too long."""

    def __init__(self, news: Queue, on_position: OnPosition, on_epoch: OnEpoch) -> None:
        self._news, self._on_position, self._on_epoch = news, on_position, on_epoch
        self._controller: Any = None
        self.is_late = False
        """Whether the training was ended because nothing came."""

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Hand on what workers say for the time of the context, and what is left of it at the end."""
        thread = threading.Thread(target=self._read, daemon=True)
        thread.start()
        try:
            yield
        finally:
            notes: Any = self._news.actor
            with contextlib.suppress(RayError):
                ray.wait([notes.put_nowait.remote(None)], timeout=_FAREWELL_S)
            thread.join(_FAREWELL_S)
            if thread.is_alive():
                logger.warning("what the training's workers said last did not arrive within %.0f s", _FAREWELL_S)

    def _read(self) -> None:
        """Read until there is a None, or nothing for longer than `patience.patience_s`."""
        with contextlib.suppress(RayError):  # the training ends with the same error, and says it
            while (item := self._next()) is not None:
                if isinstance(item, ActorHandle):
                    self._controller = item
                elif isinstance(item, tuple):
                    self._on_position(*item)
                else:
                    self._on_epoch(item)

    def _next(self) -> Any:
        try:
            return self._news.get(timeout=patience_s())
        except Empty:
            self.is_late = True
            self._end_training()
            return None

    def _end_training(self) -> None:
        """Have the controller free what it holds, and end it, upon which the wait for it fails."""
        if self._controller is None:  # Ray has not even started it
            late = out_of_patience("the start of a training")
            if not stop.end(
                f"ResourceError: {late}", RAY_LOST
            ):  # called from Python, where a thread cannot end the wait
                logger.error("%s", late)
            return
        ray.wait([self._controller.abort.remote()], timeout=_FAREWELL_S)
        ray.kill(self._controller)

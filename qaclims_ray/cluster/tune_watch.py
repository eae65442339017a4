"""What a search leaves in MLflow: trials below the search's run, with what was searched as parameters."""

from typing import Any

from ray import tune

from qaclims_ray.stages.tune_trial import EPOCH, OBJECTIVE, trial_name
from qaclims_ray.tracking.mlflow_tracker import attach
from qaclims_ray.tracking.tracker import Tracker, TrackerHandle


class TrialLog(tune.Callback):
    """Logs trials from the driver; Ray Tune pickles it with its state, so it opens its tracker when it is needed.

    Args:
        handle: of the search's run; None logs nothing.
        epochs: rated epochs of a whole trial.
    """

    def __init__(self, handle: TrackerHandle | None, epochs: int) -> None:
        self._handle, self._epochs = handle, epochs
        self._parent: Tracker | None = None
        self._children: dict[str, Tracker] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {"_handle": self._handle, "_epochs": self._epochs, "_parent": None, "_children": {}}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Log an epoch."""
        self._child(trial).log_metrics({f"tune/{OBJECTIVE}": float(result[OBJECTIVE])}, step=int(result[EPOCH]))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say how the trial ended."""
        done = int((trial.last_result or {}).get(EPOCH, 0))
        child = self._child(trial)
        child.log_metrics({f"tune/{EPOCH}s": float(done)})
        child.set_tags({"trial": "complete" if done == self._epochs else "stopped early"})
        child.finish("FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Say that the trial failed."""
        self._child(trial).finish("FAILED")

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        """Send what is waiting."""
        if self._parent is not None:
            self._parent.close()

    def _child(self, trial: Any) -> Tracker:
        if self._parent is None:
            self._parent = attach(self._handle)
        if trial.trial_id not in self._children:
            child = self._parent.child(trial_name(trial.trial_id))
            child.log_params(trial.config)
            self._children[trial.trial_id] = child
        return self._children[trial.trial_id]

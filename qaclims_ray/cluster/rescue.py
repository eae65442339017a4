"""Checkpoints that Ray does not find by itself.

Ray keeps the list of a run's checkpoints in one file of its folder, which it writes anew at every checkpoint. On a disk
that is full just then the file stays behind empty; Ray refuses such a run from then on, with whole checkpoints lying
beside it. And a training whose neighbours in its group have changed belongs to a run of another name.
"""

import json
import logging
from collections.abc import Mapping

from qaclims_ray.data import storage
from qaclims_ray.training.checkpoint import epochs_kept
from qaclims_ray.training.group import read_note

SNAPSHOT_NAME = "checkpoint_manager_snapshot.json"
"""Ray 2.60's file; a test fills a disk to see that it is still this one."""

logger = logging.getLogger(__name__)


def rescue(runs_uri: str, run_name: str, num_epochs: Mapping[str, int]) -> dict[str, str]:
    """Find checkpoints that Ray does not go on from: its list of them is gone or broken, or belongs to another run.

    A broken list is removed, so that Ray takes the run as a new one.

    Args:
        runs_uri: folder of all Ray runs; it need not exist.
        run_name: the run that is about to start.
        num_epochs: fingerprint of a training -> epochs of the whole of it. Only checkpoints before the last epoch are
            taken: the last one has files that are not accounted for.

    Returns:
        Fingerprint -> newest whole checkpoint. What Ray knows of this run itself is left to it.
    """
    run_uri = storage.join(runs_uri, run_name)
    is_known = _lists_checkpoints(run_uri)
    newest: dict[str, tuple[int, str]] = {}
    for folder in storage.list_folders(runs_uri):
        if folder == run_uri and is_known:
            continue
        for uri in storage.list_folders(folder):
            note = read_note(uri)
            if note is None or note["training"] not in num_epochs:
                continue
            epochs, training = epochs_kept(uri), note["training"]
            if newest.get(training, (0, ""))[0] < epochs < num_epochs[training]:
                newest[training] = epochs, uri
    for _, uri in newest.values():
        logger.warning("Ray does not list this checkpoint for %s; going on from %s", run_name, uri)
    return {training: uri for training, (_, uri) in newest.items()}


def _lists_checkpoints(run_uri: str) -> bool:
    """Whether Ray goes on with this run by itself; a run may have been stopped before it took note of a checkpoint."""
    snapshot = storage.join(run_uri, SNAPSHOT_NAME)
    if not storage.exists(snapshot):
        return False
    try:
        return bool(json.loads(storage.read_bytes(snapshot)).get("checkpoint_results"))
    except ValueError:
        storage.remove_tree(snapshot)
        return False

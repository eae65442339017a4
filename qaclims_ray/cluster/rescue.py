"""Checkpoints of a training whose Ray run has lost its list of them.

Ray keeps the list in one file of the run's folder, which it writes anew at every checkpoint. On a disk that is full
just then the file stays behind empty; Ray refuses such a run from then on, with whole checkpoints lying beside it.
"""

import json
import logging

from qaclims_ray.cluster.training_group import read_note
from qaclims_ray.data import storage
from qaclims_ray.training.checkpoint import epochs_kept

SNAPSHOT_NAME = "checkpoint_manager_snapshot.json"
"""Ray 2.60's file; a test fills a disk to see that it is still this one."""

logger = logging.getLogger(__name__)


def rescue(run_uri: str, num_epochs: int, fingerprint: str) -> str:
    """Find the checkpoint to go on from when Ray's own list of a run's checkpoints is gone or broken.

    A broken list is removed, so that Ray takes the run as a new one.

    Args:
        run_uri: folder of the Ray run; it need not exist.
        num_epochs: epochs of the whole training. Only checkpoints before the last epoch are taken: the last one has
            files that are not accounted for.
        fingerprint: of the training, which may have shared its workers with others.

    Returns:
        The newest whole checkpoint, or an empty text when Ray knows its checkpoints itself, or there are none.
    """
    snapshot = storage.join(run_uri, SNAPSHOT_NAME)
    if storage.exists(snapshot):
        try:
            json.loads(storage.read_bytes(snapshot))
            return ""
        except ValueError:
            storage.remove_tree(snapshot)
    notes = {uri: read_note(uri) for uri in storage.list_folders(run_uri)}
    kept = {uri: epochs_kept(uri) for uri, note in notes.items() if note and note["training"] == fingerprint}
    whole = {uri: epochs for uri, epochs in kept.items() if 0 < epochs < num_epochs}
    newest = max(whole, key=whole.__getitem__, default="")
    if newest:
        logger.warning("Ray's list of checkpoints in %s is lost; going on from %s", run_uri, newest)
    return newest

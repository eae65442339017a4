"""Checkpoints that Ray does not find by itself.

Ray keeps the list of a run's checkpoints in one file of its folder, which it writes anew at every checkpoint. On a disk
that is full just then the file stays behind empty; Ray refuses such a run from then on, with whole checkpoints lying
beside it. And a training whose neighbours in its group have changed belongs to a run of another name.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence

from qaclims_ray.data import storage
from qaclims_ray.training.checkpoint import epochs_kept, epochs_said, fault_of, is_sound
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
    folders = [folder for folder in storage.list_folders(runs_uri) if folder != run_uri or not is_known]
    newest = _newest(folders, num_epochs)
    for uri in newest.values():
        logger.warning("Ray does not list this checkpoint for %s; going on from %s", run_name, uri)
    return newest


def remove_finished(runs_uri: str, run_names: Collection[str], fingerprints: Collection[str]) -> None:
    """Remove the checkpoints of trainings that are complete; a process may have been killed before it came to that.

    Args:
        runs_uri: folder of all Ray runs; it need not exist.
        run_names: runs of these trainings alone.
        fingerprints: the trainings; a run of another name goes too where all its checkpoints are theirs.
    """
    for folder in storage.list_folders(runs_uri):
        notes = [read_note(uri) for uri in storage.list_folders(folder)]
        is_theirs = bool(notes) and all(note is not None and note["training"] in fingerprints for note in notes)
        if folder.rsplit("/", 1)[-1] in run_names or is_theirs:
            storage.remove_tree(folder)


def _newest(folders: Sequence[str], num_epochs: Mapping[str, int]) -> dict[str, str]:
    """Return the newest whole checkpoint of each training in the folders of runs."""
    claims: list[tuple[int, str, str]] = []
    for folder in folders:
        for uri in storage.list_folders(folder):
            note = read_note(uri)
            if note is not None and (training := note["training"]) in num_epochs:
                claims.append((epochs_said(uri), training, uri))
    newest: dict[str, str] = {}
    for epochs, training, uri in sorted(claims, reverse=True):
        if training not in newest and 0 < epochs < num_epochs[training] and is_sound(uri):
            newest[training] = uri
    return newest


def _lists_checkpoints(run_uri: str) -> bool:
    """Whether Ray goes on with this run by itself; a run may have been stopped before it took note of a checkpoint.

    Ray goes on from the last one that it lists. Where that is damaged and another is not, its list is removed.
    """
    snapshot = storage.join(run_uri, SNAPSHOT_NAME)
    if not storage.exists(snapshot):
        return False
    try:
        content = json.loads(storage.read_bytes(snapshot))
        if not content["checkpoint_results"]:
            return False
        names = [content.get("latest_checkpoint_result"), *reversed(content["checkpoint_results"])]
        listed = [storage.join(run_uri, entry["checkpoint_dir_name"]) for entry in names if entry]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        storage.remove_tree(snapshot)
        return False
    is_gone = not storage.exists(listed[0])
    if is_gone or (fault_of(listed[0]) and any(epochs_kept(uri) for uri in storage.list_folders(run_uri))):
        storage.remove_tree(snapshot)
        return False
    return True

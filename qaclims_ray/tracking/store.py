"""Where runs are kept when nothing else is said, and how tracking addresses are checked and shown."""

import contextlib
import fcntl
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.data.artifacts import fingerprint_of
from qaclims_ray.errors import ConfigError, QaclimsError, ResourceError
from qaclims_ray.tracking.config import TrackingConfig

SPOOL_NAME = "tracking-spool"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # A server that is away costs the sending thread seconds, not the quarter of an hour of MLflow's defaults.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    # The outbox retries, and says so once; urllib3 would warn each time.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
}
_MADE_WITHIN_S = 300.0
"""Seconds that another process may take to make a SQLite store, or to bring it to this version of MLflow."""
_TOLD_CHARS = 300
"""Of a library's message."""
_SERVER_SCHEMES = ("http", "https", "databricks")
_DATABASE_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql")


def tracking_uri(config: TrackingConfig, out_dir: str) -> str:
    """Return the store of a run; empty where there is none.

    Without ``tracking.uri`` the runs of one folder share ``mlflow.db`` beside the output folders, so that the UI
    compares them: outputs in ``runs/a`` and ``runs/b`` are both in ``runs/mlflow.db``. A bucket holds no database.

    Raises:
        ConfigError: when the address is one that MLflow does not take, or means another place in each process.
    """
    if not config.uri:
        return "" if storage.is_remote(out_dir) else f"sqlite:///{Path(storage.absolute(out_dir)).parent / 'mlflow.db'}"
    scheme = config.uri.partition(":")[0].partition("+")[0]
    if scheme == "sqlite":
        return f"sqlite:///{Path(config.uri.partition(':///')[2]).expanduser().absolute()}"
    if scheme not in _SERVER_SCHEMES + _DATABASE_SCHEMES:
        raise ConfigError(
            f"tracking.uri is {without_credentials(config.uri)!r}, expected http(s)://HOST:PORT, sqlite:///FILE or "
            "another database address (MLflow no longer takes folders); empty keeps a SQLite store beside the outputs"
        )
    return config.uri


def artifact_root(uri: str, experiment: str, out_dir: str) -> str | None:
    """Return where a new experiment keeps its files; None where a server decides.

    MLflow's own default is relative to the working directory, which differs in every Ray worker.
    """
    if uri.startswith(_SERVER_SCHEMES):
        return None
    beside = uri.removeprefix("sqlite:///") if uri.startswith("sqlite") else storage.absolute(out_dir)
    name = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in experiment)
    return storage.join(beside.rpartition("/")[0], "mlflow-artifacts", name)


def store_marks(config: TrackingConfig, uri: str) -> tuple[str, str]:
    """Return how an output folder notes its store, today and as earlier versions did.

    The address itself is not written down: it may hold a password. That of the store beside the outputs moves along.
    """
    return fingerprint_of(uri) if config.uri else "beside", fingerprint_of(uri)


def follow_move(config: TrackingConfig, uri: str, out_dir: str) -> None:
    """Point an experiment of the store beside the outputs, and its runs, at the files beside it.

    MLflow stores absolute places, and has no call to change them when all is moved together. A store that was named
    stays as it is.

    Args:
        config: names the experiment.
        uri: the store; there.
        out_dir: output folder or URI.
    """
    root = artifact_root(uri, config.experiment, out_dir)
    if config.uri or root is None:
        return
    tail = "/".join(root.rsplit("/", 2)[1:])
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as store, store:
        select = "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?"
        experiment_id, old = store.execute(select, (config.experiment,)).fetchone() or ("", "")
        is_ours = old.endswith(f"/{tail}") and old != root
        # Files that were left where they were are still found there.
        if not is_ours or (Path(old).is_dir() and not Path(root).is_dir()):
            return
        store.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (root, experiment_id))
        store.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE experiment_id = ? "
            "AND substr(artifact_uri, 1, ?) = ?",
            (root, len(old) + 1, experiment_id, len(old) + 1, f"{old}/"),
        )
        if store.execute("SELECT 1 FROM sqlite_master WHERE name = 'logged_models'").fetchone():
            store.execute(
                "UPDATE logged_models SET artifact_location = ? || substr(artifact_location, ?) "
                "WHERE experiment_id = ? AND substr(artifact_location, 1, ?) = ?",
                (root, len(old) + 1, experiment_id, len(old) + 1, f"{old}/"),
            )


def spool_folder(spool_dir: str) -> Path:
    """Return the local folder in which this machine keeps the calls of a spool; a bucket gets them at the end."""
    if not storage.is_remote(spool_dir):
        return Path(storage.absolute(spool_dir))
    return Path(tempfile.gettempdir()) / f"qaclims-{SPOOL_NAME}-{os.getuid()}-{fingerprint_of(spool_dir)}"


def prepare_environment() -> None:
    """Set MLflow's environment for this process, before it is imported; what the user has set stays."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # Otherwise the first use of a store prints a line per database migration.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # It prints ninety lines for an error that it raises as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # It says of every model that it looks at the example.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.WARNING)


@contextlib.contextmanager
def one_at_a_time(uri: str) -> Iterator[None]:
    """Keep other processes out while a SQLite store is made: parallel migrations of one file break it.

    Raises:
        ResourceError: when another one is at it for too long.
    """
    if not uri.startswith("sqlite:///"):
        yield
        return
    path = Path(uri.removeprefix("sqlite:///") + ".lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        _lock(handle, uri)
        yield


def _lock(handle: IO[str], uri: str) -> None:
    deadline = time.monotonic() + _MADE_WITHIN_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ResourceError(
                    f"another process has been making the tracking store {uri} for {_MADE_WITHIN_S:.0f} s, and holds "
                    f"{handle.name}. End it, or name another store in tracking.uri"
                ) from None
            time.sleep(0.1)


def opening_failure(uri: str, error: Exception) -> QaclimsError:
    """Return the mistake a user is told of when a run cannot be opened."""
    if isinstance(error, QaclimsError):
        return error
    return ResourceError(
        f"the tracking store {without_credentials(uri)} cannot be used: {first_line(error)}. Start or mend it, give "
        "another tracking.uri, or run without: tracking.enabled=false"
    )


def first_line(error: Exception) -> str:
    """Return an error's kind and the beginning of its message, without the password of an address in it."""
    return without_credentials(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}")[:_TOLD_CHARS]

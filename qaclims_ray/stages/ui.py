"""MLflow's pages for the runs of a folder, in the browser of this machine."""

import time
from pathlib import Path

from rich.console import Console

from qaclims_ray.data import storage
from qaclims_ray.data.addresses import without_credentials
from qaclims_ray.errors import ConfigError, ResourceError
from qaclims_ray.report.console_text import print_line
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import UiArguments
from qaclims_ray.stages.run_folder import load_config
from qaclims_ray.tracking.config import TrackingConfig
from qaclims_ray.tracking.store import tracking_uri
from qaclims_ray.tracking.ui_server import free_port, ui_server

_STORE = "mlflow.db"


def run_ui(asked: UiArguments, console: Console) -> None:
    """Serve the pages until they are stopped by Ctrl-C.

    Raises:
        ConfigError: when nothing was tracked there, or no port is free.
        ResourceError: when the pages do not come up, or end by themselves.
    """
    config, uri = tracked_at(asked.place)
    port = free_port(asked.port)
    if port != asked.port:
        print_line(console, f"port {asked.port} is taken, so this is port {port}")
    print_line(console, f"opening the runs of {without_credentials(uri)}")
    started = time.monotonic()
    with ui_server(uri, config.experiment, port) as (address, process):
        print_line(console, f"{address}   (after {time.monotonic() - started:.0f} s; stop it by Ctrl-C)")
        process.wait()
    raise ResourceError(f"MLflow's pages ended by themselves, with code {process.returncode}; start them again")


def tracked_at(place: str) -> tuple[TrackingConfig, str]:
    """Return how the runs of a folder were tracked, and their store.

    Args:
        place: the folder of a run, or the one that holds runs beside their store.

    Raises:
        ConfigError: when there is no store.
    """
    folder = storage.absolute(place)
    if storage.exists(RunLayout(folder).config):
        config = load_config(folder, can_begin=False).tracking
        uri = tracking_uri(config, folder)
    else:
        config, uri = TrackingConfig(), f"sqlite:///{folder}/{_STORE}"
    if uri.startswith("http"):
        raise ConfigError(
            f"the runs of {folder} are tracked by a server, which has its own pages: {without_credentials(uri)}"
        )
    if not uri or (uri.startswith("sqlite:///") and not Path(uri.removeprefix("sqlite:///")).is_file()):
        raise ConfigError(
            f"nothing was tracked at {folder} (no {_STORE}); give the folder of a run, or the one that holds your "
            "runs: qaclims ui runs"
        )
    return config, uri

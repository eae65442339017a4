"""Settings of experiment tracking."""

from qaclims_ray.settings import require_text, settings


@settings
class TrackingConfig:
    """Where a run is recorded with MLflow."""

    uri: str = ""
    """Tracking server or store; empty keeps a SQLite store beside the outputs (local) or none (remote)."""
    experiment: str = "qaclims"
    """Experiment name."""
    enabled: bool = True
    """Track at all."""

    def __post_init__(self) -> None:
        require_text(self, "tracking", "experiment")

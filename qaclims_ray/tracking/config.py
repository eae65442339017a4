"""Settings of experiment tracking."""

from qaclims_ray.settings import require_at_least, require_text, settings


@settings
class TrackingConfig:
    """Where a run is recorded with MLflow."""

    uri: str = ""
    """Tracking server or store; empty keeps a SQLite store beside the outputs (local) or none (remote). A password in
    it stands in the run's config.json, and on no page."""
    experiment: str = "qaclims"
    """Experiment name."""
    enabled: bool = True
    """Track at all."""
    max_model_mb: int = 500
    """Largest final network that is kept as an MLflow model, in megabytes; 0 keeps none."""

    def __post_init__(self) -> None:
        require_text(self, "tracking", "experiment")
        require_at_least(self, "tracking", 0, "max_model_mb")

"""Settings of scoring.

Letters and numbers such as "R12" name rows of ``docs/method.md``, where papers and released code are compared.
"""

from qaclims_ray.settings import require, require_at_least, settings


@settings
class EvaluationConfig:
    """Scoring of seeds (row E3)."""

    fixed_threshold: float | None = None
    """Background score of the fixed-threshold figure, of the pictures, and of CAMs in `predict`; None takes the one
    that cuts seeds into pseudo masks, `masks.seed_threshold`, so that the figure is about the masks that are used."""
    sweep_min: float = 0.01
    """First threshold of the sweep."""
    sweep_max: float = 0.99
    """Last threshold of the sweep."""
    sweep_step: float = 0.01
    """Step of the sweep; the whole of it is evaluated, without early stop."""
    contact_sheet_images: int = 12
    """Images in the contact sheet."""
    gallery_images: int = 2000
    """Most images in the gallery beside the report: half of them the worst, where there are more; 0 writes none."""

    @property
    def threshold(self) -> float:
        """The fixed threshold, of settings in which it is set: a run's `scoring`."""
        assert self.fixed_threshold is not None, "scoring works by RunConfig.scoring, which sets the threshold"
        return self.fixed_threshold

    def __post_init__(self) -> None:
        require(0 < self.sweep_min < self.sweep_max < 1, "evaluation: 0 < sweep_min < sweep_max < 1 is required")
        require(self.sweep_step >= 1e-4, f"evaluation.sweep_step is {self.sweep_step}, expected at least 0.0001")
        require(
            self.fixed_threshold is None or 0 < self.fixed_threshold < 1,
            f"evaluation.fixed_threshold is {self.fixed_threshold}, expected a number between 0 and 1, or None for "
            "masks.seed_threshold",
        )
        require_at_least(self, "evaluation", 1, "contact_sheet_images")
        require_at_least(self, "evaluation", 0, "gallery_images")

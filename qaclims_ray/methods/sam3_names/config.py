"""Settings of SAM 3 asked by names."""

from qaclims_ray.settings import require, require_text, settings


@settings
class Sam3NamesConfig:
    """SAM 3, asked by the names of the classes that an image is tagged with (row G1)."""

    model: str = "facebook/sam3"
    """Hub name or local folder of a transformers SAM 3."""
    least_score: float = 0.5
    """Instances that SAM 3 scores below are left out."""

    def __post_init__(self) -> None:
        require_text(self, "sam3_names", "model")
        require(
            0 <= self.least_score <= 1, f"sam3_names.least_score is {self.least_score}, expected a number in [0, 1]"
        )

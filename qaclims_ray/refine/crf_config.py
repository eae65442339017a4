"""Settings of the dense CRF, and the papers' three sets of them (rows E7, S17, D4)."""

from typing import Literal

from qaclims_ray.settings import require, require_at_least, settings


@settings
class CrfConfig:
    """Fully connected CRF with two Gaussian kernels (Kraehenbuehl and Koltun 2011); defaults are IRN's (row E7)."""

    iterations: int = 10
    """Mean-field iterations."""
    gaussian_sxy: float = 3.0
    """Standard deviation of the smoothness kernel in pixels."""
    gaussian_weight: float = 3.0
    """Weight of the smoothness kernel; 0 leaves it out."""
    bilateral_sxy: float = 50.0
    """Standard deviation of the appearance kernel in pixels."""
    bilateral_srgb: float = 5.0
    """Standard deviation of the appearance kernel in grey levels (0-255)."""
    bilateral_weight: float = 10.0
    """Weight of the appearance kernel; 0 leaves it out."""
    unary: Literal["label", "softmax"] = "label"
    """What it starts from: a label map that is right with `label_confidence`, or scores as probabilities."""
    label_confidence: float = 0.7
    """unary label: probability that a pixel's label is right."""

    def __post_init__(self) -> None:
        require_at_least(self, "crf", 0, "iterations", "gaussian_weight", "bilateral_weight")
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            require(getattr(self, name) > 0, f"crf.{name} is {getattr(self, name)}, expected a positive number")
        require(0 < self.label_confidence < 1, f"crf.label_confidence is {self.label_confidence}, expected in (0, 1)")


def irn_crf() -> CrfConfig:
    """Return IRN's CRF, which QA-CLIMS and SemPLeS on COCO also use (rows E7, S17)."""
    return CrfConfig()


def semples_crf() -> CrfConfig:
    """Return the CRF of WeakTr's and SemPLeS's CAMs on VOC (row S17)."""
    return CrfConfig(
        gaussian_sxy=4.0, gaussian_weight=3.0, bilateral_sxy=83.0, bilateral_srgb=5.0, bilateral_weight=3.0
    )


def deeplab_crf() -> CrfConfig:
    """Return the CRF of DeepLabV2's test time (row D4)."""
    return CrfConfig(
        gaussian_sxy=1.0,
        gaussian_weight=3.0,
        bilateral_sxy=67.0,
        bilateral_srgb=3.0,
        bilateral_weight=4.0,
        unary="softmax",
    )

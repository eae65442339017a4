"""The three weighted terms of QA-CLIMS's total loss, travelling together."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class LossTerms:
    """The terms of Eq. 1 before weighting, each reduced to one number."""

    foreground: Float[Tensor, ""]
    """L_FRC, foreground regions against texts (Eq. 6)."""
    background: Float[Tensor, ""]
    """L_BRC, background regions against texts (Eq. 8)."""
    area: Float[Tensor, ""]
    """L_REG, the activated area (Eq. 11)."""

    def weighted(self, *, foreground_weight: float, background_weight: float, area_weight: float) -> Float[Tensor, ""]:
        """Return the total loss of Eq. 1; the weights are its alpha, beta and gamma."""
        return foreground_weight * self.foreground + background_weight * self.background + area_weight * self.area

    def named(self) -> dict[str, Float[Tensor, ""]]:
        """Return the detached terms under the names they are logged by."""
        return {
            "loss/foreground": self.foreground.detach(),
            "loss/background": self.background.detach(),
            "loss/area": self.area.detach(),
        }

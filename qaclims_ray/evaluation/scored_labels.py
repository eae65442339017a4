"""Which labels the means of an evaluation are over: fixed once, by what truth and image labels hold (row E13).

A class that is no longer predicted at some threshold has no union, and no IoU where no mask holds it. If it left the
mean there, the mean would be over other classes at every threshold, and the best threshold could be one at which a
hard class has vanished. So the labels of the mean do not depend on predictions: they are those that the true masks or
the image labels of the scored images hold. One that no mask holds counts as 0; one that is left out is left out
everywhere, for its false positives already cost the labels whose pixels they take.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool


@dataclass(frozen=True)
class ScoredLabels:
    """What the scored images hold of each label: the background first, where there is one, and the classes."""

    names: tuple[str, ...]
    """All labels."""
    in_truth: tuple[bool, ...]
    """Whether a scored pixel of any true mask has it."""
    in_labels: tuple[bool, ...]
    """Whether any scored image is labelled with it; no image is labelled with the background."""

    @property
    def averaged(self) -> Bool[np.ndarray, " label"]:
        """Whether means are over it."""
        return np.array(self.in_truth, dtype=bool) | np.array(self.in_labels, dtype=bool)

    @property
    def left_out(self) -> tuple[str, ...]:
        """Labels that neither truth nor image labels hold: no mean is over them, also if they are predicted."""
        return tuple(name for name, counts in zip(self.names, self.averaged, strict=True) if not counts)

    @property
    def in_no_mask(self) -> tuple[str, ...]:
        """Labels that images are labelled with though no true mask holds them: IoU 0, whatever is predicted."""
        return tuple(
            name
            for name, in_truth, in_labels in zip(self.names, self.in_truth, self.in_labels, strict=True)
            if in_labels and not in_truth
        )


def left_out_text(
    left_out: tuple[str, ...], in_no_mask: tuple[str, ...] = (), *, whose: str = "the scored images"
) -> str:
    """Return the remarks that stand under a table of means; empty where they are over the whole class list.

    Args:
        left_out: see `ScoredLabels`.
        in_no_mask: see `ScoredLabels`.
        whose: images that do not hold what is left out.
    """
    lines = []
    if left_out:
        lines.append(
            f"left out of every mean, because no mask and no image label of {whose} holds it: {', '.join(left_out)}"
        )
    if in_no_mask:
        lines.append(f"labelled, but in no mask, so IoU 0 in every mean: {', '.join(in_no_mask)}")
    return "; ".join(lines)

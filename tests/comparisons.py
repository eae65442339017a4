"""Small comparisons of two runs."""

import numpy as np

from qaclims_ray.evaluation.comparison import Comparison, Difference, Side, StageDifference, compare_stage
from qaclims_ray.evaluation.image_counts import ScoredImages

LABELS = ("background", "bird", "boat <b>")


def scored(seed: int, *, num_images: int = 30) -> ScoredImages:
    """Images that all show bird, none boat; the share of the birds that is found depends on the seed."""
    generator = np.random.default_rng(seed)
    found = generator.integers(40 + 20 * seed, 60 + 20 * seed, num_images)
    counts = np.zeros((num_images, 3, 3), dtype=np.int64)
    counts[:, 1] = np.stack([found, found, np.full(num_images, 100)], -1)
    counts[:, 0] = np.stack([np.full(num_images, 900), 1000 - found, np.full(num_images, 900)], -1)
    labelled = np.tile([False, True, False], (num_images, 1))
    return ScoredImages(0.3, LABELS, tuple(f"image_{i:02d}" for i in range(num_images)), counts, labelled)


def stage_of(first: ScoredImages, other: ScoredImages, stage: str = "seed_fixed") -> StageDifference:
    return compare_stage(
        first,
        other,
        group="QA-CLIMS",
        stage=stage,
        split="train",
        letters=("A", "B"),
        num_resamples=200,
        seed=0,
    )


def comparison_of(*stages: StageDifference) -> Comparison:
    return Comparison(
        sides=(Side("A", "runs/a", ""), Side("B", "runs/b <script>", "")),
        differences=(Difference("settings", "ritc.omega", (0.1, 0.3), ("QA-CLIMS",)),),
        stages=stages,
        notes=("a note",),
        num_resamples=200,
        seed=0,
    )

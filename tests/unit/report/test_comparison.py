"""A comparison on its page."""

import html.parser

import numpy as np

from qaclims_ray.evaluation.comparison import Comparison, Difference, Side, StageDifference, compare_stage
from qaclims_ray.evaluation.image_counts import ScoredImages
from qaclims_ray.report.comparison import comparison_page

LABELS = ("background", "bird", "boat <b>")


def scored(seed: int, *, num_images: int = 30) -> ScoredImages:
    """Images that all show bird, none boat; the share of the birds that is found depends on the seed."""
    generator = np.random.default_rng(seed)
    found = generator.integers(40 + 20 * seed, 60 + 20 * seed, num_images)
    counts = np.zeros((num_images, 3, 3), dtype=np.int64)
    counts[:, 1] = np.stack([found, found, np.full(num_images, 100)], -1)
    counts[:, 0] = np.stack([np.full(num_images, 900), 1000 - found, np.full(num_images, 900)], -1)
    return ScoredImages(0.3, LABELS, tuple(f"image_{i:02d}" for i in range(num_images)), counts)


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


class _Checker(html.parser.HTMLParser):
    """Collects what is open at the end, and whatever the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href") and v and not v.startswith(("data:", "#"))]
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag not in ("meta", "br", "img"):
            assert self.open.pop() == tag


def test_the_page_is_whole_flags_pixel_labels_and_says_what_intervals_do_not_mean():
    other = scored(1, num_images=20)
    page = comparison_page(comparison_of(stage_of(scored(0), scored(1)), stage_of(scored(0), other, "seed_best")))
    checker = _Checker()
    checker.feed(page)
    assert checker.open == [] and checker.fetched == []
    assert "<script" not in page and "boat &lt;b&gt;" in page
    assert "chosen with pixel labels" in page and "says nothing about training variance" in page
    assert "ritc.omega" in page and "not paired" in page and "scored on different images" in page

"""A comparison on its page."""

import html.parser

from qaclims_ray.report.comparison import comparison_page
from tests.comparisons import comparison_of, scored, stage_of


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

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from qaclims_ray.evaluation.cooccurrence import CooccurrenceScores
from qaclims_ray.evaluation.sweep import SeedScores, SweepCurve
from qaclims_ray.report import figures
from qaclims_ray.report.palette import INK, system_colours


def scores(shift: float = 0.0) -> SeedScores:
    iou = {"background": 0.8, "bird": 0.5 + shift, "costs $5 to $9": math.nan}
    return SeedScores(
        threshold_fixed=0.2, miou_fixed=0.4 + shift, false_positive_rate=0.3, false_negative_rate=0.2, iou=iou,
        threshold_label_free=0.4, miou_label_free=0.5 + shift, threshold_best=0.4, miou_best=0.5 + shift,
        false_positive_rate_best=0.1, false_negative_rate_best=0.3, iou_best=iou,
        num_images=20, curve=SweepCurve(
            thresholds=(0.2, 0.4), miou=(0.4, 0.5), false_positive_rate=(0.3, 0.1), false_negative_rate=(0.2, 0.3)
        ),
    )  # fmt: skip


def cooccurrence() -> CooccurrenceScores:
    return CooccurrenceScores(
        threshold=0.4,
        coverage=0.7,
        false_positive_context=0.3,
        false_positive_elsewhere=0.1,
        per_class={"bird": (0.7, 0.3, 0.1)},
    )


CHARTS = {
    "sweep": lambda: figures.sweep_figure({"baseline": scores(), "ours": scores(0.1)}),
    "classes": lambda: figures.class_figure({"baseline": scores().iou, "ours": scores(0.1).iou}),
    "cooccurrence": lambda: figures.cooccurrence_figure({"baseline": cooccurrence()}),
    "curves": lambda: figures.curves_figure(
        {"baseline": {"loss": [(0, 1.0), (9, 0.5)]}, "ours": {"loss": [(0, 3.0)], "lr": [(0, 0.1), (5, 0.0)]}}
    ),
}


@pytest.mark.parametrize("name", list(CHARTS))
def test_draws_as_pixels_png_and_svg(name: str):
    pixels = figures.figure_pixels(CHARTS[name](), dpi=50)
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and pixels.shape[1] == 480
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20
    assert figures.figure_png(CHARTS[name](), dpi=50).startswith(b"\x89PNG")
    root = ET.fromstring(figures.figure_svg(CHARTS[name](), name))
    assert root.tag.endswith("svg")
    words = " ".join(element.text or "" for element in root.iter() if element.tag.endswith("text"))
    assert "baseline" in words


def test_svg_takes_the_text_colour_of_the_page_and_is_reproducible():
    one, two = (figures.figure_svg(CHARTS["classes"](), "classes") for _ in range(2))
    assert one == two
    assert "currentColor" in one and INK not in one


def test_svgs_on_one_page_do_not_share_identifiers():
    one, two = figures.figure_svg(CHARTS["sweep"](), "one"), figures.figure_svg(CHARTS["sweep"](), "two")
    references = [set(re.findall(r'(?:url\(#|xlink:href="#)([^)"]+)', svg)) for svg in (one, two)]
    assert references[0] and not references[0] & references[1]


def test_a_dollar_in_a_class_name_is_no_formula():
    svg = figures.figure_svg(CHARTS["classes"](), "classes")
    assert "costs $5 to $9" in svg and "n/a" in svg


def test_a_name_is_neither_an_identifier_nor_a_colour_nor_left_out_of_the_legend():
    names = ['a id="b', "url(#c)", figures.INK, "_d"]
    svg = figures.figure_svg(figures.class_figure({name: dict.fromkeys(names, 0.5) for name in names}), "classes")
    texts = [text.strip("\N{ZERO WIDTH SPACE}") for text in re.findall("<text[^>]*>([^<]*)</text>", svg)]
    assert [texts.count(name) for name in names] == [2] * 4  # in the legend and beside the bars


def test_a_chart_draws_only_the_systems_it_has():
    colours = system_colours(["baseline", "other", "ours"])
    svg = figures.figure_svg(figures.class_figure({"ours": scores().iou}, colours=colours), "classes")
    assert colours["ours"] in svg and colours["other"] not in svg

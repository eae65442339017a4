import itertools
import math

import numpy as np
import pytest

from qaclims_ray.report.figures import figure_pixels, figure_svg
from qaclims_ray.report.palette import system_colours
from qaclims_ray.report.stages_figure import stages_figure

FULL = {"seed": 0.21, "mask": 0.40, "segmentation": 0.44}


def series(figure) -> dict[str, list[float]]:
    return {line.get_gid(): list(line.get_ydata()) for line in figure.axes[0].lines if line.get_gid()}


def words(figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].texts]


@pytest.mark.parametrize("count", [1, 3, 12])
def test_one_connected_line_per_system_and_the_bound_across(count: int):
    systems = {f"system {i}": {stage: value + 0.02 * i for stage, value in FULL.items()} for i in range(count)}
    figure = stages_figure(systems, bound=("fully supervised", 0.78))
    found = series(figure)
    assert len(found) == count + 1 and found["bound"] == [0.78, 0.78]
    assert found["system-0"] == pytest.approx([0.21, 0.40, 0.44])
    assert len(words(figure)) == 3 * count + 1 and "fully supervised 78.0" in words(figure)
    pixels = figure_pixels(figure, dpi=50)
    assert pixels.shape[1] == (600 if count > 4 else 480) and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 20


def test_values_of_twelve_systems_do_not_overlap_and_stay_inside():
    generator = np.random.default_rng(0)
    draws = generator.uniform((0.2, -0.03, 0), (0.6, 0.1, 0.15), (12, 3)).tolist()
    systems = {
        f"a system with a long name {i}": {"seed": seed, "mask": seed + mask, "segmentation": seed + final}
        for i, (seed, mask, final) in enumerate(draws)
    }
    figure = stages_figure(systems, bound=("fully supervised", 0.8))
    figure_pixels(figure, dpi=100)
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    names = [label.get_window_extent() for label in axes.get_xticklabels()]
    assert overlaps == [] and not any(a.overlaps(b) for a, b in itertools.pairwise(names))
    assert all(axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 for box in boxes)
    assert all(axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1 + 1 for box in boxes)


def test_missing_stages_are_left_out():
    systems = {
        "seeds only": {"seed": 0.3},
        "unscored masks": {"seed": 0.3, "mask": math.nan, "segmentation": 0.5},
        "network only": {"segmentation": 0.6},
    }
    figure = stages_figure(systems)
    assert series(figure) == {"system-0": [0.3], "system-1": [0.3, 0.5], "system-2": [0.6]}
    _, legend = figure.axes[0].get_legend_handles_labels()
    assert legend == ["seed, fixed threshold", "final network"]
    assert figure_pixels(figure, dpi=40).size


def test_the_best_seed_is_a_star_and_says_that_pixel_labels_chose_it():
    plain, starred = (stages_figure({"a $5": FULL}, best_seeds=best) for best in (None, {"a $5": 0.39}))
    stars = [line for line in starred.axes[0].lines if line.get_marker() == "*"]
    assert np.asarray(stars[0].get_ydata()).tolist() == [0.39]
    assert not [line for line in plain.axes[0].lines if line.get_marker() == "*"]
    markup = figure_svg(starred, "stages")
    assert "seed, best threshold (chosen with pixel labels)" in markup and "a $5" in markup


def test_the_legend_names_the_split_where_all_are_on_one():
    figure = stages_figure({"a": FULL}, splits=dict.fromkeys(("seed", "mask", "segmentation"), "val"))
    _, legend = figure.axes[0].get_legend_handles_labels()
    assert legend == ["seed, fixed threshold (val)", "pseudo mask (val)", "final network (val)"]
    assert series(figure) == {"system-0": [0.21, 0.40, 0.44]}, "one line: all figures compare"


@pytest.mark.parametrize("count", [1, 3, 8])
def test_no_line_joins_figures_on_different_images(count: int):
    stages = {**FULL, "segmentation_crf": 0.47, "segmentation_on_seeds": 0.51, "segmentation_crf_on_seeds": 0.55}
    systems = {f"system {i}": {name: value + 0.01 * i for name, value in stages.items()} for i in range(count)}
    figure = stages_figure(
        systems, bound=("full", 0.78), splits={"seed": "train", "mask": "train", "segmentation": "val"}
    )
    found = series(figure)
    assert found["system-0"] == [0.21, 0.40, 0.51, 0.55] and found["system-0-other-images"] == [0.44, 0.47]
    figure_pixels(figure, dpi=50)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels(minor=True)] == ["train", "val"] * count
    assert "full, val: 78.0" in words(figure), "the bound is on the final networks' images"
    spans = {
        line.get_gid(): (min(line.get_xdata()), max(line.get_xdata()))
        for line in axes.lines
        if str(line.get_gid()).startswith("system")
    }
    borders = [line.get_xdata()[0] for line in axes.lines if line.get_linestyle() == ":"]
    for position, border in enumerate(borders):
        assert spans[f"system-{position}"][1] < border < spans[f"system-{position}-other-images"][0]
        assert (
            position - 0.5 < spans[f"system-{position}"][0]
            and spans[f"system-{position}-other-images"][1] < position + 0.5
        )
    assert len(borders) == count


def test_a_network_that_is_scored_on_other_images_alone_has_a_part_of_its_own():
    figure = stages_figure({"a": FULL}, splits={"seed": "train", "mask": "train", "segmentation": "val"})
    assert series(figure) == {"system-0": [0.21, 0.40], "system-0-other-images": [0.44]}
    only_final = stages_figure({"a": {"segmentation": 0.4}}, splits={"seed": "train", "segmentation": "val"})
    assert series(only_final) == {"system-0-other-images": [0.4]} and figure_pixels(only_final, dpi=40).size
    assert not only_final.axes[0].get_xticklabels(minor=True)


def test_small_steps_do_not_look_like_leaps():
    low, high = stages_figure({"a": {"seed": 0.50, "mask": 0.505, "segmentation": 0.51}}).axes[0].get_ylim()
    assert high - low >= 0.19 and low <= 0.50 and high >= 0.51


def test_takes_the_colours_of_the_other_charts():
    colours = system_colours(["other", "ours"])
    axes = stages_figure({"ours": FULL}, colours=colours).axes[0]
    assert {line.get_color() for line in axes.lines if line.get_gid()} == {colours["ours"]}

"""What the comparison of thresholds rests on: Otsu's choice, the criteria, what a choice costs."""

import pytest
import torch

from benchmarks.threshold_criteria import PLAIN, WITH_CRF, cut, rate
from benchmarks.threshold_without_masks import PRODUCT, otsu, table
from qaclims_ray.refine.crf_config import CrfConfig


def test_otsu_parts_two_humps_where_a_slow_search_does() -> None:
    generator = torch.Generator().manual_seed(0)
    low = torch.randn(800, generator=generator) * 0.04 + 0.15
    high = torch.randn(200, generator=generator) * 0.05 + 0.75
    scores = torch.cat([low, high]).clamp(0, 1)

    def within(at: float) -> float:
        return sum(float(((side - side.mean()) ** 2).sum()) for side in (scores[scores <= at], scores[scores > at]))

    found = otsu(torch.histc(scores, 64, 0, 1).double())
    assert within(found) == pytest.approx(min(within(at / 64) for at in range(5, 60)), rel=0.02)


def test_every_criterion_rates_every_threshold() -> None:
    pixels = torch.zeros(3, 16, 16)
    pixels[:, 3:9, 4:10] = 0.9
    maps = torch.zeros(2, 16, 16)
    maps[0, 3:9, 4:10], maps[1, 1:3] = 0.8, 0.3
    image = cut(pixels, maps, torch.tensor([0.1, 0.5, 0.9]), CrfConfig(bilateral_sxy=8.0), 1.0)
    assert image.shown.sum((1, 2)).tolist() == [36 + 32, 36, 0]
    found = rate(image, with_crf=True)
    assert {*PLAIN, *WITH_CRF} < set(found) and set(rate(image, with_crf=False)).isdisjoint(WITH_CRF)
    for name, figure in found.items():
        assert figure.shape == (3,) and bool(figure.isfinite().all()), name
    for name in ("kappa with colours", "parting of whole picture", "parting of foreground"):
        assert int(found[name].argmax()) == 1, name


def test_the_table_says_what_a_choice_costs_and_who_keeps_to_it() -> None:
    curve = {0.1: 0.4, 0.2: 0.5, 0.3: 0.495}
    row = {"name": "seed 1 CAM", "curve": curve, "chosen": {"poor": 0.1, PRODUCT: 0.3}}
    shown = table("Some seeds", [row])
    assert "| poor | 10.0 (.10) | 10.0 |" in shown and f"| {PRODUCT} | 0.5 (.30) | 0.5 |" in shown
    assert "50.0 (.20)" in shown and shown.endswith(f"At most 2 points for every system: {PRODUCT}.")

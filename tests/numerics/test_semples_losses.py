"""SemPLeS' Eq. 1-3 against a slow restatement, number by number, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.semples.losses import prompt_contrast, prompt_refinement, segment_label_matching

PAIRS, DIM = 8, 5


def slow_log(left: list[float], right: list[float], *, complement: bool, shift: bool = False):
    """log s or log(1 - s), and its gradient with respect to the left vector."""
    cosine = sum(a * b for a, b in zip(left, right, strict=True))
    if shift:
        s = max((1 + cosine) / 2, 1e-4)
        return math.log(s), [(x / 2 / s if (1 + cosine) / 2 > 1e-4 else 0.0) for x in right]
    inside = 1e-4 < cosine < 0.9999
    s = min(max(cosine, 1e-4), 0.9999)
    factor = -1 / (1 - s) if complement else 1 / s
    return math.log(1 - s if complement else s), [factor * x if inside else 0.0 for x in right]


def vectors() -> tuple[Tensor, Tensor, Tensor]:
    """Left vectors with partners on both sides of both bounds."""
    generator = torch.Generator().manual_seed(7)
    left, first, second = F.normalize(torch.randn(3, PAIRS, DIM, dtype=torch.float64, generator=generator), dim=-1)
    first[0], second[0] = left[0], -left[0]
    first[1], second[1] = -left[1], left[1]
    first[2] = F.normalize(left[2] + 0.05 * first[2], dim=0)
    return left.requires_grad_(), first, second


def compare(term: Tensor, left: Tensor, right: Tensor, sign: int, **kind: bool) -> None:
    weights = torch.arange(1.0, PAIRS + 1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((term * weights).sum(), left, retain_graph=True)
    slow = [slow_log(a, b, **kind) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    expected = sign * torch.tensor([value for value, _ in slow], dtype=torch.float64)
    torch.testing.assert_close(term, expected, rtol=1e-12, atol=1e-12)
    slopes = sign * torch.tensor([slope for _, slope in slow], dtype=torch.float64) * weights[:, None]
    torch.testing.assert_close(gradient, slopes, rtol=1e-11, atol=1e-12)


def test_matching_equals_equation_1() -> None:
    regions, texts, others = vectors()
    foreground, _ = segment_label_matching(regions, regions, texts)
    compare(foreground, regions, texts, -1, complement=False)
    _, background = segment_label_matching(regions, regions, others)
    compare(background, regions, others, -1, complement=True)


@pytest.mark.parametrize("similarity", ["clamp", "shift"])
def test_prompt_contrast_equals_equation_2(similarity) -> None:
    prompts, regions, texts = vectors()
    image, text = prompt_contrast(prompts, regions, texts, similarity=similarity)
    compare(image, prompts, regions, -1, complement=False, shift=similarity == "shift")
    compare(text, prompts, texts, 1, complement=False, shift=similarity == "shift")


def test_refinement_equals_equation_3() -> None:
    regions, prompts, _ = vectors()
    compare(prompt_refinement(regions, prompts), regions, prompts, -1, complement=True)


def test_gradcheck_away_from_the_bounds() -> None:
    generator = torch.Generator().manual_seed(1)
    triple = F.normalize(torch.rand(3, 4, DIM, dtype=torch.float64, generator=generator) + 0.1, dim=-1)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        cosines = (triple[one] * triple[other]).sum(-1)
        assert 0.01 < cosines.min() and cosines.max() < 0.99

    def losses(left: Tensor, first: Tensor, second: Tensor) -> Tensor:
        terms = [*segment_label_matching(left, first, second), prompt_refinement(left, first)]
        terms += prompt_contrast(left, first, second, similarity="clamp")
        terms += prompt_contrast(left, -first, -second, similarity="shift")
        return torch.cat(terms)

    assert torch.autograd.gradcheck(losses, tuple(part.clone().requires_grad_() for part in triple))

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qaclims_ray.methods.clims.losses import background_text_matching, object_text_matching
from qaclims_ray.methods.semples.losses import prompt_contrast, prompt_refinement, segment_label_matching


def at_cosine(cosines: list[float]) -> tuple[Tensor, Tensor]:
    s = torch.tensor(cosines)
    left = torch.stack([s, torch.ones_like(s)], dim=1)
    return left.requires_grad_(), torch.tensor([1.0, 0.0]).repeat(len(cosines), 1)


def has_gradient(term: Tensor, vectors: Tensor) -> list[bool]:
    (gradient,) = torch.autograd.grad(term.sum(), vectors)
    return gradient.ne(0).any(dim=1).tolist()


def test_matching_has_the_terms_of_clims() -> None:
    generator = torch.Generator().manual_seed(0)
    foreground, background, texts = F.normalize(torch.randn(3, 7, 5, generator=generator), dim=-1)
    found = segment_label_matching(foreground, background, texts)
    assert torch.equal(found[0], object_text_matching(foreground, texts))
    assert torch.equal(found[1], background_text_matching(background, texts))


def test_the_clamp_gives_no_gradient_to_a_prompt_with_negative_cosine_but_the_shift_does() -> None:
    prompts, others = at_cosine([-0.9, -0.1, 0.1, 0.9])
    for term in prompt_contrast(prompts, others, others, similarity="clamp"):
        assert has_gradient(term, prompts) == [False, False, True, True]
    for term in prompt_contrast(prompts, others, others, similarity="shift"):
        assert has_gradient(term, prompts) == [True] * 4


@pytest.mark.parametrize("similarity", ["clamp", "shift"])
def test_a_prompt_descends_towards_the_background_and_away_from_the_class(similarity) -> None:
    background, texts = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    prompts = F.normalize(torch.tensor([[0.3, 0.5, 0.8]]), dim=1).requires_grad_()
    image, text = prompt_contrast(prompts, background, texts, similarity=similarity)
    assert image > 0 > text
    (image + text).sum().backward()
    assert prompts.grad[0, 0] < 0 < prompts.grad[0, 1]


def test_opposite_vectors_stay_finite() -> None:
    prompts, others = at_cosine([-1.0, -1.1])
    for term in prompt_contrast(prompts, others, others, similarity="shift"):
        assert term.isfinite().all() and has_gradient(term, prompts) == [False, False]


def test_refinement_grows_with_similarity_and_is_flat_outside_the_clamp() -> None:
    regions, prompts = at_cosine([-0.5, 1e-4, 0.2, 0.8, 0.9999, 1.0])
    values = prompt_refinement(regions, prompts)
    assert values[0] < values[2] < values[3] < values[4]
    assert has_gradient(values, regions) == [False, False, True, True, False, False]


def test_no_pairs() -> None:
    none = torch.zeros(0, 4, requires_grad=True)
    terms = [*segment_label_matching(none, none, none), prompt_refinement(none, none)]
    for similarity in ("clamp", "shift"):
        terms += prompt_contrast(none, none, none, similarity=similarity)
    assert all(term.shape == (0,) and term.requires_grad for term in terms)


def test_half_precision_computes_in_float32() -> None:
    vectors = F.normalize(torch.randn(3, 5, generator=torch.Generator().manual_seed(1)), dim=1).bfloat16()
    terms = prompt_contrast(vectors, vectors, vectors, similarity="shift")
    assert all(term.dtype == torch.float32 and term.isfinite().all() for term in terms)

"""Training-free affinities against slow restatements: one pair of cells, one head, one class at a time, in float64."""

import math

import pytest
import torch
from torch import Tensor

from qaclims_ray.models.clip.attention import mean_attention
from qaclims_ray.refine.affinities import attention_affinity, cosine_affinity, distribution_affinity, divergence
from qaclims_ray.refine.spreading import CellAffinity, spread_over_cells
from tests.numerics.vision_tower import layer_norm, vision_tower


def some(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_attention(image: Tensor, num_blocks: int) -> list[list[float]]:
    """Mean attention between the patches of one image, of a tower whose grid it fits."""
    tower = vision_tower()
    blocks, width = list(tower.transformer.resblocks), tower.conv1.out_channels
    tokens = [tower.class_embedding + tower.positional_embedding[0]]
    for row in range(2):
        for column in range(2):
            seen = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            tokens.append((tower.conv1.weight * seen).sum((1, 2, 3)) + tower.positional_embedding[len(tokens)])
    tokens = [layer_norm(token, tower.ln_pre) for token in tokens]
    total = [[0.0] * 4 for _ in range(4)]
    for index, block in enumerate(blocks):
        if index >= len(blocks) - num_blocks:
            attn, heads = block.attn, block.attn.num_heads
            size = width // heads
            packed = [attn.in_proj_weight @ layer_norm(token, block.ln_1) + attn.in_proj_bias for token in tokens]
            for head in range(heads):
                query = [one[head * size : (head + 1) * size] for one in packed]
                key = [one[width + head * size : width + (head + 1) * size] for one in packed]
                for cell in range(1, 5):
                    scores = [math.exp(float(query[cell] @ other) / math.sqrt(size)) for other in key]
                    for other in range(1, 5):
                        total[cell - 1][other - 1] += scores[other] / sum(scores) / heads / num_blocks
        tokens = list(block(torch.stack(tokens)[None])[0])
    return total


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_mean_attention_equals_the_slow_restatement(num_blocks: int) -> None:
    image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        (found,) = mean_attention(vision_tower(), image[None], num_blocks=num_blocks)
        expected = torch.tensor(slow_attention(image, num_blocks))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert float(found.sum(1).max()) < 1  # the class token has its share


def test_more_blocks_than_there_are_means_all() -> None:
    image = torch.randn(1, 3, 12, 8, dtype=torch.float64)
    found = mean_attention(vision_tower(), image, num_blocks=99)
    assert found.shape == (1, 6, 6)
    torch.testing.assert_close(found, mean_attention(vision_tower(), image, num_blocks=3))


def slow_divergence(p: list[float], q: list[float]) -> float:
    def towards(one: list[float], other: list[float]) -> float:
        return sum(a * math.log2(a / b) for a, b in zip(one, other, strict=True) if a > 0)

    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (towards(p, middle) + towards(q, middle)) / 2


def test_divergence_equals_the_definition() -> None:
    shares = (4 * some(7, 5)).softmax(1)
    shares[0] = torch.tensor([1.0, 0, 0, 0, 0])
    shares[1] = torch.tensor([0, 0.5, 0.5, 0, 0])
    found = divergence(shares.float())
    for i in range(7):
        for j in range(7):
            assert float(found[i, j]) == pytest.approx(
                slow_divergence(shares[i].tolist(), shares[j].tolist()), abs=2e-6
            )
    assert float(found[0, 1]) == pytest.approx(1.0) and float(found.diagonal().abs().max()) < 1e-6


def test_distribution_affinity_equals_the_slow_restatement() -> None:
    similarity, attention = some(6, 4) / 5, some(6, 6, seed=1)
    found = distribution_affinity(similarity.float(), attention.float(), text_temperature=0.05, temperature=0.3)
    shares = []
    for cell in similarity.tolist():
        powers = [math.exp(value / 0.05) for value in cell]
        shares.append([power / sum(powers) for power in powers])
    for i in range(6):
        alike = [math.exp((1 - slow_divergence(shares[i], shares[j])) / 0.3) for j in range(6)]
        weights = [alike[j] / sum(alike) * float(attention[i, j]) for j in range(6)]
        expected = torch.tensor([weight / sum(weights) for weight in weights])
        torch.testing.assert_close(found[i], expected, atol=1e-5, rtol=1e-4)


def test_attention_becomes_doubly_stochastic_and_symmetric_as_by_loops() -> None:
    attention = some(5, 5) ** 3 + 0.01
    slow = attention.tolist()
    for _ in range(200):
        for column in range(5):
            total = sum(slow[row][column] for row in range(5))
            for row in range(5):
                slow[row][column] /= total
        for row in range(5):
            total = sum(slow[row])
            slow[row] = [value / total for value in slow[row]]
    found = attention_affinity(attention.float())
    for row in range(5):
        for column in range(5):
            assert float(found[row, column]) == pytest.approx((slow[row][column] + slow[column][row]) / 2, abs=1e-5)


def test_cosine_affinity_equals_the_slow_restatement() -> None:
    features = some(5, 3) - 0.5
    found = cosine_affinity(features.float(), temperature=0.2)
    for i in range(5):
        cosines = [
            float(features[i] @ other) / math.sqrt(float(features[i] @ features[i]) * float(other @ other))
            for other in features
        ]
        powers = [math.exp(cosine / 0.2) for cosine in cosines]
        torch.testing.assert_close(
            found[i], torch.tensor([power / sum(powers) for power in powers]), atol=1e-5, rtol=1e-4
        )


def test_spreading_equals_averages_cell_by_cell() -> None:
    """Maps of 4x6 pixels on 2x3 cells: each cell's mean, replaced twice by the weighted mean of all cells."""
    maps, weights = some(2, 4, 6), some(6, 6, seed=2).softmax(1)
    cells = [
        [float(one[2 * (at // 3) : 2 * (at // 3) + 2, 2 * (at % 3) : 2 * (at % 3) + 2].mean()) for at in range(6)]
        for one in maps
    ]
    for _ in range(2):
        cells = [[sum(float(weights[i, j]) * own[j] for j in range(6)) for i in range(6)] for own in cells]
    found = spread_over_cells(maps.float(), CellAffinity(weights.float(), 2, 3), 2)
    assert found.shape == (2, 4, 6)
    # Bilinear at twice the size: a pixel at the corner has its cell alone, others three quarters of the nearer one.
    for own, one in zip(cells, found, strict=True):
        assert float(one[0, 0]) == pytest.approx(own[0], abs=1e-5)
        assert float(one[0, 2]) == pytest.approx(0.25 * own[0] + 0.75 * own[1], abs=1e-5)
        assert float(one[1, 0]) == pytest.approx(0.75 * own[0] + 0.25 * own[3], abs=1e-5)

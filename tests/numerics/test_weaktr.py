"""WeakTr's forward with hand-made weights against a slow restatement, one token, one head and one map at a time."""

import math
from typing import Literal

import pytest
import torch
from timm.layers.activations import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from qaclims_ray.models.class_token_vit import ClassTokenVit, interpolate_positions
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.generators.weaktr import AttentionFusion, WeakTr, refine_by_attention

CLASSES, DEPTH, HEADS = 3, 3, 4


def _network(*, pool: Literal["max", "mean"] = "max", extra: int = 0, like_clip: bool = False) -> WeakTr:
    """Weights made by formula: every one differs, so that a swapped axis or head shows."""
    clips_own = {"pre_norm": True, "act_layer": QuickGELU} if like_clip else {}
    vit = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=32, depth=DEPTH, num_heads=HEADS, num_classes=0, **clips_own
    )  # type: ignore[arg-type]
    fusion = AttentionFusion(DEPTH * HEADS, 8, pool=pool, reduction=4, heads=HEADS)
    config = CamNetConfig(generator="weaktr", output_stride=8, image_size=16)
    network = WeakTr(ClassTokenVit(vit, CLASSES + extra), torch.nn.Conv2d(32, CLASSES, 3, padding=1), fusion, config)
    network = network.double().eval()
    with torch.no_grad():
        for index, (name, weight) in enumerate(network.named_parameters()):
            ramp = torch.arange(weight.numel(), dtype=torch.float64)
            wave = torch.sin(1.7 * ramp + index) * (0.12 if weight.ndim > 1 else 0.3)
            if name.endswith(("norm.weight", "norm1.weight", "norm2.weight")):
                wave = wave + 1
            if "class_token" in name or "position" in name:
                wave = 4 * wave
            if "fusion" in name:
                wave = 8 * wave
            weight.copy_(wave.view_as(weight))
    return network


def _image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def _norm(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + 1e-6).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _activation(x: Tensor, *, like_clip: bool) -> Tensor:
    return x / (1 + (-1.702 * x).exp()) if like_clip else x * (1 + torch.erf(x / math.sqrt(2))) / 2


def _linear(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]


def _slow_block(
    tokens: list[Tensor], weights: dict[str, Tensor], name: str, heads: int
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Return the tokens after the block, attention[head][query][key], and the attention's output of each token."""
    width = len(tokens[0])
    size = width // heads
    qkv = [_linear(_norm(token, weights, f"{name}.norm1"), weights, f"{name}.attn.qkv") for token in tokens]
    attention = torch.zeros(heads, len(tokens), len(tokens), dtype=torch.float64)
    outputs = []
    for query in range(len(tokens)):
        mixed = []
        for head in range(heads):
            at = slice(head * size, (head + 1) * size)
            scores = [float(qkv[query][:width][at] @ other[width : 2 * width][at]) / math.sqrt(size) for other in qkv]
            total = sum(math.exp(score) for score in scores)
            for key, score in enumerate(scores):
                attention[head, query, key] = math.exp(score) / total
            mixed.append(sum(attention[head, query, key] * other[2 * width :][at] for key, other in enumerate(qkv)))
        outputs.append(_linear(torch.cat(mixed), weights, f"{name}.attn.proj"))  # type: ignore[arg-type]
    result = []
    for token, output in zip(tokens, outputs, strict=True):
        token = token + output
        hidden = _linear(_norm(token, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
        hidden = _activation(hidden, like_clip="backbone.first_norm.weight" in weights)
        result.append(token + _linear(hidden, weights, f"{name}.mlp.fc2"))
    return result, attention, outputs


def _slow_weights(outputs: list[list[Tensor]], weights: dict[str, Tensor], heads: int, pool: str) -> list[list[float]]:
    """Return the weight of map [head][layer]: two linear maps a head, then a two-layer MLP over all maps."""
    width = len(outputs[0][0])
    scores = []  # heads outside, layers inside
    for head in range(heads):
        for layer in range(len(outputs)):
            channels = []
            for channel in range(head, width, heads):
                values = [float(token[channel]) for token in outputs[layer]]
                channels.append(max(values) if pool == "max" else sum(values) / len(values))
            hidden = _linear(torch.tensor(channels, dtype=torch.float64), weights, "fusion.feature_score.0")
            scores.append(float(_linear(hidden, weights, "fusion.feature_score.1")))
    hidden = (weights["fusion.map_weight.0.weight"] @ torch.tensor(scores, dtype=torch.float64)).clamp(min=0)
    logits = (weights["fusion.map_weight.2.weight"] @ hidden).tolist()
    flat = [1 / (1 + math.exp(-logit)) for logit in logits]
    return [flat[head * len(outputs) : (head + 1) * len(outputs)] for head in range(heads)]


def _slow_conv(grid: list[list[Tensor]], weights: dict[str, Tensor], class_id: int, row: int, column: int) -> float:
    total = float(weights["classifier.bias"][class_id])
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            y, x = row + down, column + right
            if 0 <= y < len(grid) and 0 <= x < len(grid[0]):
                total += float(weights["classifier.weight"][class_id, :, down + 1, right + 1] @ grid[y][x])
    return total


def _slow_forward(network: WeakTr, image: Tensor, pool: str) -> dict[str, Tensor]:
    """Everything about one image (3, height, width) of whole patches and the positions' own size."""
    weights = {name: value.detach() for name, value in network.named_parameters()}
    heads, layers, patch = HEADS, DEPTH, 8
    height, width = image.shape[1] // patch, image.shape[2] // patch
    num_tokens = len(weights["backbone.class_token"])
    tokens = [
        token + position
        for token, position in zip(weights["backbone.class_token"], weights["backbone.class_position"], strict=True)
    ]
    for row in range(height):
        for column in range(width):
            pixels = image[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            embedded = (weights["backbone.patches.weight"] * pixels).sum((1, 2, 3))
            embedded = embedded + weights.get("backbone.patches.bias", 0)
            tokens.append(embedded + weights["backbone.patch_position"][row * width + column])
    if "backbone.first_norm.weight" in weights:
        tokens = [_norm(token, weights, "backbone.first_norm") for token in tokens]
    attention, outputs = [], []
    for layer in range(layers):
        tokens, maps, output = _slow_block(tokens, weights, f"backbone.blocks.{layer}", heads)
        attention.append(maps)
        outputs.append(output)
    map_weights = _slow_weights(outputs, weights, heads, pool)
    fused = torch.zeros(len(tokens), len(tokens), dtype=torch.float64)
    for head in range(heads):
        for layer in range(layers):
            fused += map_weights[head][layer] * attention[layer][head] / (heads * layers)
    grid = [[tokens[num_tokens + row * width + column] for column in range(width)] for row in range(height)]
    coarse = torch.tensor(
        [[[_slow_conv(grid, weights, k, y, x) for x in range(width)] for y in range(height)] for k in range(CLASSES)],
        dtype=torch.float64,
    )
    fine = torch.zeros_like(coarse)
    cells = [(row, column) for row in range(height) for column in range(width)]
    for class_id in range(CLASSES):
        for row, column in cells:
            for other_row, other_column in cells:
                other = num_tokens + other_row * width + other_column
                sharpened = max(0.0, float(coarse[class_id, other_row, other_column])) * fused[class_id, other]
                fine[class_id, row, column] += fused[num_tokens + row * width + column, other] * sharpened
    return {
        "token": torch.stack([tokens[class_id].mean() for class_id in range(CLASSES)]),
        "coarse": coarse,
        "fine": fine,
    }


@pytest.mark.parametrize(("pool", "extra", "like_clip"), [("max", 0, False), ("mean", 2, False), ("max", 1, True)])
def test_forward_equals_the_slow_restatement(pool: Literal["max", "mean"], extra: int, like_clip: bool) -> None:
    network = _network(pool=pool, extra=extra, like_clip=like_clip)
    images = _image(16, 16)
    maps = network(images)
    scores = network(images, want="scores")
    for index, image in enumerate(images):
        expected = _slow_forward(network, image, pool)
        assert expected["coarse"].min() < 0 < expected["fine"].max(), "both signs, so that relu shows"
        torch.testing.assert_close(maps[index], expected["fine"], rtol=1e-9, atol=1e-12)
        for score, wanted in zip(
            scores, (expected["token"], expected["coarse"].mean((1, 2)), expected["fine"].mean((1, 2))), strict=True
        ):
            torch.testing.assert_close(score[index].double(), wanted, rtol=1e-5, atol=1e-7)


def test_the_slow_restatement_tells_heads_and_pools_apart() -> None:
    """Contiguous head channels, or the other pooling, would give other maps than the restatement's."""
    network = _network(pool="max")
    image = _image(16, 16)
    _, _, features = network.backbone(image)
    right = network.fusion.weights(features)
    network.fusion.pool = "mean"
    assert (network.fusion.weights(features) - right).abs().max() > 1e-3
    network.fusion.pool = "max"
    contiguous = [output.unflatten(2, (HEADS, -1)).transpose(2, 3).flatten(2) for output in features]
    assert (network.fusion.weights(contiguous) - right).abs().max() > 1e-3


def test_gradients_of_fusion_and_refinement() -> None:
    generator = torch.Generator().manual_seed(1)
    fusion = AttentionFusion(4, 3, pool="mean", reduction=2, heads=2).double()
    coarse = torch.randn(2, 2, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    attention = [torch.rand(2, 2, 8, 8, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    features = [torch.randn(2, 8, 6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def maps(coarse: Tensor, *rest: Tensor) -> Tensor:
        return refine_by_attention(coarse, fusion(list(rest[:2]), list(rest[2:])))

    assert torch.autograd.gradcheck(maps, (coarse, *attention, *features))


def _cubic(distance: float) -> float:
    """Keys' kernel with a = -0.75, as torch has it."""
    a, x = -0.75, abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize("grid", [(5, 3), (2, 4), (4, 4)])
def test_positions_are_placed_by_the_official_factor(grid: tuple[int, int]) -> None:
    """Samples lie at (i + 0.5) * side / (cells + 0.1) - 0.5, not at (i + 0.5) * side / cells - 0.5."""
    side = 3
    positions = torch.randn(side * side, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = torch.zeros(grid[0] * grid[1], 2, dtype=torch.float64)
    for row in range(grid[0]):
        for column in range(grid[1]):
            y = (row + 0.5) * side / (grid[0] + 0.1) - 0.5
            x = (column + 0.5) * side / (grid[1] + 0.1) - 0.5
            for down in range(-1, 3):
                for right in range(-1, 3):
                    source_y, source_x = math.floor(y) + down, math.floor(x) + right
                    value = positions[min(max(source_y, 0), 2) * side + min(max(source_x, 0), 2)]
                    expected[row * grid[1] + column] += _cubic(y - source_y) * _cubic(x - source_x) * value
    torch.testing.assert_close(interpolate_positions(positions, grid), expected)
    assert torch.equal(interpolate_positions(positions, (side, side)), positions)

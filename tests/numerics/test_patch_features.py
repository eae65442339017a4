"""Patches of a frozen CLIP against a slow restatement: one token, one head, one block at a time, in float64."""

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.patch_features import check_patch_features, patch_features
from tests.numerics.vision_tower import layer_norm, vision_tower


def _related(vectors: list[Tensor]) -> list[list[Tensor]]:
    """How much each token takes of each other one, by the dot products of one head's vectors."""
    size = len(vectors[0])
    rows = []
    for one in vectors:
        scores = [torch.exp(one @ other / size**0.5) for other in vectors]
        rows.append([score / sum(scores) for score in scores])
    return rows


def _slow(tower: VisionTransformer, image: Tensor, positions: Tensor, num_blocks: int) -> Tensor:
    """(dim, row, column) for one image; positions (token, width) fit its grid."""
    rows, columns = image.shape[1] // 4, image.shape[2] // 4
    tokens = [tower.class_embedding + positions[0]]
    for row in range(rows):
        for column in range(columns):
            seen = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            tokens.append((tower.conv1.weight * seen).sum((1, 2, 3)) + positions[len(tokens)])
    tokens = [layer_norm(token, tower.ln_pre) for token in tokens]
    blocks = list(tower.transformer.resblocks)
    width, heads = tower.conv1.out_channels, blocks[0].attn.num_heads
    size = width // heads
    kept = []  # of each of the last blocks: head -> token x token
    for index, block in enumerate(blocks):
        attn = block.attn
        packed = [attn.in_proj_weight @ layer_norm(token, block.ln_1) + attn.in_proj_bias for token in tokens]
        parts = [[vector[at : at + width] for vector in packed] for at in (0, width, 2 * width)]
        heads_of = [[[v[h * size : (h + 1) * size] for v in part] for h in range(heads)] for part in parts]
        if index >= len(blocks) - num_blocks:
            kept.append([[_related(heads_of[part][head]) for part in range(3)] for head in range(heads)])
        if index < len(blocks) - 1:
            tokens = list(block(torch.stack(tokens)[None])[0])
    found = []
    for token in range(1, len(tokens)):
        gathered = []
        for head in range(heads):
            total = torch.zeros(size, dtype=torch.float64)
            for other in range(len(tokens)):
                share = sum(each[head][part][token][other] for each in kept for part in range(3)) / (3 * len(kept))
                total = total + share * heads_of[2][head][other]
            gathered.append(total)
        mixed = blocks[-1].attn.out_proj.weight @ torch.cat(gathered) + blocks[-1].attn.out_proj.bias
        feature = layer_norm(mixed, tower.ln_post) @ tower.proj
        found.append(feature / feature.norm())
    return torch.stack(found, 1).unflatten(1, (rows, columns))


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_patches_equal_the_slow_restatement(num_blocks: int) -> None:
    tower = vision_tower()
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        found = patch_features(tower, images, num_blocks=num_blocks)
        for image, one in zip(images, found, strict=True):
            torch.testing.assert_close(one.double(), _slow(tower, image, tower.positional_embedding, num_blocks))


def test_more_blocks_than_there_are_means_all() -> None:
    tower, image = vision_tower(), torch.randn(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(
        patch_features(tower, image, num_blocks=99), patch_features(tower, image, num_blocks=3), rtol=0, atol=0
    )


def test_positions_are_stretched_to_larger_images() -> None:
    tower = vision_tower()
    image = torch.randn(1, 3, 12, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    grid = tower.positional_embedding[1:].T.reshape(1, 8, 2, 2)
    wide = torch.nn.functional.interpolate(grid.float(), (3, 4), mode="bicubic", align_corners=False).double()
    positions = torch.cat([tower.positional_embedding[:1], wide[0].flatten(1).T])
    with torch.no_grad():
        found = patch_features(tower, image, num_blocks=2)
        assert found.shape == (1, 5, 3, 4)
        torch.testing.assert_close(found[0].double(), _slow(tower, image[0], positions, 2), rtol=1e-5, atol=1e-6)


def test_towers_without_projected_patches_are_refused() -> None:
    with pytest.raises(ModelError, match="vision transformer, this model's image tower is a Conv2d"):
        check_patch_features(torch.nn.Conv2d(3, 3, 1))
    with pytest.raises(ModelError, match="does not pool its class token"):
        check_patch_features(vision_tower(pool_type="avg"))

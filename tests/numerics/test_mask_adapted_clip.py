"""The mask-prompt forward against a slow restatement, one region, one patch and one head at a time, in float64."""

import pytest
import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.mask_tokens import check_mask_adaptable, encode_masked_image, patches_on
from tests.numerics.vision_tower import layer_norm, vision_tower


def _inputs(num_regions: int = 3, depth: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(num_regions, 3, 8, 8, generator=generator, dtype=torch.float64)
    mask_embedding = torch.randn(depth, 4, 8, generator=generator, dtype=torch.float64)
    token_mask = torch.zeros(num_regions, 1, 8, 8, dtype=torch.float64)
    token_mask[0, 0, 3, 4] = 1  # a single pixel turns its patch on
    token_mask[1, 0, :, :4] = 1
    return pixels, mask_embedding, token_mask


def _slow_attention(tokens: list[Tensor], attention: torch.nn.MultiheadAttention) -> list[Tensor]:
    width, heads = attention.embed_dim, attention.num_heads
    size = width // heads
    projected = [attention.in_proj_weight @ token + attention.in_proj_bias for token in tokens]
    mixed = []
    for query_vector in projected:
        parts = []
        for head in range(heads):
            span = slice(head * size, (head + 1) * size)
            query = query_vector[:width][span]
            scores = torch.stack([query @ other[width : 2 * width][span] for other in projected]) / size**0.5
            weights = scores.exp() / scores.exp().sum()
            parts.append(
                sum(weight * other[2 * width :][span] for weight, other in zip(weights, projected, strict=True))
            )
        mixed.append(attention.out_proj.weight @ torch.cat(parts) + attention.out_proj.bias)
    return mixed


def _slow_block(tokens: list[Tensor], block: torch.nn.Module) -> list[Tensor]:
    attended = _slow_attention([layer_norm(token, block.ln_1) for token in tokens], block.attn)
    tokens = [token + change for token, change in zip(tokens, attended, strict=True)]
    result = []
    for token in tokens:
        hidden = block.mlp.c_fc.weight @ layer_norm(token, block.ln_2) + block.mlp.c_fc.bias
        hidden = hidden / (1 + (-1.702 * hidden).exp())
        result.append(token + block.mlp.c_proj.weight @ hidden + block.mlp.c_proj.bias)
    return result


def _slow_forward(tower: VisionTransformer, mask_embedding: Tensor, pixels: Tensor, token_mask: Tensor) -> Tensor:
    embeddings = []
    for image, mask in zip(pixels, token_mask, strict=True):
        tokens, is_on = [tower.class_embedding + tower.positional_embedding[0]], []
        for row in range(2):
            for column in range(2):
                rows, columns = slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4)
                patch = len(is_on)
                mean = mask[0, rows, columns].mean()
                is_on.append(bool(torch.ceil(mean) > 0))
                seen = (tower.conv1.weight * image[:, rows, columns]).sum((1, 2, 3))
                token = seen if is_on[patch] else mask_embedding[0, patch]
                tokens.append(token + tower.positional_embedding[patch + 1])
        tokens = [layer_norm(token, tower.ln_pre) for token in tokens]
        for index, block in enumerate(tower.transformer.resblocks, start=1):
            tokens = _slow_block(tokens, block)
            if index < len(mask_embedding):
                for patch, on in enumerate(is_on):
                    tokens[patch + 1] = tokens[patch + 1] if on else mask_embedding[index, patch]
        embeddings.append(layer_norm(tokens[0], tower.ln_post) @ tower.proj)
    return torch.stack(embeddings)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_equals_the_slow_restatement_with_gradients(depth: int) -> None:
    tower = vision_tower()
    pixels, mask_embedding, token_mask = _inputs(depth=depth)
    inputs = pixels.requires_grad_(), mask_embedding.requires_grad_()
    fast = encode_masked_image(tower, mask_embedding, pixels, token_mask)
    slow = _slow_forward(tower, mask_embedding, pixels, token_mask)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-10)
    weights = torch.linspace(-1, 1, fast.numel(), dtype=torch.float64).view_as(fast)
    fast_gradients = torch.autograd.grad((fast * weights).sum(), inputs)
    slow_gradients = torch.autograd.grad((slow * weights).sum(), inputs)
    for fast_gradient, slow_gradient in zip(fast_gradients, slow_gradients, strict=True):
        torch.testing.assert_close(fast_gradient, slow_gradient, rtol=1e-8, atol=1e-10)


def test_gradcheck() -> None:
    tower = vision_tower(layers=2)
    pixels, mask_embedding, token_mask = _inputs(num_regions=2, depth=2)
    inputs = pixels.requires_grad_(), mask_embedding.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, e: encode_masked_image(tower, e, x, token_mask[:2]), inputs, fast_mode=True
    )


def test_a_full_mask_is_the_plainvision_tower() -> None:
    tower = vision_tower()
    pixels, mask_embedding, _ = _inputs()
    full = torch.ones(3, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(encode_masked_image(tower, mask_embedding, pixels, full), tower(pixels))


def test_pixels_of_off_patches_do_not_matter() -> None:
    tower = vision_tower()
    pixels, mask_embedding, token_mask = _inputs()
    changed = torch.where(
        patches_on(token_mask, (4, 4)).view(3, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3) > 0, pixels, 7.0
    )
    first = encode_masked_image(tower, mask_embedding, pixels, token_mask)
    torch.testing.assert_close(first, encode_masked_image(tower, mask_embedding, changed, token_mask))


def test_one_pixel_turns_a_patch_on() -> None:
    _, _, token_mask = _inputs()
    on = patches_on(token_mask, (4, 4))[..., 0].tolist()
    assert on == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_gradient_checkpointing_changes_nothing() -> None:
    tower = vision_tower()
    pixels, mask_embedding, token_mask = _inputs()
    pixels.requires_grad_()
    plain = torch.autograd.grad(encode_masked_image(tower, mask_embedding, pixels, token_mask).sum(), pixels)[0]
    tower.set_grad_checkpointing(True)
    again = torch.autograd.grad(encode_masked_image(tower, mask_embedding, pixels, token_mask).sum(), pixels)[0]
    torch.testing.assert_close(plain, again)


def test_other_axis_order_gives_the_same() -> None:
    tower = vision_tower()
    pixels, mask_embedding, token_mask = _inputs()
    expected = encode_masked_image(tower, mask_embedding, pixels, token_mask)
    tower.transformer.batch_first = False
    for block in tower.transformer.resblocks:
        block.attn.batch_first = False
    torch.testing.assert_close(encode_masked_image(tower, mask_embedding, pixels, token_mask), expected)


@pytest.mark.parametrize("shape", [(4, 4, 8), (0, 4, 8), (2, 5, 8), (2, 4, 7), (4, 8)])
def test_tokens_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(depth, 4, 8\) with depth 1\.\.3"):
        check_mask_adaptable(vision_tower(), torch.zeros(shape))


def test_towers_that_cannot_take_a_token_mask_are_refused() -> None:
    with pytest.raises(ModelError, match="vision transformer"):
        check_mask_adaptable(torch.nn.Conv2d(3, 3, 1), torch.zeros(1, 4, 8))
    with pytest.raises(ModelError, match="patch_dropout"):
        check_mask_adaptable(vision_tower(patch_dropout=0.5), torch.zeros(1, 4, 8))

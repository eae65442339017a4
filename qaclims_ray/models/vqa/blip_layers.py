"""BLIP's transformer layers over transformers' weights, written for many questions per image.

Three things differ from the layers of transformers: the true question mask reaches every attention that needs it
(``BlipTextAttention`` drops it for cross-attention), keys and values of an image are computed once and serve all of
its questions, and those of a question serve all of its beams.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class ImageEncoder(nn.Module):
    """The ViT of BLIP at a fixed image size."""

    def __init__(self, vision_model: Any, image_size: int):
        super().__init__()
        embeddings = vision_model.embeddings
        self.patch_embedding = embeddings.patch_embedding
        self.class_embedding = nn.Parameter(embeddings.class_embedding.detach(), requires_grad=False)
        positions = embeddings.position_embedding.detach()
        patches = (image_size // embeddings.patch_size) ** 2
        if positions.shape[1] != patches + 1:
            # transformers reads only the number of patches of the dummy.
            dummy = positions.new_zeros(1, patches + 1, positions.shape[2])
            positions = embeddings.interpolate_pos_encoding(dummy, image_size, image_size).detach()
        self.position_embedding = nn.Parameter(positions, requires_grad=False)
        self.layers = vision_model.encoder.layers
        self.final_norm = vision_model.post_layernorm

    def forward(self, pixels: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image patch dim"]:
        """Return the normalised states of the class token and of every patch."""
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        class_token = self.class_embedding.expand(len(pixels), 1, -1)
        states = torch.cat([class_token, patches], dim=1) + self.position_embedding
        for layer in self.layers:
            attention = layer.self_attn
            queries, keys, values = attention.qkv(layer.layer_norm1(states)).chunk(3, dim=-1)
            attended = _attend(*(split_heads(part, attention.num_heads) for part in (queries, keys, values)), mask=None)
            states = states + attention.projection(attended)
            states = states + layer.mlp(layer.layer_norm2(states))
        return self.final_norm(states)


class TextLayer(nn.Module):
    """One layer of the question encoder or the answer decoder."""

    def __init__(self, layer: Any):
        super().__init__()
        own, cross = layer.attention, layer.crossattention
        self.num_heads = own.self.num_attention_heads
        self.own_qkv = _joined(own.self.query, own.self.key, own.self.value)
        self.own_output, self.own_norm = own.output.dense, own.output.LayerNorm
        self.cross_query = cross.self.query
        self.cross_kv = _joined(cross.self.key, cross.self.value)
        self.cross_output, self.cross_norm = cross.output.dense, cross.output.LayerNorm
        self.widen, self.activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
        self.narrow, self.feed_forward_norm = layer.output.dense, layer.output.LayerNorm

    def cross_keys_values(
        self, context: Float[Tensor, "context position width"]
    ) -> tuple[Float[Tensor, "context head position size"], Float[Tensor, "context head position size"]]:
        """Return keys and values of what the layer looks at: an image, or a question."""
        keys, values = self.cross_kv(context).chunk(2, dim=-1)
        return split_heads(keys, self.num_heads), split_heads(values, self.num_heads)

    def own_projections(
        self, states: Float[Tensor, "row token dim"]
    ) -> tuple[
        Float[Tensor, "row head token size"], Float[Tensor, "row head token size"], Float[Tensor, "row head token size"]
    ]:
        """Return queries, keys and values of the layer's self-attention."""
        queries, keys, values = self.own_qkv(states).chunk(3, dim=-1)
        heads = self.num_heads
        return split_heads(queries, heads), split_heads(keys, heads), split_heads(values, heads)

    def forward(
        self,
        states: Float[Tensor, "row token dim"],
        own: tuple[Tensor, Tensor, Tensor],
        context: tuple[Tensor, Tensor],
        *,
        own_mask: Bool[Tensor, "row 1 1 key"] | None = None,
        context_mask: Bool[Tensor, "context 1 1 position"] | None = None,
    ) -> Float[Tensor, "row token dim"]:
        """Run the layer.

        Args:
            states: Input states. Rows are context-major: the same number of rows belongs to every context.
            own: Queries, keys and values of self-attention (keys and values may include the past).
            context: Keys and values from ``cross_keys_values``, one entry per context.
            own_mask: True where a key may be attended to.
            context_mask: True where a context position may be attended to.

        Returns:
            The output states.
        """
        states = self.own_norm(self.own_output(_attend(*own, mask=own_mask)) + states)
        rows, tokens, dim = states.shape
        keys, values = context
        # All rows of one context become one long row of queries, so that its keys and values need not be repeated.
        queries = self.cross_query(states).view(len(keys), -1, dim)  # (context, row of context * token, dim)
        attended = _attend(split_heads(queries, self.num_heads), keys, values, mask=context_mask)
        states = self.cross_norm(self.cross_output(attended.reshape(rows, tokens, dim)) + states)
        return self.feed_forward_norm(self.narrow(self.activation(self.widen(states))) + states)


class TextEmbedding(nn.Module):
    """Word plus position embedding, normalised."""

    def __init__(self, embeddings: Any):
        super().__init__()
        self.words, self.positions = embeddings.word_embeddings, embeddings.position_embeddings
        self.norm = embeddings.LayerNorm

    def forward(self, tokens: Int[Tensor, "row token"], first_position: int = 0) -> Float[Tensor, "row token dim"]:
        """Embed tokens standing at ``first_position`` and after."""
        positions = self.positions.weight[first_position : first_position + tokens.shape[1]]
        return self.norm(self.words(tokens) + positions)


class AnswerHead(nn.Module):
    """Scores of the next answer token."""

    def __init__(self, predictions: Any):
        super().__init__()
        transform = predictions.transform
        self.dense, self.activation, self.norm = transform.dense, transform.transform_act_fn, transform.LayerNorm
        self.vocabulary = predictions.decoder

    def forward(self, states: Float[Tensor, "row dim"]) -> Float[Tensor, "row vocabulary"]:
        """Return logits in the model's precision."""
        return self.vocabulary(self.norm(self.activation(self.dense(states))))


def split_heads(states: Float[Tensor, "row token dim"], num_heads: int) -> Float[Tensor, "row head token size"]:
    """Give every head its share of the width."""
    return states.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, *, mask: Tensor | None) -> Tensor:
    attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)


def _joined(*linears: nn.Linear) -> nn.Linear:
    """Return one linear layer that computes several side by side; theirs become views of its weights."""
    weight = torch.cat([linear.weight.detach() for linear in linears])
    bias = torch.cat([linear.bias.detach() for linear in linears])
    joined = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    joined.weight, joined.bias = nn.Parameter(weight, requires_grad=False), nn.Parameter(bias, requires_grad=False)
    sizes = [linear.out_features for linear in linears]
    for linear, own_weight, own_bias in zip(linears, weight.split(sizes), bias.split(sizes), strict=True):
        linear.weight = nn.Parameter(own_weight, requires_grad=False)
        linear.bias = nn.Parameter(own_bias, requires_grad=False)
    return joined

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
        self.cross_output, self.cross_norm = cross.output.dense, cross.output.LayerNorm
        self.widen, self.activation = layer.intermediate.dense, layer.intermediate.intermediate_act_fn
        self.narrow, self.feed_forward_norm = layer.output.dense, layer.output.LayerNorm

    def forward(
        self,
        states: Float[Tensor, "row token dim"],
        past: Float[Tensor, "row slot 2 head size"] | None,
        context: Float[Tensor, "context position 2 head size"],
        *,
        own_mask: Float[Tensor, "row 1 #token key"] | None = None,
        context_mask: Float[Tensor, "context 1 1 position"] | None = None,
    ) -> tuple[Float[Tensor, "row token dim"], Float[Tensor, "row token 2 head size"]]:
        """Run the layer.

        Args:
            states: Input states. Rows are context-major: the same number of rows belongs to every context.
            past: Keys and values that self-attention sees beside those of ``states``, before them.
            context: Keys and values of what the layer looks at, one entry per context.
            own_mask: Added to the scores of self-attention: 0 where a key may be attended to, else -inf.
            context_mask: Added to the scores over the context.

        Returns:
            The output states; keys and values of self-attention of ``states``.
        """
        rows, tokens, dim = states.shape
        queries, kept = self.own_qkv(states).split([dim, 2 * dim], dim=-1)
        kept = kept.unflatten(-1, (2, self.num_heads, -1))
        seen = kept if past is None else torch.cat([past, kept], dim=1)
        states = self.own_norm(self.own_output(self._attend(queries, seen, own_mask)) + states)
        # All rows of one context become one long row of queries, so that its keys and values need not be repeated.
        queries = self.cross_query(states).view(len(context), -1, dim)  # (context, row of context * token, dim)
        attended = self._attend(queries, context, context_mask).reshape(rows, tokens, dim)
        states = self.cross_norm(self.cross_output(attended) + states)
        return self.feed_forward_norm(self.narrow(self.activation(self.widen(states))) + states), kept

    def _attend(self, queries: Tensor, keys_values: Tensor, mask: Tensor | None) -> Tensor:
        keys, values = keys_values.transpose(1, 3).unbind(2)  # (row, head, position, size)
        return _attend(split_heads(queries, self.num_heads), keys, values, mask=mask)


class ContextProjection(nn.Module):
    """Keys and values of what several layers look at, an image or a question, in one product for all layers."""

    def __init__(self, layers: nn.ModuleList):
        """Take the projections of transformers' layers over; theirs become views."""
        super().__init__()
        blocks: list[Any] = list(layers)
        attentions = [block.crossattention.self for block in blocks]
        self.num_layers, self.num_heads = len(layers), attentions[0].num_attention_heads
        self.keys_values = _joined(*(part for each in attentions for part in (each.key, each.value)))

    def forward(
        self, states: Float[Tensor, "context position width"]
    ) -> Float[Tensor, "context position layer 2 head size"]:
        """Project the states of every context."""
        return self.keys_values(states).unflatten(-1, (self.num_layers, 2, self.num_heads, -1))


class TextEmbedding(nn.Module):
    """Word plus position embedding, normalised."""

    def __init__(self, embeddings: Any):
        super().__init__()
        self.words, self.positions = embeddings.word_embeddings, embeddings.position_embeddings
        self.norm = embeddings.LayerNorm

    def forward(self, tokens: Int[Tensor, "row token"]) -> Float[Tensor, "row token dim"]:
        """Embed tokens that stand one after the other, from the first position on."""
        return self.norm(self.words(tokens) + self.positions.weight[: tokens.shape[1]])

    def at(self, tokens: Int[Tensor, "row token"], position: Int[Tensor, ""]) -> Float[Tensor, "row token dim"]:
        """Embed tokens that all stand at one position."""
        return self.norm(self.words(tokens) + self.positions(position))


class AnswerHead(nn.Module):
    """Scores of the next answer token."""

    def __init__(self, predictions: Any):
        super().__init__()
        transform = predictions.transform
        self.dense, self.activation, self.norm = transform.dense, transform.transform_act_fn, transform.LayerNorm
        self.vocabulary = predictions.decoder

    def forward(self, states: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows vocabulary"]:
        """Return logits in the model's precision."""
        return self.vocabulary(self.norm(self.activation(self.dense(states))))


class QuestionEncoder(nn.Module):
    """Reads questions while it looks at images."""

    def __init__(self, encoder: Any):
        super().__init__()
        self.embedding = TextEmbedding(encoder.embeddings)
        self.image_context = ContextProjection(encoder.encoder.layer)
        self.layers = nn.ModuleList(TextLayer(layer) for layer in encoder.encoder.layer)

    def forward(
        self,
        tokens: Int[Tensor, "question token"],
        mask: Float[Tensor, "question 1 1 token"] | None,
        images: Float[Tensor, "image position layer 2 head size"],
    ) -> Float[Tensor, "question token dim"]:
        """Return the states of the questions.

        Args:
            tokens: Questions; the same number belongs to every image, image after image.
            mask: ``added_mask`` of their words.
            images: Keys and values of the images, from ``image_context``.
        """
        states = self.embedding(tokens)
        for layer, image in zip(self.layers, images.unbind(2), strict=True):
            states = layer(states, None, image, own_mask=mask)[0]
        return states


class AnswerDecoder(nn.Module):
    """Scores the next token of answers (``beam_search.TokenScorer``): a context per question, shared by its beams."""

    def __init__(self, decoder: Any):
        super().__init__()
        layers = decoder.bert.encoder.layer
        self.embedding = TextEmbedding(decoder.bert.embeddings)
        self.question_context = ContextProjection(layers)
        self.layers = nn.ModuleList(TextLayer(layer) for layer in layers)
        self.head = AnswerHead(decoder.cls.predictions)

    def forward(
        self,
        tokens: Int[Tensor, "question beam"],
        position: Int[Tensor, ""],
        past: Float[Tensor, "question slot layer 2 head size"] | None,
        is_own: Bool[Tensor, "question beam slot"] | None,
        context: tuple[Tensor, ...],
    ) -> tuple[Float[Tensor, "question beam vocabulary"], Float[Tensor, "question beam layer 2 head size"]]:
        """Score the next token.

        Args:
            tokens: Last token of every hypothesis.
            position: Its place, 0 for the start token.
            past: Keys and values of earlier tokens, of all beams of a question; None at the start.
            is_own: Which of them a hypothesis may attend to.
            context: Keys and values of the questions, from ``question_context``, and where questions are padded their
                ``added_mask``.

        Returns:
            Logits; keys and values of these tokens.
        """
        states, own_mask, kept = self.embedding.at(tokens, position), None, []
        if is_own is not None:
            # Of the tokens scored now, a hypothesis sees its own.
            own = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device).expand(len(tokens), -1, -1)
            own_mask = added_mask(torch.cat([is_own, own], dim=2)[:, None], states.dtype)
        pasts = [None] * len(self.layers) if past is None else past.unbind(2)
        questions, *masks = context
        for layer, before, question in zip(self.layers, pasts, questions.unbind(2), strict=True):
            states, now = layer(states, before, question, own_mask=own_mask, context_mask=masks[0] if masks else None)
            kept.append(now)
        return self.head(states), torch.stack(kept, dim=2)


def added_mask(is_open: Bool[Tensor, "*axes"], dtype: torch.dtype) -> Float[Tensor, "*axes"]:
    """Return what is added to the scores of attention: 0 where a position may be attended to, else -inf."""
    return torch.zeros_like(is_open, dtype=dtype).masked_fill(~is_open, -torch.inf)


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

"""Encoding texts with CLIP: each distinct one once, in batches, and nothing cut unnoticed."""

import logging
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from qaclims_ray.corpus.answers import without_duplicates
from qaclims_ray.errors import ModelError

Encode = Callable[[list[str]], Tensor]
"""Texts -> L2-normalised features (text, dim): what `FrozenClip.encode_texts` does."""
Tokenize = Callable[[list[str]], Tensor]
"""Texts -> tokens (text, token), padded or cut to the context length: what `FrozenClip.tokenize` does."""

BATCH_SIZE = 256
"""Texts encoded together."""

_NUM_EXAMPLES = 3
_logger = logging.getLogger(__name__)


def encode_distinct(
    texts: Sequence[str],
    encode: Encode,
    *,
    batch_size: int = BATCH_SIZE,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[tuple[str, ...], Float[Tensor, "text dim"]]:
    """Encode every distinct text once.

    Args:
        texts: any number of texts, at least one.
        encode: the text encoder.
        batch_size: texts encoded together.
        on_progress: called after each batch with (texts done, texts in all).

    Returns:
        The distinct texts in order of first appearance, and their features in float32 on the CPU.

    Raises:
        ModelError: when the encoder returns another number of rows or values that are not finite.
    """
    distinct = without_duplicates(texts)
    parts: list[Tensor] = []
    for start in range(0, len(distinct), batch_size):
        batch = distinct[start : start + batch_size]
        features = encode(batch).detach().to("cpu", torch.float32)
        if features.ndim != 2 or len(features) != len(batch):
            raise ModelError(f"the text encoder gave features {tuple(features.shape)} for {len(batch)} texts")
        if not bool(features.isfinite().all()):
            broken = batch[int((~features.isfinite().all(1)).nonzero()[0])]
            raise ModelError(f"the text encoder gave values that are not finite for {broken!r}; check its weights")
        parts.append(features)
        if on_progress is not None:
            on_progress(start + len(batch), len(distinct))
    return tuple(distinct), torch.cat(parts)


def texts_at_limit(texts: Sequence[str], tokenize: Tokenize, *, batch_size: int = BATCH_SIZE) -> tuple[str, ...]:
    """Return, and log, the texts whose tokens fill the whole context: what does not fit was cut off.

    A text that fits to the token is among them: tokenizers cut silently and do not tell the two apart.

    Args:
        texts: texts as they are encoded.
        tokenize: the tokenizer.
        batch_size: texts tokenized together.
    """
    padding = int(tokenize([""])[0, -1])
    at_limit: list[str] = []
    for start in range(0, len(texts), batch_size):
        batch = list(texts[start : start + batch_size])
        tokens: Int[Tensor, "text token"] = tokenize(batch)
        at_limit += [text for text, last in zip(batch, tokens[:, -1].tolist(), strict=True) if last != padding]
    if at_limit:
        _logger.warning(
            "%d of %d texts fill the text encoder's context and may be cut, e.g. %s",
            len(at_limit),
            len(texts),
            at_limit[:_NUM_EXAMPLES],
        )
    return tuple(at_limit)

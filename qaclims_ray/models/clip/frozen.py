"""Frozen CLIP, which supervises the text-contrast stages: loading it and embedding regions and texts.

Weights come through open_clip from a local folder (configuration, weights, tokenizer, optional mask tokens), from a
checkpoint file of CLIP or of OVSeg's mask-adapted CLIP (QA-CLIMS), or from a pretrained tag. Gradients flow through
the image tower to the pixels, never into it.
"""

import difflib
import hashlib
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.model import get_model_preprocess_cfg
from torch import Tensor, nn

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.checkpoint import MASK_TOKENS_FILE, MASK_TOKENS_KEY, read_checkpoint
from qaclims_ray.models.clip.mask_tokens import check_mask_adaptable, encode_masked_image
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.weight_files import cause_of, read_weights
from qaclims_ray.models.weight_fit import put_weights, require_finite

logger = logging.getLogger(__name__)

TEXT_BATCH = 256
"""Texts encoded at once."""

_LOCAL_DIR = "local-dir:"
_CONFIG_FILE = "open_clip_config.json"
_WEIGHTS_FILE = "open_clip_model.safetensors"
_TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model")
_BPE_VOCABULARY = 49408
"""Size of OpenAI's byte-pair vocabulary, which open_clip carries itself."""


class FrozenClip(nn.Module):
    """A CLIP whose weights never change; stays in evaluation mode."""

    model: Any
    """The open_clip model: CLIP or one of its kin, which share no base class."""
    mask_embedding: Tensor | None
    """Mask tokens (depth, patch, width) of a mask-adapted model."""

    def __init__(
        self,
        model: Any,
        tokenize: Callable[[list[str]], Tensor],
        *,
        mask_embedding: Tensor | None = None,
    ) -> None:
        """Freeze a model.

        Args:
            model: a loaded open_clip model.
            tokenize: its tokenizer, from texts to (text, token).
            mask_embedding: mask tokens (depth, patch, width) of a mask-adapted model.

        Raises:
            ModelError: the mask tokens do not fit the image tower, or the tokenizer the text tower.
        """
        super().__init__()
        if mask_embedding is not None:
            check_mask_adaptable(model.visual, mask_embedding)
        self.model = model
        self.register_buffer("mask_embedding", mask_embedding)
        self.tokenize = tokenize
        preprocessing = get_model_preprocess_cfg(model)
        self.mean = tuple(float(value) for value in preprocessing["mean"])
        self.std = tuple(float(value) for value in preprocessing["std"])
        size = model.visual.image_size
        height, width = (size, size) if isinstance(size, int) else size
        if height != width:
            raise ModelError(f"the image tower takes {height}x{width} pixels, expected a square. Use another model.")
        self.image_size = int(height)
        _check_tokenizer(model, tokenize)
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "FrozenClip":
        """Stay in evaluation mode, whatever is asked."""
        return super().train(False)

    @property
    def is_mask_adapted(self) -> bool:
        """Whether regions may carry a token mask."""
        return self.mask_embedding is not None

    def encode_regions(
        self,
        pixels: Float[Tensor, "region 3 height width"],
        token_mask: Float[Tensor, "region 1 height width"] | None = None,
    ) -> Float[Tensor, "region dim"]:
        """Embed region images; gradients flow to the pixels.

        Args:
            pixels: normalised, `image_size` square.
            token_mask: binary, 1 on the region, for a mask-adapted model; None shows every patch.

        Returns:
            L2-normalised float32 embeddings.
        """
        if pixels.shape[-2:] != (self.image_size, self.image_size):
            raise ModelError(
                f"CLIP got regions of {pixels.shape[-2]}x{pixels.shape[-1]} pixels, expected "
                f"{self.image_size}x{self.image_size}. Resize them."
            )
        pixels = pixels.to(self._dtype)
        if token_mask is None:
            features = self.model.encode_image(pixels)
        elif self.mask_embedding is None:
            raise ModelError("this CLIP has no mask tokens, so it takes no token mask. Use the pixel mask.")
        else:
            features = encode_masked_image(self.model.visual, self.mask_embedding, pixels, token_mask)
        return F.normalize(features.float(), dim=-1)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> Float[Tensor, "text dim"]:
        """Embed texts.

        Args:
            texts: any number of texts; those too long for the model are cut.

        Returns:
            L2-normalised float32 embeddings, on the model's device.
        """
        device = next(self.model.parameters()).device
        texts = list(texts)
        parts = [torch.zeros(0, self.dim, device=device)]
        for start in range(0, len(texts), TEXT_BATCH):
            tokens = self.tokenize(texts[start : start + TEXT_BATCH]).to(device)
            parts.append(F.normalize(self.model.encode_text(tokens).float(), dim=-1))
        return torch.cat(parts)

    @property
    def dim(self) -> int:
        """Dimension of the embeddings."""
        return int(self.model.visual.output_dim)

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.model.visual.parameters()).dtype

    def fingerprint(self) -> str:
        """Hash weights, mask tokens, activation, normalisation and tokenizer: what an artefact depends on."""
        digest = hashlib.sha256()
        # GELU and QuickGELU have no weights, so weights alone do not tell such models apart.
        kinds = {type(module).__name__ for module in self.model.modules()}
        activations = sorted(name for name in kinds if "GELU" in name)
        # A tokenizer has no fingerprint of its own; what it makes of a sentence stands for it.
        tokens = self.tokenize(["a photo of no dog, on the grass."]).tolist()
        digest.update(json.dumps([activations, self.mean, self.std, self.image_size, tokens]).encode())
        for key, value in sorted(self.state_dict().items()):
            digest.update(key.encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]


def _check_tokenizer(model: nn.Module, tokenize: Callable[[list[str]], Tensor]) -> None:
    """Refuse a tokenizer that gives tokens or lengths the text tower does not have."""
    tokens = tokenize(["a photo of a dog.", "a photo"])
    text_tower = getattr(model, "text", model)
    vocabulary, context = getattr(text_tower, "vocab_size", None), getattr(text_tower, "context_length", None)
    highest = max(int(tokens.max()), len(getattr(tokenize, "tokenizer", ())) - 1)
    if vocabulary is not None and highest >= vocabulary:
        raise ModelError(
            f"the tokenizer has tokens up to {highest}, the text tower knows {vocabulary}. "
            "Use the tokenizer that belongs to the model."
        )
    if context is not None and tokens.shape[1] != context:
        raise ModelError(
            f"the tokenizer gives {tokens.shape[1]} tokens a text, the text tower takes {context}. "
            "Set text_cfg.context_length to what the weights were trained with."
        )


def load_clip(
    model: str,
    weights: str | None,
    *,
    device: torch.device | str,
    dtype: torch.dtype = torch.float32,
    mask_adapted: bool,
) -> FrozenClip:
    """Load a frozen CLIP.

    Args:
        model: open_clip architecture ("ViT-L-14-quickgelu"), or a local folder.
        weights: local file or pretrained tag for an architecture; None or empty for a folder, which has its own.
        device: where to put it.
        dtype: of its weights; embeddings are float32 in any case.
        mask_adapted: whether to use mask tokens; they must then be there.

    Raises:
        ModelError: anything about the model or its weights is absent or does not fit.
    """
    if _names_folder(model):
        network, mask_embedding, source = _load_folder(Path(model.removeprefix(_LOCAL_DIR)).expanduser(), weights)
        tokenize = open_clip.get_tokenizer(f"{_LOCAL_DIR}{source}")
    else:
        network, mask_embedding, source = _load_architecture(model, weights)
        tokenize = open_clip.get_tokenizer(model)
    if mask_adapted and mask_embedding is None:
        raise ModelError(
            f"{source} holds no mask tokens, but a mask-adapted CLIP was asked for. Give weights that have them "
            "(OVSeg's), or set mask_adapted to false."
        )
    used_tokens = mask_embedding.float() if mask_adapted and mask_embedding is not None else None
    return FrozenClip(network, tokenize, mask_embedding=used_tokens).to(device=torch.device(device), dtype=dtype)


def _build(model: str, *, load_weights: bool = True) -> nn.Module:
    """Build a model that is filled afterwards: no warning that it is random, no draw from the global generator."""

    def is_about_other_things(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(is_about_other_things)
    try:
        # open_clip draws initial weights, and those draws must not move what is drawn after them.
        with torch.random.fork_rng(devices=[]):
            return open_clip.create_model(model, load_weights=load_weights, pretrained_text=False)
    finally:
        root.removeFilter(is_about_other_things)


def _names_folder(model: str) -> bool:
    is_path_like = model.startswith((_LOCAL_DIR, "~", ".")) or os.sep in model
    return is_path_like or Path(model, _CONFIG_FILE).is_file()


def _load_folder(folder: Path, weights: str | None) -> tuple[nn.Module, Tensor | None, str]:
    """Build and fill the model of a folder."""
    if weights:
        raise ModelError(
            f"the model folder {folder} has its own weights, but weights={weights!r} was given; drop that."
        )
    config = _read_folder_config(folder)
    _check_folder_tokenizer(folder, config)
    checkpoint = read_weights(folder / _WEIGHTS_FILE)
    try:
        network = _build(f"{_LOCAL_DIR}{folder}", load_weights=False)
    except (ValueError, TypeError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ModelError(f"open_clip cannot build {folder / _CONFIG_FILE}: {error}. Mend model_cfg.") from error
    put_weights(network, checkpoint, source=str(folder / _WEIGHTS_FILE))
    tokens_path = folder / MASK_TOKENS_FILE
    if not tokens_path.exists():
        return network, None, str(folder)
    tokens = read_weights(tokens_path)
    require_finite(tokens, source=str(tokens_path))
    if MASK_TOKENS_KEY not in tokens:
        raise ModelError(f"{tokens_path} holds {sorted(tokens)}, expected the key {MASK_TOKENS_KEY!r}.")
    return network, tokens[MASK_TOKENS_KEY], str(folder)


def _read_folder_config(folder: Path) -> dict:
    if not folder.is_dir():
        raise ModelError(f"the CLIP folder {folder} does not exist. Give a folder with {_CONFIG_FILE}.")
    for name in (_CONFIG_FILE, _WEIGHTS_FILE):
        if not (folder / name).is_file():
            found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
            raise ModelError(f"the CLIP folder {folder} has no {name}; found {found}.")
    try:
        config = json.loads((folder / _CONFIG_FILE).read_text(encoding="utf-8"))
        towers = [config["model_cfg"][tower] for tower in ("vision_cfg", "text_cfg")]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{folder / _CONFIG_FILE} is no JSON: {error}.") from error
    except (KeyError, TypeError) as error:
        raise ModelError(
            f"{folder / _CONFIG_FILE} lacks {error}; expected model_cfg with vision_cfg and text_cfg."
        ) from error
    if not all(isinstance(tower, dict) for tower in towers):
        raise ModelError(f"{folder / _CONFIG_FILE}: vision_cfg and text_cfg must be objects.")
    return config


def _check_folder_tokenizer(folder: Path, config: dict) -> None:
    """A folder needs its own tokenizer; only OpenAI's byte-pair vocabulary comes with open_clip."""
    text_config = config["model_cfg"]["text_cfg"]
    has_files = any((folder / name).is_file() for name in _TOKENIZER_FILES)
    if text_config.get("hf_tokenizer_name"):
        if not has_files:
            raise ModelError(
                f"the CLIP folder {folder} names a tokenizer but holds none of {', '.join(_TOKENIZER_FILES)}. "
                "Put the tokenizer's files there (save_pretrained)."
            )
    elif text_config.get("vocab_size", _BPE_VOCABULARY) == _BPE_VOCABULARY:
        logger.info("the CLIP folder %s names no tokenizer; its vocabulary is OpenAI's own, from open_clip", folder)
    else:
        raise ModelError(
            f"{folder / _CONFIG_FILE} names no tokenizer for its vocabulary of {text_config['vocab_size']}: set "
            "text_cfg.hf_tokenizer_name to any non-empty name and put the tokenizer's files into the folder."
        )


def _load_architecture(model: str, weights: str | None) -> tuple[nn.Module, Tensor | None, str]:
    """Build an open_clip architecture and fill it from a file or a pretrained tag."""
    config = open_clip.get_model_config(model)
    if config is None:
        near = difflib.get_close_matches(model, open_clip.list_models(), n=4, cutoff=0.5)
        raise ModelError(
            f"{model!r} is neither an open_clip architecture nor a folder with {_CONFIG_FILE}. "
            f"Near names: {', '.join(near) or 'none'}."
        )
    if not weights:
        raise ModelError(f"no weights given for {model}: name a local file, or a pretrained tag of open_clip.")
    if weights.lower() == "openai":
        _require_quick_gelu(model, config, "OpenAI")
    path = Path(fetched_for(weights.lower(), model) or weights).expanduser()
    if path.is_file():
        checkpoint = read_checkpoint(path)
        if checkpoint.is_openai or checkpoint.mask_embedding is not None:
            _require_quick_gelu(model, config, str(path))
        if checkpoint.mask_embedding is not None:
            require_finite({MASK_TOKENS_KEY: checkpoint.mask_embedding}, source=str(path))
        # A file of weights says nothing about pixels: open_clip then assumes OpenAI's mean and deviation.
        network = _build(model)
        put_weights(network, checkpoint.weights, source=str(path))
        return network, checkpoint.mask_embedding, str(path)
    tags = open_clip.list_pretrained_tags_by_model(model)
    if weights not in tags:
        raise ModelError(
            f"weights {weights!r} for {model} are neither a file nor a pretrained tag. "
            f"Tags: {', '.join(tags) or 'none'}."
        )
    try:
        network = open_clip.create_model(model, pretrained=weights)
    except (RuntimeError, OSError) as error:
        raise ModelError(
            f"open_clip could not fetch {model} {weights}: {cause_of(error)}. Without a network give a local file."
        ) from None
    require_finite(dict(network.named_parameters()), source=f"{model} {weights}")
    return network, None, f"{model} {weights}"


def _require_quick_gelu(model: str, config: dict, source: str) -> None:
    """OpenAI's and OVSeg's weights were trained with QuickGELU, which no key or shape would tell."""
    if not config.get("quick_gelu", False):
        base = re.sub(r"-quickgelu$", "", model)
        raise ModelError(
            f"the weights of {source} were trained with QuickGELU, {model} has plain GELU: the embeddings would be "
            f"silently wrong. Use {base}-quickgelu."
        )

"""The text bank: every distinct prompt encoded once; each pair holds indices into them (QA-CLIMS 3.2, 3.3.1).

Training asks it for the texts of the pairs of a batch. On disk: ``texts.parquet``, ``features.safetensors``
(float32), ``pairs.parquet`` (index lists and weights) and ``meta.json``.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import safetensors.torch
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from qaclims_ray.data import artifacts, storage, whole_files
from qaclims_ray.data.artifacts import Artifact, ArtifactMeta
from qaclims_ray.data.manifest import Manifest
from qaclims_ray.errors import ArtifactError, DataError, ModelError
from qaclims_ray.models.weight_files import read_stored
from qaclims_ray.models.weight_fit import require_finite
from qaclims_ray.text.config import TextConfig
from qaclims_ray.text.encode import Encode, Tokenize, encode_distinct, texts_at_limit
from qaclims_ray.text.prompts import PairPrompts, foreground_weights, pair_prompts

_KIND = "text_bank"
"""Kind of the artefact."""

_TEXTS, _FEATURES, _PAIRS = "texts.parquet", "features.safetensors", "pairs.parquet"
_AGAIN = "make it again with `qaclims text`"
_PAIR_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("class_id", pa.int32()),
        ("foreground", pa.list_(pa.int32())),
        ("foreground_weights", pa.list_(pa.float32())),
        ("background", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, eq=False)
class PairTexts:
    """Text features of the pairs of a batch; paddings are finite and must be masked."""

    foreground: Float[Tensor, "pair dim"]
    """Weighted mean of the foreground texts; below unit length unless the bank renormalises (row Q7)."""
    background: Float[Tensor, "pair answer dim"]
    """Background texts, L2-normalised, padded to the batch's longest list (at least 1)."""
    is_background: Bool[Tensor, "pair answer"]
    """Which of them are real."""
    has_background: Bool[Tensor, " pair"]
    """Whether a pair has any; both losses skip it if not (row Q10)."""


@dataclass(frozen=True, eq=False)
class TextBank:
    """Distinct prompts, their features, and which of them each pair uses."""

    texts: tuple[str, ...]
    """Distinct prompts."""
    features: Float[Tensor, "text dim"]
    """Their features, L2-normalised float32."""
    image_ids: tuple[str, ...]
    """Image of each pair."""
    class_ids: tuple[int, ...]
    """Class of each pair."""
    foreground: Int[Tensor, "pair text_slot"]
    """Foreground texts of each pair, the class name first, padded with 0."""
    foreground_weights: Float[Tensor, "pair text_slot"]
    """Their weights, 0 on the padding; each row sums to 1."""
    background: Int[Tensor, "pair answer"]
    """Background texts of each pair, padded with 0."""
    num_foreground: Int[Tensor, " pair"]
    """Foreground texts of each pair; stays on the CPU."""
    num_background: Int[Tensor, " pair"]
    """Background texts of each pair; stays on the CPU, where `lookup` needs the longest list."""
    class_names: tuple[str, ...]
    """Natural names in label order, for messages."""
    renormalise_foreground: bool
    """Bring the mixed foreground text back to unit length (row Q7)."""
    origin: str
    """What the bank was built from, for messages."""
    num_cut: int | None = None
    """Texts that fill the encoder's context and may be cut; None when it was not looked at, or after reading."""
    _rows: dict[tuple[str, int], int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pairs = zip(self.image_ids, self.class_ids, strict=True)
        object.__setattr__(self, "_rows", {pair: row for row, pair in enumerate(pairs)})

    def to(self, device: torch.device | str) -> "TextBank":
        """Return the bank with features and indices on a device."""
        names = ("features", "foreground", "foreground_weights", "background")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})

    def rows(self, image_ids: Sequence[str], class_ids: Sequence[int]) -> list[int]:
        """Return the rows of pairs.

        Raises:
            ArtifactError: when the bank lacks one.
        """
        pairs = list(zip(image_ids, class_ids, strict=True))
        found = [self._rows.get(pair, -1) for pair in pairs]
        if -1 in found:
            image_id, class_id = pairs[found.index(-1)]
            name = self.class_names[class_id] if 0 <= class_id < len(self.class_names) else "unknown"
            raise ArtifactError(
                f'the text bank has no texts for {image_id} (class {class_id}, "{name}"), one of {found.count(-1)} '
                f"missing pairs. It was built from {self.origin}. Rebuild it from the manifest in use: `qaclims text`"
            )
        return found

    def lookup(self, image_ids: list[str], class_ids: list[int]) -> PairTexts:
        """Return the text features of pairs, on the bank's device.

        Args:
            image_ids: image of each pair.
            class_ids: class of each pair; may be empty, as may be `image_ids` with it.

        Raises:
            ArtifactError: when the bank lacks a pair.
        """
        device = self.features.device
        # Lengths are looked up on the CPU: on a GPU reading the longest would wait for it at every step.
        rows_on_cpu = torch.tensor(self.rows(image_ids, class_ids), dtype=torch.long)
        rows = rows_on_cpu.to(device)
        counts = self.num_background[rows_on_cpu]
        width = _longest(counts)
        slots = _longest(self.num_foreground[rows_on_cpu])
        weights = self.foreground_weights[rows, :slots].unsqueeze(-1)  # (pair, text_slot, 1)
        foreground = (self.features[self.foreground[rows, :slots]] * weights).sum(1)  # (pair, dim)
        if self.renormalise_foreground:
            foreground = F.normalize(foreground, dim=-1)
        is_background = (torch.arange(width) < counts.unsqueeze(1)).to(device)  # (pair, answer)
        return PairTexts(
            foreground=foreground,
            background=self.features[self.background[rows, :width]],
            is_background=is_background,
            has_background=(counts > 0).to(device),
        )

    def summary(self) -> dict[str, Any]:
        """Return the counts worth a look, as JSON types."""
        num_pairs = len(self.image_ids)
        used = Counter(
            index
            for row, count in zip(self.background.tolist(), self.num_background.tolist(), strict=True)
            for index in row[:count]
        )
        cut = {} if self.num_cut is None else {"texts_filling_context": self.num_cut}
        return {
            "texts": len(self.texts),
            "pairs": num_pairs,
            "pairs_without_background": int((self.num_background == 0).sum()),
            "mean_background_texts": float(self.num_background.float().mean()) if num_pairs else 0.0,
            "mean_foreground_texts": float(self.num_foreground.float().mean()) if num_pairs else 0.0,
            "top_background": {self.texts[index]: count for index, count in used.most_common(20)},
            **cut,
        }


def _longest(counts: Tensor) -> int:
    return max(1, int(counts.max())) if counts.numel() else 1


def build_bank(
    corpus: pd.DataFrame | None,
    manifest: Manifest,
    text: TextConfig,
    encode: Encode,
    *,
    tokenize: Tokenize | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> TextBank:
    """Make the prompts of every pair and encode each distinct one once.

    Args:
        corpus: the answers; only `source = "qape"` reads them.
        manifest: images and labels.
        text: what to make of the answers.
        encode: the text encoder, e.g. `FrozenClip.encode_texts`.
        tokenize: its tokenizer; where given, texts that fill its context are counted and logged.
        on_progress: called with (texts encoded, texts in all).

    Raises:
        ArtifactError: when the corpus lacks a pair.
        ConfigError: when the settings do not fit the classes.
        DataError: when no image has a label.
        ModelError: when the encoder fails.
    """
    pairs = pair_prompts(corpus, manifest, text)
    if not pairs:
        raise DataError(f"none of the {len(manifest.records)} images of the manifest has a label: no pair, no text")
    prompts = [prompt for pair in pairs for prompt in (*pair.foreground, *pair.background)]
    texts, features = encode_distinct(prompts, encode, on_progress=on_progress)
    return _assemble(
        texts,
        features,
        pairs,
        text=text,
        class_names=manifest.class_names,
        origin=f"manifest {manifest.fingerprint()}",
        num_cut=None if tokenize is None else len(texts_at_limit(texts, tokenize)),
    )


def _assemble(
    texts: tuple[str, ...],
    features: Tensor,
    pairs: Sequence[PairPrompts],
    *,
    text: TextConfig,
    class_names: tuple[str, ...],
    origin: str,
    num_cut: int | None,
) -> TextBank:
    index_of = {prompt: index for index, prompt in enumerate(texts)}
    columns = {
        "image_id": [pair.image_id for pair in pairs],
        "class_id": [pair.class_id for pair in pairs],
        "foreground": [[index_of[prompt] for prompt in pair.foreground] for pair in pairs],
        "foreground_weights": [foreground_weights(len(pair.foreground), text.foreground_mix) for pair in pairs],
        "background": [[index_of[prompt] for prompt in pair.background] for pair in pairs],
    }
    return _bank(
        texts,
        features,
        columns,
        class_names=class_names,
        renormalise_foreground=text.renormalise_foreground,
        origin=origin,
        num_cut=num_cut,
    )


def _bank(texts: tuple[str, ...], features: Tensor, columns: Mapping[str, list], **rest: Any) -> TextBank:
    """Pad the index lists of the pairs."""
    return TextBank(
        texts=texts,
        features=features,
        image_ids=tuple(columns["image_id"]),
        class_ids=tuple(columns["class_id"]),
        foreground=_padded(columns["foreground"], torch.long),
        foreground_weights=_padded(columns["foreground_weights"], torch.float32),
        background=_padded(columns["background"], torch.long),
        num_foreground=torch.tensor([len(row) for row in columns["foreground"]], dtype=torch.long),
        num_background=torch.tensor([len(row) for row in columns["background"]], dtype=torch.long),
        **rest,
    )


def _padded(rows: Sequence[Sequence[int | float]], dtype: torch.dtype) -> Tensor:
    width = max(1, max((len(row) for row in rows), default=1))
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], dtype=dtype).reshape(len(rows), width)


def bank_artifact(uri: str, settings: Any, inputs: Mapping[str, str]) -> Artifact:
    """Return a bank as an artefact.

    Args:
        uri: its folder, local or remote.
        settings: the settings it is made from (a config dataclass or JSON-like value).
        inputs: fingerprints of manifest, corpus and encoder.
    """
    return Artifact(uri=uri, kind=_KIND, settings=settings, inputs=inputs, verb="text")


def require_bank(uri: str) -> ArtifactMeta:
    """Return what a bank says of itself.

    Raises:
        ArtifactError: when it is absent or incomplete.
    """
    return artifacts.require_artifact(uri, _KIND, verb="text")


def write_bank(bank: TextBank, artifact: Artifact) -> None:
    """Write a bank into its artefact's workshop.

    Args:
        bank: what to write.
        artifact: see `bank_artifact`.

    Raises:
        ResourceError: when the place cannot be written.
    """
    columns = {
        "image_id": list(bank.image_ids),
        "class_id": list(bank.class_ids),
        "foreground": _ragged(bank.foreground, bank.num_foreground),
        "foreground_weights": _ragged(bank.foreground_weights, bank.num_foreground),
        "background": _ragged(bank.background, bank.num_background),
    }
    metadata = {
        "class_names": json.dumps(bank.class_names),
        "renormalise_foreground": json.dumps(bank.renormalise_foreground),
    }
    pairs = pa.table(columns, schema=_PAIR_SCHEMA).replace_schema_metadata(metadata)
    for name, table in ((_PAIRS, pairs), (_TEXTS, pa.table({"text": list(bank.texts)}))):
        with storage.publishing(storage.join(artifact.workshop, name)) as local_path:
            pq.write_table(table, local_path, compression="zstd")
    features = bank.features.detach().cpu().contiguous()
    storage.write_bytes(storage.join(artifact.workshop, _FEATURES), safetensors.torch.save({"features": features}))


def _ragged(padded: Tensor, counts: Tensor) -> list[list]:
    return [row[:count] for row, count in zip(padded.tolist(), counts.tolist(), strict=True)]


def read_bank(uri: str) -> TextBank:
    """Read a bank back, on the CPU.

    Raises:
        ArtifactError: when it is absent, incomplete or broken.
    """
    meta = require_bank(uri)
    try:
        pairs = _read_table(storage.join(uri, _PAIRS))
        texts = tuple(_read_table(storage.join(uri, _TEXTS))["text"].to_pylist())
        with whole_files.whole_copy(storage.join(uri, _FEATURES)) as path:
            features = read_stored(path, named=_FEATURES)["features"].clone()
        require_finite({"features": features}, source=_FEATURES)
        metadata = pairs.schema.metadata or {}
        bank = _bank(
            texts,
            features,
            pairs.to_pydict(),
            class_names=tuple(json.loads(metadata[b"class_names"])),
            renormalise_foreground=bool(json.loads(metadata[b"renormalise_foreground"])),
            origin=", ".join(f"{name} {fingerprint}" for name, fingerprint in sorted(meta.inputs.items())),
        )
    except (pa.ArrowException, OSError, KeyError, ValueError, DataError, ModelError) as error:
        raise ArtifactError(f"the text bank at {uri} cannot be read ({error}); {_AGAIN}") from None
    highest = max(int(bank.foreground.max()), int(bank.background.max()))
    if features.ndim != 2 or len(features) != len(texts) or highest >= len(texts):
        raise ArtifactError(
            f"the text bank at {uri} has {len(texts)} texts, features {tuple(features.shape)} and indices up to "
            f"{highest}: its files do not belong together; {_AGAIN}"
        )
    return bank


def _read_table(uri: str) -> pa.Table:
    return pq.read_table(pa.BufferReader(whole_files.read_whole(uri)))

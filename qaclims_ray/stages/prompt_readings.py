"""What a system's learned prompts say: their nearest words, and their maps beside manual prompts (SemPLeS Fig. 5; S20).

Shared by ``qaclims prompts`` and the report.
"""

import io
import logging
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from qaclims_ray.corpus.table import read_corpus
from qaclims_ray.data import artifacts, storage
from qaclims_ray.data.images import load_image, resize_square
from qaclims_ray.data.manifest import ImageRecord, Manifest
from qaclims_ray.data.splits import scored_images
from qaclims_ray.errors import ArtifactError, DataError, ModelError
from qaclims_ray.methods.classifier.method import CLASSIFIER
from qaclims_ray.methods.clims.texts import VOC_BACKGROUND
from qaclims_ray.methods.training_clip import load_training_clip
from qaclims_ray.miniature import vocabulary
from qaclims_ray.models.clip.frozen import FrozenClip
from qaclims_ray.models.clip.prompts import encode_prompts, load_prompts
from qaclims_ray.models.devices import device_of_worker
from qaclims_ray.report.contents import PromptReading
from qaclims_ray.report.figures import figure_png
from qaclims_ray.report.prompt_reading import PromptPicture, nearest_words, prompt_figure, similarity_maps
from qaclims_ray.run_config import RunConfig
from qaclims_ray.stages.layout import RunLayout
from qaclims_ray.stages.requests import WORDS_PER_CLASS
from qaclims_ray.systems.recipe import recipe_of
from qaclims_ray.systems.table import training_order
from qaclims_ray.text.prompts import class_prompts, class_words
from qaclims_ray.tracking.tracker import Tracker

PICTURES = 6
"""Classes shown in pictures where no images are named."""
CORPUS_WORDS = 1000
"""Most frequent answers that are taken as words."""
_WORDS_ON_PICTURES = 3
_FIGURE_DPI = 90
_logger = logging.getLogger(__name__)

_Row = tuple[ImageRecord, int, torch.Tensor]
"""An image, one of its classes, and its pixels."""


def systems_with_prompts(config: RunConfig, layout: RunLayout) -> list[str]:
    """Return the run's systems whose prompts are there, those that others start from among them."""
    return [name for name in training_order(config) if layout.has_prompts(name)]


def load_prompt_clip(config: RunConfig) -> FrozenClip:
    """Load the CLIP that prompts were learned with, on this machine's GPU where the run uses them."""
    has_gpu = config.cluster.use_gpu and torch.cuda.is_available()
    recipe = recipe_of(config, CLASSIFIER)  # the CLIP is the same whatever the method
    return load_training_clip(recipe, device_of_worker(1 if has_gpu else 0))


@torch.no_grad()
def read_prompts(
    config: RunConfig,
    layout: RunLayout,
    system: str,
    manifest: Manifest,
    clip: FrozenClip,
    *,
    words: Sequence[str] | None = None,
    records: Sequence[ImageRecord] = (),
    manual: Sequence[str] = (),
    top: int = WORDS_PER_CLASS,
) -> PromptReading:
    """Find the nearest words of a system's prompts and draw their maps.

    Args:
        config: resolved configuration of the system.
        layout: where its prompts and the corpus are.
        system: its name.
        manifest: classes, and images to choose from.
        clip: the CLIP they were learned with.
        words: the vocabulary; None takes `default_words`.
        records: images to show, each with all its classes; none takes one image for each of the first classes, by
            class and not by result.
        manual: words of manual prompts; none takes the nearest word that is no class name.
        top: words per class.

    Raises:
        ArtifactError: when the prompts are absent, broken, or belong to another CLIP or other classes.
        DataError: when a named image cannot be read.
    """
    device = next(clip.parameters()).device
    stored = load_prompts(layout.prompts(system), device, clip_fingerprint=clip.fingerprint())
    names = manifest.class_names
    if stored.class_names != names:
        raise ArtifactError(
            f"the prompts of {system} are of the classes {', '.join(stored.class_names)}, the manifest has "
            f"{', '.join(names)}; train the system again"
        )
    source, words = ("the given words", words) if words is not None else default_words(config, layout, names)
    prompts = encode_prompts(clip, stored.vectors, stored.template)
    word_features = clip.encode_texts([config.text.template.replace("{}", word) for word in words])
    ranked = nearest_words(prompts, words, word_features, len(words))
    own_text = (prompts.cpu() * clip.encode_texts(class_prompts(names, config.text)).cpu()).sum(dim=1).tolist()
    texts = _manual_texts(config, names, ranked, manual)
    rows = _rows_of(records) if records else _rows_by_class(scored_images(manifest, config.data))
    picture, note = _draw(clip, rows, names, prompts, texts, ranked)
    return PromptReading(
        nearest={name: nearest[:top] for name, nearest in zip(names, ranked, strict=True)},
        own_text=dict(zip(names, own_text, strict=True)),
        vocabulary=f"{source} ({len(words)})",
        picture=picture,
        images=[(record.image_id, names[class_id], texts[class_id]) for record, class_id, _ in rows] if picture else [],
        note=note,
    )


def read_words(uri: str) -> list[str]:
    """Read a vocabulary: one word or phrase per line, duplicates and empty lines left out.

    Raises:
        DataError: when there is no such file, it is no text, or holds no word.
    """
    try:
        lines = storage.read_bytes(uri).decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{uri} is no UTF-8 text ({error.reason}); expected one word per line") from None
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise DataError(f"{uri} holds no word; expected one word or phrase per line")
    return words


def default_words(config: RunConfig, layout: RunLayout, class_names: Sequence[str]) -> tuple[str, list[str]]:
    """Return where the words come from, and the words: the miniature's, the corpus's answers, or a short list.

    Raises:
        ArtifactError: when the run's corpus is broken.
    """
    if config.data.dataset == "miniature":
        synonyms = [word for words in vocabulary.STUFF_SYNONYMS.values() for word in words]
        words = [*vocabulary.CLASSES, *vocabulary.ALIASES, *vocabulary.STUFF, *synonyms, *vocabulary.SCENES]
        return "nouns of the miniature world", list(dict.fromkeys(words))
    if storage.exists(storage.join(layout.corpus, artifacts.META_NAME)):
        corpus = read_corpus(layout.corpus_table)
        rows = zip(corpus["answer"], corpus["status"], strict=True)
        counts = Counter(answer for answer, status in rows if answer and status == "ok")
        frequent = sorted(counts, key=lambda answer: (-counts[answer], answer))[:CORPUS_WORDS]
        return "class names and the corpus's most frequent answers", list(dict.fromkeys([*class_names, *frequent]))
    return "class names and CLIMS's background texts", list(dict.fromkeys([*class_names, *VOC_BACKGROUND]))


def log_reading(tracker: Tracker, system: str, reading: PromptReading) -> None:
    """Log the words as a table and the figure as a picture, both by the system's name."""
    found = [(name, word, cosine) for name, nearest in reading.nearest.items() for word, cosine in nearest]
    columns = {"class": [row[0] for row in found], "word": [row[1] for row in found]}
    own = [reading.own_text[row[0]] for row in found]
    tracker.log_table({**columns, "cosine": [row[2] for row in found], "own_text": own}, f"prompts_{system}")
    if reading.picture:
        pixels = np.asarray(Image.open(io.BytesIO(reading.picture)).convert("RGB"))
        tracker.log_image(pixels, f"prompts_{system}")


def _manual_texts(
    config: RunConfig,
    class_names: Sequence[str],
    ranked: Sequence[Sequence[tuple[str, float]]],
    manual: Sequence[str],
) -> list[list[str]]:
    """Return each class's manual prompts: of the given words or of the nearest that is no class name, and its own."""
    taken = {name.casefold() for name in (*class_names, *class_words(class_names, config.text))}
    texts = []
    for class_text, nearest in zip(class_prompts(class_names, config.text), ranked, strict=True):
        chosen = manual or [word for word, _ in nearest if word.casefold() not in taken][:1]
        texts.append(list(dict.fromkeys([*(config.text.template.replace("{}", word) for word in chosen), class_text])))
    return texts


def _rows_of(records: Sequence[ImageRecord]) -> list[_Row]:
    return [(record, class_id, load_image(record.image_uri)) for record in records for class_id in record.labels]


def _rows_by_class(manifest: Manifest) -> list[_Row]:
    """Return one image for each of the first classes; files that cannot be read give way to the next one."""
    rows: list[_Row] = []
    for class_id in range(len(manifest.class_names)):
        shown_already = {record.image_id for record, _, _ in rows}
        for record in manifest.records if len(rows) < PICTURES else ():
            if class_id not in record.labels or record.image_id in shown_already:
                continue
            try:
                rows.append((record, class_id, load_image(record.image_uri)))
            except DataError as error:
                _logger.warning("not shown among the prompts: %s", error)
                continue
            break
    return rows


def _draw(
    clip: FrozenClip,
    rows: Sequence[_Row],
    class_names: Sequence[str],
    prompts: torch.Tensor,
    texts: Sequence[Sequence[str]],
    ranked: Sequence[Sequence[tuple[str, float]]],
) -> tuple[bytes, str]:
    """Return the figure as PNG, or why there is none."""
    if not rows:
        return b"", "no image of the scored split shows a class"
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (clip.mean, clip.std))
    pictures = []
    for _, class_id, image in rows:
        pixels = (resize_square(image, clip.image_size).float() / 255 - mean) / std
        features = torch.cat([prompts[class_id, None], clip.encode_texts(texts[class_id])])  # (text, dim)
        try:
            learned, *manual = similarity_maps(clip, pixels.to(features.device), features).cpu()
        except ModelError as error:
            return b"", str(error)
        pictures.append(
            PromptPicture(
                class_name=class_names[class_id],
                image=image,
                learned=learned,
                manual=dict(zip(texts[class_id], manual, strict=True)),
                words=[word for word, _ in ranked[class_id][:_WORDS_ON_PICTURES]],
            )
        )
    return figure_png(prompt_figure(pictures), dpi=_FIGURE_DPI), ""

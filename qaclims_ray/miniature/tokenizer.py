"""The word-level tokenizer of the tiny CLIP, in the form that transformers and open_clip load from a folder."""

from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from qaclims_ray.miniature.vocabulary import world_words

PAD, UNKNOWN, START_OF_TEXT, END_OF_TEXT = "[PAD]", "[UNK]", "[SOT]", "[EOT]"


def clip_vocabulary() -> dict[str, int]:
    """Map every token to its identifier; `[EOT]` has the highest, where CLIP's text tower pools."""
    tokens = [PAD, UNKNOWN, START_OF_TEXT, *world_words(), END_OF_TEXT]
    return {token: index for index, token in enumerate(tokens)}


def write_clip_tokenizer(folder: Path, *, context_length: int) -> None:
    """Write the tokenizer's files into a CLIP folder: lower-cases, splits punctuation, adds start and end."""
    vocabulary = clip_vocabulary()
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START_OF_TEXT} $A {END_OF_TEXT}",
        special_tokens=[(START_OF_TEXT, vocabulary[START_OF_TEXT]), (END_OF_TEXT, vocabulary[END_OF_TEXT])],
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=START_OF_TEXT,
        eos_token=END_OF_TEXT,
        model_max_length=context_length,
    )
    fast.save_pretrained(folder)

"""Two tiny vision-language models with random weights, in the folders that transformers reads; one of them chats."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    OPTConfig,
    PreTrainedTokenizerFast,
)

WORDS = "what is in the photo next to dog cat wooden bench with one or two words ? : question answer user".split()
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
TOWER = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "image_size": 28, "patch_size": 14}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": len(SPECIAL) + len(WORDS)}
CHAT_TEMPLATE = (
    "{% for message in messages %}user : {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %} answer :{% endif %}"
)


def write_llava(folder: Path) -> str:
    """Write a LLaVA, which has a chat template."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(**TOWER, num_hidden_layers=2)
    text = LlamaConfig(
        **TOKENS,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, image_seq_length=4)
    processor = LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size=28),
        _tokenizer(),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return _write(LlavaForConditionalGeneration(config), processor, folder)


def write_blip2(folder: Path) -> str:
    """Write a BLIP-2, which has none."""
    torch.manual_seed(0)
    config = Blip2Config(
        vision_config=Blip2VisionConfig(**TOWER, num_hidden_layers=1).to_dict(),
        qformer_config=Blip2QFormerConfig(
            vocab_size=TOKENS["vocab_size"],
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            encoder_hidden_size=16,
        ).to_dict(),
        text_config=OPTConfig(
            **TOKENS, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2, word_embed_proj_dim=16
        ).to_dict(),
        num_query_tokens=3,
        image_token_index=4,
    )
    processor = Blip2Processor(BlipImageProcessor(size={"height": 28, "width": 28}), _tokenizer(), num_query_tokens=3)
    return _write(Blip2ForConditionalGeneration(config), processor, folder)


def _write(model, processor, folder: Path) -> str:
    # Initial weights are so small that every question has the same answer.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) * 0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


def _tokenizer() -> PreTrainedTokenizerFast:
    words = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )

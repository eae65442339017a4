"""Tiny SAM 2 and SAM 3 with random weights, written as `save_pretrained` writes real ones."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2ImageProcessor,
    Sam2Model,
    Sam2Processor,
    Sam3Config,
    Sam3ImageProcessor,
    Sam3Model,
    Sam3Processor,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3TrackerProcessor,
    Sam3TrackerVideoConfig,
    Sam3VideoConfig,
    Sam3VideoModel,
)

WORDS = ("cat", "dog", "red", "bird")
"""What the tiny tokenizer knows."""
_SIDE_2, _SIDE_3 = 64, 56
_LEVELS = [[16, 16], [8, 8], [4, 4]]


def _prompts(side: int, patch: int) -> dict[str, Any]:
    return {"hidden_size": 32, "image_size": side, "patch_size": patch, "mask_input_channels": 4}


_DECODER = {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}


def sam2_config() -> Sam2Config:
    """Return the configuration of a SAM 2 for 64 pixels."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [_SIDE_2, _SIDE_2],
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 2, 2],
        "window_size_per_stage": [4, 4, 4, 2],
        "global_attention_blocks": [3],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": _LEVELS,
        "fpn_hidden_size": 32,
    }
    return Sam2Config(
        vision_config=vision, prompt_encoder_config=_prompts(_SIDE_2, 16), mask_decoder_config=dict(_DECODER)
    )


def save_sam2(folder: Path) -> str:
    """Write a SAM 2 and return its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _livelier(Sam2Model(sam2_config())).save_pretrained(folder)
    Sam2Processor(Sam2ImageProcessor(**_sizes(_SIDE_2))).save_pretrained(folder)
    return str(folder)


def sam3_vision() -> dict[str, Any]:
    """Return the configuration of the image encoder of a SAM 3 for 56 pixels."""
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": _SIDE_3,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [1],
        "pretrain_image_size": 28,
    }
    return {
        "model_type": "sam3_vision_model",
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": _LEVELS,
    }


def detector_config() -> Sam3Config:
    """Return the configuration of the part that takes names."""
    small = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 32}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": 16,
        "hidden_size": 32,
        "intermediate_size": 32,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "hidden_act": "gelu",
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    }
    return Sam3Config(
        vision_config=sam3_vision(),
        text_config=text,
        geometry_encoder_config={**small, "num_layers": 1, "roi_size": 2},
        detr_encoder_config={**small, "num_layers": 1},
        detr_decoder_config={**small, "num_layers": 2, "num_queries": 6},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )


def save_sam3_detector(folder: Path) -> str:
    """Write the part of a SAM 3 that takes names and return its folder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        Sam3Model(detector_config()).save_pretrained(folder)
    _processor().save_pretrained(folder)
    return str(folder)


def save_sam3_tracker(folder: Path) -> str:
    """Write the part of a SAM 3 that takes boxes and points and return its folder."""
    config = Sam3TrackerConfig(
        vision_config=sam3_vision(),
        prompt_encoder_config=_prompts(_SIDE_3, 14),
        mask_decoder_config=dict(_DECODER),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _livelier(Sam3TrackerModel(config)).save_pretrained(folder)
    Sam3TrackerProcessor(Sam3ImageProcessor(**_sizes(_SIDE_3))).save_pretrained(folder)
    return str(folder)


def save_sam3(folder: Path) -> str:
    """Write a whole SAM 3, in the form in which the real one is handed out, and return its folder."""
    memory = {
        f"memory_{name}": value
        for name, value in {
            "attention_hidden_size": 32,
            "attention_num_layers": 1,
            "attention_num_attention_heads": 1,
            "attention_feed_forward_hidden_size": 32,
            "encoder_hidden_size": 32,
            "encoder_output_channels": 16,
            "fuser_embed_dim": 32,
            "fuser_intermediate_dim": 32,
            "fuser_num_layers": 1,
        }.items()
    }
    tracker = Sam3TrackerVideoConfig(
        vision_config=sam3_vision(),
        prompt_encoder_config=_prompts(_SIDE_3, 14),
        mask_decoder_config=dict(_DECODER),
        image_size=_SIDE_3,
        mask_downsampler_embed_dim=32,
        **memory,
    )
    config = Sam3VideoConfig(detector_config=detector_config().to_dict(), tracker_config=tracker.to_dict())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Sam3VideoModel(config)
    _livelier(model.tracker_model)
    model.save_pretrained(folder)
    _processor().save_pretrained(folder)
    return str(folder)


def _livelier(model: Any) -> Any:
    """Make the logits of masks large enough to differ."""
    with torch.no_grad():
        model.mask_decoder.upscale_conv2.weight *= 30
    return model


def _sizes(side: int) -> dict[str, Any]:
    return {"size": {"height": side, "width": side}, "mask_size": {"height": side // 4, "width": side // 4}}


def _processor() -> Sam3Processor:
    known = {"<start>": 0, "<end>": 1, "<unknown>": 2, **{word: index + 3 for index, word in enumerate(WORDS)}}
    tokenizer = Tokenizer(models.WordLevel(known, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unknown>", pad_token="<end>")
    return Sam3Processor(Sam3ImageProcessor(**_sizes(_SIDE_3)), fast)

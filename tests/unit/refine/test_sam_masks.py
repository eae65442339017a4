import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    BertConfig,
    SamHQConfig,
    SamHQMaskDecoderConfig,
    SamHQModel,
    SamHQPromptEncoderConfig,
    SamHQVisionConfig,
    SamImageProcessor,
    SamMaskDecoderConfig,
    SamModel,
    SamProcessor,
    SamPromptEncoderConfig,
    SamVisionConfig,
)
from transformers import SamConfig as SamModelConfig

from qaclims_ray.errors import ModelError
from qaclims_ray.refine.config import SamConfig
from qaclims_ray.refine.sam_masks import generate_masks, load_sam

SIDE = 64
VISION = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 8,
    "output_channels": 16,
    "num_pos_feats": 8,
    "window_size": 4,
    "global_attn_indexes": [1],
    "initializer_range": 0.1,
    "mlp_ratio": 2.0,
}
PROMPT = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}
DECODER = {"hidden_size": 16, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 16}
ALL = SamConfig(points_per_side=4, points_per_batch=5, min_predicted_iou=0.0, min_stability=0.0, max_overlap=1.0)


def save(model, folder: Path) -> str:
    model.save_pretrained(folder)
    small = {"height": SIDE // 4, "width": SIDE // 4}
    processor = SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size=small,
    )
    SamProcessor(processor).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> str:
    config = SamModelConfig(
        vision_config=SamVisionConfig(**VISION),
        prompt_encoder_config=SamPromptEncoderConfig(**PROMPT),
        mask_decoder_config=SamMaskDecoderConfig(**DECODER),
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SamModel(config)
    with torch.no_grad():  # logits large enough, and scores high enough, for each filter to leave some of the masks
        model.mask_decoder.upscale_conv2.weight *= 30
        model.mask_decoder.upscale_conv2.bias *= 30
        model.mask_decoder.iou_prediction_head.proj_out.bias += 1
    return save(model, tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def sam(folder):
    return load_sam(folder, "cpu")


@pytest.fixture
def own_folder(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "sam"))


def image(height: int = 40, width: int = 50) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randint(0, 256, (3, 5, 5), generator=generator).float()
    return F.interpolate(blocks[None], (height, width), mode="bilinear")[0].to(torch.uint8)


@pytest.fixture(scope="module")
def predictions(folder) -> tuple[Tensor, Tensor]:
    """Mask logits and predicted IoU of every point of a 4x4 grid, by SAM's documented way for a single prompt."""
    model = SamModel.from_pretrained(folder).eval()  # type: ignore[arg-type]
    processor = SamProcessor.from_pretrained(folder)
    pixels = image()
    height, width = pixels.shape[1:]
    logits, scores = [], []
    for row in range(4):
        for column in range(4):
            point = [(column + 0.5) * width / 4, (row + 0.5) * height / 4]
            inputs = processor(images=pixels, input_points=[[[point]]], return_tensors="pt")
            with torch.no_grad():
                found = model(**{key: inputs[key] for key in ("pixel_values", "input_points")})
            large = processor.image_processor.post_process_masks(
                found.pred_masks, inputs["original_sizes"], inputs["reshaped_input_sizes"], binarize=False
            )
            logits.append(large[0][0])
            scores.append(found.iou_scores[0, 0])
    return torch.cat(logits), torch.cat(scores)


def box(mask: Tensor) -> tuple[int, int, int, int]:
    rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def box_iou(one: Tensor, other: Tensor) -> float:
    first, second = box(one), box(other)
    width = max(0, min(first[2], second[2]) - max(first[0], second[0]))
    height = max(0, min(first[3], second[3]) - max(first[1], second[1]))
    areas = sum((b[2] - b[0]) * (b[3] - b[1]) for b in (first, second))
    return width * height / (areas - width * height)


def expected_masks(predictions: tuple[Tensor, Tensor], config: SamConfig) -> Tensor:
    """The filters one after the other, written out."""
    logits, scores = predictions
    kept: list[Tensor] = []
    for position in scores.argsort(descending=True).tolist():
        mask, score = logits[position] > 0, float(scores[position])
        inner, outer = int((logits[position] > 1).sum()), int((logits[position] > -1).sum())
        if config.min_predicted_iou and score <= config.min_predicted_iou:
            continue
        if config.min_stability and inner <= config.min_stability * outer:
            continue
        if mask.any() and all(box_iou(mask, other) <= config.max_overlap for other in kept):
            kept.append(mask)
    return torch.stack(kept)


def assert_same(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    # The batch of points changes the last bits, so a pixel at the border may fall to the other side.
    assert float((found == expected).float().mean()) > 0.999


def test_without_filters_every_mask_with_a_pixel_is_there_best_first(predictions, sam):
    found = generate_masks(sam, image(), ALL)
    assert found.dtype == torch.bool
    assert len(found) == int((predictions[0] > 0).any(2).any(1).sum()) > 10
    assert_same(found, expected_masks(predictions, ALL))


@pytest.mark.parametrize("change", [{"min_predicted_iou": 0.4}, {"min_stability": 0.05}, {"max_overlap": 0.5}])
def test_each_filter_leaves_what_it_says(change, predictions, sam):
    config = SamConfig(**{**vars(ALL), **change})
    found, expected = generate_masks(sam, image(), config), expected_masks(predictions, config)
    assert 0 < len(expected) < 3 * 16
    assert_same(found, expected)


def test_an_image_may_have_no_masks(sam):
    found = generate_masks(sam, image(30, 70), SamConfig(**{**vars(ALL), "min_stability": 1.0}))
    assert found.shape == (0, 30, 70) and found.dtype == torch.bool


def test_batches_of_points_change_nothing(sam):
    few = generate_masks(sam, image(), ALL)
    many = generate_masks(sam, image(), SamConfig(**{**vars(ALL), "points_per_batch": 64}))
    assert_same(few, many)


def test_masks_follow_the_image(sam):
    one, other = generate_masks(sam, image(), ALL), generate_masks(sam, 255 - image(), ALL)
    assert one.shape != other.shape or float((one != other).float().mean()) > 0.01


def test_model_is_frozen_and_in_float32(own_folder):
    SamModel.from_pretrained(own_folder, dtype=torch.float16).save_pretrained(own_folder)
    loaded = load_sam(str(own_folder), "cpu")
    assert not loaded.model.training
    assert {(parameter.dtype, parameter.requires_grad) for parameter in loaded.model.parameters()} == {
        (torch.float32, False)
    }


def test_hq_sam_is_taken(tmp_path):
    config = SamHQConfig(
        vision_config=SamHQVisionConfig(**VISION),
        prompt_encoder_config=SamHQPromptEncoderConfig(**PROMPT),
        mask_decoder_config=SamHQMaskDecoderConfig(**DECODER, vit_dim=32),
        initializer_range=0.3,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        loaded = load_sam(save(SamHQModel(config), tmp_path / "hq"), "cpu")
    found = generate_masks(loaded, image(), ALL)
    assert found.shape[1:] == (40, 50) and 0 < len(found) <= 3 * 16


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match=r"configuration of the Segment Anything model .* could not be read"):
        load_sam(str(tmp_path / "absent"), "cpu")


def test_unreachable_hub(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="without internet, download the model first"):
        load_sam("nobody/no-such-sam", "cpu")


@pytest.mark.parametrize(
    ("absent", "message"),
    [("processor_config.json", "image processor"), ("model.safetensors", "weights"), ("config.json", "configuration")],
)
def test_missing_files(own_folder, absent, message):
    (own_folder / absent).unlink()
    with pytest.raises(ModelError, match=f"^{message} of the Segment Anything model"):
        load_sam(str(own_folder), "cpu")


@pytest.mark.parametrize("num_bytes", [0, 100, 20000])
def test_truncated_weights(own_folder, num_bytes):
    path = own_folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:num_bytes])
    with pytest.raises(ModelError, match="weights of the Segment Anything model"):
        load_sam(str(own_folder), "cpu")


def test_other_kinds_of_model(tmp_path):
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="type 'bert'"):
        load_sam(str(tmp_path), "cpu")


def test_incomplete_weights(own_folder):
    path = own_folder / "model.safetensors"
    weights = {key: value for key, value in load_file(path).items() if not key.startswith("mask_decoder")}
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks .* mask_decoder"):
        load_sam(str(own_folder), "cpu")


@pytest.mark.parametrize(("num_layers", "message"), [(1, "more layers"), (3, "lacks")])
def test_weights_and_config_of_different_depth(own_folder, num_layers, message):
    path = own_folder / "config.json"
    config = json.loads(path.read_text())
    config["vision_config"]["num_hidden_layers"] = num_layers
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match=message):
        load_sam(str(own_folder), "cpu")


def test_a_processor_of_another_size(own_folder):
    SamProcessor(SamImageProcessor()).save_pretrained(own_folder)
    with pytest.raises(ModelError, match="processor for 1024 pixels, but a network for 64"):
        load_sam(str(own_folder), "cpu")

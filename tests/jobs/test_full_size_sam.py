"""Segment Anything at the published sizes with random weights: ViT-B on an image of VOC's size.

Run by `make test-slow`. The test prints what it measured as a Markdown table.
"""

import shutil

import pytest
import torch
from transformers import SamConfig as SamModelConfig
from transformers import SamImageProcessor, SamModel, SamProcessor, SamVisionConfig

from qaclims_ray.refine.config import SamConfig
from qaclims_ray.refine.sam_masks import generate_masks, load_sam
from tests.jobs.test_full_size import IMAGE_SIZE, MEMORY_LIMIT_GIB, measured, num_millions, random_pixels, show

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

POINTS_PER_SIDE = 4
PUBLISHED = {"base": "93.7 M", "large": "312.3 M", "huge": "641.1 M"}
"""Parameters of the released models facebook/sam-vit-*."""


def architecture(size: str) -> SamModelConfig:
    width, layers, heads, global_layers = {
        "base": (768, 12, 12, [2, 5, 8, 11]),
        "large": (1024, 24, 16, [5, 11, 17, 23]),
        "huge": (1280, 32, 16, [7, 15, 23, 31]),
    }[size]
    vision = SamVisionConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, global_attn_indexes=global_layers
    )
    return SamModelConfig(vision_config=vision)


@pytest.mark.parametrize("size", list(PUBLISHED))
def test_parameters_are_the_published_ones(size):
    with torch.device("meta"):
        model = SamModel(architecture(size))
    assert num_millions(model.parameters()) == PUBLISHED[size]


def expected_encoder_gflop() -> float:
    """Of the ViT-B image encoder on 64x64 tokens: 8 of 12 layers attend within 25 windows of 14x14.

    Without the relative positions, which are a few per cent.
    """
    tokens, width, window = 64**2, 768, 14**2
    windowed = 25 * window  # the grid is filled up to 70x70
    patches = 2 * tokens * 3 * 16**2 * width
    mlp = 12 * 2 * tokens * 8 * width**2
    projections = 2 * (4 * tokens + 8 * windowed) * 4 * width**2
    attention = 4 * width * (4 * tokens**2 + 8 * 25 * window**2)
    neck = 2 * tokens * (width * 256 + 9 * 256**2)
    return (patches + mlp + projections + attention + neck) / 1e9


def test_automatic_masks_of_one_image(tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = SamModel(architecture("base"))
    folder = tmp_path / "sam"
    model.save_pretrained(folder)
    SamProcessor(SamImageProcessor()).save_pretrained(folder)
    del model
    sam = load_sam(str(folder), "cpu")
    shutil.rmtree(folder)
    assert num_millions(sam.model.parameters()) == PUBLISHED["base"]

    image = torch.from_numpy(random_pixels(0, 3, *IMAGE_SIZE))
    side = sam.model.config.vision_config.image_size
    with measured() as encoding, torch.inference_mode():
        embedding = sam.model.get_image_embeddings(torch.zeros(1, 3, side, side))
    assert embedding.shape == (1, 256, 64, 64) and bool(torch.isfinite(embedding).all())
    assert encoding.gflop == pytest.approx(expected_encoder_gflop(), rel=0.05)

    config = SamConfig(points_per_side=POINTS_PER_SIDE, min_predicted_iou=0.0, min_stability=0.0, max_overlap=1.0)
    with measured() as used:
        masks = generate_masks(sam, image, config)
    assert masks.shape[1:] == IMAGE_SIZE and masks.dtype == torch.bool
    assert 0 < len(masks) <= 3 * POINTS_PER_SIDE**2
    show(
        "SAM ViT-B, automatic masks of a 500x375 image",
        {
            "parameters": num_millions(sam.model.parameters()),
            "image encoder, 1024x1024": f"{encoding.gflop:.0f} GFLOP, {encoding.seconds:.1f} s, {encoding.memory}",
            f"{POINTS_PER_SIDE**2} points, {len(masks)} masks": f"{used.gflop:.0f} GFLOP, {used.seconds:.1f} s, "
            f"{used.memory}",
        },
    )
    assert used.peak_gib < MEMORY_LIMIT_GIB

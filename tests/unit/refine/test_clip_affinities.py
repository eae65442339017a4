import copy

import pytest
import torch

from qaclims_ray.errors import ModelError
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.models.clip.frozen import FrozenClip, load_clip
from qaclims_ray.refine.affinity_config import ClassDistributionConfig, ClipAttentionConfig, SpreadConfig
from qaclims_ray.refine.clip_affinities import by_class_distribution, by_clip_attention

TEXTS = ["a photo of dog.", "a photo of boat.", "a photo of sheep."]


@pytest.fixture(scope="module")
def clip() -> FrozenClip:
    return load_clip(str(clip_dir()), None, device="cpu", mask_adapted=False)


def picture(height: int = 64, width: int = 80, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 60, (3, height, width), generator=generator)
    image[:, 16:48, 16:48] += 150
    return image.to(torch.uint8)


def test_cells_are_the_patches_of_the_shown_image(clip: FrozenClip) -> None:
    texts = clip.encode_texts(TEXTS)
    for scale, size in ((1.0, (8, 10)), (2.0, (16, 20))):
        own = SpreadConfig(scale=scale)
        for affinity_of in (
            by_clip_attention(clip, ClipAttentionConfig(spread=own)),
            by_class_distribution(clip, texts, ClassDistributionConfig(spread=own)),
        ):
            found = affinity_of(picture())
            assert (found.rows, found.columns) == size
            assert found.weights.shape == (size[0] * size[1],) * 2 and found.weights.dtype == torch.float32
            torch.testing.assert_close(found.weights.sum(1), torch.ones(size[0] * size[1]))


def test_affinities_depend_on_the_picture_and_on_every_setting(clip: FrozenClip) -> None:
    texts, image = clip.encode_texts(TEXTS), picture()
    attention = by_clip_attention(clip, ClipAttentionConfig(num_blocks=1))(image).weights
    assert not torch.allclose(attention, by_clip_attention(clip, ClipAttentionConfig(num_blocks=2))(image).weights)
    assert not torch.allclose(
        attention, by_clip_attention(clip, ClipAttentionConfig(num_blocks=1))(picture(seed=1)).weights
    )
    base = {"num_blocks": 1, "text_temperature": 0.01, "temperature": 0.1}
    found = by_class_distribution(clip, texts, ClassDistributionConfig(**base))(image).weights
    for name, value in (("num_blocks", 2), ("text_temperature", 0.1), ("temperature", 1.0)):
        other = by_class_distribution(clip, texts, ClassDistributionConfig(**{**base, name: value}))(image).weights
        assert not torch.allclose(found, other), name
    assert not torch.allclose(
        found, by_class_distribution(clip, texts[:2], ClassDistributionConfig(**base))(image).weights
    )


def test_a_convolutional_clip_is_refused(clip: FrozenClip) -> None:
    convolutional = copy.deepcopy(clip)
    convolutional.model.visual = torch.nn.Conv2d(3, 3, 1)
    with pytest.raises(ModelError, match="patches of a CLIP need a vision transformer"):
        by_clip_attention(convolutional, ClipAttentionConfig())
    with pytest.raises(ModelError, match="patches of a CLIP need a vision transformer"):
        by_class_distribution(convolutional, torch.ones(2, 4), ClassDistributionConfig())

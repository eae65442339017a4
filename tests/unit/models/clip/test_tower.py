"""An image tower alone is described in a few numbers and built again."""

import pytest
import torch
from torch import nn

from qaclims_ray.errors import ModelError
from qaclims_ray.models.clip.patch_features import block_tokens, look_at_patches, patch_features
from qaclims_ray.models.clip.tower import build_tower, describe_tower
from tests.semples_fakes import shipped_clip


def pixels(height: int = 24, width: int = 40) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_a_tower_built_of_its_description_is_the_same_network() -> None:
    tower = shipped_clip().model.visual
    built = build_tower(describe_tower(tower))
    built.load_state_dict(tower.state_dict())
    assert not built.training and not any(value.requires_grad for value in built.parameters())
    with torch.no_grad():
        assert torch.equal(block_tokens(built, pixels()), block_tokens(tower, pixels()))


def test_the_description_knows_one_gelu_from_the_other() -> None:
    described = describe_tower(shipped_clip().model.visual)
    assert described["tower_quick_gelu"] is True
    plain = build_tower({**described, "tower_quick_gelu": False})
    assert describe_tower(plain) == {**described, "tower_quick_gelu": False}


def test_a_tower_with_other_parts_is_refused() -> None:
    tower = build_tower(describe_tower(shipped_clip().model.visual))
    tower.extra = nn.Linear(2, 2)
    with pytest.raises(ModelError, match=r"differs from OpenAI's in extra\.bias and 1 more"):
        describe_tower(tower)


def test_one_look_has_what_both_others_have_and_affinity_of_patches() -> None:
    tower = shipped_clip().model.visual
    with torch.no_grad():
        look = look_at_patches(tower, pixels(), num_blocks=2)
        assert torch.equal(look.tokens, block_tokens(tower, pixels()))
        assert torch.equal(look.features, patch_features(tower, pixels(), num_blocks=2))
    assert look.affinity.shape == (2, 15, 15)
    torch.testing.assert_close(look.affinity.sum(2), torch.ones(2, 15))

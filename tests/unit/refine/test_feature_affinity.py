from pathlib import Path

import pytest
import safetensors.torch
import timm
import torch

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.refine.affinity_config import FeatureAffinityConfig, SpreadConfig
from qaclims_ray.refine.feature_affinity import by_features, load_cell_features

VIT, CNN = "test_vit", "test_efficientnet"
"""timm's own tiny networks."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of random weights by model."""
    folder, found = tmp_path_factory.mktemp("weights"), {}
    for name in (VIT, CNN):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = timm.create_model(name)
        found[name] = str(folder / f"{name}.safetensors")
        safetensors.torch.save_file(network.state_dict(), found[name])
    return found


def picture(seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("backbone", "stage", "scale", "size"),
    [
        (VIT, -1, 1.0, (4, 6)),
        (VIT, 0, 2.0, (8, 12)),
        (CNN, -1, 1.0, (2, 3)),
        (CNN, -2, 1.0, (4, 6)),
        (CNN, 2, 1.0, (8, 12)),
    ],
)
def test_cells_are_those_of_the_stage(weights, backbone: str, stage: int, scale: float, size: tuple[int, int]) -> None:
    config = FeatureAffinityConfig(
        backbone=backbone, weights=weights[backbone], stage=stage, spread=SpreadConfig(scale=scale)
    )
    found = by_features(load_cell_features(config, "cpu"), config)(picture())
    assert (found.rows, found.columns) == size
    torch.testing.assert_close(found.weights.sum(1), torch.ones(size[0] * size[1]))
    assert float(found.weights.std()) > 0


def test_the_file_s_weights_are_those_that_look(weights) -> None:
    config = FeatureAffinityConfig(backbone=CNN, weights=weights[CNN], stage=-2)
    features = load_cell_features(config, "cpu")
    expected = timm.create_model(CNN)
    expected.load_state_dict(safetensors.torch.load_file(weights[CNN]))
    mean, std = torch.tensor(features.mean).view(3, 1, 1), torch.tensor(features.std).view(3, 1, 1)
    pixels = (picture().float() / 255 - mean) / std
    with torch.no_grad():
        (maps,) = expected.eval().forward_intermediates(pixels[None], indices=[-2], intermediates_only=True)
        cosines = torch.nn.functional.normalize(maps[0].flatten(1), dim=0)
    torch.testing.assert_close(
        by_features(features, config)(picture()).weights, (cosines.T @ cosines / 0.05).softmax(1), atol=1e-5, rtol=1e-4
    )


def test_what_cannot_be_used_is_refused_with_what_to_take(weights, tmp_path: Path) -> None:
    def refused(**changes: object) -> str:
        with pytest.raises((ConfigError, ModelError)) as refusal:
            load_cell_features(FeatureAffinityConfig(**{"backbone": CNN, "weights": weights[CNN], **changes}), "cpu")
        return str(refusal.value)

    assert "timm has no model 'dinov2'" in refused(backbone="dinov2")
    assert "masks.feature_affinity.stage is 9; test_efficientnet has 5, expected 0 to 4, or -5 to -1" in refused(
        stage=9
    )
    assert "masks.feature_affinity.weights" in refused(weights=weights[VIT])
    assert "masks.feature_affinity.weights" in refused(weights=str(tmp_path / "absent.safetensors"))
    swin = timm.create_model("swin_s3_tiny_224", num_classes=0)
    safetensors.torch.save_file(swin.state_dict(), tmp_path / "swin.safetensors")
    words = refused(backbone="swin_s3_tiny_224", weights=str(tmp_path / "swin.safetensors"))
    assert "does not take images of any size" in words and "vit_small_patch14_dinov2" in words

"""Weights of small networks that lie on this machine; none is loaded."""

from pathlib import Path

import pytest

from qaclims_ray.presets.small import LITE2, MOBILENET, MOBILENET_OF_TIMM
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.local_weights import backbone_of_file, local_backbones, random_start_remarks, with_local_weights

LITE2_FILE, MOBILENET_FILE = "tf_efficientnet_lite2-dcccb7df.pth", "mobilenetv2_100.imagenet.safetensors"


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(tmp_path / "weights"))
    for name in ("HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "weights").mkdir()
    return tmp_path / "weights"


def networks_of(config: RunConfig) -> set[str]:
    return {config.cam_net.backbone, config.masks.irn.backbone, config.segmentation.net.backbone}


def test_what_is_there_brings_its_network_and_what_it_expects(weights: Path) -> None:
    (weights / MOBILENET_FILE).write_bytes(b"w")
    config = with_local_weights(preset("folder-no-download"))
    assert config.cam_net.weights == str(weights / MOBILENET_FILE)
    assert networks_of(config) == {"mobilenetv2_100"}
    for net in (config.cam_net, config.segmentation.net):
        assert (net.pad_same, net.image_mean) == (True, (0.5, 0.5, 0.5))
    assert config.classifier.freeze_batch_norm and random_start_remarks(config) == []


def test_the_best_comes_first_unless_another_is_asked_for(weights: Path) -> None:
    for name in (MOBILENET_FILE, LITE2_FILE):
        (weights / name).write_bytes(b"w")
    assert [one.small for one in local_backbones()] == [LITE2, MOBILENET]
    assert networks_of(with_local_weights(preset("folder-no-download"))) == {"tf_efficientnet_lite2"}
    assert networks_of(with_local_weights(preset("folder mobilenet no-download"))) == {"mobilenetv2_100"}


def test_without_any_it_starts_at_random_learns_all_layers_and_says_where_to_put_which_file(weights: Path) -> None:
    config = with_local_weights(preset("folder-no-download"))
    assert config.cam_net.weights == "" and not config.classifier.freeze_batch_norm
    remark = random_start_remarks(config)[0]
    assert "its masks will be poor" in remark and LITE2_FILE in remark and str(weights) in remark
    assert random_start_remarks(with_overrides(config, {"classifier.network": "net"})) == []
    assert random_start_remarks(preset("miniature")) == []


@pytest.mark.parametrize(
    ("name", "small"),
    [(LITE2_FILE, LITE2), (MOBILENET_FILE, MOBILENET), ("mobilenetv2_100_ra-b33bc2c4.pth", MOBILENET_OF_TIMM)],
)
def test_a_file_that_is_named_brings_its_network_too(tmp_path: Path, name: str, small: object) -> None:
    path = tmp_path / name
    path.write_bytes(b"w")
    assert backbone_of_file(str(path)) is small
    config = with_local_weights(with_overrides(preset("folder"), {"cam_net.weights": str(path)}))
    assert config.cam_net.weights == str(path) and networks_of(config) == {small.backbone}


def test_other_files_and_other_data_sets_are_left_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "own.pth").write_bytes(b"w")
    assert backbone_of_file(str(tmp_path / "own.pth")) is None
    for name, file in (("folder", tmp_path / "own.pth"), ("voc12 lite2", tmp_path / MOBILENET_FILE)):
        config = with_overrides(preset(name), {"cam_net.weights": str(file)})
        assert with_local_weights(config) == config

"""Which weights a run uses, and which runs `licences permissive` refuses."""

import json

import pytest

from qaclims_ray.errors import ConfigError
from qaclims_ray.presets.table import PRESETS, preset
from qaclims_ray.run_config import RunConfig, with_overrides
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.systems.licences import check_licences, weights_used


def _permissive(config: RunConfig, **overrides: object) -> RunConfig:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    return with_overrides(config, {"licences": "permissive", **named})


def _titles(config: RunConfig) -> dict[str, tuple[str, ...]]:
    return {used.title: used.settings for used in weights_used(config)}


def test_a_weight_is_named_once_with_all_settings_that_name_it() -> None:
    found = _titles(preset("voc12"))
    assert found["timm's resnet50, ImageNet-1k"] == ("cam_net.weights", "masks.irn.weights")
    assert found["OVSeg's mask-adapted CLIP ViT-L/14"] == ("clip.weights",)
    assert {"timm's resnet101, ImageNet-1k", "BLIP VQA with CapFilt, the papers'"} <= set(found) and len(found) == 4


def test_what_is_not_used_is_not_named() -> None:
    assert list(_titles(preset("voc12_mobilenet"))) == ["timm's mobilenetv2_100, ImageNet-1k"]
    small = with_overrides(preset("voc12"), {"goal": "seed", "systems": ["baseline"]})
    assert list(_titles(small)) == ["timm's resnet50, ImageNet-1k"]
    assert list(_titles(preset("miniature"))) == ["the miniature world's CLIPs and BLIP"]


def test_networks_that_refine_masks_are_named_where_they_do() -> None:
    base = with_overrides(preset("voc12_mobilenet"), {"masks.steps": ["crf"], "clip.model": "ViT-B-16-quickgelu"})
    base = with_overrides(base, {"clip.weights": "openai", "clip.mask_adapted": False})
    dino, clip = "DINOv2 ViT-B/14", "OpenAI's CLIP ViT-B-16"
    assert not {dino, clip} & set(_titles(base))
    assert _titles(with_overrides(base, {"masks.steps": ["feature_affinity"]}))[dino] == (
        "masks.feature_affinity.weights",
    )
    assert _titles(with_overrides(base, {"masks.steps": ["clip_attention"]}))[clip] == ("clip.weights",)
    assert not {dino, clip} & set(
        _titles(with_overrides(base, {"masks.steps": ["feature_affinity", "clip_attention"], "goal": "seed"}))
    )


def test_weights_of_one_system_alone_count() -> None:
    own = {"name": "mine", "like": "baseline", "label": "mine", "overrides": {"segmentation.net.weights": "mine.pth"}}
    config = with_overrides(preset("miniature"), {"variants": [own], "systems": ["baseline", "mine"]})
    (used,) = [used for used in weights_used(config) if used.settings == ("segmentation.net.weights",)]
    assert "licence unknown; yours to know" in used.line and not used.is_permissive


def test_ovsegs_line_says_plainly_that_it_is_non_commercial() -> None:
    (line,) = [used.line for used in weights_used(preset("voc12")) if "OVSeg" in used.title]
    assert line == (
        "weights: OVSeg's mask-adapted CLIP ViT-L/14 (clip.weights): licence CC-BY-NC-4.0; NON-COMMERCIAL use only"
    )


NOT_PERMISSIVE = {"voc12", "voc12_deeplab_v1", "voc12_from_coco", "voc12_paper", "voc12_combined", "coco14",
                  "coco14_paper"}  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_refused_or_not(name: str) -> None:
    if name in NOT_PERMISSIVE:
        with pytest.raises(ConfigError, match=r"instead: option plain-clip"):
            check_licences(_permissive(preset(name)))
        check_licences(preset(name))
    else:
        check_licences(_permissive(preset(name)))


def test_the_replacement_that_is_proposed_is_accepted() -> None:
    check_licences(_permissive(preset("voc12", "plain-clip")))
    check_licences(_permissive(preset("coco14", "plain-clip")))


def test_all_that_is_refused_is_named_in_one_message() -> None:
    with pytest.raises(ConfigError) as refused:
        check_licences(_permissive(preset("voc12 from-coco"), cam_net__weights="mine.pth"))
    said = str(refused.value)
    for words in ("OVSeg", "option plain-clip", "DeepLab ResNet-101", "leave out option from-coco", "mine.pth of"):
        assert words in said
    assert "ImageNet" not in said  # IRN's own, which anyone may use


def test_it_is_refused_before_anything_is_looked_for(tmp_path) -> None:
    config = _permissive(preset("voc12"), data__root=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="licences is permissive"):
        preflight(config, str(tmp_path / "out"))
    assert list(tmp_path.iterdir()) == []


def test_the_table_of_a_report_is_plain() -> None:
    from dataclasses import asdict

    json.dumps([asdict(used) for used in weights_used(preset("voc12"))])

"""The refine stage with steps that spread maps by a frozen network, in this process."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import timm
import torch

from qaclims_ray.cams.inference import ImageCam
from qaclims_ray.data.classes import Classes
from qaclims_ray.data.manifest import ImageRecord
from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.miniature.shipped import clip_dir
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.refine.affinity_config import ClipAttentionConfig, SpreadConfig
from qaclims_ray.refine.clip_affinities import by_clip_attention
from qaclims_ray.refine.config import MaskConfig
from qaclims_ray.refine.spreading import refine_by_affinity
from qaclims_ray.stages.image_stage import ReadImage, ReadShard
from qaclims_ray.stages.opening import try_networks
from qaclims_ray.stages.preflight import preflight
from qaclims_ray.stages.refine import RefineActor, frozen_inputs, mask_settings
from tests.unit.systems.runs import run_of

NAMES = ("dog", "boat")
TEXTS = ["a photo of dog.", "a photo of boat."]


def shard() -> ReadShard:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
    cams = {
        name: ImageCam(name, labels, torch.rand(len(labels), 64, 64, generator=generator), None, 64, 64)
        for name, labels in (("a", (0, 1)), ("none", ()))
    }
    records = [ImageRecord(name, "", 64, 64, cam.class_ids) for name, cam in cams.items()]
    return ReadShard(0, [ReadImage(record, pixels, None) for record in records], {}, cams)


def refined(config: MaskConfig, *, has_background: bool = True) -> Any:
    return RefineActor(config, "", "", Classes(NAMES, has_background), (str(clip_dir()), None), TEXTS)(shard())


def test_a_step_is_what_its_function_makes_of_the_run_s_clip() -> None:
    own = ClipAttentionConfig(num_blocks=2, spread=SpreadConfig(iterations=1))
    found = refined(MaskConfig(steps=("clip_attention",), seed_threshold=0.4, clip_attention=own))
    assert found.border == 0.5 and not found.failed
    clip = load_clip(str(clip_dir()), None, device="cpu", mask_adapted=False)
    read = shard()
    expected = refine_by_affinity(
        read.images[0].pixels, read.cams["a"], 0.4, by_clip_attention(clip, own), own.spread, within_boxes=True
    )
    (_, one, _), (_, empty, _) = found.cams
    torch.testing.assert_close(one.full, expected.full)
    assert empty.class_ids == ()


def test_steps_combine_and_a_data_set_without_background_has_them_too(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        safetensors.torch.save_file(timm.create_model("test_efficientnet").state_dict(), tmp_path / "file.safetensors")
    config = MaskConfig(steps=("class_distribution", "feature_affinity", "pamr"), seed_threshold=0.4)
    features = replace(
        config.feature_affinity, backbone="test_efficientnet", weights=str(tmp_path / "file.safetensors"), stage=-2
    )
    config = replace(config, feature_affinity=features)
    for has_background, border in ((True, 0.5), (False, -1.0)):
        found = refined(config, has_background=has_background)
        assert found.border == border
        full = found.cams[0][1].full
        assert full.shape == (2, 64, 64) and float(full.min()) >= 0 and float(full.max()) <= 1
        assert float(full.std()) > 0


def test_masks_depend_on_the_networks_of_their_steps_and_on_no_others() -> None:
    def inputs(step: str, texts: list[str], **changes: object) -> dict[str, str]:
        return frozen_inputs(run_of("baseline", **{"goal": "mask", "masks.steps": [step], **changes}), texts)

    assert inputs("crf", TEXTS) == {}
    attention = inputs("clip_attention", TEXTS, **{"clip.model": "miniature"})
    assert set(attention) == {"clip"} and attention == inputs("clip_attention", [], **{"clip.model": "miniature"})
    assert attention != inputs("clip_attention", TEXTS, **{"clip.model": "miniature_context"})
    distribution = inputs("class_distribution", TEXTS, **{"clip.model": "miniature"})
    assert set(distribution) == {"clip", "class_texts"}
    assert distribution != inputs("class_distribution", TEXTS[::-1], **{"clip.model": "miniature"})
    assert set(inputs("feature_affinity", TEXTS)) == {"features"}
    used = mask_settings(MaskConfig(steps=("clip_attention",)))
    assert "clip_attention" in used and "class_distribution" not in used and "feature_affinity" not in used
    assert used["seed_threshold"] == 0.15


def test_absent_weights_of_features_are_found_before_any_work(tmp_path: Path) -> None:
    absent = {"goal": "mask", "masks.feature_affinity.weights": str(tmp_path / "dino.pth")}
    with pytest.raises(ModelError, match=r"there are no weights at .*dino\.pth"):
        preflight(run_of("baseline", **absent, **{"masks.steps": ["feature_affinity"]}), str(tmp_path))
    preflight(run_of("baseline", **absent, **{"masks.steps": ["crf"]}), str(tmp_path))


def test_networks_of_steps_are_tried_before_the_first_stage() -> None:
    own = {"goal": "mask", "masks.steps": ["feature_affinity"], "masks.feature_affinity.backbone": "dinov9"}
    with pytest.raises(ConfigError, match="timm has no model 'dinov9'"):
        try_networks(run_of("baseline", **own))
    by_clip = {"goal": "mask", "masks.steps": ["clip_attention"], "clip.model": "RN50-quickgelu"}
    with pytest.raises(ModelError, match="no weights given for RN50-quickgelu"):
        try_networks(run_of("baseline", **by_clip))

"""What was fetched is taken where a library would bring it: no network, and no other name in the settings."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from qaclims_ray.errors import ModelError
from qaclims_ray.miniature.shipped import vqa_dir
from qaclims_ray.models import known_weights
from qaclims_ray.models.backbone import create_backbone
from qaclims_ray.models.clip.frozen import load_clip
from qaclims_ray.models.generators.config import CamNetConfig
from qaclims_ray.models.known_weights import fetched_for
from qaclims_ray.models.vqa.blip import load_vqa
from qaclims_ray.models.weight_table import weight_named
from qaclims_ray.models.weights import weights_fingerprint
from qaclims_ray.presets.table import preset
from qaclims_ray.run_config import with_overrides
from qaclims_ray.stages.run_folder import with_absolute_paths

BLIP = "Salesforce/blip-vqa-capfilt-large"


@pytest.fixture(autouse=True)
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(folder))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return folder


def test_timms_own_weights_are_read_from_the_folder(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    whole = timm.create_model("test_resnet")
    torch.save(whole.state_dict(), weights / "tiny.pth")
    known = weight_named("resnet50")
    assert known is not None
    tiny = replace(known, timm="test_resnet", files=(replace(known.files[0], name="tiny.pth"),))
    monkeypatch.setattr(known_weights, "KNOWN_WEIGHTS", (tiny,))
    config = CamNetConfig(backbone="test_resnet", weights="timm")
    made = create_backbone(config, chosen="nothing", expected="a network")
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in made.state_dict().items())
    stages = create_backbone(config, chosen="nothing", expected="a network", features_only=True)
    assert torch.equal(next(iter(stages.state_dict().values())), next(iter(made.state_dict().values())))


def test_openais_clip_is_read_from_the_folder(weights: Path) -> None:
    (weights / "ViT-B-32.openai.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match=r"weights/ViT-B-32\.openai\.safetensors is no weights file"):
        load_clip("ViT-B-32-quickgelu", "openai", device="cpu", mask_adapted=False)
    with pytest.raises(ModelError, match="QuickGELU"):
        load_clip("ViT-B-32", "openai", device="cpu", mask_adapted=False)


def test_a_model_of_the_hub_is_read_from_the_folder(weights: Path) -> None:
    known = weight_named(BLIP)
    assert known is not None
    shutil.copytree(vqa_dir(), weights / "blip-vqa")
    shutil.copy(weights / "blip-vqa/processor_config.json", weights / "blip-vqa/preprocessor_config.json")
    for file in known.files:
        (weights / "blip-vqa" / file.name).touch()
    (weights / "blip-vqa/special_tokens_map.json").write_text("{}")
    load_vqa(BLIP, image_size=64, device="cpu", dtype=torch.float32)


def test_only_names_that_a_library_would_bring_are_looked_up(weights: Path) -> None:
    folder = weights / "sam-base"
    folder.mkdir()
    for file in weight_named("sam-base").files:  # type: ignore[union-attr]
        (folder / file.name).touch()
    assert fetched_for("facebook/sam-vit-base") == str(folder)
    for value in ("sam-base", "", "random", "timm", "somebody/else"):
        assert fetched_for(value, "resnet50") == ""
    (Path("facebook/sam-vit-base")).mkdir(parents=True)  # a folder of the user's own
    assert fetched_for("facebook/sam-vit-base") == ""


def test_a_preset_finds_a_fetched_file_by_its_bare_name(weights: Path) -> None:
    name = "ovseg_swinbase_vitL14_ft_mpt.pth"
    assert with_absolute_paths(preset("voc12")).clip.weights == name
    (weights / name).write_bytes(b"x")
    assert with_absolute_paths(preset("voc12")).clip.weights == str(weights / name)
    Path(name).write_bytes(b"y")  # what lies where the user stands comes first
    assert with_absolute_paths(preset("voc12")).clip.weights == str(Path(name).absolute())
    named = with_overrides(preset("voc12"), {"clip.weights": f"elsewhere/{name}"})
    assert with_absolute_paths(named).clip.weights == f"elsewhere/{name}"
    assert with_absolute_paths(preset("voc12")).cam_net.weights == "timm"


def test_absent_weights_that_are_known_are_said_how_to_get() -> None:
    with pytest.raises(ModelError, match="`qaclims fetch ovseg` brings them"):
        weights_fingerprint("ovseg_swinbase_vitL14_ft_mpt.pth")
    with pytest.raises(ModelError) as failed:
        weights_fingerprint("mine.pth")
    assert "fetch" not in str(failed.value)

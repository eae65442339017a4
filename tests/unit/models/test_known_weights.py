import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from qaclims_ray.miniature import shipped
from qaclims_ray.models import known_weights
from qaclims_ray.models.known_weights import find, weights_folder, weights_in
from qaclims_ray.models.weight_table import KNOWN_WEIGHTS, weight_named


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """A home without any weight; nothing of this machine's is found."""
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QACLIMS_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path


def _written(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_names_are_unique_and_say_what_matters():
    names = [weight.name for weight in KNOWN_WEIGHTS]
    files = [file.name for weight in KNOWN_WEIGHTS if not weight.is_folder for file in weight.files]
    assert len(set(names)) == len(names) and len(set(files)) == len(files)
    for weight in KNOWN_WEIGHTS:
        assert weight.num_bytes > 0 and weight.licence and weight.users and weight.title and weight.purpose
        # What may not be used by all says so, and what to take in its place.
        assert weight.is_permissive or (weight.instead and "commercially" not in weight.users), weight.name
        for file in weight.files:
            assert all(url.startswith("https://") for url in file.urls)
            assert set(file.sha256) <= set("0123456789abcdef") and len(file.sha256) in (0, 8, 64)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"clip.weights": "ovseg_swinbase_vitL14_ft_mpt.pth", "clip.model": "ViT-L-14-quickgelu"}, "ovseg"),
        ({"clip.weights": "/mnt/shared/weights/ovseg_swinbase_vitL14_ft_mpt.pth"}, "ovseg"),
        ({"clip.weights": "openai", "clip.model": "ViT-B-32-quickgelu"}, "clip-vit-b-32"),
        ({"clip.weights": "openai", "clip.model": "ViT-L-14"}, "clip-vit-l-14"),
        ({"clip.weights": "", "clip.model": "miniature_context"}, "miniature"),
        ({"corpus.model": "Salesforce/blip-vqa-capfilt-large"}, "blip-vqa"),
        ({"corpus.model": "/data/blip-vqa"}, "blip-vqa"),
        ({"masks.sam.model": "facebook/sam-vit-huge"}, "sam-huge"),
        (
            {"masks.feature_affinity.weights": "timm", "masks.feature_affinity.backbone": "vit_base_patch14_dinov2"},
            "dinov2-base",
        ),
        ({"masks.feature_affinity.weights": "vit_small_patch14_dinov2.lvd142m.safetensors"}, "dinov2-small"),
        ({"cam_net.weights": "timm", "cam_net.backbone": "resnet50"}, "resnet50"),
        ({"masks.irn.weights": "timm", "masks.irn.backbone": "mobilenetv2_100"}, "mobilenetv2_100"),
        ({"segmentation.net.weights": "timm", "segmentation.net.backbone": "deit_small_patch16_224"}, "deit-small"),
        ({"segmentation.net.weights": "res38_imagenet.pth"}, "resnet38"),
        ({"classifier.network": "somewhere/weaktr-voc12.pth"}, "weaktr-voc12"),
        ({"cam_net.weights": "timm", "cam_net.backbone": "a_network_of_tomorrow"}, None),
        ({"cam_net.weights": "mine.pth"}, None),
        ({"clip.weights": "laion2b_s34b_b79k", "clip.model": "ViT-B-32"}, None),
    ],
)
def test_settings_mean_a_weight(values, expected):
    (found,) = weights_in(values)
    assert (found.weight.name if found.weight else None) == expected
    assert found.setting in values and found.value in values.values()


@pytest.mark.parametrize("value", ["", "random", "classifier", "local"])
def test_no_weights_are_none(value):
    assert weights_in({"segmentation.net.weights": value, "segmentation.net.backbone": "resnet50", "seed": 3}) == []


def test_a_file_under_another_name_is_known_by_its_hash(home, monkeypatch):
    lite = weight_named("efficientnet-lite2-float32")
    assert lite is not None
    mine = _written(home / "mine.safetensors", b"q" * 1000)
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()
    other = type(lite)(**{**vars(lite), "num_bytes": 1000, "files": (type(lite.files[0])(name="x", sha256=digest),)})
    monkeypatch.setattr(known_weights, "KNOWN_WEIGHTS", (other,))
    assert weights_in({"cam_net.weights": str(mine)})[0].weight == other
    mine.write_bytes(b"r" * 1000)
    assert weights_in({"cam_net.weights": str(mine)})[0].weight is None
    mine.write_bytes(b"q" * 1001)
    assert weights_in({"cam_net.weights": str(mine)})[0].weight is None


def test_nothing_is_found_on_an_empty_machine():
    assert [weight.name for weight in KNOWN_WEIGHTS if find(weight.name)] == []
    assert find("") is None and find("mine.pth") is None and find("..") is None and find("a/b.pth") is None


def test_the_folder_of_weights_comes_first(home):
    file = weight_named("resnet50").files[0].name
    cached = _written(home / ".cache/torch/hub/checkpoints" / file)
    assert find("resnet50") == cached
    own = _written(weights_folder() / file)
    assert find("resnet50") == own == find(file) == find("timm/resnet50.a1_in1k")
    mine = _written(weights_folder() / "mine.pth")
    assert find("mine.pth") == mine


def test_a_model_of_several_files_is_a_folder_once_all_are_there(home):
    weight = weight_named("sam-base")
    *first, last = weight.files
    for file in first:
        _written(weights_folder() / "sam-base" / file.name)
    assert find("sam-base") is None
    _written(weights_folder() / "sam-base" / last.name)
    assert find("facebook/sam-vit-base") == weights_folder() / "sam-base"


def test_the_hubs_cache_is_looked_into(home, monkeypatch):
    snapshot = home / ".cache/huggingface/hub/models--timm--resnet50.a1_in1k/snapshots/abc"
    assert find("resnet50") is None
    file = _written(snapshot / "model.safetensors")
    assert find("resnet50") == file
    monkeypatch.setenv("HF_HOME", str(home / "elsewhere"))
    assert find("resnet50") is None
    folder = home / "elsewhere/hub/models--facebook--sam-vit-huge/snapshots/1"
    _written(folder / "config.json")
    assert find("sam-huge") is None  # a download that has only begun
    _written(folder / "model.safetensors")
    assert find("sam-huge") == folder


def test_open_clips_own_folder_is_looked_into(home):
    file = weight_named("clip-vit-b-32").files[0].name
    assert find("clip-vit-b-32") is None
    assert _written(home / ".cache/clip" / file) == find("clip-vit-b-32")


def test_the_shipped_models_are_as_large_as_said():
    folders = (shipped.clip_dir(), shipped.context_clip_dir(), shipped.vqa_dir())
    size = sum(file.stat().st_size for folder in folders for file in folder.glob("*.safetensors"))
    assert weight_named("miniature").num_bytes == size


def test_looking_loads_no_library():
    code = (
        "import sys; from qaclims_ray.models.known_weights import find, weights_in; find('resnet50');"
        "weights_in({'clip.weights': 'openai'});"
        "print([name for name in ('torch', 'timm', 'huggingface_hub') if name in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"

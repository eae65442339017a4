import json
import os
import shutil

import huggingface_hub.constants
import pytest
import torch

from qaclims_ray.errors import ConfigError, ModelError
from qaclims_ray.miniature.vqa_pretraining import VqaSettings, build_model, build_tokenizer, save_vqa
from qaclims_ray.models.vqa.blip import load_vqa
from tests.unit.models.cpu_recorder import record_on_cpu

TINY = VqaSettings(hidden_size=16, vision_layers=1, text_layers=1, num_heads=2, patch_size=16)
QUESTIONS = [
    ["what is above the boat?", "what is next to the boat?", "What is another word for this boat?"],
    [],
    ["what scene is the dog in?"],
    ["what is under the bus?", "What kind of bus is in the photo?"] * 3,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vqa")
    tokenizer = build_tokenizer()
    save_vqa(build_model(TINY, tokenizer, seed=0), tokenizer, path)
    return path


@pytest.fixture
def own_folder(folder, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(folder, tmp_path / "vqa")


@pytest.fixture(scope="module")
def vqa(folder):
    return load_vqa(str(folder), image_size=64, device="cpu")


def images(count, size=64):
    generator = torch.Generator().manual_seed(count)
    return torch.randint(256, (count, 3, size, size), generator=generator, dtype=torch.uint8)


def edit_config(folder, change):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_half_precision_folder_loads_in_the_precision_asked_for(folder, vqa):
    assert vqa.dtype == torch.float32
    assert (vqa.image_mean, vqa.image_std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    coarse = load_vqa(str(folder), image_size=64, device="cpu", dtype=torch.bfloat16)
    answers = coarse.answer(images(4), QUESTIONS)
    assert coarse.dtype == torch.bfloat16
    assert [len(row) for row in answers] == [3, 0, 1, 6]


def test_answers_do_not_depend_on_the_batch(vqa):
    together = vqa.answer(images(4), QUESTIONS)
    assert [len(row) for row in together] == [3, 0, 1, 6]
    for questions_per_batch in (1, 2, 5):
        assert vqa.answer(images(4), QUESTIONS, questions_per_batch=questions_per_batch) == together
    assert together[3] == together[3][:2] * 3


@pytest.mark.parametrize("num_beams", [1, 3])
def test_recorded_steps_answer_as_plain_ones(folder, monkeypatch, num_beams):
    plain, recorded = (load_vqa(str(folder), image_size=64, device="cpu") for _ in range(2))
    plain.has_static_shapes = recorded.has_static_shapes = True
    expected = plain.answer(images(4), QUESTIONS, num_beams=num_beams)
    names = record_on_cpu(monkeypatch)
    for _ in range(3):  # the plain way, recorded, replayed
        assert recorded.answer(images(4), QUESTIONS, num_beams=num_beams) == expected
    assert set(names) == {"BLIP's question encoder", "BLIP's step of an answer"}
    others = [images(4).flip(0), QUESTIONS[::-1]]
    assert recorded.answer(*others, num_beams=num_beams) == plain.answer(*others, num_beams=num_beams)


def test_each_image_is_encoded_once(vqa, monkeypatch):
    encoded = []
    forward = vqa._image_encoder.forward
    monkeypatch.setattr(vqa._image_encoder, "forward", lambda pixels: encoded.append(len(pixels)) or forward(pixels))
    vqa.answer(images(4), QUESTIONS, questions_per_batch=2)
    assert sum(encoded) == 3, "three images have questions; the one with six of them takes several passes"


def test_nothing_to_ask(vqa):
    assert vqa.answer(images(2), [[], []]) == [[], []]
    assert vqa.answer(images(4)[:0], []) == []


def test_lengths_are_bounded(vqa):
    for row in vqa.answer(images(4), QUESTIONS, max_length=4, min_length=4):
        assert all(len(text.split()) <= 3 for text in row)


def test_fingerprint_follows_weights_precision_and_size(folder, vqa):
    again = load_vqa(str(folder), image_size=64, device="cpu")
    assert again.fingerprint() == vqa.fingerprint()
    assert load_vqa(str(folder), image_size=32, device="cpu").fingerprint() != vqa.fingerprint()
    coarse = load_vqa(str(folder), image_size=64, device="cpu", dtype=torch.bfloat16)
    assert coarse.fingerprint() != vqa.fingerprint()
    again._answer_decoder.head.vocabulary.bias.data[5] += 1e-3
    assert again.fingerprint() != vqa.fingerprint()


def test_wrong_sizes_are_programmer_errors(vqa):
    with pytest.raises(ValueError, match="64 squared"):
        vqa.answer(images(1, size=48), [["what is above the boat?"]])
    with pytest.raises(ValueError, match="2 images"):
        vqa.answer(images(2), [[]])


def test_image_size_must_fit_the_patches(folder):
    with pytest.raises(ConfigError, match=r"60 .* patches of 16"):
        load_vqa(str(folder), image_size=60, device="cpu")


def test_missing_folder(tmp_path):
    with pytest.raises(ModelError, match="no local folder"):
        load_vqa(str(tmp_path / "absent"), image_size=64, device="cpu")


def test_unreachable_hub(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="without internet, download the model first"):
        load_vqa("qaclims-ray-tests/absent-vqa", image_size=64, device="cpu")


@pytest.mark.parametrize("absent", [("tokenizer.json", "tokenizer_config.json"), ("processor_config.json",)])
def test_missing_tokenizer_or_image_statistics(own_folder, absent):
    for name in absent:
        (own_folder / name).unlink()
    with pytest.raises(ModelError, match=r"tokenizer"):
        load_vqa(str(own_folder), image_size=64, device="cpu")


@pytest.mark.parametrize("num_bytes", [3, 5000])
def test_truncated_weights(own_folder, num_bytes):
    os.truncate(own_folder / "model.safetensors", num_bytes)
    with pytest.raises(ModelError, match="weights of the VQA model"):
        load_vqa(str(own_folder), image_size=64, device="cpu")


def test_missing_weights(own_folder):
    (own_folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no file named model\.safetensors"):
        load_vqa(str(own_folder), image_size=64, device="cpu")


def test_other_kinds_of_model(own_folder):
    edit_config(own_folder, lambda config: config.update(model_type="bert"))
    with pytest.raises(ModelError, match="'bert'\\. Expected a BLIP VQA model"):
        load_vqa(str(own_folder), image_size=64, device="cpu")


@pytest.mark.parametrize(("num_layers", "message"), [(0, "more layers"), (2, "lacks .* of the weights")])
def test_weights_and_config_of_different_depth(own_folder, num_layers, message):
    edit_config(own_folder, lambda config: config["text_config"].update(num_hidden_layers=num_layers))
    with pytest.raises(ModelError, match=message):
        load_vqa(str(own_folder), image_size=64, device="cpu")

import json
import shutil

import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from qaclims_ray.errors import ModelError
from qaclims_ray.models.vqa.image_text_to_text import ImageTextToText, load_image_text_to_text
from tests.tiny_vlm import write_blip2, write_llava

PROMPT = "question : {} answer :"
QUESTIONS = [["what is in the photo ?", "what is next to the cat ?"], [], ["what ?", "is the dog wooden ?"]]


@pytest.fixture(scope="module", params=[write_llava, write_blip2], ids=["llava", "blip2"])
def folder(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("vlm"))


@pytest.fixture(scope="module")
def vlm(folder):
    return load_image_text_to_text(folder, prompt=PROMPT, device="cpu")


def images(count=3):
    return torch.randint(256, (count, 3, 40, 40), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


def test_answers_are_those_of_transformers_one_by_one(folder, vlm):
    """One question at a time, as the model's card shows it, without padding and with the prompt cut off by hand."""
    model, processor = AutoModelForImageTextToText.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    expected = []
    for pixels, texts in zip(images(), QUESTIONS, strict=True):
        picture = Image.fromarray(pixels.permute(1, 2, 0).numpy())
        for text in texts:
            asked = PROMPT.replace("{}", text)
            if processor.chat_template:
                asked = f"user : <image> {asked} answer :"
            inputs = processor(images=picture, text=asked, return_tensors="pt")
            found = model.generate(**inputs, do_sample=False, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
            expected.append(processor.decode(found, skip_special_tokens=True))
    answers = vlm.answer(images(), QUESTIONS, prompt=PROMPT, max_length=6)
    assert [len(row) for row in answers] == [2, 0, 2]
    assert [text for row in answers for text in row] == expected
    assert len(set(expected)) > 1, "a model that says one thing would pass any test"


def test_answers_do_not_depend_on_the_batch(vlm):
    together = vlm.answer(images(), QUESTIONS, prompt=PROMPT, num_beams=3)
    assert vlm.answer(images(), QUESTIONS, prompt=PROMPT, num_beams=3, questions_per_batch=1) == together
    assert vlm.answer(images()[:0], [], prompt=PROMPT) == []


def test_lengths_are_kept(vlm):
    answers = vlm.answer(images(), QUESTIONS, prompt=PROMPT, max_length=3)
    assert all(len(text.split()) <= 3 for row in answers for text in row)
    longer = vlm.answer(images(), QUESTIONS, prompt=PROMPT, max_length=8, min_length=8)
    assert any(len(text.split()) > 3 for row in longer for text in row)


def test_the_model_is_frozen(vlm):
    assert not vlm._model.training
    assert not any(weight.requires_grad for weight in vlm._model.parameters())


def test_absent_and_foreign_folders_are_refused(folder, tmp_path):
    with pytest.raises(ModelError, match=r"processor of the vision-language model .*gone.*no local folder"):
        load_image_text_to_text(str(tmp_path / "gone"), prompt=PROMPT, device="cpu")
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**settings, "model_type": "bert"}))
    with pytest.raises(ModelError, match="could not be read"):
        load_image_text_to_text(str(copy), prompt=PROMPT, device="cpu")


def test_a_prompt_that_the_model_cannot_take_is_found_at_once(tmp_path):
    folder = write_llava(tmp_path / "vlm")
    (tmp_path / "vlm" / "chat_template.jinja").unlink()
    with pytest.raises(ModelError, match=r"cannot answer 'question : \{\} answer :' about a blank image.*image token"):
        load_image_text_to_text(folder, prompt=PROMPT, device="cpu")
    told = load_image_text_to_text(folder, prompt="user : <image> {} answer :", device="cpu")
    assert told.answer(images(1), [["what ?"]], prompt="user : <image> {} answer :")[0][0]


def test_a_gpu_that_is_too_small_is_no_fault_of_the_prompt(folder, monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(ImageTextToText, "answer", full)
    with pytest.raises(torch.OutOfMemoryError, match="Tried to allocate"):
        load_image_text_to_text(folder, prompt=PROMPT, device="cpu")

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, BlipForQuestionAnswering

from qaclims_ray.corpus.questions import OFFICIAL_QUESTIONS
from qaclims_ray.errors import ModelError
from qaclims_ray.miniature import vqa_pretraining
from qaclims_ray.miniature.answers import LEFT_ANSWER, RIGHT_ANSWER, true_answers
from qaclims_ray.miniature.scenes import VQA_SET, scenes
from qaclims_ray.miniature.vocabulary import CLASSES, STUFF
from qaclims_ray.miniature.vqa_card import measure_vqa, present_names
from qaclims_ray.miniature.vqa_pretraining import (
    VqaSettings,
    answer_loss,
    build_model,
    build_tokenizer,
    mirrored,
    question_answers,
    question_tokens,
    train_vqa,
)
from qaclims_ray.models.vqa.blip import load_vqa

SHORT = VqaSettings(
    steps=4,
    batch_pairs=6,
    num_images=8,
    hidden_size=16,
    vision_layers=1,
    text_layers=1,
    num_heads=2,
    patch_size=16,
    log_every=2,
    checkpoint_every=2,
    num_held_out_images=3,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "vqa"
    return folder, train_vqa(SHORT, seed=3, out_dir=folder)


def test_a_few_steps_leave_a_loadable_folder_and_a_card(trained):
    folder, report = trained
    assert not list(folder.glob("*.pt"))
    model = BlipForQuestionAnswering.from_pretrained(folder)
    processor = AutoProcessor.from_pretrained(folder)
    scene = scenes(1, stream=1, seed=0)[0]
    inputs = processor(images=scene.image, text="what is above the dog?", return_tensors="pt")
    assert inputs["pixel_values"].shape == (1, 3, 64, 64)
    assert model.float().generate(**inputs, num_beams=3, max_length=5).shape[0] == 1
    card = (folder.parent / "VQA_CARD.md").read_text()
    assert f"{report.num_pairs} (image, class) pairs of 3 held-out scenes" in card
    assert "| steps | 4 |" in card
    assert set(report.accuracy) == {"objects", "scene", "fine_grained", "alias"}


def test_the_seed_fixes_the_weights(trained, tmp_path):
    first, _ = trained
    train_vqa(SHORT, seed=3, out_dir=tmp_path / "vqa")
    expected, found = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "vqa"))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_an_interrupted_training_goes_on(trained, tmp_path, monkeypatch):
    first, _ = trained
    calls = []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return answer_loss(*arguments)

    monkeypatch.setattr(vqa_pretraining, "answer_loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_vqa(SHORT, seed=3, out_dir=tmp_path / "vqa")
    with pytest.raises(ModelError, match="another training"):
        train_vqa(SHORT, seed=4, out_dir=tmp_path / "vqa")
    train_vqa(SHORT, seed=3, out_dir=tmp_path / "vqa")
    assert len(calls) == 6, "the second run starts at step 2"
    expected, found = (load_file(folder / "model.safetensors") for folder in (first, tmp_path / "vqa"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_mirrored_picture_swaps_left_and_right():
    swapped = list(range(16))
    swapped[LEFT_ANSWER], swapped[RIGHT_ANSWER] = RIGHT_ANSWER, LEFT_ANSWER
    assert OFFICIAL_QUESTIONS[LEFT_ANSWER].template.startswith("what is the left side")
    assert OFFICIAL_QUESTIONS[RIGHT_ANSWER].template.startswith("what is the right side")
    differ = 0
    for scene in scenes(30, stream=2, seed=0, settings=VQA_SET):
        for class_id in scene.class_ids:
            upright, mirror = true_answers(scene, class_id), true_answers(mirrored(scene), class_id)
            assert mirror[LEFT_ANSWER] == upright[RIGHT_ANSWER]
            assert mirror[RIGHT_ANSWER] == upright[LEFT_ANSWER]
            differ += upright[LEFT_ANSWER] != upright[RIGHT_ANSWER]
    assert differ > 5


def test_answers_are_single_known_words():
    tokenizer = build_tokenizer()
    drawn = scenes(20, stream=2, seed=1, settings=VQA_SET)
    data = question_answers(drawn, tokenizer)
    assert data.answers.shape == (len(data.class_of_pair), 2, 16)
    assert (data.answers != tokenizer.unk_token_id).all()
    first = true_answers(drawn[0], int(data.class_of_pair[0]))
    assert tokenizer.convert_ids_to_tokens(data.answers[0, 0].tolist()) == first


def test_question_tokens_are_those_of_the_tokenizer():
    tokenizer = build_tokenizer()
    tokens, lengths = question_tokens(tokenizer)
    for class_id, name in enumerate(CLASSES):
        for column, question in enumerate(OFFICIAL_QUESTIONS):
            ids = tokenizer(question.ask(name))["input_ids"]
            assert tokens[class_id, column, : lengths[class_id, column]].tolist() == ids
            assert tokenizer.unk_token_id not in ids


def test_loss_equals_one_question_at_a_time():
    tokenizer = build_tokenizer()
    model = build_model(SHORT, tokenizer, seed=0).eval()
    tokens, lengths = question_tokens(tokenizer)
    classes, questions = torch.tensor([[1], [6]]), torch.tensor([[0, 4, 11], [5, 14, 9]])
    answers = torch.tensor([[10, 11, 12], [13, 14, 15]])
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    step_tokens, step_lengths = tokens[classes, questions], lengths[classes, questions]
    losses = []
    for pair in range(2):
        for column in range(3):
            text = torch.tensor([[tokenizer.bos_token_id, int(answers[pair, column]), tokenizer.sep_token_id]])
            ids = step_tokens[pair, column, : step_lengths[pair, column]][None]
            output = model(
                input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels[pair : pair + 1], labels=text
            )
            losses.append(output.loss)
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(answer_loss(model, pixels, step_tokens, step_lengths, answers), expected)


def test_present_names_are_visible():
    scene = scenes(1, stream=3, seed=0)[0]
    names = present_names(scene)
    assert {CLASSES[class_id] for class_id in scene.class_ids} <= names
    assert names <= set(STUFF) | set(CLASSES)


def test_the_shipped_weights_do_what_their_card_says():
    folder = Path(vqa_pretraining.__file__).parent / "weights" / "vqa"
    vqa = load_vqa(str(folder), image_size=64, device="cpu")
    report = measure_vqa(vqa, num_images=40, seed=1)
    assert vqa.fingerprint() in (folder.parent / "VQA_CARD.md").read_text()
    assert report.named_present > 0.8
    assert report.accuracy["alias"] > 0.97
    assert report.accuracy["scene"] > 0.85
